"""Predict the test records' pictures with output/best_model: data.root/val/*.png -> answer.csv and answer.zip.

With --input, ECGs of your own instead: a MAT, WFDB, CSV or NPY file, or a folder of them.
"""
import zlib  # noqa: F401  before Paddle, see utils/runtime.py

import io
import json
import os
import zipfile

import numpy as np

from models import build_model
from utils import checkpoint
from utils import config as settings
from utils import errors, export, files, images, inputs, metrics, runtime, tasks
from utils.errors import UserError
from utils.inference import predict_logits, probabilities_of
from utils.progress import Bar
from utils.render import Renderer, settings_of

SUSPICIOUS_FROM = 5  # records that all get the same answer


def main():
    arguments, config = settings.parse_arguments(__doc__, add_arguments)
    paddle = runtime.import_paddle()
    errors.handle_signals()
    device, reason = runtime.choose_device(config.device)
    print(runtime.describe(device, reason))
    print(settings.describe(config))

    # The model, and with it everything that decides an answer: today's config.yml only says where things are.
    folder = os.path.join(config.output, 'best_model')
    weights, trained_config, kept = checkpoint.load_best(folder)
    trained = settings.load(trained_config)
    task = tasks.TASKS[trained.task]
    model = build_model(trained.model.name, len(task.class_names), trained.seed)
    checkpoint.set_weights(model, weights, folder)
    thresholds = read_thresholds(kept, config.predict.threshold, folder, task)
    print(f'{folder}: task {task.number}, {trained.model.name}, epoch {kept["epoch"]}, iteration {kept["iteration"]}, '
          f'validation F1 {kept["validation"]["f1"]:.4f}, threshold {np.round(thresholds, 4).tolist()}')

    # The pictures.
    if arguments.input is not None:
        names, pictures, problems, refused = draw_inputs(arguments, trained.render)
    else:
        if arguments.sampling_rate is not None or arguments.unit:
            raise UserError('--sampling-rate and --unit belong to ECGs of your own; name them with --input PATH')
        names, problems, refused = list_test_pictures(config.data.root, trained), [], set()
        paths = [os.path.join(config.data.root, 'val', f'{name}.png') for name in names]
        pictures = images.Pictures(paths, trained.render.size, cached=False)
    truth = None
    if arguments.reference:  # what could not be read may be in it, and is not scored
        known = sorted({*names, *refused})
        truth = tasks.read_reference(arguments.reference, known, task)[[name not in refused for name in known]]
    workers = runtime.usable_cores() if config.data.workers == 'auto' else config.data.workers
    try:
        network = fastest_network(folder, model, task, thresholds, device, config.predict, pictures)
        bar = Bar('predicting', len(names), 'records')
        logits = predict_logits(network, pictures, config.predict.batch_size, workers, bar.advance)
    except (RuntimeError, MemoryError, SystemError) as error:
        if not runtime.is_out_of_memory(error):
            raise
        raise UserError(f'out of memory on {device} with predict.batch_size {config.predict.batch_size} and pictures of '
                        f'{trained.render.size} pixels; lower -o predict.batch_size') from None
    if not np.isfinite(logits).all():
        raise UserError(f'{folder}: the network answers NaN or infinite values for '
                        f'{names[int(np.argwhere(~np.isfinite(logits))[0][0])]}; train anew')
    probabilities = probabilities_of(logits, task)
    decisions = tasks.decide(probabilities, thresholds, task)

    # The answer. answer.csv comes last: when it is there, all of it is.
    write_probabilities(os.path.join(config.output, 'probabilities.csv'), names, probabilities, task)
    write_answer(config.predict.answer, tasks.answer_rows(names, decisions, task, config.predict.answer_format))
    print(f'Save to {config.predict.answer}')
    tell_counts(decisions, task)
    if truth is not None:
        tell_scores(truth, probabilities, decisions, thresholds, trained.seed, task)
    if problems:
        errors.say_error(f'{len(problems)} of {len(problems) + len(names)} ECGs could not be read, they are named above '
                         f'and not in {config.predict.answer}; mend or remove them, then run predict.py again')
        return 2
    return 0


def add_arguments(parser):
    parser.add_argument('--reference', metavar='CSV',
                        help='the true labels of the records that are predicted, to score the answer with')
    parser.add_argument('--input', metavar='PATH',
                        help='predict your own ECGs: a .mat, .hea, .csv or .npy file, or a folder of them')
    parser.add_argument('--sampling-rate', type=float, metavar='HZ',
                        help='with --input: of the files that do not say it themselves, such as CSV and NPY')
    parser.add_argument('--unit', choices=('mV', 'uV'), help='with --input: as --sampling-rate')


def fastest_network(folder, model, task, thresholds, device, predict, pictures):
    """The model's export where it is there and answers as the model does on the first pictures, else the model."""
    count = min(export.CHECKED, predict.batch_size, len(pictures))
    first = np.stack([pictures.read(index, 0) for index in range(count)])
    network, notes = export.choose_network(folder, model, task, thresholds, device, predict.precision, first)
    for note in notes:
        print(note)
    return network


def read_thresholds(kept, wanted, folder, task):
    """The threshold that predict.threshold names: the one kept in best_model, or a number.

    Returns: float for task 1, float array (12,) for task 2
    """
    if wanted != 'auto':
        return np.full(len(task.class_names), wanted) if task.multi_label else wanted
    thresholds = np.asarray(kept['threshold'], dtype=np.float64)
    if thresholds.shape != ((len(task.class_names),) if task.multi_label else ()):
        raise UserError(f'{folder}/metrics.json: the threshold is {kept["threshold"]}, expected '
                        + (f'{len(task.class_names)} numbers' if task.multi_label else 'one number'))
    return thresholds if task.multi_label else float(thresholds)


def list_test_pictures(root, trained):
    """The names of the test records; every one of them must have a picture, drawn as the training ones were."""
    how_to_draw = f'python process.py -o data.root={root}' + ''.join(
        f' -o render.{key}={value}' for key, value in settings_of(trained.render).items() if key != 'version')
    names = images.list_pictures(root, 'val', settings_of(trained.render), how_to_draw)
    try:
        with open(os.path.join(root, 'render.json'), encoding='utf-8') as file:
            not_drawn = json.load(file).get('not_drawn', {}).get('val', [])
    except (FileNotFoundError, ValueError, AttributeError):
        not_drawn = []
    if not_drawn:
        raise UserError(f'{root}/val: process.py could not draw {len(not_drawn)} test records ({", ".join(not_drawn[:5])}), '
                        'so the answer would lack them; mend or remove these records and run process.py again')
    return names


def draw_inputs(arguments, render):
    """Read the ECGs that --input names and draw each as the model's training pictures were drawn.

    render: config.Render of the model
    Returns: (names, inputs.DrawnPictures, problems, refused); problems: list of str, one per ECG that could not be read;
        refused: set of their names
    Raises: UserError where there is none that can be read
    """
    found = inputs.find_inputs(arguments.input)
    renderer = Renderer(render.size, render.mv_per_lead, render.line_width)
    names, pictures, problems, refused = [], inputs.DrawnPictures(), [], set()
    bar = Bar('reading', len(found), 'ECGs')
    for name, path in found.items():
        try:
            _, signal, notes = inputs.read_input(path, arguments.sampling_rate, arguments.unit)
            pictures.add(renderer.draw(signal))
            names.append(name)
            for note in notes:
                print(f'note: {note}')
        except (UserError, OSError) as error:
            problems.append(errors.describe_os_error(error) if isinstance(error, OSError) else str(error))
            refused.add(name)
        bar.advance()
    if not names:
        raise UserError(*problems)
    for problem in problems:
        errors.say_error(problem)
    return names, pictures, problems, refused


def write_probabilities(path, names, probabilities, task):
    """Write what the network says of each record: one column, or one per class."""
    columns = task.class_names if task.multi_label else ('abnormal',)
    table = probabilities.reshape(len(names), -1)
    files.write_csv(path, [('name',) + columns] +
                    [[name] + [f'{value:.6f}' for value in row] for name, row in zip(names, table)])


def write_answer(path, rows):
    """Write answer.csv and, as the competition takes it, answer.zip beside it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        # A fixed date, so that the same answer gives the same bytes.
        entry = zipfile.ZipInfo(os.path.basename(path), (2021, 11, 15, 0, 0, 0))
        entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
        archive.writestr(entry, files.csv_text(rows))
    folder = os.path.dirname(path)
    if folder:
        os.makedirs(folder, exist_ok=True)
    files.write_bytes(os.path.splitext(path)[0] + '.zip', packed.getvalue())
    files.write_csv(path, rows)


def tell_counts(decisions, task):
    """Print how often each class was answered, and warn where it is suspiciously uniform."""
    counts = decisions.sum(axis=0) if task.multi_label else np.bincount(decisions, minlength=2)
    print(f'{len(decisions)} records: ' + ', '.join(f'{count} {name}' for name, count in zip(task.class_names, counts)))
    if len(decisions) >= SUSPICIOUS_FROM and counts.max() == len(decisions) and np.count_nonzero(counts) == 1:
        print(f'warning: every record is {task.class_names[int(counts.argmax())]}; look at output/validation.png whether '
              'the model has learnt anything, before you upload this')


def tell_scores(truth, probabilities, decisions, thresholds, seed, task):
    """Print how good the answer is, each score with its 95 % bootstrap interval."""
    def line(name, function, *arrays):
        low, high = metrics.bootstrap_interval(function, arrays, seed)
        print(f'{name}: {function(*arrays):.4f} (95 % interval {low:.4f} to {high:.4f})')

    print(f'scores on {len(truth)} records:')
    if task.multi_label:
        line('mean F1', lambda t, d: float(np.mean([metrics.f1(a, b) for a, b in zip(t.T, d.T)])), truth, decisions)
        scores = metrics.score(truth, probabilities, thresholds, task)
        print(f'accuracy of whole answers: {scores["accuracy"]:.4f}, mean AUC: {scores["auc"]:.4f}')
        for name, count, f1, auc in zip(task.class_names, truth.sum(axis=0), scores['class_f1'], scores['class_auc']):
            print(f'  {name}: {int(count)} records, F1 {f1:.4f}, AUC {auc:.4f}')
        return
    line('accuracy', lambda t, d: float(np.mean(t == d)), truth, decisions)
    line('F1', metrics.f1, truth, decisions)
    line('AUC', metrics.auc, truth, probabilities)
    line('sensitivity', metrics.sensitivity, truth, decisions)
    line('specificity', metrics.specificity, truth, decisions)
    counts = metrics.confusion(truth, decisions)
    print(f'confusion matrix: truth normal: {counts["true_normal"]} called normal, {counts["false_abnormal"]} abnormal; '
          f'truth abnormal: {counts["false_normal"]} called normal, {counts["true_abnormal"]} abnormal')


if __name__ == '__main__':
    errors.run(main)
