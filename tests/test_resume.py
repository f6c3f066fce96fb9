"""A resumed run is the undisturbed one, bit for bit; a run with other settings is refused."""
import os
import shutil
import signal
import sys
from argparse import Namespace

import numpy as np
import pytest
from conftest import PROJECT, overrides, refused, run_script

import train
from tests import faults
from utils import checkpoint
from utils import config as settings
from utils.errors import UserError

SMALL = ('render.size=64', 'model.name=resnet18', 'model.pretrained=none', 'device=cpu',
         'train.iters=7', 'train.batch_size=10', 'train.warmup_iters=2', 'train.log_interval=1',
         'data.workers=1')  # three iterations an epoch

pytestmark = pytest.mark.skipif(not hasattr(os, 'killpg'), reason='signals of Unix')


def command(root, output, *pairs, script='train.py'):
    return [sys.executable, os.path.join(PROJECT, script),
            *overrides(f'data.root={root}', f'output={output}', *SMALL, *pairs)]


def started(root, output, *pairs):
    return faults.Started(command(root, output, *pairs))


def finished(run):
    assert run.end() == 0, ''.join(run.errors)
    return ''.join(run.lines)


@pytest.fixture(scope='module')
def outputs(drawn, tmp_path_factory):
    """{name: output}: of a run that nothing disturbed, one that SIGTERM stopped within its second
    epoch, and one that kill -9 ended there, which has saved often; tests must not change them."""
    found = {name: str(tmp_path_factory.mktemp(name)) for name in ('whole', 'stopped', 'killed')}
    runs = {name: started(drawn, output, *(['train.save_interval=0.0001'] * (name == 'killed')))
            for name, output in found.items()}
    runs['stopped'].wait_until(lambda: runs['stopped'].said('iter: 4/'))
    os.kill(runs['stopped'].pid, signal.SIGTERM)
    runs['killed'].wait_until(lambda: runs['killed'].said('iter: 5/'))
    runs['killed'].kill()
    finished(runs['whole'])
    assert runs['stopped'].end() == 143, ''.join(runs['stopped'].errors)
    assert runs['stopped'].said('stopped after iteration') and runs['stopped'].said('go on with: ')
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
    runs = {'stopped': started(drawn, tmp_path / 'stopped', 'data.cache=false'),
            'killed': started(drawn, tmp_path / 'killed', 'data.workers=3', 'data.cache=true',
                              'train.save_interval=0.001')}
    for name, run in runs.items():
        assert f'going on after iteration {after[name]} of 7' in finished(run)
        assert faults.compare(faults.what_was_learnt(str(tmp_path / name)), expected) is None
        assert faults.left_in(str(tmp_path / name)) is None
    again = run_script('train.py', *command(drawn, tmp_path / 'killed')[2:])
    assert again.returncode == 0 and 'this run is finished (7 iterations)' in again.stdout
    assert faults.compare(faults.what_was_learnt(str(tmp_path / 'killed')), expected) is None


def test_a_finished_run_is_extended(drawn, outputs, tmp_path):
    output = str(shutil.copytree(outputs['whole'], tmp_path / 'output'))
    before = checkpoint.load_last(os.path.join(output, 'last'))[1]
    text = finished(started(drawn, output, 'train.iters=9', 'train.resume=extend'))
    assert 'going on after iteration 7 of 9' in text
    state, arrays, _ = checkpoint.load_last(os.path.join(output, 'last'))
    assert state['iteration'] == 9 and state['fingerprint']['train.iters'] == 9
    assert not np.array_equal(arrays['model/fc.weight'], before['model/fc.weight'])
    # The learning rate is that of a run of 9 iterations: at the eighth it has not reached its end.
    rates = {row['iteration']: row['learning_rate'] for row in state['progress']['history']
             if row.get('learning_rate') is not None}
    assert rates[7] == 0 < rates[8] < 0.001 and rates[9] == 0 and len(rates) == 9
    # From now on it is a run of 9.
    assert resume(output, {**state['fingerprint']}, 'train.iters=9')[0]['iteration'] == 9


# What may change in between, without the cost of a script.

def resume(output, fingerprint=None, *pairs, insist=False):
    """What train.py would go on from: fingerprint: as it is today, default: that of the pairs."""
    config = settings.load(os.path.join(PROJECT, 'config.yml'),
                           [*SMALL, f'output={output}', *pairs])
    arguments = Namespace(config=None, override=[], resume=insist)
    today = fingerprint or {**checkpoint.load_last(os.path.join(output, 'last'))[0]['fingerprint'],
                            **settings.that_matter(config)}
    return train.find_checkpoint(config, arguments, today)


def refuse(*arguments, **named):
    with pytest.raises(UserError) as caught:
        resume(*arguments, **named)
    line, = caught.value.lines
    return line


@pytest.mark.parametrize('pair, words', [
    ('train.iters=8', 'train.iters 7 there, 8 now'), ('seed=1', 'seed 2021 there, 1 now'),
    ('train.batch_size=9', 'train.batch_size 10 there, 9 now'),
    ('model.name=resnet34', 'model.name resnet18 there, resnet34 now'),
    ('augment.gain=0', 'augment.gain 0.2 there, 0.0 now')])
def test_settings_that_matter_are_refused_by_name(pair, words, outputs):
    line = refuse(outputs['stopped'], None, pair)
    assert words in line and '-o train.resume=never' in line
    extended = ('train.resume=extend', 'train.iters=9')
    if pair.startswith('train.iters'):
        assert resume(outputs['stopped'], None, *extended)[0]['iteration'] in (4, 5)
    else:
        assert words in refuse(outputs['stopped'], None, pair, *extended)


def test_settings_that_do_not_matter_may_change(outputs):
    free = ('data.workers=7', 'data.cache=false', 'train.log_interval=3', 'train.save_interval=9',
            'predict.threshold=0.3', 'predict.batch_size=2', 'predict.answer=x.csv',
            'data.source=/elsewhere', 'train.amp=true')
    assert resume(outputs['stopped'], None, *free)[0]['iteration'] in (4, 5)


def test_a_setting_that_an_older_run_did_not_know_had_its_default(outputs, tmp_path):
    state, arrays, _ = checkpoint.load_last(os.path.join(outputs['stopped'], 'last'))
    del state['fingerprint']['train.ema'], state['fingerprint']['augment.wander']
    checkpoint.save_last(str(tmp_path / 'last'), state, arrays)
    today = settings.that_matter(settings.load(os.path.join(PROJECT, 'config.yml'), SMALL))
    assert resume(str(tmp_path), today)[0]['iteration'] == state['iteration']
    assert 'train.ema 0.33 there, 0.5 now' in refuse(str(tmp_path), {**today, 'train.ema': 0.5})


def test_other_records_or_labels_are_refused(outputs):
    fingerprint = checkpoint.load_last(os.path.join(outputs['stopped'], 'last'))[0]['fingerprint']
    other = {**fingerprint, 'data': '40 records, checksum 00000000'}
    assert f'data {fingerprint["data"]} there' in refuse(outputs['stopped'], other)


def test_nothing_to_go_on_from(tmp_path):
    for insist, pair in ((True, 'seed=1'), (False, 'train.resume=extend')):
        line = refuse(str(tmp_path), {'seed': 1}, pair, insist=insist)
        assert f'{tmp_path}/last: there is no checkpoint' in line
    assert resume(str(tmp_path), {'seed': 1})[0] is None


@pytest.mark.parametrize('name, value, words', [
    ('model/fc.weight', None, 'is missing'),
    ('average/fc.weight', np.zeros((3, 3), np.float32), 'has the shape'),
    ('optimizer/conv2d_0.w_0_moment1_0', np.zeros(5, np.float32), 'optimizer'),
    ('optimizer/x_moment1_0', np.zeros(1, np.float32), 'optimizer')])
def test_a_checkpoint_that_does_not_fit_is_refused(name, value, words, drawn, outputs):
    import paddle
    from models import build_model
    from models.weights import Average, set_state
    _, arrays, _ = checkpoint.load_last(os.path.join(outputs['stopped'], 'last'))
    arrays[name] = value
    if value is None:
        del arrays[name]
    with paddle.utils.unique_name.guard():
        average = Average(build_model('resnet18', 2, 0), build_model('resnet18', 2, 1), 0.3)
        before = average.model.state_dict()['fc.weight'].numpy()
        with pytest.raises(UserError, match=words) as caught:
            set_state(average, paddle.optimizer.AdamW(parameters=average.model.parameters()),
                      paddle.amp.GradScaler(enable=False), arrays, 'output/last')
    assert 'output/last' in str(caught.value)
    if words != 'has the shape':  # of the average, which comes after the network
        assert np.array_equal(average.model.state_dict()['fc.weight'].numpy(), before)


# train.py, in which some batches are infinite.
POISONED = """
import zlib, sys
sys.path.insert(0, sys.argv.pop(1))
poisoned = [int(number) for number in sys.argv.pop(1).split(',')]
import train
from utils import errors

calls, unharmed = [], train.to_input
def to_input(batch):
    calls.append(1)
    return unharmed(batch) * (float('inf') if len(calls) in poisoned else 1.0)

train.to_input = to_input
errors.run(train.main)
"""


def train_poisoned(drawn, tmp_path, batches, *pairs):
    (tmp_path / 'poisoned.py').write_text(POISONED)
    return run_script(tmp_path / 'poisoned.py', PROJECT, batches, *overrides(
        f'data.root={drawn}', f'output={tmp_path / "output"}', *SMALL, *pairs))


def test_a_fresh_start_forgets_the_old_run_and_infinite_batches(drawn, outputs, tmp_path):
    output = str(shutil.copytree(outputs['killed'], tmp_path / 'output'))
    done = train_poisoned(drawn, tmp_path, '2,4', 'train.resume=never', 'train.iters=5')
    assert done.returncode == 0, done.stderr
    assert 'going on' not in done.stdout
    assert done.stdout.count('put back to 1 iterations before') == 2
    assert os.listdir(os.path.join(output, 'last')) == ['iter_00000005.npz']
    with open(os.path.join(output, 'train.log')) as file:
        assert file.read() == done.stdout
    state, arrays, _ = checkpoint.load_last(os.path.join(output, 'last'))
    assert state['progress']['skipped'] == 2 and state['progress']['bad'] == 0
    assert all(np.isfinite(value).all() for value in arrays.values())
    assert checkpoint.load_best(output)[2]['iteration'] in (3, 5)


def test_a_resumed_run_has_a_state_to_go_back_to(drawn, outputs, tmp_path):
    output = str(shutil.copytree(outputs['stopped'], tmp_path / 'output'))
    done = train_poisoned(drawn, tmp_path, '1')
    assert done.returncode == 0, done.stderr
    state, arrays, _ = checkpoint.load_last(os.path.join(output, 'last'))
    assert state['progress']['skipped'] == 1 and state['iteration'] == 7
    assert all(np.isfinite(value).all() for value in arrays.values())


def test_a_run_that_stays_infinite_ends_in_one_line(drawn, tmp_path):
    done = train_poisoned(drawn, tmp_path, '2,3,4,5,6', 'train.batch_size=4')
    assert len(refused(done, 'were not finite, up to iteration 6', 'train.learning_rate')) == 1
    assert not os.path.exists(tmp_path / 'output' / 'last')
