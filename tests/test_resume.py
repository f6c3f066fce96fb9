"""A resumed run is the undisturbed one, bit for bit; a run with other settings is refused."""
import os
import re
import shlex
import shutil
import signal
import sys
from argparse import Namespace

import numpy as np
import pytest

import train
from models import checkpoint
from tests import faults
from tests.helpers import PROJECT, overrides
from utils.running import errors
from utils.running.errors import UserError

SMALL = ('render.size=64', 'render.beats=false', 'model.name=resnet18', 'model.pretrained=none',
         'device=cpu', 'train.iters=7', 'train.batch_size=10', 'train.warmup_iters=2',
         'train.log_interval=1', 'train.eval_interval=4', 'data.workers=1')  # 3 an epoch

pytestmark = pytest.mark.skipif(not hasattr(os, 'killpg'), reason='signals of Unix')


def command(root, output, *pairs):
    return [sys.executable, os.path.join(PROJECT, 'train.py'),
            *overrides(f'data.root={root}', f'output={output}', *SMALL, *pairs)]


def finished(run):
    assert run.end() == 0, run.stderr
    return run.said


@pytest.fixture(scope='module')
def outputs(drawn, tmp_path_factory):
    """{name: output}: of a run that nothing disturbed, one that SIGTERM stopped within its second
    epoch, and one that kill -9 ended there, which has saved often; tests must not change them."""
    found = {name: str(tmp_path_factory.mktemp(name)) for name in ('whole', 'stopped', 'killed')}
    whole, stopped = (faults.Started(command(drawn, found[name]), found[name])
                      for name in ('whole', 'stopped'))
    stopped.wait_for('iter: 4/')
    os.kill(stopped.pid, signal.SIGTERM)
    killed = faults.Started(command(drawn, found['killed'], 'train.save_interval=0.0001'),
                            found['killed'])
    killed.wait_for('iter: 4/')
    killed.kill()
    finished(whole)
    assert stopped.end() == 143, stopped.stderr
    assert 'stopped after iteration' in stopped.said and 'go on with: ' in stopped.said
    yield found
    for output in found.values():
        shutil.rmtree(output)


def test_resumed_runs_equal_the_undisturbed_one(drawn, outputs, tmp_path):
    expected, after = faults.what_was_learnt(outputs['whole']), {}
    for name in ('stopped', 'killed'):
        shutil.copytree(outputs[name], tmp_path / name)
        newest = checkpoint.list_last(os.path.join(outputs[name], 'last'))[0]
        after[name] = int(newest[-12:-4])
        assert 0 < after[name] < 7
    # How it is read, how often it is saved and where it lies is free to change.
    free = {'stopped': ['data.cache=false'],
            'killed': ['data.workers=3', 'data.cache=true', 'train.save_interval=0.001']}
    runs = {name: faults.Started(command(drawn, tmp_path / name, *pairs), tmp_path)
            for name, pairs in free.items()}
    for name, run in runs.items():
        assert f'going on after iteration {after[name]} of 7' in finished(run)
        assert faults.compare(faults.what_was_learnt(str(tmp_path / name)), expected) is None
        assert faults.left_in(str(tmp_path / name)) is None


@pytest.fixture
def train_here(drawn, monkeypatch):
    """train.py in this process, which has Paddle already: function(output, *pairs)."""
    monkeypatch.setattr(errors, 'handle_signals', lambda: None)  # pytest's own stay
    monkeypatch.setattr(train, 'StopRequest', lambda: Namespace(signum=0))

    def run(output, *pairs):
        monkeypatch.setattr('sys.argv', command(drawn, output, *pairs)[1:])
        train.main()
        return checkpoint.load_last(os.path.join(output, 'last'))
    return run


def test_a_finished_run_is_extended_as_it_says(train_here, outputs, tmp_path, capsys, monkeypatch):
    output = str(shutil.copytree(outputs['whole'], tmp_path / 'output'))
    (tmp_path / 'output/history.csv').unlink()  # as a kill right after the last save leaves it
    _, before, _ = train_here(output)
    written = (tmp_path / 'output/history.csv').read_bytes()
    with open(os.path.join(outputs['whole'], 'history.csv'), 'rb') as file:
        assert written == file.read()
    said = capsys.readouterr().out
    assert 'this run is finished (7 iterations)' in said and '[TRAIN]' not in said
    longer = re.search('longer: python (.*); anew', said)[1]
    monkeypatch.setattr('sys.argv', shlex.split(longer.replace('iters=14', 'iters=9')))
    train.main()
    assert 'going on after iteration 7 of 9' in capsys.readouterr().out
    state, arrays, _ = checkpoint.load_last(os.path.join(output, 'last'))
    assert state['iteration'] == 9 and state['fingerprint']['train.iters'] == 9
    assert not np.array_equal(arrays['model/fc.weight'], before['model/fc.weight'])
    # The learning rate is that of a run of 9 iterations: at the eighth it has not reached its end.
    rates = {row['iteration']: row['learning_rate'] for row in state['progress']['history']
             if row.get('learning_rate') is not None}
    assert rates[7] == 0 < rates[8] < 0.001 and rates[9] == 0 and len(rates) == 9


def test_epochs_are_counted_and_extended(train_here, tmp_path, capsys, monkeypatch):
    short = 'train.epochs=1', 'train.warmup_iters=1'
    state, _, _ = train_here(str(tmp_path), *short)  # 36 of 40 records train, in batches of 10
    assert state['iteration'] == 3 and state['fingerprint']['train.epochs'] == 1
    capsys.readouterr()
    train_here(str(tmp_path), *short)
    said = capsys.readouterr().out
    longer = re.search('longer: python (.*); anew', said)[1]
    assert 'train.epochs=2' in longer
    monkeypatch.setattr('sys.argv', shlex.split(longer))
    train.main()
    assert checkpoint.load_last(str(tmp_path / 'last'))[0]['iteration'] == 6


def test_a_fresh_start_forgets_the_old_run(train_here, outputs, tmp_path, capsys):
    output = str(shutil.copytree(outputs['killed'], tmp_path / 'output'))
    train_here(output, 'train.resume=never', 'train.iters=5')
    said = capsys.readouterr().out
    assert 'going on' not in said
    assert os.listdir(os.path.join(output, 'last')) == ['iter_00000005.npz']
    with open(os.path.join(output, 'train.log')) as file:
        assert file.read() == said


def test_numbers_that_are_not_finite_end_the_run_and_what_was_saved_stays(train_here, tmp_path,
                                                                         monkeypatch):
    batches, unharmed = [], train.to_input

    def poisoned(pixels):
        batches.append(pixels)
        return unharmed(pixels) * (float('nan') if len(batches) == 4 else 1.0)

    monkeypatch.setattr(train, 'to_input', poisoned)
    output = str(tmp_path / 'output')
    with pytest.raises(UserError, match='not finite, up to iteration 4.*lower train.learning_rate'):
        train_here(output, 'train.save_interval=0.0001')
    state, arrays, _ = checkpoint.load_last(os.path.join(output, 'last'))
    assert state['iteration'] == 3
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert train_here(output)[0]['iteration'] == 7  # the fifth batch and so on are not poisoned


@pytest.fixture
def mixed_precision(monkeypatch):
    """GradScaler at work on a CPU, where Paddle would turn it off."""
    from paddle.amp import grad_scaler
    device = Namespace(_expected_place=Namespace(is_gpu_place=lambda: True))
    monkeypatch.setattr(grad_scaler, '_dygraph_tracer', lambda: device)
    monkeypatch.setattr(train.devices, 'choose_precision', lambda *_: (True, 'forced'))


def overflow(monkeypatch, *iterations):
    """Let the loss be infinite in these iterations of the runs to come, counted over all."""
    count, unharmed = [], train.compute_loss

    def infinite(logits, *others):
        count.append(1)
        return unharmed(logits, *others) * (float('inf') if len(count) in iterations else 1.0)

    monkeypatch.setattr(train, 'compute_loss', infinite)


def test_mixed_precision_survives_overflows_and_keeps_its_scale(train_here, mixed_precision,
                                                               tmp_path, capsys, monkeypatch):
    overflow(monkeypatch, 2, 4)
    short = ('train.eval_interval=100', 'train.save_interval=0.0001')
    state, arrays, _ = train_here(str(tmp_path), 'train.iters=5', *short)
    said = capsys.readouterr().out
    for iteration, scale in ((2, 32768), (4, 16384)):
        assert f'overflowed in iteration {iteration}, which is skipped; the loss scale is ' \
            f'{scale} now' in said
    assert 'Found inf' not in said and 'iter: 5/5' in said
    assert state['progress']['skipped'] == 2 and arrays['scaler/scale'] == 16384
    assert arrays['scaler/incr_count'] == 1
    steps = [value for key, value in arrays.items() if key.endswith('beta1_pow_acc_0')]
    assert np.allclose(steps, 0.9 ** 4)  # three steps were taken; it begins at the first power

    arrays['scaler/decr_every_n_nan_or_inf'] = np.array(1)  # as an older run saved it
    checkpoint.save_last(str(tmp_path / 'last'), state, arrays)
    overflow(monkeypatch, 1)
    _, arrays, _ = train_here(str(tmp_path), 'train.iters=6', 'train.resume=extend', *short)
    assert 'the loss scale is 8192 now' in capsys.readouterr().out
    assert arrays['scaler/scale'] == 8192


def test_mixed_precision_that_always_overflows_ends_the_run(train_here, mixed_precision, tmp_path,
                                                            monkeypatch):
    overflow(monkeypatch, *range(100))
    with pytest.raises(UserError, match='the gradients were not finite, up to iteration 17'):
        train_here(str(tmp_path), 'train.iters=30', 'train.eval_interval=100')
