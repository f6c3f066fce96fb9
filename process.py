"""Draw each MAT record as a PNG: data.source -> data.root/train/NAME.png and .../val/NAME.png."""
import os
import zlib
from contextlib import closing

from utils.ecg import records
from utils.pictures.render import MANIFEST, encode_png, read_stamp, renderer_of, settings_of
from utils.running import errors, files, log, machine, pool, settings
from utils.running.errors import UserError


def main():
    arguments, config = settings.parse_arguments(__doc__)
    print(machine.describe())
    print(settings.describe(config))
    with files.lock_folder(config.data.root, 'data.root'):
        files.clear_partials(config.data.root)
        source = find(config)
        manifest = {**settings_of(config.render), 'source': source.folder,
                    'command': settings.command('process.py', arguments),
                    'train': list(source.train), 'val': list(source.val),
                    'not_drawn': {'train': [], 'val': []}, 'finished': False}
        manifest_path = os.path.join(config.data.root, MANIFEST)
        files.write_json(manifest_path, manifest)  # before drawing: what should be there
        problems = []
        for part, found in (('train', source.train), ('val', source.val)):
            clear(os.path.join(config.data.root, part), found, source.folder)
        for part, name, problem in draw_all(source, config):
            manifest['not_drawn'][part].append(name)
            problems.append(problem)
        reference = copy_labels(source.reference, config.data.root)
        wrong_labels = draw_examples(source, reference, config, manifest['not_drawn']['train'])
        files.write_json(manifest_path, {**manifest, 'finished': True})
    return conclude(problems, wrong_labels, settings.command('train.py', arguments))


def find(config):
    """The records.Source that the settings name, or the one that is found."""
    project = os.path.dirname(os.path.abspath(__file__))
    source, notes = records.find_source(config.data.source, config.data.root, project)
    for note in notes:
        print(note)
    print(f'{source.folder}: {len(source.train)} labelled records (train), {len(source.val)} to '
          f'predict (val), labels: {source.reference or "none"}')
    return source


def clear(folder, found, source):
    """Remove what a killed run left in a folder of pictures, and pictures of other records."""
    os.makedirs(folder, exist_ok=True)
    files.clear_partials(folder)
    others = [entry.path for entry in os.scandir(folder)
              if entry.name.endswith('.png') and entry.name[:-4] not in found]
    ours = [path for path in others if read_stamp(path)]
    for path in ours:
        os.remove(path)
    if ours:
        print(f'{folder}: removed {len(ours)} pictures of records that {source} does not hold')
    foreign = sorted(set(others) - set(ours))
    if foreign:
        print(f'{folder}: {len(foreign)} pictures that process.py did not draw are left alone: '
              f'{", ".join(os.path.basename(path) for path in foreign[:5])}')


def draw_all(source, config):
    """Draw every record whose picture is not up to date.

    Returns: sorted list of (part, name, problem) of the records that could not be drawn
    """
    jobs = [(part, name, path, os.path.join(config.data.root, part, f'{name}.png'), config.render)
            for part, found in (('train', source.train), ('val', source.val))
            for name, path in found.items()]
    problems, counts = [], {'drawn': 0, 'up to date': 0, 'error': 0}
    workers = machine.workers_of(config.data.workers)
    with log.bar(len(jobs), 'drawing', 'records') as bar, \
            closing(pool.run_jobs(draw, jobs, workers)) as results:
        for (part, name, path, target, _), result in results:
            if isinstance(result, pool.Crashed):
                result = 'error', [f'{path}: {result}; the file is damaged, or memory ran out: '
                                   'copy or download it again']
            outcome, texts = result
            counts[outcome] += 1
            if outcome == 'error':
                problems.append((part, name, texts[0]))
                if os.path.exists(target):
                    os.remove(target)  # it shows what the file held before
            else:
                for text in texts:
                    bar.write(f'note: {text}')
            bar.update()
    print(', '.join(f'{count} {outcome}' for outcome, count in counts.items()))
    return sorted(problems)


def draw(job):
    """Draw one record; called in a process of its own.

    Returns: (outcome, list of str): 'drawn' and notes, 'up to date', or 'error' and one problem
    """
    _, _, path, target, render = job
    try:
        with open(path, 'rb') as file:
            stamp = {**settings_of(render), 'record': zlib.crc32(file.read())}
        if os.path.exists(target) and read_stamp(target) == stamp:
            return 'up to date', []
        signal, notes = records.read_record(path)
        files.write_bytes(target, encode_png(renderer_of(render).draw(signal), stamp))
        return 'drawn', notes
    except files.DiskFull:
        raise  # for the next record, too, and the picture of before stays
    except UserError as error:
        return 'error', [str(error)]
    except OSError as error:
        return 'error', [errors.describe_os_error(error)]


def copy_labels(reference, root):
    """Put the labels beside the pictures, as they are: train.py reads them there.

    Returns: their path there, or None where there are none
    """
    target = os.path.join(root, records.REFERENCE)
    if reference is None:
        if os.path.exists(target):
            print(f'{target}: the labels that are there already stay, the source has none')
            return target
        return None
    patients = os.path.join(os.path.dirname(reference), records.PATIENTS)
    for path, copy in ((reference, target), (patients, os.path.join(root, records.PATIENTS))):
        if os.path.exists(path) and not (os.path.exists(copy) and os.path.samefile(path, copy)):
            with open(path, 'rb') as file:
                files.write_bytes(copy, file.read())
    return target


def draw_examples(source, reference, config, not_drawn):
    """Write data.root/examples.png: a few normal and abnormal ECGs, as a person knows them.

    Returns: list of str, what is wrong with the labels
    """
    if not reference or not source.train:
        return []
    from utils.answers import tasks
    from utils.reports import plots
    task = tasks.TASKS[config.task]
    names = sorted(source.train)
    try:
        targets = tasks.read_reference(reference, names, task)
    except UserError as error:
        return list(error.lines)
    drawn = [(tasks.is_abnormal(target, task), name, tasks.words_for(target, task))
             for name, target in zip(names, targets) if name not in not_drawn]
    chosen = [each for kind in (False, True) for each in [d for d in drawn if d[0] == kind][:2]]
    if not chosen:
        return []
    target = os.path.join(config.data.root, 'examples.png')
    plots.draw_examples([(f'{name}: {words}', records.read_record(source.train[name])[0])
                         for _, name, words in chosen], target)
    print(f'{target}: {len(chosen)} ECGs to look at')
    return []


def conclude(problems, wrong_labels, next_command):
    """Say what is wrong or what comes next; returns the exit code."""
    for problem in problems + wrong_labels:
        errors.say_error(problem)
    if problems:
        errors.say_error(f'{len(problems)} records could not be drawn, they are named above; mend '
                         'or remove them (and their lines in trainreference.csv), then run '
                         'process.py again')
    if wrong_labels:
        errors.say_error('the labels are not right, and train.py will refuse them; mend them, then '
                         'run process.py again')
    if problems or wrong_labels:
        return 2
    print(f'next: {next_command}')
    return 0


if __name__ == '__main__':
    errors.run(main)
