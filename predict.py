"""Predict the test records' pictures with the best model: data.root/val/*.png -> answer.csv, .zip.

With --input, ECGs of your own instead: MAT, WFDB, CSV or NPY files, or folders of them.
"""
import io
import os
import sys
import zipfile
import zlib  # noqa: F401  before Paddle, see models/device.py
from dataclasses import dataclass

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out
os.environ['MPLBACKEND'] = 'agg'  # one that is not there would end the import of matplotlib

import numpy as np
import pandas as pd

from models import build_model, checkpoint
from models import device as devices
from models.inference import CHECKED, fastest_network, predict_logits, several_views
from models.weights import set_weights
from utils.answers import calibration, metrics, tasks
from utils.ecg import inputs
from utils.pictures import drawn, loading
from utils.pictures.render import settings_of, shape_of
from utils.reports import page, report
from utils.running import errors, files, log, machine, settings
from utils.running.errors import UserError

SUSPICIOUS_FROM = 5  # records that all get the same answer
ZIP_DATE = (2021, 11, 15, 0, 0, 0)  # fixed: the same answer gives the same bytes, known as ours


@dataclass(frozen=True)
class Trained:
    """A best_model, and with it everything that decides an answer.

    config: settings.Config that it was trained with; models: list of paddle.nn.Layer, whose mean
    answers; targets, margins: of the records that it was not trained on; threshold, temperature:
    floats, or arrays (12,): probabilities, and what log-odds are divided by before
    """
    folder: str
    config: settings.Config
    task: tasks.Task
    models: list
    iteration: int
    thresholds: object
    temperature: object
    targets: np.ndarray
    margins: np.ndarray

    def answer(self, names, margins, truth, width=0.0):
        """report.Answer for some log-odds, as tasks.margins_of() gives them."""
        return report.Answer(self.task, names, tasks.probabilities_of(margins / self.temperature),
                             self.thresholds, truth, width)

    @property
    def known(self):
        """The report.Answer for the records that it was not trained on."""
        return self.answer(self.targets, self.margins, self.targets)


def main():
    arguments, config = settings.parse_arguments(__doc__, add_arguments)
    devices.import_paddle()
    errors.handle_signals()
    device, words = devices.choose_device(config.device)
    print(words)
    print(settings.describe(config))
    trained = load_trained(arguments.model or config.output, config.predict.threshold)
    answer, table = where_to_write(arguments, config)

    # The pictures.
    workers, task = machine.workers_of(config.data.workers), trained.task
    if arguments.input is not None:
        names, pictures, unread = read_inputs(arguments, trained.config.render, workers)
    else:
        names, pictures, unread = list_test_pictures(arguments, config.data.root, trained.config)
    truth = read_truth(arguments.reference, names, unread, task)
    network, margins = predict(trained, pictures, device, config, workers)
    known = trained.known
    band = calibration.find_band(known.confidence, ~known.wrong, config.predict.sure)
    answered = trained.answer(names, margins, truth, band.width)

    # The answer. answer.csv comes last: when it is there, all of it is.
    columns = task.class_names if task.multi_label else ('abnormal',)
    frame = pd.DataFrame(answered.probabilities.reshape(len(names), -1), columns=columns).round(6)
    frame.insert(0, 'name', names)
    frame['unsure'] = answered.unsure.astype(int)
    files.write_table(table, frame)
    write_answer(answer, tasks.answer_text(names, answered.decisions, task,
                                           config.predict.answer_format))
    print(f'Save to {answer}')
    tell_counts(answered.decisions, task)
    worth = calibration.describe(band, config.predict.sure)
    print(f'{answered.unsure.sum()} unsure; {worth}')
    if truth is not None:
        print(f'scores on {len(truth)} records:')
        for line in metrics.describe(truth, answered.probabilities, trained.thresholds,
                                     trained.config.seed, task):
            print(line)
    if arguments.report:
        write_report(arguments, config, trained, answered, band, (network, pictures))
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
    parser.add_argument('--report', nargs='?', const=report.language_of_user(),
                        choices=page.LANGUAGES,
                        help='write output/report.html, to look at, in English or Chinese')
    parser.add_argument('--report-records', type=int, default=60, metavar='N',
                        help='with --report: how many ECGs are drawn and explained (default: 60)')
    parser.add_argument('--input', metavar='PATH', nargs='+', action='extend',
                        help='your own ECGs: .mat, .hea, .csv, .npy ... files, folders of them')
    parser.add_argument('--sampling-rate', type=float, metavar='HZ',
                        help='with --input: of files that do not say it, such as CSV and NPY')
    parser.add_argument('--unit', choices=('mV', 'uV'), help='with --input: as --sampling-rate')


def load_trained(path, threshold):
    """The Trained in the folder `path`; threshold: predict.threshold."""
    networks, config, kept = checkpoint.load_best(path)
    folder, task = checkpoint.find_best(path), tasks.TASKS[config.task]
    if task.number == 3:
        raise UserError(f'{folder}: has learnt from made-up ECGs alone, expected a model of task 1 '
                        f'or 2; start from it: train.py -o model.pretrained={folder}')
    thresholds = read_thresholds(kept, threshold, folder, task)
    temperature = read_temperature(kept, folder, task)
    models = [build_model(config.model.name, len(task.class_names), config.seed)
              for _ in networks]
    for model, weights in zip(models, networks):
        set_weights(model, weights, folder)
    print(f'{folder}: task {task.number}, {len(models)} {config.model.name}, iteration '
          f'{kept["iteration"]}, validation F1 {kept["validation"]["f1"]:.4f}, threshold '
          f'{np.round(thresholds, 4).tolist()}')
    return Trained(folder, config, task, models, kept['iteration'], thresholds, temperature,
                   *tasks.of_validation_table(checkpoint.load_validation(folder, task), task))


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
            not all(isinstance(each, float) and 0 < each < np.inf for each in numbers.flat):
        raise UserError(f'{what} in {checkpoint.METRICS} is {value}, expected {count} number(s); '
                        'copy the whole folder again, or train anew')
    return numbers.astype(float) if count > 1 else float(numbers)


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

    Returns: (names, loading.Pictures, set of names that could not be read: none)
    """
    if arguments.sampling_rate is not None or arguments.unit:
        raise UserError('--sampling-rate and --unit belong to ECGs of your own; name them with '
                        '--input PATH')
    drawn_with = settings_of(trained.render)
    redraw = [f'render.{key}={value}' for key, value in drawn_with.items() if key != 'version']
    names = loading.list_pictures(root, 'val', drawn_with,
                                 settings.command('process.py', arguments, *redraw))
    paths = [os.path.join(root, 'val', f'{name}.png') for name in names]
    return names, loading.Pictures(paths, shape_of(trained.render), cached=False), set()


def read_inputs(arguments, render, workers):
    """Read the ECGs that --input names, and draw them as the model's training pictures were drawn.

    render: settings.Render of the model
    Returns: (names, pictures, set of names that could not be read)
    Raises: UserError where there is none that can be read
    """
    found, notes, problems = inputs.find_inputs(arguments.input)
    names, pictures, more_notes, more = drawn.draw_inputs(
        found, render, arguments.sampling_rate, arguments.unit, workers)
    problems += more
    for note in notes + more_notes:
        print(f'note: {note}')
    if not names:
        raise UserError(*[line for _, line in problems])
    errors.say_errors([line for _, line in problems])
    return names, pictures, {name for name, _ in problems}


def read_truth(path, names, unread, task):
    """The true labels of the predicted records; those of what could not be read may be there, too.

    Returns: targets as tasks.read_reference(), or None where there is no --reference
    """
    if path is None:
        return None
    known = sorted({*names, *unread})
    return tasks.read_reference(path, known, task)[[name not in unread for name in known]]


def predict(trained, pictures, device, config, workers):
    """Ask the fastest network about all pictures.

    Returns: (network, margins): the function that answered; as tasks.margins_of() gives them
    """
    task, size = trained.task, config.predict.batch_size
    limits = tasks.probabilities_of(tasks.log_odds(trained.thresholds) * trained.temperature)
    try:
        first = np.stack([pictures.read(index, 0)
                          for index in range(min(CHECKED, size, len(pictures)))])
        network, notes = fastest_network(trained.models, task, limits, device,
                                         config.predict.precision, first)
        print('\n'.join(notes))
        with log.bar(len(pictures), 'predicting', 'records') as bar:
            logits = predict_logits(several_views(network, config.predict.views), pictures, size,
                                    workers, bar.update)
    except (RuntimeError, MemoryError, SystemError) as error:
        if not devices.is_out_of_memory(error):
            raise
        raise UserError(f'out of memory on {device} with predict.batch_size {size}; lower it: -o '
                        f'predict.batch_size={max(size // 2, 1)} / 显存或内存不足：请减小 '
                        'predict.batch_size') from None
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
        archive.writestr(entry, text.encode('utf-8', 'surrogateescape'))
    files.write_bytes(f'{os.path.splitext(path)[0]}.zip', packed.getvalue())
    files.write_text(path, text)


def tell_counts(decisions, task):
    """Print how often each class was answered, and warn where it is suspiciously uniform."""
    counts = tasks.counts_of(decisions, task)
    each = ', '.join(f'{count} {name}' for name, count in zip(task.class_names, counts))
    print(f'{len(decisions)} records: {each}')
    if len(decisions) >= SUSPICIOUS_FROM and (counts == len(decisions)).any() and \
            np.count_nonzero(counts) == 1:
        print(f'warning: every record is {task.class_names[int(counts.argmax())]}; look at '
              'validation.png whether the model has learnt anything, before you upload this')


def write_report(arguments, config, trained, answered, band, asked):
    """Write output/report.html, or input_report.html for own ECGs.

    asked: (network, pictures) that gave the answer
    """
    own = arguments.input is not None
    found = inputs.find_inputs(arguments.input)[0] if own else \
        report.find_originals(config.data.root, answered.names)
    chosen = report.choose(answered, max(arguments.report_records, 0))
    signals, notes = report.read_originals(
        {name: found[name] for name in answered.names if name in found},
        {answered.names[index] for index in chosen}, arguments.sampling_rate, arguments.unit)
    drawings = report.draw(answered, chosen, signals, (*asked, config.predict.batch_size), trained)
    path = os.path.join(config.output, 'input_report.html' if own else 'report.html')
    page.write(path, arguments.report, answered, drawings, notes,
               {'sure': config.predict.sure, 'band': band, **report.describe_model(trained),
                'scores': answered.scores(trained.config.seed)})
    print(f'{path}: all answers, and {len(chosen)} ECGs to look at')


if __name__ == '__main__':
    errors.run(main)
