"""Damaged and hostile files: some that python -m tests.fuzz makes, and through the scripts."""
import os
import pickle
import re
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from tests.helpers import PROJECT, SMALL, Program, overrides, refused, run_script
from utils.pictures import render
from utils.running import settings
from utils.running.errors import UserError


def test_fuzz():
    # A process of its own: what crashes or hangs there does not end the tests.
    done = subprocess.run([sys.executable, '-m', 'tests.fuzz', '450', '7'], cwd=PROJECT, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert '450 inputs, 0 findings' in done.stdout
    taken = dict(re.findall(r'(\d+) (\w+) taken', done.stdout))
    assert sum(map(int, taken)) > 15  # the changes are not all too coarse


def test_weights_that_would_run_a_program(drawn, tmp_path):
    path, marker = tmp_path / 'model.pdparams', tmp_path / 'MARKER'
    path.write_bytes(pickle.dumps({'fc.bias': np.zeros(2, np.float32), 'x': Program(marker)}))
    done = run_script('train.py', *overrides(
        *SMALL, f'data.root={drawn}', f'output={tmp_path}/output', f'model.pretrained={path}'))
    refused(done, str(path), 'asks for posix.system')
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()  # it would have


def test_a_picture_that_would_unpack_to_gigabytes(tmp_path):
    body = b'IHDR' + struct.pack('>IIBBBBB', 60000, 60000, 8, 0, 0, 0, 0)
    path = tmp_path / 'big.png'
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + body
                     + struct.pack('>I', zlib.crc32(body)))
    with pytest.raises(UserError, match='big.png'):
        render.decode_png(str(path), (64, 64))
    assert render.read_stamp(str(path)) is None


@pytest.mark.parametrize('text', [
    '!!python/object/apply:os.system ["touch MARKER"]', 'a: &a [1]\nb: [*a, *a]', '[' * 5000,
    '{' * 5000, 'train: ' + '9' * 6000, 'train: {iters: 1e999}', '\0', '- 1'])
def test_settings_that_are_no_settings(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'config.yml').write_text(text)
    with pytest.raises(UserError, match='config.yml'):
        settings.load('config.yml')
    assert os.listdir(tmp_path) == ['config.yml']
