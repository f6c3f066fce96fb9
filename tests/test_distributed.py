"""Two processes on the CPU, started as users start them: python -m paddle.distributed.launch."""
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import PROJECT, SMALL, overrides

from utils import ranks

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='paddle.distributed.launch starts no CPU processes on Windows')

# SGD on a network without BatchNorm: with equal parts of the batch, two processes must make the step of one.
PARTS = """
import zlib, sys
import numpy as np
import paddle
sys.path.insert(0, sys.argv[1])
from utils import ranks

def build():
    paddle.seed(1)
    return paddle.nn.Sequential(paddle.nn.Conv2D(1, 4, 3), paddle.nn.ReLU(), paddle.nn.Flatten(),
                                paddle.nn.Linear(144, 2))

def gradients(network, rows):
    loss = paddle.nn.functional.cross_entropy(network(paddle.to_tensor(pictures[rows])), paddle.to_tensor(labels[rows]))
    loss.backward()
    return loss

paddle.set_device('cpu')
paddle.distributed.init_parallel_env()
rank, world = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
rng = np.random.default_rng(0)
pictures, labels = rng.normal(size=(8, 1, 8, 8)).astype('float32'), rng.integers(0, 2, 8)

alone, shared = build(), build()
whole = gradients(alone, np.arange(8))
part = gradients(paddle.DataParallel(shared), np.arange(8)[rank::world])
assert abs(float(ranks.mean(part.detach())) - float(whole)) < 1e-6
for one, two in zip(alone.parameters(), shared.parameters()):
    assert np.abs(one.grad.numpy() - two.grad.numpy()).max() < 1e-6

assert ranks.largest(15 if rank == 1 else 0) == 15
assert ranks.agree(2**32 - 1) and not ranks.agree(rank) and not ranks.agree(-rank)
for count in (1, 2, 7, 8):
    rows = ranks.part_of(count, rank, world)[:, None].astype('float32') * [1, 10]
    assert ranks.gather(rows, count).tolist() == [[i, 10 * i] for i in range(count)]

norm = paddle.nn.Sequential(paddle.nn.BatchNorm2D(3), paddle.nn.BatchNorm2D(2))
norm[1]._mean.set_value(paddle.to_tensor([1.0, 2.0]) * (rank + 1))
ranks.average_statistics(norm)
assert norm[1]._mean.numpy().tolist() == [1.5, 3.0] and norm[0]._variance.numpy().tolist() == [1, 1, 1]
print('all is well')
"""

# train.py, in which rank 1 gets SIGTERM in iteration 4.
STOPPED = """
import zlib, os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import train
from utils import errors

def learning_rate(iteration, settings, compute=train.learning_rate):
    if iteration == 4 and os.environ['PADDLE_TRAINER_ID'] == '1':
        os.kill(os.getpid(), signal.SIGTERM)
    return compute(iteration, settings)

train.learning_rate = learning_rate
errors.run(train.main)
"""


# train.py, in which rank 1 has another seed, as a machine with an old config.yml would.
UNEQUAL = """
import zlib, os, sys
sys.path.insert(0, sys.argv.pop(1))
import train
from utils import errors
sys.argv += ['-o', f'seed={os.environ["PADDLE_TRAINER_ID"]}']
errors.run(train.main)
"""


def launch(folder, script, *arguments):
    """Run a script in two processes.

    Returns: (exit code, what rank 0 and the launcher said, what rank 1 said)
    """
    logs = os.path.join(folder, 'logs')
    shutil.rmtree(logs, ignore_errors=True)
    result = subprocess.run([sys.executable, '-m', 'paddle.distributed.launch', '--nproc_per_node', '2',
                             '--log_dir', logs, script, *arguments], cwd=PROJECT, text=True, capture_output=True, timeout=300)
    with open(os.path.join(logs, 'workerlog.1'), errors='replace') as file:
        return result.returncode, result.stdout + result.stderr, file.read()


def read_log(output):
    with open(os.path.join(output, 'train.log')) as file:
        return file.read()


@pytest.mark.parametrize('count', [1, 2, 7, 160])
@pytest.mark.parametrize('world', [1, 2, 3, 8])
def test_parts_are_equal_and_hold_everything(count, world):
    parts = [ranks.part_of(count, rank, world) for rank in range(world)]
    assert len({len(part) for part in parts}) == 1
    assert np.stack(parts, axis=1).ravel()[:count].tolist() == list(range(count))


def test_gradients_and_results_are_those_of_one_process(tmp_path):
    (tmp_path / 'parts.py').write_text(PARTS)
    code, said, other = launch(str(tmp_path), str(tmp_path / 'parts.py'), PROJECT)
    assert code == 0 and 'all is well' in other, said + other


def test_training_stops_together_and_goes_on(drawn, trained, tmp_path):
    output = str(tmp_path / 'output')
    settings = overrides(f'data.root={drawn}', f'output={output}', 'train.iters=10', 'train.log_interval=2', *SMALL)
    (tmp_path / 'stopped.py').write_text(STOPPED)
    code, said, _ = launch(str(tmp_path), str(tmp_path / 'stopped.py'), PROJECT, *settings)
    assert code != 0 and 'stopped after iteration 4' in said, said
    assert os.listdir(os.path.join(output, 'last')) == ['iter_00000004.ckpt']

    code, said, other = launch(str(tmp_path), 'train.py', *settings)
    assert code == 0 and 'going on after iteration 4' in said, said
    assert '[TRAIN]' not in other and '[EVAL]' not in other  # rank 0 alone logs and writes
    two, one = read_log(output), read_log(trained)
    assert re.findall(r'iter: (\d+)/10, loss: .*?, lr: ([\d.]+)', two) == \
        re.findall(r'iter: (\d+)/10, loss: .*?, lr: ([\d.]+)', one)
    losses = [[float(loss) for loss in re.findall(r'\[TRAIN\].*?loss: ([\d.]+)', log)] for log in (two, one)]
    assert abs(losses[0][0] - losses[1][0]) < 0.5  # the same start; BatchNorm sees 4 pictures instead of 8
    with open(os.path.join(output, 'best_model', 'metrics.json')) as file, \
            open(os.path.join(trained, 'best_model', 'metrics.json')) as theirs:
        assert json.load(file)['validation_records'] == json.load(theirs)['validation_records']


def test_processes_that_would_train_different_things_are_refused(drawn, tmp_path):
    (tmp_path / 'unequal.py').write_text(UNEQUAL)
    code, said, other = launch(str(tmp_path), str(tmp_path / 'unequal.py'), PROJECT, *overrides(
        f'data.root={drawn}', f'output={tmp_path / "output"}', 'train.iters=10', *SMALL))
    assert code != 0 and 'error: the 2 processes do not have the same settings' in said + other, said + other
    assert '[TRAIN]' not in said and 'Traceback' not in said + other
