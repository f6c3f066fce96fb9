import os
import random

import numpy as np
import pytest

from models import checkpoint
from tests.helpers import Program, same_arrays
from utils.running.errors import UserError


def keep(folder, iteration, alone=False):
    state = {'iteration': iteration, 'history': [{'loss': 0.5, 'eval_loss': None}] * iteration}
    checkpoint.save_last(str(folder), state, {'model/x': np.full(9000, iteration, 'f4')}, alone)


def test_last_keeps_two_and_falls_back(tmp_path):
    for iteration in (5, 10, 15):
        keep(tmp_path, iteration)
    assert sorted(os.listdir(tmp_path)) == ['iter_00000010.npz', 'iter_00000015.npz']
    state, arrays, notes = checkpoint.load_last(str(tmp_path))
    assert state['iteration'] == 15 and arrays['model/x'][0] == 15 and notes == []
    newest = tmp_path / 'iter_00000015.npz'
    newest.write_bytes(newest.read_bytes()[:-100])
    state, arrays, notes = checkpoint.load_last(str(tmp_path))
    assert state['iteration'] == 10 and 'iter_00000015.npz: damaged' in notes[0]
    keep(tmp_path, 12)  # the damaged one is of a future that is not this run's
    assert sorted(os.listdir(tmp_path)) == ['iter_00000010.npz', 'iter_00000012.npz']
    for iteration in (3, 20):  # another run's first takes the place of all
        keep(tmp_path, iteration, alone=True)
        assert os.listdir(tmp_path) == [f'iter_{iteration:08d}.npz']


def test_nothing_is_there(tmp_path):
    assert checkpoint.load_last(str(tmp_path / 'last')) == (None, None, [])


def test_every_damage_of_a_checkpoint_is_noticed(tmp_path):
    keep(tmp_path, 5)
    path, rng = tmp_path / 'iter_00000005.npz', random.Random(1)
    whole = path.read_bytes()
    state, arrays, _ = checkpoint.load_last(str(tmp_path))
    path.write_bytes(whole.replace(b"'<f4'", b"'<f2'"))  # fewer bytes than there are
    with pytest.raises(UserError, match='none of its checkpoints'):
        checkpoint.load_last(str(tmp_path))
    for _ in range(300):
        data = bytearray(whole)
        at = rng.randrange(len(data))
        data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data if rng.random() < 0.8 else data[:at])
        try:
            again, found, _ = checkpoint.load_last(str(tmp_path))
            assert again == state and same_arrays(found, arrays)
        except UserError as error:
            assert 'none of its checkpoints can be read' in str(error)


def test_a_checkpoint_that_would_run_code(tmp_path):
    marker = tmp_path / 'marker'
    evil = np.empty(1, dtype=object)
    evil[0] = Program(marker)
    np.savez(tmp_path / 'iter_00000005.npz', state=evil)
    with pytest.raises(UserError, match='none of its checkpoints'):
        checkpoint.load_last(str(tmp_path))
    assert not marker.exists()


def test_checkpoints_of_an_earlier_version(tmp_path):
    (tmp_path / 'iter_00000005.ckpt').write_bytes(b'ECG checkpoint 1\n')
    with pytest.raises(UserError, match='earlier version.*train.resume=never'):
        checkpoint.load_last(str(tmp_path))
