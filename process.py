"""Draw each MAT record as a PNG: data.source -> data.root/train/NAME.png and data.root/val/NAME.png."""
import zlib  # noqa: F401  before anything that could load Paddle, see utils/runtime.py

import multiprocessing
import os
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from utils import config as settings
from utils import errors, files, plots, records, runtime, tasks
from utils.errors import UserError
from utils.lock import lock_folder
from utils.progress import Bar
from utils.render import Renderer, encode_png, read_stamp, settings_of
from utils.signals import ctrl_c_held_back

CHUNK = 8  # records per message to a worker
MEMORY_FOR_ONE_RECORD = 2 * 2**30  # bytes a worker may take beyond what it has at its start: a hostile MAT unpacks to more


def main():
    arguments, config = settings.parse_arguments(__doc__, add_arguments)
    print(runtime.describe_without_paddle())
    print(settings.describe(config))
    os.makedirs(config.data.root, exist_ok=True)
    with lock_folder(config.data.root, 'data.root'):
        return draw(arguments, config)


def draw(arguments, config):
    """Find the records, draw them, and tell how it went.

    Returns: the exit code
    """
    source, notes = records.find_source(config.data.source, config.data.root, os.path.dirname(os.path.abspath(__file__)))
    for note in notes:
        print(note)
    print(f'{source.folder}: {len(source.train)} labelled records (train), {len(source.val)} to predict (val), labels: '
          f'{source.reference or "none"}')
    drawn_with = settings_of(config.render)
    workers = arguments.workers or (runtime.usable_cores() if config.data.workers == 'auto' else config.data.workers)
    jobs = plan(source, config.data.root)
    problems = draw_all(jobs, drawn_with, workers)
    if source.reference:
        copy_labels(source.reference, config.data.root)
    not_drawn = {part: sorted(name for path, name, _ in problems if found.get(name) == path)
                 for part, found in (('train', source.train), ('val', source.val))}
    files.write_json(os.path.join(config.data.root, 'render.json'), {**drawn_with, 'not_drawn': not_drawn})
    draw_examples(source, config, {name for path, name, _ in problems if source.train.get(name) == path})
    for _, _, problem in sorted(problems):
        errors.say_error(problem)
    if problems:
        errors.say_error(f'{len(problems)} of {len(jobs)} records could not be drawn, they are named above; mend or '
                         'remove them (and their lines in trainreference.csv), then run process.py again')
        return 2
    print(f'next: python train.py{"".join(f" -o {override}" for override in arguments.override)}')
    return 0


def add_arguments(parser):
    parser.add_argument('--workers', type=int, choices=range(1, 257), metavar='N',
                        help='how many processes draw (default: data.workers, one per core)')


def plan(source, root):
    """One job per record, after clearing what a killed run left and pictures of records that are gone.

    Returns: list of (path of the MAT file, path of the PNG, name)
    """
    jobs = []
    for part, found in (('train', source.train), ('val', source.val)):
        folder = os.path.join(root, part)
        os.makedirs(folder, exist_ok=True)
        files.clear_partials(folder)
        stale = [entry.path for entry in os.scandir(folder)
                 if entry.name.endswith('.png') and entry.name[:-4] not in found and read_stamp(entry.path)]
        for path in stale:
            os.remove(path)
        if stale:
            print(f'{folder}: removed {len(stale)} pictures of records that {source.folder} does not hold')
        jobs += [(path, os.path.join(folder, f'{name}.png'), name) for name, path in found.items()]
    files.clear_partials(root)
    return jobs


def draw_all(jobs, drawn_with, workers):
    """Draw every job whose picture is not up to date, on `workers` processes.

    Returns: list of (path, name, problem), one per record that could not be drawn
    """
    bar = Bar('drawing', len(jobs), 'records')
    problems, counts = [], {'drawn': 0, 'up to date': 0}
    chunks = [jobs[at:at + CHUNK] for at in range(0, len(jobs), CHUNK)]
    while chunks:
        chunks = draw_chunks(chunks, drawn_with, workers, bar, problems, counts)
        # What was in the air when a worker died goes again, one record in one process at a time, to find the culprit.
        suspects = [[job] for chunk in chunks[:2 * workers] for job in chunk]
        chunks = chunks[2 * workers:]
        while suspects:
            suspects = draw_chunks(suspects, drawn_with, 1, bar, problems, counts)
            if suspects and draw_chunks(suspects[:1], drawn_with, 1, bar, problems, counts):
                path, _, name = suspects[0][0]
                problems.append((path, name, f'{path}: reading or drawing it crashed the worker process; the file is '
                                             'damaged, or memory ran out: copy or download it again'))
                bar.advance()
            suspects = suspects[1:]
    print(f'{counts["drawn"]} drawn, {counts["up to date"]} up to date, {len(problems)} with an error')
    return problems


def draw_chunks(chunks, drawn_with, workers, bar, problems, counts):
    """Draw chunks of jobs until all are done or a worker process dies.

    Returns: the chunks that are not done; those that were in the air come first, at most 2 * workers
    """
    context = multiprocessing.get_context('spawn')
    waiting, running = list(chunks), {}
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker, initargs=(drawn_with,)) as pool:
        try:
            while waiting or running:
                with ctrl_c_held_back():  # the main process alone decides what it means
                    while waiting and len(running) < 2 * workers:
                        running[pool.submit(draw_chunk, waiting[0])] = waiting[0]
                        waiting.pop(0)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    for outcome, path, name, text in future.result():
                        if outcome == 'error':
                            problems.append((path, name, text))
                        else:
                            counts[outcome] += 1
                        if outcome == 'drawn' and text:
                            print(f'note: {text}')
                        bar.advance()
                    del running[future]
        except BrokenProcessPool:
            # The pool ends the workers that it knows of when one dies, then waits for all; one that was only being
            # started just then would never end.
            for worker in multiprocessing.active_children():
                worker.terminate()
            return list(running.values()) + waiting
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return []


def start_worker(drawn_with):
    """Prepare a worker process: its renderer, a limit on its memory, and an end when the main process ends."""
    threading.Thread(target=follow_main_process, daemon=True).start()
    start_worker.renderer = Renderer(drawn_with['size'], drawn_with['mv_per_lead'], drawn_with['line_width'])
    start_worker.drawn_with = drawn_with
    try:
        import resource
        with open('/proc/self/statm', encoding='ascii') as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_FOR_ONE_RECORD,) * 2)
    except (ImportError, OSError, ValueError):
        pass  # not Linux


def follow_main_process():
    multiprocessing.parent_process().join()
    os._exit(1)  # a pool's workers would wait for ever


def draw_chunk(jobs):
    """Draw some records.

    Returns: list of (outcome, path, name, text); outcome 'drawn', 'up to date' or 'error'
    """
    return [draw_one(path, target, name) for path, target, name in jobs]


def draw_one(path, target, name):
    outcome = try_to_draw(path, target, name)
    if outcome[0] == 'error' and os.path.exists(target):
        os.remove(target)  # it shows what the file held before
    return outcome


def try_to_draw(path, target, name):
    try:
        if not os.path.isfile(path):
            raise UserError(f'{path}: not a file, expected a MAT record')
        with open(path, 'rb') as file:
            stamp = dict(start_worker.drawn_with, record=zlib.crc32(file.read(records.MAT_LIMIT)))
        if os.path.exists(target) and read_stamp(target) == stamp:
            return 'up to date', path, name, None
        values, note = records.read_record(path)
        files.write_bytes(target, encode_png(start_worker.renderer.draw(values), stamp))
        return 'drawn', path, name, note
    except files.DiskFull:
        raise  # for the next record, too, and the picture of before stays
    except UserError as error:
        return 'error', path, name, str(error)
    except MemoryError:
        return 'error', path, name, (f'{path}: reading it takes more than {MEMORY_FOR_ONE_RECORD >> 30} GiB, expected a '
                                     'record under a MiB; copy or download it again')
    except OSError as error:
        return 'error', path, name, errors.describe_os_error(error)


def copy_labels(reference, root):
    """Put the labels beside the pictures, as they are: train.py reads them there."""
    target = os.path.join(root, records.REFERENCE)
    if os.path.exists(target) and os.path.samefile(reference, target):
        return
    with open(reference, 'rb') as file:
        files.write_bytes(target, file.read())


def draw_examples(source, config, unreadable):
    """Write data.root/examples.png: a few normal and abnormal ECGs as a person would like to see them."""
    if not source.reference or not source.train:
        return
    task = tasks.TASKS[config.task]
    try:
        targets = tasks.read_reference(source.reference, source.train, task)
    except UserError as error:
        for line in error.lines:
            print(f'note: {line}')
        print('note: the labels are not right yet, so examples.png is not drawn and train.py will refuse them')
        return
    titled = [(name, f'{name}: {tasks.words_for(target, task)}') for name, target in zip(sorted(source.train), targets)
              if name not in unreadable]
    abnormal = [tasks.is_abnormal(target, task) for name, target in zip(sorted(source.train), targets)
                if name not in unreadable]
    chosen = [titled[i] for kind in (False, True) for i in [i for i, a in enumerate(abnormal) if a == kind][:2]]
    target = os.path.join(config.data.root, 'examples.png')
    plots.draw_examples([(title, records.read_record(source.train[name])[0]) for name, title in chosen], target)
    print(f'{target}: {len(chosen)} ECGs to look at')


if __name__ == '__main__':
    errors.run(main)
