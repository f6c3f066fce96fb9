"""Feed damaged and hostile files to everything that reads a user's files: python -m tests.fuzz [COUNT] [SEED] [KEEP].

Each input is a good file with a few bytes changed, cut, repeated or replaced by numbers that programs stumble over; where
a checksum or a compression would stop the change at the door, it is put right again. A reader may take the file or refuse
it with a UserError; anything else, more than ten seconds, or a file outside the folder that it may write to is a finding:
it is printed, and the input kept in the folder KEEP.
"""
import zlib  # before anything that could load Paddle, see utils/runtime.py

import collections
import faulthandler
import gzip
import hashlib
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

import numpy as np

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, PROJECT)

from utils import checkpoint, config, records, render, tasks  # noqa: E402
from utils.errors import UserError  # noqa: E402

SECONDS = 10  # longest time for one input
MEMORY = 3 * 2**30  # bytes that all of it may take
NUMBERS = [struct.pack(form, value) for form, value in (
    ('<I', 0), ('<I', 1), ('<i', -1), ('<I', 0x7fffffff), ('<I', 0x80000000), ('<Q', 2**40), ('>I', 2**31 - 1), ('<H', 65535),
    ('B', 255), ('B', 0), ('<q', -1), ('<I', 14), ('<I', 15), ('>I', 0xffffffff), ('<I', 60000))] + \
    [b'../', b'/', b'\0', b'\n', b'"', b"'", b',', b': ', b'- ', b'[' * 2000, b'{' * 2000, b'&a [*a,*a]', b'9' * 5000,
     b'!!python/object/apply:os.system ["true"]', b'\xff\xfe', b'1e999', b'.nan', b'\x80\x04', b'c__main__\nx\n',
     b'cposix\nsystem\n', b'r\xff\xff\xff\x7f', b'R', b'b', b'0', b'2', b'(', b't']


def main():
    count, seed = (int(each) for each in (sys.argv[1:3] + ['2400', '2021'][len(sys.argv[1:3]):]))
    keep = sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix='fuzz-')
    os.makedirs(keep, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds = make_seeds(os.path.join(folder, 'seeds'))
        limit_memory()
        found, taken = fuzz(count, seed, seeds, os.path.join(folder, 'work'), keep)
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f'{count} inputs, {sum(taken.values())} taken as good ({", ".join(f"{k} {v}" for k, v in sorted(taken.items()))}), '
          f'{len(found)} findings, peak memory {peak:.0f} MiB' + (f', inputs kept in {keep}' if found else ''))
    return 1 if found else 0


def limit_memory():
    try:
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    except (ImportError, ValueError, OSError):
        pass  # not Linux


def fuzz(count, seed, seeds, work, keep):
    """Try `count` inputs. Returns: (findings, {kind: how many were taken as good})"""
    found, taken = [], collections.Counter()
    kinds = sorted(seeds)
    for number in range(count):
        rng = random.Random(f'{seed} {number}')
        kind = kinds[number % len(kinds)]
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(os.path.join(work, 'target'))
        extension, data = rng.choice(seeds[kind])
        path = os.path.join(work, f'input{extension}')
        data = MUTATORS.get(kind, mutate)(data, rng)
        with open(path, 'wb') as file:
            file.write(data)
        # The last input of a process that crashes or hangs stays behind.
        kept = os.path.join(keep, f'{kind}-{seed}-{number}{extension}')
        shutil.copyfile(path, kept)
        faulthandler.dump_traceback_later(2 * SECONDS, exit=True)
        problem = try_reader(READERS[kind], path, work, taken, kind)
        faulthandler.cancel_dump_traceback_later()
        if problem:
            found.append(problem)
            print(f'FOUND {kept}: {problem}', flush=True)
        else:
            os.remove(kept)
    return found, taken


def try_reader(reader, path, work, taken, kind):
    """None where a reader behaved, else what it did."""
    began, around = time.monotonic(), set(os.listdir(os.path.dirname(work)))
    try:
        reader(path, os.path.join(work, 'target'))
        taken[kind] += 1
    except UserError:
        pass
    except BaseException as error:
        return f'{type(error).__name__}: {str(error)[:200]}'
    if time.monotonic() - began > SECONDS:
        return f'{time.monotonic() - began:.0f} s'
    if set(os.listdir(work)) != {os.path.basename(path), 'target'} or set(os.listdir(os.path.dirname(work))) != around:
        return f'it wrote outside its folder: {os.listdir(work)}'
    return None


def mutate(data, rng):
    """A few changes of any kind."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        # The beginning holds what steers a reader.
        at = rng.randrange(max(1, min(len(data), rng.choice((16, 200, 1000, len(data) + 1)))))
        what = rng.randrange(7)
        if what == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif what == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif what == 2:
            number = rng.choice(NUMBERS)
            data[at:at + len(number)] = number
        elif what == 3:
            data[at:at] = rng.choice(NUMBERS)
        elif what == 4:
            del data[at:at + rng.choice((1, 4, 8, 100, len(data)))]
        elif what == 5:
            data[at:at] = data[at:at + rng.choice((1, 8, 128, 512))] * rng.choice((1, 2, 50))
        else:
            data[at:at + 8] = rng.randbytes(8) if hasattr(rng, 'randbytes') else os.urandom(8)
    return bytes(data)


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
        parts.append(struct.pack('>I', len(body) - 4) + body + struct.pack('>I', zlib.crc32(body)))
        at += 12 + length
    return b''.join(parts)


def mutate_archive(data, rng):
    """Half of the time the change is inside the compression, and the changed tar header's checksum is right again."""
    if data[:2] != b'\x1f\x8b' or rng.random() < 0.3:
        return mutate(data, rng)
    inside = bytearray(mutate(gzip.decompress(data), rng))
    for at in range(0, min(len(inside) - 512, 4096), 512):
        if inside[at + 257:at + 262] == b'ustar':
            inside[at + 148:at + 156] = b' ' * 8
            inside[at + 148:at + 156] = b'%06o\0 ' % sum(inside[at:at + 512])
    return gzip.compress(bytes(inside), 1)


def mutate_checkpoint(data, rng):
    """Half of the time the checksum is right again."""
    if rng.random() < 0.5:
        return mutate(data, rng)
    body = mutate(data[len(checkpoint.MAGIC) + 65:], rng)
    return checkpoint.MAGIC + hashlib.sha256(body).hexdigest().encode() + b'\n' + body


MUTATORS = {'mat': mutate_mat, 'png': mutate_png, 'archive': mutate_archive, 'checkpoint': mutate_checkpoint}


def read_png(path, _):
    render.read_stamp(path)
    render.decode_png(path, 64)


def read_csv(path, _):
    for task in tasks.TASKS.values():
        try:
            tasks.read_reference(path, [f'TRAIN{i:04d}' for i in range(8)], task)
        except UserError:
            if task.number == 2:
                raise


def read_checkpoint(path, _):
    folder = os.path.join(os.path.dirname(path), 'target')
    shutil.copyfile(path, os.path.join(folder, 'iter_00000001.ckpt'))
    checkpoint.load_last(folder)


def read_best(path, _):
    """A best_model folder with one file changed and its checksum put right."""
    folder = os.path.join(os.path.dirname(path), 'target')
    shutil.copyfile(path, os.path.join(folder, 'metrics.json'))
    names = {'metrics.json': path}
    for name, data in (('config.yml', b''), (checkpoint.WEIGHTS, pickle.dumps({}, 4))):
        names[name] = os.path.join(folder, name)
        with open(names[name], 'wb') as file:
            file.write(data)
    sums = {name: hashlib.sha256(open(each, 'rb').read()).hexdigest() for name, each in names.items()}
    with open(os.path.join(folder, checkpoint.CHECKSUMS), 'w') as file:
        file.write(repr(sums).replace("'", '"'))
    checkpoint.load_best(folder)


READERS = {'mat': lambda path, _: records.read_record(path), 'png': read_png, 'csv': read_csv,
           'yaml': lambda path, _: config.load(path), 'archive': records.unpack,
           'weights': lambda path, _: checkpoint.read_weights(path), 'checkpoint': read_checkpoint, 'best': read_best}


def make_seeds(folder):
    """Good files of each kind. Returns: {kind: list of (extension, bytes)}"""
    from scipy.io import savemat
    os.makedirs(folder)
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.5, (12, 5000))
    mats = []
    for values, compressed in ((signal, False), (signal.astype(np.float32), True), ((signal * 50).astype(np.int8), True),
                               (signal.astype(np.int16).T, False)):
        target = io.BytesIO()
        savemat(target, {'ecgdata': values}, do_compression=compressed)
        mats.append(('.mat', target.getvalue()))
    target = io.BytesIO()
    savemat(target, {'ecgdata': signal.astype(np.float32)}, format='4')
    mats.append(('.mat', target.getvalue()))
    for value in ({'a': signal[:2]}, np.array([[1, 'x'], [signal[:1], 2]], dtype=object), np.array(['text'] * 12)):
        target = io.BytesIO()
        savemat(target, {'ecgdata': value, 'other': signal[:1, :5]}, do_compression=bool(len(mats) % 2))
        mats.append(('.mat', target.getvalue()))
    picture = render.encode_png((rng.random((64, 64)) * 255).astype(np.uint8),
                                {'version': 1, 'size': 64, 'mv_per_lead': 2.0, 'line_width': 1.0, 'record': 1})
    table = 'name,tag\n' + ''.join(f'TRAIN{i:04d},{i % 2}\n' for i in range(8))
    second = ''.join(f'TRAIN{i:04d},{i + 1},12\n' for i in range(1, 8)) + 'TRAIN0000,1\n'
    arrays = {'fc.weight': rng.random((4, 3), dtype=np.float32), 'fc.bias': np.zeros(3, np.float32)}
    state = {'iteration': 3, 'best': None, 'history': '[{"iteration": 1, "epoch": 1}]', 'losses': [0.5], 'skipped': 0,
             'bad': 0, 'log_bytes': 10, 'weights': arrays,
             'optimizer': {'fc.weight_moment1_0': arrays['fc.weight']}, 'scaler': {},
             'fingerprint': {'seed': 1}}
    body = pickle.dumps(state, 4)
    sealed = checkpoint.MAGIC + hashlib.sha256(body).hexdigest().encode() + b'\n' + body
    members = {'top/train/A.mat': mats[2][1][:3000], 'top/val/B.mat': b'abc' * 50, 'top/trainreference.csv': table.encode()}
    return {'mat': mats, 'png': [('.png', picture)],
            'csv': [('.csv', each) for each in (table.encode(), second.encode(), table.encode('utf-16'),
                                                table.replace(',', ';').encode('gb18030'))],
            'yaml': [('.yml', config.to_yaml(config.Config()).encode()),
                     ('.yml', open(os.path.join(PROJECT, 'config.yml'), 'rb').read())],
            'archive': make_archives(members),
            'weights': [('.pdparams', pickle.dumps({**arrays, checkpoint.NAME_TABLE: {'a': 'b'}}, protocol))
                        for protocol in (2, 4)] + [('.pdparams', pickle.dumps({'x': ('n', arrays['fc.bias'])}, 3))],
            'checkpoint': [('.ckpt', sealed)],
            'best': [('.json', b'{"epoch": 1, "iteration": 3, "threshold": 0.5, "validation": {"f1": 0.5}}')]}


def make_archives(members):
    """The same members as .tar.gz (three kinds of header), .tar and .zip. Returns: list of (extension, bytes)"""
    made = []
    for form, extension in ((tarfile.USTAR_FORMAT, '.tar.gz'), (tarfile.PAX_FORMAT, '.tar.gz'),
                            (tarfile.GNU_FORMAT, '.tar.gz'), (tarfile.GNU_FORMAT, '.tar')):
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode='w', format=form) as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name if extension == '.tar' else 'long' * 30 + '/' + name.partition('/')[2])
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        data = target.getvalue()
        made.append((extension, gzip.compress(data, 1) if extension == '.tar.gz' else data))
    target = io.BytesIO()
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return made + [('.zip', target.getvalue())] * 2


if __name__ == '__main__':
    sys.exit(main())
