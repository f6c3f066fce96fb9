"""Pictures for people: example ECGs, training curves, ROC and confusion matrix. Knows nothing of Paddle."""
import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils import files
from utils.metrics import roc_curve
from utils.records import LEADS, SAMPLING_RATE

GRID_FINE, GRID_BOLD, TRACE = '#f6d5d5', '#e7a3a3', '#111111'


def draw_examples(ecgs, path):
    """Draw ECGs on the red grid of ECG paper: 25 mm/s and 10 mm/mV, boxes of 1 and 5 mm, 10 s of each lead.

    ecgs: list of (title, signal), signal float32 array (12, 5000), mV; path: str, the PNG to write
    """
    figure = Figure((16, 8.1 * ((len(ecgs) + 1) // 2)), dpi=90, layout='constrained')
    for index, (title, signal) in enumerate(ecgs):
        _draw_paper(figure.add_subplot((len(ecgs) + 1) // 2, 2, index + 1), title, signal)
    _save(figure, path)


def _draw_paper(axes, title, signal):
    gap = 2.0  # mV from one lead's zero line to the next
    seconds = np.arange(signal.shape[1]) / SAMPLING_RATE
    zero = -gap * np.arange(len(LEADS))
    low, high = zero[-1] - 1.5, 1.5
    for step, color, width in ((0.04, GRID_FINE, 0.4), (0.2, GRID_BOLD, 0.6)):
        axes.vlines(np.arange(-0.6, 10.2 + step / 2, step), low, high, color, linewidth=width, zorder=0)
    for step, color, width in ((0.1, GRID_FINE, 0.4), (0.5, GRID_BOLD, 0.6)):
        axes.hlines(np.arange(low, high + step / 2, step), -0.6, 10.2, color, linewidth=width, zorder=0)
    for values, height in zip(signal, zero):
        axes.plot(seconds, values + height, color=TRACE, linewidth=0.6)
        axes.plot([-0.5, -0.44, -0.44, -0.24, -0.24, -0.18], np.array([0, 0, 1, 1, 0, 0]) + height, color=TRACE,
                  linewidth=0.6)
    axes.set(xlim=(-0.6, 10.2), ylim=(low, high), title=title, yticks=zero, yticklabels=LEADS,
             xlabel='s (25 mm/s; pulse at the left: 1 mV, 10 mm/mV)')
    axes.set_aspect(0.4)  # 0.4 s per mV: 10 mm each on paper


def draw_curves(history, path):
    """Draw loss, learning rate and validation scores against the iteration.

    history: list of dict with iteration, learning_rate, train_loss, eval_loss, accuracy, f1, auc; None where not measured
    path: str, the PNG to write
    """
    figure = Figure((9, 9), dpi=100, layout='constrained')
    loss, rate, scores = figure.subplots(3, 1, sharex=True)
    _draw_series(loss, history, 'train_loss', 'training (mean since the last line)', None)
    _draw_series(loss, history, 'eval_loss', 'validation', 'o')
    loss.set(ylabel='loss', yscale='log', title='Training')  # early validation losses can be 20 times the later
    _draw_series(rate, history, 'learning_rate', None, None)
    rate.set(ylabel='learning rate')
    for key, label in (('accuracy', 'accuracy'), ('f1', 'F1'), ('auc', 'AUC')):
        _draw_series(scores, history, key, label, 'o')
    scores.set(ylabel='validation score', ylim=(-0.02, 1.02), xlabel='iteration')
    for axes in (loss, rate, scores):
        axes.grid(alpha=0.3)
        if axes is not rate and axes.lines:
            axes.legend()
    _save(figure, path)


def _draw_series(axes, history, key, label, marker):
    points = [(row['iteration'], row[key]) for row in history if row.get(key) is not None]
    if points:
        axes.plot(*zip(*points), label=label, marker=marker, markersize=3)


def draw_validation(targets, probabilities, decisions, threshold, title, path):
    """Draw the ROC curve and the confusion matrix of task 1.

    targets, decisions: int arrays (n,) of 0 and 1; probabilities: float array (n,); threshold: float; path: str
    """
    figure = Figure((11, 5), dpi=100, layout='constrained')
    roc, matrix = figure.subplots(1, 2)
    _draw_roc(roc, targets, probabilities, 'ROC')
    if 0 < targets.sum() < len(targets):
        sensitivity = (decisions[targets == 1] == 1).mean()
        false_alarms = (decisions[targets == 0] == 1).mean()
        roc.plot(false_alarms, sensitivity, 'o', color='C3', label=f'threshold {threshold:.2f}')
        roc.legend(loc='lower right')
    counts = np.array([[((targets == t) & (decisions == d)).sum() for d in (0, 1)] for t in (0, 1)])
    matrix.imshow(counts, cmap='Blues', vmin=0, vmax=max(counts.max() * 1.3, 1))
    for (row, column), count in np.ndenumerate(counts):
        matrix.text(column, row, str(count), ha='center', va='center', fontsize=16,
                    color='white' if count > 0.7 * counts.max() else 'black')
    names = ('normal', 'abnormal')
    matrix.set(xticks=(0, 1), yticks=(0, 1), xticklabels=names, yticklabels=names, xlabel='answer', ylabel='truth',
               title=f'{len(targets)} validation records')
    figure.suptitle(title)
    _save(figure, path)


def draw_validation_classes(targets, probabilities, f1, class_names, title, path):
    """Draw the ROC curve of every class of task 2, and each class's count and F1.

    targets: array (n, 12) of 0 and 1; probabilities: float array (n, 12); f1: 12 floats; path: str
    """
    figure = Figure((17, 11), dpi=90, layout='constrained')
    left, right = figure.subfigures(1, 2, width_ratios=(4, 1.25))
    for axes, name, truth, values in zip(left.subplots(3, 4).flat, class_names, targets.T, probabilities.T):
        _draw_roc(axes, truth, values, name.replace(' right ', ' right\n'))  # the one name too long for its place
    axes = right.subplots()
    position = np.arange(len(class_names))[::-1]
    axes.barh(position, f1, color='#a6c8e4')
    for at, name, value, count in zip(position, class_names, f1, targets.sum(axis=0)):
        axes.text(0.02, at, f'{name}\n{int(count)} records, F1 {value:.2f}', va='center', fontsize=9)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(class_names) - 0.4), yticks=[], xlabel='F1',
             title=f'{len(targets)} validation records')
    figure.suptitle(title)
    _save(figure, path)


def _draw_roc(axes, targets, probabilities, name):
    curve = roc_curve(targets, probabilities)
    axes.plot([0, 1], [0, 1], color='#bbbbbb', linewidth=0.8)
    if curve is None:
        axes.text(0.5, 0.5, 'only one class here:\nno ROC', ha='center', va='center')
        axes.set(title=f'{name}\n')
    else:
        false_alarms, sensitivity = curve
        axes.plot(false_alarms, sensitivity)
        area = np.sum(np.diff(false_alarms) * (sensitivity[1:] + sensitivity[:-1]) / 2)
        axes.set(title=f'{name}\nAUC {area:.3f}')
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel='1 - specificity', ylabel='sensitivity')
    axes.set_aspect('equal')


def _save(figure, path):
    data = io.BytesIO()
    FigureCanvasAgg(figure).print_png(data)
    files.write_bytes(path, data.getvalue())
