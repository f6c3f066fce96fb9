"""Predict the test records' pictures with the best model: data.root/val/*.png -> answer.csv, .zip.

With --input, ECGs of your own instead: MAT, WFDB, CSV or NPY files, or folders of them.
"""
import os
import sys
import zlib  # noqa: F401  before Paddle, see models/device.py

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

import numpy as np

from models import best_model
from models import device as devices
from models.inference import CHECKED, fastest_network, predict_logits, several_views
from models.trained import load_trained
from utils.answers import calibration, metrics, tasks
from utils.answers.answer import refuse_foreign, write_answer
from utils.ecg import formats, paper
from utils.pictures import drawn, loading
from utils.pictures.render import settings_of, shape_of
from utils.reports import page, report
from utils.running import errors, files, log, machine, settings
from utils.running.errors import UserError

SUSPICIOUS_FROM = 5  # records that all get the same answer


def main():
    arguments, config = settings.parse_arguments(__doc__, add_arguments)
    folder = which_model(arguments, config)
    devices.import_paddle()
    errors.handle_signals()
    device, words = devices.choose_device(config.device)
    print(words)
    print(settings.describe(config))
    trained = load_trained(folder, config.task, config.predict.threshold)
    print(trained.describe())
    answer, table = where_to_write(arguments, config)

    # The pictures.
    workers = machine.workers_of(config.data.workers)
    if arguments.input is not None:
        names, pictures, unread = read_inputs(arguments, trained.config, workers)
    else:
        names, pictures, unread = list_test_pictures(arguments, config.data.root, trained.config)
    truth = read_truth(arguments.reference, names, unread, trained.task)
    network, logits = predict(trained, pictures, device, config, workers)
    known = trained.known
    band = calibration.find_band(known.confidence, ~known.wrong, config.predict.sure)
    answered = trained.answer(names, logits, truth, band.width)

    # The answer. answer.csv comes last: when it is there, all of it is.
    files.write_table(table, answered.table())
    write_answer(answer, tasks.answer_text(names, answered.decisions, trained.task,
                                           config.predict.answer_format))
    print(f'Save to {answer}')
    tell_counts(answered.decisions, trained.task)
    worth = calibration.describe(band, config.predict.sure)
    print(f'{answered.unsure.sum()} unsure; {worth}')
    if truth is not None:
        tell_scores(answered, trained.config.seed)
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
                        help='your own ECGs: .mat, .hea, .csv, .npy ... files, pictures and PDFs '
                             'of ECG sheets, folders of them')
    parser.add_argument('--sampling-rate', type=float, metavar='HZ',
                        help='with --input: of files that do not say it, such as CSV and NPY')
    parser.add_argument('--unit', choices=('mV', 'uV'), help='with --input: as --sampling-rate')


def which_model(arguments, config):
    """The folder of the model that is asked: for own ECGs, where nothing was trained, the one that
    comes along."""
    chosen = arguments.model or config.output
    if arguments.model or arguments.input is None or best_model.has_best(chosen):
        return chosen
    print(f'{chosen}: nothing was trained there, so the model that comes along answers, which has '
          'learnt from PTB-XL; to ask another one: --model PATH')
    return best_model.COMES_ALONG


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
    refuse_foreign(answer)
    for folder in (os.path.dirname(answer), config.output):
        os.makedirs(folder or '.', exist_ok=True)
    return answer, table


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


def read_inputs(arguments, config, workers):
    """Read the ECGs that --input names, and draw them as the model's training pictures were drawn.

    config: settings.Config of the model
    Returns: (names, pictures, set of names that could not be read)
    Raises: UserError where there is none that can be read
    """
    found, notes, problems = formats.find_inputs(arguments.input)
    names, pictures, more_notes, more = drawn.draw_inputs(
        found, config.render, arguments.sampling_rate, arguments.unit, workers)
    problems += more
    for note in notes + more_notes:
        print(f'note: {note}')
    if not names:
        raise UserError(*[line for _, line in problems])
    errors.say_errors([line for _, line in problems])
    sheets = sum(paper.is_picture(found[name]) for name in names)
    if sheets and not config.augment.printed:
        print(f'warning: {sheets} of the ECGs are pictures of sheets, and this model has not '
              'learnt from leads that are shown in part (augment.printed is 0): where a sheet '
              'shows 2.5 or 5 s of a lead, trust its answer less, or train anew with -o '
              'augment.printed=0.3')
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

    Returns: (network, logits): the function that answered; float32 array (n, classes)
    """
    size, rule = config.predict.batch_size, trained.rule
    limits = tasks.log_odds(rule.thresholds) * rule.temperature
    with devices.out_of_memory_says(
            f'out of memory on {device} with predict.batch_size {size}; lower it: -o '
            f'predict.batch_size={max(size // 2, 1)} / 显存或内存不足：请减小 predict.batch_size'):
        first = np.stack([pictures.read(index, 0)
                          for index in range(min(CHECKED, size, len(pictures)))])
        network, notes = fastest_network(trained.models, trained.margins_of, limits, device,
                                         config.predict.precision, first)
        print('\n'.join(notes))
        with log.bar(len(pictures), 'predicting', 'records') as bar:
            logits = predict_logits(several_views(network, config.predict.views), pictures, size,
                                    workers, bar.update)
    if not np.isfinite(logits).all():
        raise UserError('the network answers NaN or infinite values; train anew')
    return network, logits


def tell_counts(decisions, task):
    """Print how often each class was answered, and warn where it is suspiciously uniform."""
    counts = tasks.counts_of(decisions, task)
    each = ', '.join(f'{count} {name}' for name, count in zip(task.class_names, counts))
    print(f'{len(decisions)} records: {each}')
    if len(decisions) >= SUSPICIOUS_FROM and (counts == len(decisions)).any() and \
            np.count_nonzero(counts) == 1:
        print(f'warning: every record is {task.class_names[int(counts.argmax())]}; look at '
              'validation.png whether the model has learnt anything, before you upload this')


def tell_scores(answered, seed):
    """Print how good the answer is, where the truth is known."""
    print(f'scores on {len(answered.truth)} records:')
    for line in metrics.describe(answered.truth, answered.probabilities, answered.thresholds, seed,
                                 answered.task):
        print(line)


def write_report(arguments, config, trained, answered, band, asked):
    """Write output/report.html, or input_report.html for own ECGs.

    asked: (network, pictures) that gave the answer
    """
    own = arguments.input is not None
    found = formats.find_inputs(arguments.input)[0] if own else \
        report.find_originals(config.data.root, answered.names)
    chosen = report.choose(answered, max(arguments.report_records, 0))
    *originals, notes = report.read_originals(
        {name: found[name] for name in answered.names if name in found},
        {answered.names[index] for index in chosen}, arguments.sampling_rate, arguments.unit)
    drawings = report.draw(answered, chosen, originals, (*asked, config.predict.batch_size),
                           trained)
    path = os.path.join(config.output, 'input_report.html' if own else 'report.html')
    page.write(path, arguments.report, answered, drawings, notes,
               {'sure': config.predict.sure, 'band': band, **report.describe_model(trained),
                'scores': answered.scores(trained.config.seed)})
    print(f'{path}: all answers, and {len(chosen)} ECGs to look at')


if __name__ == '__main__':
    errors.run(main)
