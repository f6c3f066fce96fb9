"""Draw each MAT record as a PNG: data.source -> data.root/train/NAME.png and .../val/NAME.png."""
import os
import sys
import zlib
from contextlib import closing

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out
os.environ['MPLBACKEND'] = 'agg'  # one that is not there would end the import of matplotlib

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
        manifest_path = os.path.join(config.data.root, MANIFEST)
        before = (files.read_json(manifest_path) or {}).get('copied', {})
        manifest = {**settings_of(config.render), 'source': source.folder,
                    'command': settings.command('process.py', arguments),
                    'train': list(source.train), 'val': list(source.val),
                    'not_drawn': {'train': [], 'val': []}, 'copied': before, 'finished': False}
        files.write_json(manifest_path, manifest)  # before drawing: what should be there
        problems = []
        for part, found in (('train', source.train), ('val', source.val)):
            clear(os.path.join(config.data.root, part), found, source.folder)
        for part, name, problem in draw_all(source, config):
            manifest['not_drawn'][part].append(name)
            problems.append(problem)
        manifest['copied'] = copy_tables(source, config.data.root, before)
        wrong_labels = draw_examples(source, config, manifest['not_drawn']['train'])
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


def copy_tables(source, root, before):
    """Put labels and patients beside the pictures, as they are: train.py reads them there. Where
    the source has none, a copy of an earlier source's goes.

    before: {file name: CRC-32} of what an earlier run has copied
    Returns: the same of this run
    """
    copied = {}
    for name, path in ((records.REFERENCE, source.reference), (records.PATIENTS, source.patients)):
        target = os.path.join(root, name)
        data, there = (read_if_there(each) for each in (path, target))
        if path and not (there is not None and os.path.samefile(path, target)):
            files.write_bytes(target, data)
            copied[name] = zlib.crc32(data)
        elif not path and there is not None and before.get(name) == zlib.crc32(there):
            os.remove(target)
            print(f'{target}: removed, it was of another source; {source.folder} has none')
        elif not path and there is not None:
            print(f'{target}: what is there already stays, {source.folder} has none')
    return copied


def read_if_there(path):
    """The bytes of a file; None for None, and where there is none."""
    if path is None or not os.path.exists(path):
        return None
    with open(path, 'rb') as file:
        return file.read()


def draw_examples(source, config, not_drawn):
    """Write data.root/examples.png: a few normal and abnormal ECGs, as a person knows them.

    Returns: list of str, what is wrong with the labels or the patients
    """
    reference = os.path.join(config.data.root, records.REFERENCE)
    if not os.path.exists(reference) or not source.train:
        return []
    from utils.answers import tasks
    from utils.pictures import loading
    from utils.reports import plots
    task = tasks.TASKS[config.task]
    names = sorted(source.train)
    try:
        targets = tasks.read_reference(reference, names, task)
        loading.read_patients(config.data.root, names)
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
    errors.say_errors(problems)
    errors.say_errors(wrong_labels)
    if problems:
        errors.say_error(f'{len(problems)} records could not be drawn, they are named above; mend '
                         'or remove them (and their lines in trainreference.csv), then run '
                         'process.py again')
    if wrong_labels:
        errors.say_error('the labels or patients are not right, and train.py will refuse them; '
                         'mend them, then run process.py again')
    if problems or wrong_labels:
        return 2
    print(f'next: {next_command}')
    return 0


if __name__ == '__main__':
    errors.run(main)
