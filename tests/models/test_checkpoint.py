import os
import random

import numpy as np
import pytest

from models import checkpoint
from tests.helpers import PROJECT, Program, same_arrays
from utils.running import settings
from utils.running.errors import UserError

SETTINGS = ('model.name=resnet18', 'train.iters=7', 'train.batch_size=10')


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


# What may change between a run and its going on.

@pytest.fixture
def saved(tmp_path):
    """The output of a run that was stopped after 4 iterations; it holds no network."""
    matter = settings.that_matter(settings.load(os.path.join(PROJECT, 'config.yml'), SETTINGS))
    state = {'iteration': 4, 'fingerprint': {**matter, 'data': '40 records'},
             'progress': {'bad': 1}}  # which older runs counted
    checkpoint.save_last(str(tmp_path / 'last'), state, {'x': np.ones(1)})
    return str(tmp_path)


def resume(output, *pairs, insist=False, data='40 records'):
    """The iteration after which train.py would go on with these settings and records."""
    config = settings.load(os.path.join(PROJECT, 'config.yml'),
                           [*SETTINGS, f'output={output}', *pairs])
    state, _, _ = checkpoint.resume(config, insist, {**settings.that_matter(config), 'data': data})
    return state and state['iteration']


def refuse(*arguments, **named):
    with pytest.raises(UserError) as caught:
        resume(*arguments, **named)
    line, = caught.value.lines
    return line


@pytest.mark.parametrize('pair, words', [
    ('train.iters=8', 'train.iters 7 there, 8 now'), ('seed=1', 'seed 2021 there, 1 now'),
    ('model.name=resnet34', 'model.name resnet18 there, resnet34 now'),
    ('augment.gain=0', 'augment.gain 0.2 there, 0.0 now')])
def test_settings_that_matter_are_refused_by_name(pair, words, saved):
    line = refuse(saved, pair)
    assert words in line and '-o train.resume=never' in line
    extended = ('train.resume=extend', 'train.iters=9')
    if pair.startswith('train.iters'):
        assert resume(saved, *extended) == 4
    else:
        assert words in refuse(saved, pair, *extended)


def test_settings_that_do_not_matter_may_change_and_records_may_not(saved):
    free = ('data.workers=7', 'data.cache=false', 'train.log_interval=3', 'train.save_interval=9',
            'predict.threshold=0.3', 'predict.batch_size=2', 'predict.answer=x.csv',
            'data.source=/elsewhere', 'train.amp=true')
    assert resume(saved, *free) == 4
    assert 'data 40 records there, 41 records now' in refuse(saved, data='41 records')


def test_a_setting_that_an_older_run_did_not_know_had_its_default(saved):
    state, arrays, _ = checkpoint.load_last(os.path.join(saved, 'last'))
    del state['fingerprint']['train.ema'], state['fingerprint']['augment.wander']
    checkpoint.save_last(os.path.join(saved, 'last'), state, arrays)
    assert resume(saved) == 4
    assert 'train.ema 0.33 there, 0.5 now' in refuse(saved, 'train.ema=0.5')


def test_a_setting_that_is_gone_must_have_been_what_is_done_now(saved):
    state, arrays, _ = checkpoint.load_last(os.path.join(saved, 'last'))
    for rate in (1.0, 0.1):
        state['fingerprint']['train.backbone_rate'] = rate
        checkpoint.save_last(os.path.join(saved, 'last'), state, arrays)
        if rate == 1.0:
            assert resume(saved) == 4
    assert 'train.backbone_rate 0.1 there, 1.0 now' in refuse(saved)


def test_nothing_to_go_on_from(tmp_path):
    for insist, pair in ((True, 'seed=1'), (False, 'train.resume=extend')):
        line = refuse(str(tmp_path), pair, insist=insist)
        assert f'{tmp_path}/last: there is no checkpoint' in line
    assert resume(str(tmp_path)) is None
