"""A resumed run is the run that was never stopped, bit for bit; another run's checkpoint is refused by name."""
import os
import shutil
import signal

import numpy as np
import pytest
from conftest import overrides, refused, run_script

from tests import faults
from utils import checkpoint

SETTINGS = ('render.size=64', 'model.name=resnet18', 'model.pretrained=none', 'device=cpu', 'train.iters=7',
            'train.batch_size=10', 'train.log_interval=2', 'train.warmup_iters=2')  # three iterations an epoch


def train(drawn, output, *pairs, **named):
    return run_script('train.py', *overrides(f'data.root={drawn}', f'output={output}', *SETTINGS, *pairs), **named)


def stop_after(drawn, output, iteration, *pairs):
    """Train until a signal comes in the iteration after `iteration`."""
    command = [*overrides(f'data.root={drawn}', f'output={output}', *SETTINGS, 'train.log_interval=1', *pairs)]
    run = faults.Started([faults.sys.executable, os.path.join(faults.PROJECT, 'train.py'), *command])
    run.wait_until(lambda: run.said(f'iter: {iteration}/'))
    os.kill(run.pid, signal.SIGTERM)
    assert run.end() == 143, ''.join(run.errors)
    return run


@pytest.fixture(scope='module')
def undisturbed(drawn, tmp_path_factory):
    """The output of a run that nothing disturbed."""
    output = str(tmp_path_factory.mktemp('undisturbed'))
    done = train(drawn, output, 'data.workers=1')
    assert done.returncode == 0, done.stderr
    yield output
    shutil.rmtree(output)


@pytest.fixture(scope='module')
def stopped(drawn, tmp_path_factory):
    """The output of a run that was stopped within its second epoch; tests must not change it."""
    output = str(tmp_path_factory.mktemp('stopped'))
    run = stop_after(drawn, output, 4)
    assert run.said('stopped after iteration') and run.said('the same command goes on')
    yield output
    shutil.rmtree(output)


def test_checkpoint_between_two_lines_of_the_log_can_be_read(drawn, tmp_path):
    last = str(tmp_path / 'last')
    run = faults.Started([faults.sys.executable, os.path.join(faults.PROJECT, 'train.py'), *overrides(
        f'data.root={drawn}', f'output={tmp_path}', *SETTINGS, 'train.log_interval=100', 'train.save_interval=0.0001')])
    run.wait_until(lambda: checkpoint.list_last(last))
    run.kill()
    state, notes = checkpoint.load_last(last)
    assert not notes and state['losses'] and all(type(loss) is float for loss in state['losses'])


@pytest.mark.skipif(not hasattr(os, 'killpg'), reason='signals of Unix')
@pytest.mark.parametrize('workers', [1, 3])
def test_resumed_run_equals_the_undisturbed_one(workers, drawn, undisturbed, stopped, tmp_path):
    output = str(tmp_path / 'output')
    shutil.copytree(stopped, output)
    # Intervals, workers and where things lie are free to change.
    done = train(drawn, output, f'data.workers={workers}', 'train.save_interval=0.001', 'data.cache=false')
    assert done.returncode == 0, done.stderr
    assert 'going on after iteration' in done.stdout and 'train.resume=never' in done.stdout
    found, expected = faults.what_was_learnt(output), faults.what_was_learnt(undisturbed)
    for key in ('best', 'metrics', 'iteration', 'weights', 'optimizer'):
        assert found[key] == expected[key], key
    # The log and history of the first part have a row at each iteration (train.log_interval), and none twice.
    iterations = [row.split('iter: ')[1].split('/')[0] for row in found['log'] if '[TRAIN]' in row]
    assert iterations == sorted(set(iterations), key=int)
    assert [row for row in found['log'] if '[EVAL]' in row] == [row for row in expected['log'] if '[EVAL]' in row]
    rows = open(os.path.join(output, 'history.csv')).read().splitlines()
    assert len(rows) == len(set(rows))
    # It is finished: nothing is trained, nothing changes.
    before = faults.what_was_learnt(output)
    again = train(drawn, output)
    assert again.returncode == 0 and 'this run is finished' in again.stdout and faults.what_was_learnt(output) == before


@pytest.mark.parametrize('pair, words', [
    ('train.iters=8', 'train.iters 7 there, 8 now'), ('train.batch_size=9', 'train.batch_size 10 there, 9 now'),
    ('seed=1', 'seed 2021 there, 1 now'), ('model.name=resnet34', 'model.name resnet18 there, resnet34 now'),
    ('augment.gain=0', 'augment.gain 0.2 there, 0.0 now'), ('train.best_metric=loss', 'train.best_metric f1 there, loss now')])
def test_changed_settings_are_refused_by_name(pair, words, drawn, stopped):
    before = sorted(os.listdir(stopped))
    refused(train(drawn, stopped, pair), words, 'train.resume=never')
    assert sorted(os.listdir(stopped)) == before


def test_changed_data_are_refused(drawn, stopped, tmp_path):
    root = str(tmp_path / 'root')
    shutil.copytree(drawn, root)
    with open(os.path.join(root, 'trainreference.csv')) as file:
        lines = file.read().splitlines()
    name, tag = lines[1].split(',')
    with open(os.path.join(root, 'trainreference.csv'), 'w') as file:
        file.write('\n'.join([lines[0], f'{name},{1 - int(tag)}', *lines[2:]]) + '\n')
    refused(train(root, stopped), 'data 40 records, checksum')


def test_resume_that_finds_nothing(drawn, tmp_path):
    done = run_script('train.py', '--resume', *overrides(f'data.root={drawn}', f'output={tmp_path}', *SETTINGS))
    refused(done, '--resume: there is no checkpoint')


def test_fresh_start_forgets_the_old_run(drawn, stopped, tmp_path):
    output = str(tmp_path / 'output')
    shutil.copytree(stopped, output)
    done = train(drawn, output, 'train.resume=never', 'train.iters=3')
    assert done.returncode == 0, done.stderr
    assert 'going on' not in done.stdout
    assert checkpoint.load_last(os.path.join(output, 'last'))[0]['iteration'] == 3
    assert len(os.listdir(os.path.join(output, 'last'))) == 1


def test_all_checkpoints_damaged(drawn, stopped, tmp_path):
    output = str(tmp_path / 'output')
    shutil.copytree(stopped, output)
    for path in checkpoint.list_last(os.path.join(output, 'last')):
        with open(path, 'r+b') as file:
            file.truncate(1000)
    assert len(refused(train(drawn, output), 'none of its', 'train.resume=never')) == 1


@pytest.mark.parametrize('change, words', [
    (lambda state: state['weights'].popitem(), 'is missing'),
    (lambda state: state['weights'].update({'fc.weight': np.zeros((3, 3), np.float32)}), 'has the shape'),
    (lambda state: state['weights'].update({'fc.weight': np.full((512, 2), np.nan, np.float32)}), 'NaN'),
    (lambda state: state['optimizer'].update({'conv2d_0.w_0_moment1_0': np.zeros(5, np.float32)}), 'optimizer'),
    (lambda state: state['optimizer'].update({'x_moment1_0': np.zeros(1, np.float32)}), 'optimizer')])
def test_checkpoint_that_does_not_fit(change, words, drawn, stopped, tmp_path):
    output = str(tmp_path / 'output')
    shutil.copytree(stopped, output)
    last = os.path.join(output, 'last')
    state, _ = checkpoint.load_last(last)
    change(state)
    checkpoint.save_last(last, state, state['iteration'])
    refused(train(drawn, output), words, 'last')


@pytest.mark.parametrize('rate', ['1e30', '1e6'])
def test_numbers_that_go_wrong(rate, drawn, tmp_path):
    """An absurd learning rate ends in one line or at the end, and what is saved is finite."""
    done = train(drawn, str(tmp_path), f'train.learning_rate={rate}', 'train.warmup_iters=0', 'train.optimizer=momentum',
                 'train.clip_norm=0', 'train.iters=12')
    if done.returncode:
        assert len(refused(done, 'lower train.learning_rate', 'iteration')) == 1
    for path in checkpoint.list_last(str(tmp_path / 'last')):
        state = checkpoint._read_checkpoint(path)
        assert checkpoint.first_not_finite(state['weights']) is None
    if os.path.isdir(tmp_path / 'best_model'):
        assert checkpoint.first_not_finite(checkpoint.load_best(str(tmp_path / 'best_model'))[0]) is None


# train.py, in which some batches are infinite. The loss may stay finite, for ReLU takes NaN for 0; the gradients do not.
POISONED = """
import zlib, sys
sys.path.insert(0, sys.argv.pop(1))
poisoned = [int(number) for number in sys.argv.pop(1).split(',')]
import train
from utils import errors, images

calls, unharmed = [], images.to_input
def to_input(batch):
    calls.append(1)
    return unharmed(batch) * (float('inf') if len(calls) in poisoned else 1.0)

images.to_input = to_input
errors.run(train.main)
"""


def train_poisoned(drawn, tmp_path, batches, *pairs):
    (tmp_path / 'poisoned.py').write_text(POISONED)
    return run_script(str(tmp_path / 'poisoned.py'), faults.PROJECT, batches, *overrides(
        f'data.root={drawn}', f'output={tmp_path / "output"}', *SETTINGS, *pairs))


def test_one_infinite_batch_is_skipped_and_harms_nothing(drawn, tmp_path):
    done = train_poisoned(drawn, tmp_path, '2', 'train.clip_norm=0')
    assert done.returncode == 0, done.stderr
    assert 'skipped 1 step(s)' in done.stdout and 'skipped 1 step(s)' not in done.stdout.partition('iter: 4/')[2]
    state, _ = checkpoint.load_last(str(tmp_path / 'output' / 'last'))
    assert state['skipped'] == 1 and checkpoint.first_not_finite(state['weights']) is None


@pytest.mark.parametrize('interval', [1, 4])
def test_many_infinite_batches_in_a_row_end_the_run(interval, drawn, tmp_path):
    # One epoch of seven, so that no evaluation is what finds it.
    done = train_poisoned(drawn, tmp_path, '2,3,4,5,6,7', f'train.log_interval={interval}', 'train.batch_size=5')
    lines = refused(done, 'have not been finite for', 'lower train.learning_rate')
    assert len(lines) == 1 and ('5 iterations in a row, up to iteration 6' if interval == 1 else '6 iterations') in lines[0]
