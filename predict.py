"""Predict the test records' pictures with the best model: data.root/val/*.png -> answer.csv, .zip.

With --input, ECGs of your own instead: a MAT, WFDB, CSV or NPY file, or a folder of them.
"""
import zlib  # noqa: F401  before Paddle, see models/device.py

import io
import os
import zipfile

import numpy as np
import pandas as pd

from models import build_model, device as devices
from models.inference import CHECKED, fastest_network, predict_logits
from models.weights import set_weights
from utils import (calibration, checkpoint, errors, files, images, inputs, log, machine, metrics,
                   tasks)
from utils import config as settings
from utils.errors import UserError
from utils.render import settings_of

SUSPICIOUS_FROM = 5  # records that all get the same answer
ZIP_DATE = (2021, 11, 15, 0, 0, 0)  # fixed: the same answer gives the same bytes, known as ours


def main():
    arguments, config = settings.parse_arguments(__doc__, add_arguments)
    devices.import_paddle()
    errors.handle_signals()
    device, words = devices.choose_device(config.device)
    print(words)
    print(settings.describe(config))

    # The model, and with it everything that decides an answer.
    networks, trained, kept = checkpoint.load_best(arguments.model or config.output)
    folder = checkpoint.find_best(arguments.model or config.output)
    task = tasks.TASKS[trained.task]
    temperature = read_temperature(kept, folder, task)
    thresholds = read_thresholds(kept, config.predict.threshold, folder, task)
    band = find_band(folder, temperature, thresholds, config.predict.sure, task)
    models = [build_model(trained.model.name, len(task.class_names), trained.seed)
              for _ in networks]
    for model, weights in zip(models, networks):
        set_weights(model, weights, folder)
    print(f'{folder}: task {task.number}, {len(models)} {trained.model.name}, iteration '
          f'{kept["iteration"]}, validation F1 {kept["validation"]["f1"]:.4f}, threshold '
          f'{np.round(thresholds, 4).tolist()}')
    answer, table = where_to_write(arguments, config)

    # The pictures.
    workers = machine.workers_of(config.data.workers)
    if arguments.input is not None:
        names, pictures, unread = read_inputs(arguments, trained.render, workers)
    else:
        names, pictures, unread = list_test_pictures(arguments, config.data.root, trained)
    truth = read_truth(arguments.reference, names, unread, task)
    limits = tasks.probabilities_of(tasks.log_odds(thresholds) * temperature)
    _, margins = predict(models, pictures, task, limits, device, config, workers)
    probabilities = tasks.probabilities_of(margins / temperature)
    unsure = calibration.confidence_of(probabilities, thresholds) < band.width
    decisions = tasks.decide(probabilities, thresholds, task)

    # The answer. answer.csv comes last: when it is there, all of it is.
    columns = task.class_names if task.multi_label else ('abnormal',)
    frame = pd.DataFrame(probabilities.reshape(len(names), -1), columns=columns).round(6)
    frame.insert(0, 'name', names)
    frame['unsure'] = unsure.astype(int)
    files.write_table(table, frame)
    write_answer(answer, tasks.answer_text(names, decisions, task, config.predict.answer_format))
    print(f'Save to {answer}')
    tell_counts(decisions, task)
    print(f'{unsure.sum()} of them unsure; {calibration.describe(band, config.predict.sure)}')
    if truth is not None:
        print(f'scores on {len(truth)} records:')
        for line in metrics.describe(truth, probabilities, thresholds, trained.seed, task):
            print(line)
    if unread:
        errors.say_error(f'{len(unread)} of {len(unread) + len(names)} ECGs could not be read, '
                         f'they are named above and not in {answer}; mend or remove them, then run '
                         'predict.py again')
    return 2 if unread else 0


def add_arguments(parser):
    parser.add_argument('--model', metavar='PATH',
                        help='a best_model folder, or one that holds it (default: output)')
    parser.add_argument('--reference', metavar='CSV',
                        help='the true labels of the records that are predicted, to score with')
    parser.add_argument('--input', metavar='PATH',
                        help='your own ECGs: a .mat, .hea, .csv or .npy file, or a folder of them')
    parser.add_argument('--sampling-rate', type=float, metavar='HZ',
                        help='with --input: of files that do not say it, such as CSV and NPY')
    parser.add_argument('--unit', choices=('mV', 'uV'), help='with --input: as --sampling-rate')


def read_thresholds(kept, wanted, folder, task):
    """The threshold that predict.threshold names: the one kept in best_model, or a number.

    Returns: float for task 1, float array (12,) for task 2
    """
    count = len(task.class_names) if task.multi_label else 1
    if wanted != 'auto':
        return np.full(count, wanted) if task.multi_label else wanted
    return read_numbers(kept.get('threshold'), count, f'{folder}: the threshold')


def read_temperature(kept, folder, task):
    """What the log-odds are divided by: float, or for task 2 also float array (12,); 1 of a model
    that has none, since it is of an earlier version."""
    temperature = kept.get('temperature', 1.0)
    count = len(task.class_names) if isinstance(temperature, list) and task.multi_label else 1
    return read_numbers(temperature, count, f'{folder}: the temperature')


def read_numbers(value, count, what):
    """A float above 0, or an array of `count` of them; `what` names it where it is neither."""
    numbers = np.asarray(value, dtype=object)
    if numbers.shape != (() if count == 1 else (count,)) or \
            not all(isinstance(each, float) and each > 0 for each in numbers.flat):
        raise UserError(f'{what} in {checkpoint.METRICS} is {value}, expected {count} number(s); '
                        'copy the whole folder again, or train anew')
    return numbers.astype(float) if count > 1 else float(numbers)


def find_band(folder, temperature, thresholds, sure, task):
    """The calibration.Band outside of which a part `sure` of the answers is right, as the records
    show that the model was not trained on."""
    targets, margins = checkpoint.load_validation(folder, task)
    probabilities = tasks.probabilities_of(margins / temperature)
    right = tasks.decide(probabilities, thresholds, task) == targets
    return calibration.find_band(calibration.confidence_of(probabilities, thresholds),
                                 right.reshape(len(right), -1).all(axis=1), sure)


def where_to_write(arguments, config):
    """The paths of the answer and of the probabilities; own ECGs have names of their own.

    Raises: UserError where the answer would replace what is no earlier answer of predict.py
    """
    answer, table = config.predict.answer, 'probabilities.csv'
    if arguments.input is not None:
        table = 'input_probabilities.csv'
        default, project = settings.default_of('predict.answer'), os.path.dirname(__file__)
        if answer in (default, os.path.join(os.path.abspath(project), default)):
            answer = os.path.join(os.path.dirname(answer), 'input_answer.csv')
    table = os.path.join(config.output, table)
    if os.path.abspath(answer) == os.path.abspath(table):
        raise UserError(f'{answer}: holds the probabilities; choose another name for the answer '
                        'with -o predict.answer=NAME.csv')
    packed = f'{os.path.splitext(answer)[0]}.zip'
    if os.path.lexists(packed) and not is_own_zip(packed, answer):
        raise UserError(f'{packed}: would be replaced, and is no earlier answer of predict.py; '
                        'move it away, or choose another name with -o predict.answer=NAME.csv')
    if os.path.lexists(answer) and not os.path.lexists(packed):
        raise UserError(f'{answer}: would be replaced, and is no earlier answer of predict.py, '
                        f'which has {packed} beside it; move it away, or choose another name with '
                        '-o predict.answer=NAME.csv')
    for folder in (os.path.dirname(answer), config.output):
        os.makedirs(folder or '.', exist_ok=True)
    return answer, table


def is_own_zip(path, answer):
    """Whether write_answer() wrote the zip `path` beside `answer`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError):
        return False
    return [(each.filename, each.date_time) for each in members] == \
        [(os.path.basename(answer), ZIP_DATE)]


def list_test_pictures(arguments, root, trained):
    """The test records' pictures, drawn as the training ones were.

    Returns: (names, images.Pictures, set of names that could not be read: none)
    """
    if arguments.sampling_rate is not None or arguments.unit:
        raise UserError('--sampling-rate and --unit belong to ECGs of your own; name them with '
                        '--input PATH')
    drawn_with = settings_of(trained.render)
    redraw = [f'render.{key}={value}' for key, value in drawn_with.items() if key != 'version']
    names = images.list_pictures(root, 'val', drawn_with,
                                 settings.command('process.py', arguments, *redraw))
    paths = [os.path.join(root, 'val', f'{name}.png') for name in names]
    return names, images.Pictures(paths, trained.render.size, cached=False), set()


def read_inputs(arguments, render, workers):
    """Read the ECGs that --input names, and draw them as the model's training pictures were drawn.

    render: config.Render of the model
    Returns: (names, pictures, set of names that could not be read)
    Raises: UserError where there is none that can be read
    """
    found, notes, problems = inputs.find_inputs(arguments.input)
    names, pictures, more_notes, more = inputs.draw_inputs(
        found, render, arguments.sampling_rate, arguments.unit, workers)
    problems += more
    for note in notes + more_notes:
        print(f'note: {note}')
    if not names:
        raise UserError(*[line for _, line in problems])
    for _, line in problems:
        errors.say_error(line)
    return names, pictures, {name for name, _ in problems}


def read_truth(path, names, unread, task):
    """The true labels of the predicted records; those of what could not be read may be there, too.

    Returns: targets as tasks.read_reference(), or None where there is no --reference
    """
    if path is None:
        return None
    known = sorted({*names, *unread})
    return tasks.read_reference(path, known, task)[[name not in unread for name in known]]


def predict(models, pictures, task, limits, device, config, workers):
    """Ask the fastest network about all pictures.

    limits: the thresholds before the temperature, as probabilities
    Returns: (network, margins): the function that answered; as tasks.margins_of() gives them
    """
    size = config.predict.batch_size
    try:
        first = np.stack([pictures.read(index, 0)
                          for index in range(min(CHECKED, size, len(pictures)))])
        network, notes = fastest_network(models, task, limits, device, config.predict.precision,
                                         first)
        print('\n'.join(notes))
        with log.bar(len(pictures), 'predicting', 'records') as bar:
            logits = predict_logits(network, pictures, size, workers, bar.update)
    except (RuntimeError, MemoryError, SystemError) as error:
        if not devices.is_out_of_memory(error):
            raise
        raise UserError(f'out of memory on {device} with predict.batch_size {size}; lower it: -o '
                        f'predict.batch_size={max(size // 2, 1)}') from None
    if not np.isfinite(logits).all():
        raise UserError('the network answers NaN or infinite values; train anew')
    return network, tasks.margins_of(logits, task)


def write_answer(path, text):
    """Write answer.csv and, as the competition takes it, answer.zip beside it."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(os.path.basename(path), ZIP_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, text)
    files.write_bytes(f'{os.path.splitext(path)[0]}.zip', packed.getvalue())
    files.write_text(path, text)


def tell_counts(decisions, task):
    """Print how often each class was answered, and warn where it is suspiciously uniform."""
    counts = decisions.sum(axis=0) if task.multi_label else np.bincount(decisions, minlength=2)
    each = ', '.join(f'{count} {name}' for name, count in zip(task.class_names, counts))
    print(f'{len(decisions)} records: {each}')
    if len(decisions) >= SUSPICIOUS_FROM and (counts == len(decisions)).any() and \
            np.count_nonzero(counts) == 1:
        print(f'warning: every record is {task.class_names[int(counts.argmax())]}; look at '
              'validation.png whether the model has learnt anything, before you upload this')


if __name__ == '__main__':
    errors.run(main)
