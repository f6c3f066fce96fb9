"""Pictures for people: example ECGs, training curves, ROC and confusion matrix."""
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utils.answers import calibration
from utils.ecg.records import LEADS, SAMPLING_RATE
from utils.running import files

GRID_FINE, GRID_BOLD, TRACE = '#f6d5d5', '#e7a3a3', '#111111'
LEAD_GAP = 2.0  # mV from one lead's zero line to the next
PULSE_SECONDS = (-0.5, -0.44, -0.44, -0.24, -0.24, -0.18)  # the calibration pulse of 1 mV
PULSE_MV = (0, 0, 1, 1, 0, 0)
MOST_CLASSES = 12  # whose ROC is drawn


def draw_examples(ecgs, path):
    """Draw ECGs on the red grid of ECG paper: 25 mm/s and 10 mm/mV, boxes of 1 and 5 mm.

    ecgs: list of (title, signal), signal float32 array (12, 5000), mV; path: str, PNG to write
    """
    rows = (len(ecgs) + 1) // 2
    figure = Figure((16, 8.1 * rows), dpi=90, layout='constrained')
    for index, (title, signal) in enumerate(ecgs, 1):
        _draw_paper(figure.add_subplot(rows, 2, index), title, signal)
    _save(figure, path)


def _draw_paper(axes, title, signal):
    seconds = np.arange(signal.shape[1]) / SAMPLING_RATE
    zero = -LEAD_GAP * np.arange(len(LEADS))
    left, right, low, high = -0.6, 10.2, zero[-1] - 1.5, 1.5
    for boxes, color, width in ((1, GRID_FINE, 0.4), (5, GRID_BOLD, 0.6)):
        style = {'color': color, 'linewidth': width, 'zorder': 0}
        axes.vlines(np.arange(left, right + 0.01, 0.04 * boxes), low, high, **style)
        axes.hlines(np.arange(low, high + 0.01, 0.1 * boxes), left, right, **style)
    for values, height in zip(signal, zero):
        axes.plot(seconds, values + height, color=TRACE, linewidth=0.6)
        axes.plot(PULSE_SECONDS, np.array(PULSE_MV) + height, color=TRACE, linewidth=0.6)
    axes.set(xlim=(left, right), ylim=(low, high), title=title, yticks=zero, yticklabels=LEADS,
             xlabel='s (25 mm/s; pulse at the left: 1 mV, 10 mm/mV)')
    axes.set_aspect(0.4)  # 0.4 s per mV: 10 mm each on paper


def draw_curves(history, path):
    """Draw loss, learning rate and validation scores against the iteration.

    history: pandas.DataFrame with iteration, learning_rate, train_loss, eval_loss, accuracy, f1,
        auc, NaN where not measured; path: str, the PNG to write
    """
    figure = Figure((9, 9), dpi=100, layout='constrained')
    loss, rate, scores = figure.subplots(3, 1, sharex=True)
    for axes, column, label, marker in (
            (loss, 'train_loss', 'training (mean since the last line)', None),
            (loss, 'eval_loss', 'validation', 'o'), (rate, 'learning_rate', 'learning rate', None),
            (scores, 'accuracy', 'accuracy', 'o'), (scores, 'f1', 'F1', 'o'),
            (scores, 'auc', 'AUC', 'o')):
        points = history[['iteration', column]].dropna()
        axes.plot(points['iteration'], points[column], label=label, marker=marker, markersize=3)
    # Logarithmic: early validation losses can be 20 times the later.
    loss.set(ylabel='loss', yscale='log', title='Training')
    rate.set(ylabel='learning rate')
    scores.set(ylabel='validation score', ylim=(-0.02, 1.02), xlabel='iteration')
    for axes in (loss, rate, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def draw_validation(path, title, answer, before):
    """Draw what a model is worth: its answers for records that it was not trained on.

    path: str, the PNG to write; answer: answers.answer.Answer, with the truth; before: its
    probabilities without a temperature
    """
    shown = slice(MOST_CLASSES)
    both = before, answer.probabilities
    if answer.task.multi_label:
        _draw_classes(answer.truth[:, shown], [each[:, shown] for each in both],
                      answer.decisions[:, shown], answer.task.class_names[shown], title, path)
    else:
        _draw_one_class(answer.truth, both, answer.decisions, answer.thresholds, title, path)


def _draw_one_class(targets, both, decisions, threshold, title, path):
    """Draw the ROC curve, the confusion matrix and the reliability curve of task 1.

    targets, decisions: int arrays (n,) of 0 and 1; both: float arrays (n,), the probabilities
    without and with a temperature; threshold: float; path: str
    """
    from sklearn.metrics import confusion_matrix  # here, and so below: it takes 1.5 s to import
    figure = Figure((16, 5), dpi=100, layout='constrained')
    roc, matrix, curve = figure.subplots(1, 3)
    _draw_roc(roc, targets, both[1], 'ROC')
    _draw_reliability(curve, targets, both)
    counts = confusion_matrix(targets, decisions, labels=(0, 1))
    if counts.sum(axis=1).all():
        false_alarms, found = counts[:, 1] / counts.sum(axis=1)
        roc.plot(false_alarms, found, 'o', color='C3', label=f'threshold {threshold:.2f}')
        roc.legend(loc='lower right')
    matrix.imshow(counts, cmap='Blues', vmin=0, vmax=max(counts.max() * 1.3, 1))
    for (row, column), count in np.ndenumerate(counts):
        color = 'white' if count > 0.7 * counts.max() else 'black'
        matrix.text(column, row, count, ha='center', va='center', fontsize=16, color=color)
    names = ('normal', 'abnormal')
    matrix.set(xticks=(0, 1), yticks=(0, 1), xticklabels=names, yticklabels=names,
               xlabel='answer', ylabel='truth', title=f'{len(targets)} validation records')
    figure.suptitle(title)
    _save(figure, path)


def _draw_classes(targets, both, decisions, class_names, title, path):
    """Draw the ROC curve of every class of task 2, each class's count and F1, and how reliable the
    probabilities of all classes are.

    targets, decisions: arrays (n, 12) of 0 and 1; both: float arrays (n, 12), as above; path: str
    """
    from sklearn.metrics import f1_score
    f1 = f1_score(targets, decisions, average=None, zero_division=0)
    figure = Figure((17, 11), dpi=90, layout='constrained')
    left, right = figure.subfigures(1, 2, width_ratios=(4, 1.25))
    for axes, name, truth, values in zip(left.subplots(3, 4).flat, class_names, targets.T,
                                         both[1].T):
        _draw_roc(axes, truth, values, name.replace(' right ', ' right\n'))  # the one too long
    axes, curve = right.subplots(2, 1, height_ratios=(2.6, 1))
    _draw_reliability(curve, targets, both)
    position = np.arange(len(class_names))[::-1]
    axes.barh(position, f1, color='#a6c8e4')
    for at, name, value, count in zip(position, class_names, f1, targets.sum(axis=0)):
        axes.text(0.02, at, f'{name}\n{int(count)} records, F1 {value:.2f}', va='center',
                  fontsize=9)
    axes.set(xlim=(0, 1), ylim=(-0.6, len(class_names) - 0.4), yticks=[], xlabel='F1',
             title=f'{len(targets)} validation records')
    figure.suptitle(title)
    _save(figure, path)


def _draw_reliability(axes, targets, both):
    axes.plot([0, 1], [0, 1], color='#bbbbbb', linewidth=0.8)
    for values, name, color in zip(both, ('before', 'after'), ('#999999', 'C0')):
        mean, true, error = calibration.reliability(values, targets)
        axes.plot(mean, true, marker='o', markersize=4, color=color,
                  label=f'{name} calibration, error {error:.3f}')
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel='probability that is said',
             ylabel='part that is true', title='Reliability')
    axes.set_aspect('equal')
    axes.legend(loc='lower right')


def _draw_roc(axes, targets, probabilities, name):
    from sklearn.metrics import auc, roc_curve
    axes.plot([0, 1], [0, 1], color='#bbbbbb', linewidth=0.8)
    if len(np.unique(targets)) < 2:
        axes.text(0.5, 0.5, 'only one class here:\nno ROC', ha='center', va='center')
        axes.set(title=f'{name}\n')
    else:
        false_alarms, found, _ = roc_curve(targets, probabilities)
        axes.plot(false_alarms, found)
        axes.set(title=f'{name}\nAUC {auc(false_alarms, found):.3f}')
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel='1 - specificity',
             ylabel='sensitivity')
    axes.set_aspect('equal')


def _save(figure, path):
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)
