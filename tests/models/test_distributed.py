"""Two processes on the CPU, started as users start them: python -m paddle.distributed.launch."""
import os
import re
import shutil
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest

import train
from models import best_model, checkpoint, ranks
from tests.helpers import PROJECT, SMALL, overrides
from utils.running import settings
from utils.running.errors import UserError

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='the launcher has no CPU on Windows')

# train.py, in which rank 1 gets SIGTERM in iteration 2.
STOPPED = """
import zlib, os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import train
from utils.running import errors

def learning_rate(iteration, settings, compute=train.learning_rate):
    if iteration == 2 and os.environ['PADDLE_TRAINER_ID'] == '1':
        os.kill(os.getpid(), signal.SIGTERM)
    return compute(iteration, settings)

train.learning_rate = learning_rate
errors.run(train.main)
"""

# train.py, and when it is done: what two processes compute is what one computes. With equal parts
# of the batch, the gradients of a network without BatchNorm must be those of the whole batch.
CHECKED = """
import zlib, sys
import numpy as np
sys.path.insert(0, sys.argv.pop(1))
import train
from models import ranks

assert train.main() == 0
import paddle
rank, world = ranks.rank(), ranks.world()
assert world == 2
rng = np.random.default_rng(0)
pictures, labels = rng.normal(size=(8, 1, 8, 8)).astype('float32'), rng.integers(0, 2, 8)

def build():
    paddle.seed(1)
    return paddle.nn.Sequential(paddle.nn.Conv2D(1, 4, 3), paddle.nn.ReLU(), paddle.nn.Flatten(),
                                paddle.nn.Linear(144, 2))

def gradients(network, rows):
    loss = paddle.nn.functional.cross_entropy(network(paddle.to_tensor(pictures[rows])),
                                              paddle.to_tensor(labels[rows]))
    loss.backward()
    return loss

alone, shared = build(), build()
whole = gradients(alone, np.arange(8))
part = gradients(paddle.DataParallel(shared), np.arange(8)[rank::world])
assert abs(float(ranks.mean(part.detach())) - float(whole)) < 1e-6
for one, two in zip(alone.parameters(), shared.parameters()):
    assert np.abs(one.grad.numpy() - two.grad.numpy()).max() < 1e-6

assert ranks.largest(15 if rank == 1 else 0) == 15
assert ranks.agree(2**32 - 1) and not ranks.agree(rank) and not ranks.agree(-rank)
for count in (1, 2, 7, 8):
    rows = ranks.part_of(count)[:, None].astype('float32') * [1, 10]
    assert ranks.gather(rows, count).tolist() == [[i, 10 * i] for i in range(count)]

norm = paddle.nn.Sequential(paddle.nn.BatchNorm2D(3), paddle.nn.BatchNorm2D(2))
norm[1]._mean.set_value(paddle.to_tensor([1.0, 2.0]) * (rank + 1))
ranks.average_statistics(norm)
assert norm[1]._mean.numpy().tolist() == [1.5, 3.0]
assert norm[0]._variance.numpy().tolist() == [1, 1, 1]
print('all is well')
ranks.largest(0)
"""

def launch(folder, code, *pairs):
    """Run a script in two processes.

    Returns: (exit code, what rank 0 and the launcher said, what rank 1 said)
    """
    (folder / 'script.py').write_text(code)
    shutil.rmtree(folder / 'logs', ignore_errors=True)
    done = subprocess.run(
        [sys.executable, '-m', 'paddle.distributed.launch', '--nproc_per_node', '2', '--log_dir',
         folder / 'logs', folder / 'script.py', PROJECT, *overrides(*SMALL, *pairs)],
        cwd=PROJECT, text=True, capture_output=True, timeout=300,
        env={'OMP_NUM_THREADS': '1', **os.environ})
    with open(folder / 'logs' / 'workerlog.1', errors='replace') as file:
        return done.returncode, done.stdout + done.stderr, file.read()


@pytest.mark.parametrize('count', [1, 2, 7, 160])
@pytest.mark.parametrize('world', [1, 2, 3, 8])
def test_parts_are_equal_and_hold_everything(count, world, monkeypatch):
    parts = []
    for rank in range(world):
        monkeypatch.setattr(ranks, 'world', lambda: world)
        monkeypatch.setattr(ranks, 'rank', lambda: rank)
        parts.append(ranks.part_of(count))
    assert len({len(part) for part in parts}) == 1
    assert np.stack(parts, axis=1).ravel()[:count].tolist() == list(range(count))


def test_training_stops_together_and_goes_on(drawn, trained, tmp_path):
    output = str(tmp_path / 'output')
    pairs = (f'data.root={drawn}', f'output={output}', 'train.iters=5', 'train.log_interval=2',
             'train.eval_interval=5')
    code, said, _ = launch(tmp_path, STOPPED, *pairs)
    assert code != 0 and 'stopped after iteration 2' in said, said
    assert os.listdir(os.path.join(output, 'last')) == ['iter_00000002.npz']

    code, said, other = launch(tmp_path, CHECKED, *pairs)
    assert code == 0 and 'going on after iteration 2' in said, said + other
    assert 'all is well' in said and 'all is well' in other
    assert '[TRAIN]' not in other and '[EVAL]' not in other  # rank 0 alone logs and writes
    found = []
    for folder in (output, trained):
        with open(os.path.join(folder, 'train.log')) as file:
            found.append(re.findall(r'iter: (\d+)/\d+, loss: ([\d.]+), lr: ([\d.]+)', file.read()))
    two, one = found
    assert [line[::2] for line in two] == [line[::2] for line in one[:2]] and len(two) == 2
    # The same start; BatchNorm sees 4 pictures instead of 8.
    assert abs(float(two[0][1]) - float(one[0][1])) < 0.5
    names = [[line.split(',')[0] for line in open(os.path.join(
        folder, 'best_model', best_model.VALIDATION))] for folder in (output, trained)]
    assert names[0] == names[1] and len(names[0]) == 5
    assert os.path.isfile(checkpoint.list_last(os.path.join(output, 'last'))[0])


def test_processes_that_would_train_different_things_are_refused(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, 'agree', lambda _: False)
    config = settings.load(os.path.join(PROJECT, 'config.yml'),
                           [*SMALL, f'data.root={drawn}', f'output={tmp_path}'])
    with pytest.raises(UserError, match='do not have the same settings'):
        train.prepare(config, Namespace(config=None, override=[], resume=False), 'cpu', '', None, 0)
