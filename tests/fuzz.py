"""Feed damaged and hostile files to all that reads a user's: python -m tests.fuzz [COUNT] [SEED]

Each input is a good file with a few bytes changed, cut, repeated or replaced by what programs
stumble over; where a checksum or a compression would stop the change at the door, it is put right
again. A reader may take the file or refuse it with a UserError. Anything else is a finding: another
exception, a program that is run, a file written elsewhere, more than ten seconds, a crash (but of
scipy's MAT reader, which is why the scripts read MAT files in processes that may die). All run in
such processes; the input of a finding is kept, and its path printed.
"""
import collections
import contextlib
import faulthandler
import functools
import gzip
import io
import os
import pickle
import random
import shutil
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib  # before anything that could load Paddle, see models/device.py

import numpy as np
import numpy.testing  # noqa: F401  NumPy 1 runs lscpu there: not while we watch the readers

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, PROJECT)

from models import best_model, checkpoint  # noqa: E402
from utils.answers import split, tasks  # noqa: E402
from utils.ecg import archives, formats, records  # noqa: E402
from utils.pictures import render  # noqa: E402
from utils.running import errors, machine, pool, settings  # noqa: E402

SECONDS = 10  # longest time for one input
MAY_CRASH = ('ecg', 'mat')
NUMBERS = [struct.pack(form, value) for form, value in (
    ('<I', 0), ('<I', 1), ('<i', -1), ('<I', 0x7fffffff), ('<I', 0x80000000), ('<Q', 2**40),
    ('>I', 2**31 - 1), ('<H', 65535), ('B', 255), ('B', 0), ('<q', -1), ('<I', 14), ('<I', 15),
    ('>I', 0xffffffff), ('<I', 60000))]
TEXTS = [b'../', b'/', b'\0', b'\n', b'"', b"'", b',', b';', b': ', b'- ', b'[' * 2000, b'{' * 2000,
         b'&a [*a,*a]', b'9' * 5000, b'!!python/object/apply:os.system ["touch MARKER"]', b'1e999',
         b'\xff\xfe', b'.nan', b'\x80\x04', b'c__main__\nx\n', b'cposix\nsystem\n', b'#', b'R',
         b'b', b'0', b'2', b'(', b't', b'r\xff\xff\xff\x7f', b"cos\nsystem\n(S'touch MARKER'\ntR."]
CELLS = [b'', b'nan', b'x', b'-', b'1,000', b'1.5', b'1e999', b'0', b'"', b'mV', b'I', b'time',
         b'#', b'12:00:00', b'fs', b'gain', b'1_0', b'\xff', b'-32768', b'patient_id', b'1' * 400]
PROGRAMS = ('os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'subprocess.Popen', 'os.fork')
WRITES = ('os.mkdir', 'os.rename', 'os.symlink', 'os.link')
watched = []  # the folder that this process may write to, and what it did that it may not


def main():
    count, seed = (int(each) for each in (sys.argv[1:] + ['2400', '2021'][len(sys.argv) - 1:]))
    work = tempfile.mkdtemp(prefix='fuzz-')
    make_seeds(os.path.join(work, 'seeds'))
    jobs = [(work, seed, number) for number in range(count)]
    found, taken = 0, collections.Counter()
    for (_, _, number), outcome in pool.run_jobs(try_one, jobs, machine.usable_cores()):
        kind, result = kinds()[number % len(kinds())], outcome
        if isinstance(outcome, pool.Crashed):
            hung = os.path.getsize(os.path.join(work, str(number), 'hung'))
            result = 'it hangs' if hung else 'crashed' if kind in MAY_CRASH else str(outcome)
        if result in ('taken', 'refused', 'crashed'):
            taken[f'{kind} {result}'] += 1
        else:
            found += 1
            print(f'FOUND {work}/{number}: {result}', flush=True)
    print(f'{count} inputs, {found} findings\n'
          + '\n'.join(f'{count:6} {what}' for what, count in sorted(taken.items())))
    if not found:
        shutil.rmtree(work)
    return 1 if found else 0


def try_one(job):
    """Make and read one input, in a process of its own.

    job: (folder, seed, number)
    Returns: 'taken', 'refused' or what is wrong
    """
    work, seed, number = job
    kind, folder = kinds()[number % len(kinds())], os.path.join(work, str(number))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(os.path.join(folder, 'target'))
    rng = random.Random(f'{seed} {number}')
    extension, data = rng.choice(seeds(work, kind))
    path = os.path.join(folder, f'input{extension}')
    with open(path, 'wb') as file:
        file.write(MUTATORS.get(kind, mutate)(data, rng))
    with open(os.path.join(folder, 'hung'), 'w') as hung:
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True, file=hung)
        result = watch(READERS[kind], path, os.path.join(folder, 'target'))
        faulthandler.cancel_dump_traceback_later()
    if result in ('taken', 'refused'):
        shutil.rmtree(folder)
    return result


def watch(reader, path, target):
    """Call a reader and see what it does."""
    install_hook()
    began, result = time.monotonic(), 'taken'
    watched[:] = [target]
    try:
        reader(path, target)
    except MemoryError:  # the pool tells of it; others must not let it pass
        watched.clear()
        raise
    except (errors.UserError, OSError):  # one line each, see errors.run()
        result = 'refused'
    except BaseException as error:
        result = f'{type(error).__name__}: {str(error)[:200]}'
    did = watched[1:]
    watched.clear()
    if time.monotonic() - began > SECONDS:
        result = f'{time.monotonic() - began:.0f} s'
    return f'it did {did}' if did else result


@functools.lru_cache(maxsize=1)
def install_hook():
    """Note the programs that are started, and what is written outside the watched folder."""
    scratch = os.path.join(tempfile.gettempdir(), 'tmp')  # asked for now: it would call the hook

    def hook(event, arguments):
        if not watched:
            return
        if event.startswith(PROGRAMS):
            watched.append((event, arguments))
        writes = event == 'open' and isinstance(arguments[2], int) and arguments[2] & (
            os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in WRITES:
            path = os.path.abspath(os.fsdecode(arguments[0]))
            if not path.startswith((watched[0], scratch, os.devnull)):
                watched.append((event, path))
    sys.addaudithook(hook)


def mutate(data, rng):
    """A few changes of any kind."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        # The beginning holds what steers a reader.
        at = rng.randrange(max(1, min(len(data), rng.choice((16, 200, 1000, len(data) + 1)))))
        what, some = rng.randrange(5), rng.choice(NUMBERS + TEXTS)
        if what == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif what == 1:
            data[at:at + len(some)] = some
        elif what == 2:
            data[at:at] = some
        elif what == 3:
            del data[at:at + rng.choice((1, 4, 8, 100, len(data)))]
        else:
            data[at:at] = data[at:at + rng.choice((1, 8, 128, 512))] * rng.choice((1, 2, 50))
    return bytes(data)


def mutate_table(data, rng):
    """Half of the time cells change, go, come or move, in some lines or in all."""
    lines = data.split(b'\n')
    if len(lines) < 3 or data[:2] == b'\xff\xfe' or rng.random() < 0.5:
        return mutate(data, rng)
    mark = max((b',', b';'), key=lines[1].count)
    for _ in range(rng.choice((1, 1, 2, 4))):
        first = rng.choice((0, 0, 1, rng.randrange(len(lines))))
        at, what, cell = rng.choice((0, 0, 1, 5, -1)), rng.randrange(4), rng.choice(CELLS)
        for number in range(first, rng.choice((first + 1, first + 1, len(lines)))):
            cells = lines[number].split(mark)
            place = max(-len(cells), min(at, len(cells) - 1))
            if what == 0:
                cells[place] = cell
            elif what == 1:
                cells.insert(place, rng.choice((cell, b'%d' % number)))
            elif what == 2:
                del cells[place]
            else:
                cells.reverse()
            lines[number] = mark.join(cells)
    return b'\n'.join(lines)


def mutate_mat(data, rng):
    """Half of the time the change is inside the compression."""
    if data[128:132] != b'\x0f\0\0\0' or rng.random() < 0.5:
        return mutate(data, rng)
    inside = zlib.compress(mutate(zlib.decompress(data[136:]), rng), 1)
    return data[:128] + struct.pack('<II', 15, len(inside)) + inside


def mutate_png(data, rng):
    """Half of the time the chunks' checksums are right again."""
    changed = mutate(data, rng)
    if rng.random() < 0.5:
        return changed
    parts, at = [changed[:8]], 8
    while at + 12 <= len(changed):
        length = struct.unpack('>I', changed[at:at + 4])[0]
        body = changed[at + 4:at + 8 + length]
        parts.append(struct.pack('>II', len(body) - 4, 0)[:4] + body
                     + struct.pack('>I', zlib.crc32(body)))
        at += 12 + length
    return b''.join(parts)


def mutate_archive(data, rng):
    """Mostly the change is inside the compression, and a tar header's checksum right again."""
    if data[:2] != b'\x1f\x8b' or rng.random() < 0.3:
        return mutate(data, rng)
    inside = bytearray(mutate(gzip.decompress(data), rng))
    for at in range(0, min(len(inside) - 512, 4096), 512):
        if inside[at + 257:at + 262] == b'ustar':
            inside[at + 148:at + 156] = b' ' * 8
            inside[at + 148:at + 156] = b'%06o\0 ' % sum(inside[at:at + 512])
    return gzip.compress(bytes(inside), 1)


def mutate_npz(data, rng):
    """Half of the time the change is in one member, and the zip's checksums are right again."""
    if rng.random() < 0.5:
        return mutate(data, rng)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(target, 'w') as packed:
        chosen = rng.choice(source.namelist())
        for name in source.namelist():
            member = source.read(name)
            packed.writestr(name, mutate(member, rng) if name == chosen else member)
    return target.getvalue()


def read_png(path, _):
    stamp = render.read_stamp(path)
    if stamp is not None:
        stamp.get('size')
    render.decode_png(path, (64, 64))


def read_labels(path, target):
    names = [f'TRAIN{i:04d}' for i in range(8)]
    with contextlib.suppress(errors.UserError):
        shutil.copyfile(path, os.path.join(target, 'source.csv'))
        split.read_patients(target, names)
    try:
        tasks.read_reference(path, names, tasks.TASKS[1])
    except errors.UserError:
        tasks.read_reference(path, names, tasks.TASKS[2])


def read_ecg(path, target):
    copy = shutil.copy(path, target)
    if path.endswith('.hea'):
        with open(os.path.join(target, 'input.dat'), 'wb') as file:
            file.write(bytes(range(250)) * 480)
    with contextlib.suppress(errors.UserError):
        formats.find_inputs([target])
    formats.read_input(copy, 500, 'mV')


def read_last(path, target):
    shutil.copyfile(path, os.path.join(target, 'iter_00000001.npz'))
    checkpoint.load_last(target)


MUTATORS = {'ecg': mutate_table, 'labels': mutate_table, 'mat': mutate_mat, 'png': mutate_png,
            'archive': mutate_archive, 'npz': mutate_npz}
READERS = {'mat': lambda path, _: records.read_record(path), 'png': read_png, 'labels': read_labels,
           'yaml': lambda path, _: settings.load(path), 'archive': archives.unpack, 'ecg': read_ecg,
           'weights': lambda path, _: best_model.read_weights(path), 'npz': read_last}


def kinds():
    return sorted(READERS)


@functools.cache
def seeds(work, kind):
    """The good files of a kind: list of (extension, bytes)."""
    folder, found = os.path.join(work, 'seeds', kind), []
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), 'rb') as file:
            found.append((name[name.index('.'):], file.read()))
    return found


def make_seeds(folder):
    """Write good files of each kind into `folder`/KIND."""
    from scipy.io import savemat
    for kind in kinds():
        os.makedirs(os.path.join(folder, kind))

    def put(kind, extension, data):
        number = len(os.listdir(os.path.join(folder, kind)))
        with open(os.path.join(folder, kind, f'{number:02}{extension}'), 'wb') as file:
            file.write(data.encode() if isinstance(data, str) else data)

    def put_mat(value, **options):
        target = io.BytesIO()
        savemat(target, {'ecgdata': value, 'other': np.ones((1, 5))}, **options)
        put('mat', '.mat', target.getvalue())
        return target.getvalue()

    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.5, (12, 5000))
    for values, compressed in ((signal, False), (signal.astype(np.float32), True),
                               ((signal * 2).astype(np.int8), True),
                               ((signal * 2).astype(np.int16).T, False), ({'a': signal[:2]}, True),
                               (np.array([[1, 'x'], [signal[:1], 2]], dtype=object), False),
                               (np.array(['text'] * 12), True)):
        mat = put_mat(values, do_compression=compressed)
    put_mat(signal.astype(np.float32), format='4')
    picture = (rng.random((64, 64)) * 255).astype(np.uint8)
    put('png', '.png', render.encode_png(picture, {**render.settings_of(settings.Render(size=64)),
                                                   'record': 1}))
    table = 'name,tag\n' + ''.join(f'TRAIN{i:04d},{i % 2}\n' for i in range(8))
    second = ''.join(f'TRAIN{i:04d},{i + 1},12\n' for i in range(1, 8)) + 'TRAIN0000,1\n'
    patients = 'name,patient\n' + ''.join(f'TRAIN{i:04d},{i // 2}\n' for i in range(8))
    others = table.encode('utf-16'), table.replace(',', ';').encode('gb18030')
    for text in (table, second, patients, *others):
        put('labels', '.csv', text)
    header = ','.join(records.LEADS)
    rows = '\n'.join(','.join(f'{value:.3f}' for value in row) for row in signal.T[:1100])
    put('ecg', '.csv', f'{header}\n{rows}\n')
    put('ecg', '.csv', f'time;{header.replace(",", ";")}\n' + '\n'.join(
        f'{i / 500};{row.replace(",", ";")}' for i, row in enumerate(rows.split('\n'))))
    number = ''.join(f'"{i}",{row}\n' for i, row in enumerate(rows.split('\n')))
    put('ecg', '.txt', f'Sampling rate (Hz): 500\n# Gain (digit/mV): 1\n,{header}\n{number}')
    put('ecg', '.csv', '\n'.join(f'{lead},mV,' + ','.join(f'{value:.3f}' for value in row[:1100])
                                 for lead, row in zip(records.LEADS, signal)))
    put('ecg', '.hea', 'input 12 500 0 10:00 1/2/89\n' + ''.join(
        f'input.dat 16 1000/mV 16 0 0 0 0 {lead}\n' for lead in records.LEADS))
    target = io.BytesIO()
    np.save(target, signal.astype(np.float32))
    put('ecg', '.npy', target.getvalue())
    put('ecg', '.mat', mat)
    put('yaml', '.yml', settings.to_yaml(settings.Config()))
    with open(os.path.join(PROJECT, 'config.yml'), 'rb') as file:
        put('yaml', '.yml', file.read())
    members = {'top/train/A.mat': b'abc' * 900, 'top/val/B.mat': b'x' * 9,
               'top/trainreference.csv': table.encode()}
    for extension, data in make_archives(members):
        put('archive', extension, data)
    arrays = {'fc.weight': rng.random((4, 3), dtype=np.float32), 'fc.bias': np.zeros(3, np.float32)}
    for protocol in (0, 2, 4):
        put('weights', '.pdparams', pickle.dumps({**arrays, 'x': ('n', arrays['fc.bias']),
                                                  best_model.NAME_TABLE: {'a': 'b'}}, protocol))
    state = {'iteration': 3, 'progress': {'best': None}, 'fingerprint': {'seed': 1}}
    checkpoint.save_last(os.path.join(folder, 'good_last'), state, arrays)
    with open(checkpoint.list_last(os.path.join(folder, 'good_last'))[0], 'rb') as file:
        put('npz', '.npz', file.read())


def make_archives(members):
    """The same members as .tar.gz with three kinds of header, .tar and .zip: (extension, bytes)."""
    for form, extension in ((tarfile.USTAR_FORMAT, '.tar.gz'), (tarfile.PAX_FORMAT, '.tar.gz'),
                            (tarfile.GNU_FORMAT, '.tar.gz'), (tarfile.GNU_FORMAT, '.tar')):
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode='w', format=form) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo('long' * 30 + name if extension == '.tar.gz' else name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        data = target.getvalue()
        yield extension, gzip.compress(data, 1) if extension == '.tar.gz' else data
    target = io.BytesIO()
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    yield '.zip', target.getvalue()


if __name__ == '__main__':
    sys.exit(main())
