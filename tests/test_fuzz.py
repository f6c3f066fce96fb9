"""Damaged and hostile files: a few hundred of those that python -m tests.fuzz makes, and all that ever found something."""
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib

import pytest
from conftest import PROJECT

from utils import checkpoint, config, records, render
from utils.errors import UserError

DATA = os.path.join(PROJECT, 'tests', 'data')


def test_fuzz(tmp_path):
    # A process of its own: what crashes or hangs there does not end the tests.
    done = subprocess.run([sys.executable, '-m', 'tests.fuzz', '320', '7', str(tmp_path / 'kept')], cwd=PROJECT, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '320 inputs' in done.stdout and '0 findings' in done.stdout
    assert int(done.stdout.split(' taken as good')[0].split(', ')[-1]) > 10  # the changes are not all too coarse


@pytest.mark.parametrize('name, read, words', [
    # scipy.io.loadmat crashes the whole process on it.
    ('unknown_number_type.mat', records.read_record, 'not a readable MAT file'),
    # pickle takes 32 GiB for its table of what was read.
    ('far_memo_slot.pdparams', checkpoint.read_weights, 'memo slot'),
    # 2 ** 60 numbers, for who copies what a list refers to twice.
    ('doubling_lists.pdparams', checkpoint.read_weights, 'holds a list'),
])
def test_files_that_once_did_harm(name, read, words):
    began = time.monotonic()
    with pytest.raises(UserError, match=words) as refused:
        read(os.path.join(DATA, name))
    assert name in str(refused.value) and time.monotonic() - began < 10


def test_checkpoint_reader_takes_no_more_than_the_file(tmp_path):
    """It used to ask for 4 GiB to read any file."""
    shutil.copyfile(os.path.join(DATA, 'far_memo_slot.pdparams'), tmp_path / 'iter_00000001.ckpt')
    code = ('import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); from utils import checkpoint; '
            f'checkpoint.load_last({str(tmp_path)!r})')
    done = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, text=True, capture_output=True, timeout=60)
    assert 'UserError' in done.stderr and 'MemoryError' not in done.stderr


def test_variable_that_unpacks_to_gigabytes(tmp_path):
    stream, path = zlib.compressobj(9), tmp_path / 'bomb.mat'
    size = 2**30
    head = struct.pack('<4I', 6, 8, 6, 0) + struct.pack('<4I', 5, 8, 12, 5000) + struct.pack('<2I', 1, 7) + \
        b'ecgdata\0' + struct.pack('<2I', 9, size)
    body = [stream.compress(struct.pack('<2I', 14, len(head) + size) + head)]
    body += [stream.compress(bytes(2**24)) for _ in range(size // 2**24)] + [stream.flush()]
    body = b''.join(body)
    path.write_bytes(b'MATLAB 5.0 MAT-file'.ljust(116) + bytes(8) + b'\0\1IM' + struct.pack('<2I', 15, len(body)) + body)
    code = ('import resource; from utils import records; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
            f'try: records.read_record({str(path)!r})\n'
            'except Exception as error: print(type(error).__name__, error)\n'
            'print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)')
    done = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, text=True, capture_output=True, timeout=120)
    message, grown = done.stdout.splitlines()
    assert message.startswith('UserError') and 'bomb.mat' in message and 'MiB' in message
    assert int(grown) < 400


def test_picture_that_would_unpack_to_gigabytes(tmp_path):
    path = tmp_path / 'big.png'
    body = b'IHDR' + struct.pack('>IIBBBBB', 60000, 60000, 8, 0, 0, 0, 0)
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + body + struct.pack('>I', zlib.crc32(body)))
    with pytest.raises(UserError, match='60000 x 60000 pixels, expected 64 x 64'):
        render.decode_png(str(path), 64)


@pytest.mark.parametrize('text', ['!!python/object/apply:os.system ["touch MARKER"]', 'a: &a [1]\nb: [*a, *a]',
                                  '[' * 5000, '{' * 5000, 'train: ' + '9' * 6000])
def test_hostile_settings(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.yml').write_text(text)
    with pytest.raises(UserError):
        config.load('config.yml')
    assert os.listdir(tmp_path) == ['config.yml']
