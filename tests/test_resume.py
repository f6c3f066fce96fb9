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
from utils.running import errors, settings
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
    _, before, _ = train_here(output)
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


# What may change in between, without the cost of a script.

@pytest.fixture
def saved(tmp_path):
    """The output of a run that was stopped after 4 iterations; it holds no network."""
    matter = settings.that_matter(settings.load(os.path.join(PROJECT, 'config.yml'), SMALL))
    state = {'iteration': 4, 'fingerprint': {**matter, 'data': '40 records'},
             'progress': {'bad': 1}}  # which older runs counted
    checkpoint.save_last(str(tmp_path / 'last'), state, {'x': np.ones(1)})
    return str(tmp_path)


def resume(output, *pairs, insist=False, data='40 records'):
    """The iteration after which train.py would go on with these settings and records."""
    config = settings.load(os.path.join(PROJECT, 'config.yml'),
                           [*SMALL, f'output={output}', *pairs])
    arguments = Namespace(config=None, override=[], resume=insist)
    state, _, _ = train.find_checkpoint(config, arguments,
                                        {**settings.that_matter(config), 'data': data})
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
