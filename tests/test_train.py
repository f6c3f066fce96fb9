import csv
import json
import math
import os
import re
import shutil
import struct

import numpy as np
import pytest
from conftest import SMALL, overrides, refused, run_script

import train
from utils import checkpoint, inference, metrics, optimizers, plots, progress, tasks
from utils import config as settings
from utils.config import Config, Render, Train
from utils.errors import UserError
from utils.render import encode_png, settings_of

ONE, TWO = tasks.TASKS[1], tasks.TASKS[2]
STAMP = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\]\t'
TRAIN_LINE = re.compile(STAMP + r'\[TRAIN\] epoch: (\d+), iter: (\d+)/(\d+), loss: (\d+\.\d{4}), lr: (\d\.\d{10}), '
                        r'batch_cost: (\d+\.\d{4}), reader_cost: (\d+\.\d{5}), ips: (\d+\.\d{4}) samples/sec \| '
                        r'ETA (\d\d:\d\d:\d\d)')
EVAL_LINE = re.compile(STAMP + r'\[EVAL\] epoch: (\d+) avg accuracy: ([01]\.\d{4}), f1: ([01]\.\d{4}), '
                       r'auc: (?:[01]\.\d{4}|nan), loss: (\d+\.\d{4})')


def run_train(root, output, *pairs, **options):
    return run_script('train.py', *overrides(*SMALL, f'data.root={root}', f'output={output}', *pairs), **options)


def log_lines(output):
    with open(os.path.join(output, 'train.log'), encoding='utf-8', newline='') as file:
        return file.read().splitlines()


def history(output):
    with open(os.path.join(output, 'history.csv'), newline='') as file:
        return list(csv.DictReader(file))


def png_size(*path):
    with open(os.path.join(*path), 'rb') as file:
        return struct.unpack('>II', file.read(24)[16:])


# The competition's number of records, at a tenth of its size.

@pytest.fixture(scope='module')
def competition_size(tmp_path_factory):
    """(data.root, output, CompletedProcess): 1,600 pictures, and a run over one epoch of them and a little."""
    root, output = tmp_path_factory.mktemp('1600'), tmp_path_factory.mktemp('output')
    os.makedirs(root / 'train')
    rng = np.random.default_rng(0)
    drawn_with = settings_of(Render(size=32))
    for i in range(1600):
        picture = rng.integers(200, 256, (32, 32), dtype=np.uint8)
        (root / 'train' / f'TRAIN{i + 1:04d}.png').write_bytes(encode_png(picture, {**drawn_with, 'record': i}))
    (root / 'trainreference.csv').write_text('name,tag\n' + ''.join(f'TRAIN{i + 1:04d},{i % 2}\n' for i in range(1600)))
    result = run_train(root, output, 'render.size=32', 'train.iters=50', 'train.batch_size=32', 'predict.batch_size=160')
    assert result.returncode == 0, result.stderr
    return str(root), str(output), result


def test_learning_rates_and_epochs_are_the_originals(competition_size):
    _, output, _ = competition_size
    lines = [TRAIN_LINE.fullmatch(line).groups() for line in log_lines(output) if '[TRAIN]' in line]
    assert [line[:3] for line in lines] == [('1', '10', '50'), ('1', '20', '50'), ('1', '30', '50'), ('1', '40', '50'),
                                            ('2', '50', '50')]
    assert [line[4] for line in lines] == ['0.0000450000', '0.0000950000', '0.0001450000', '0.0001950000', '0.0002450000']
    assert any('1440 records train, 160 validate; 45 iterations an epoch' in line for line in log_lines(output))
    assert [line[0] for line in map(EVAL_LINE.fullmatch, log_lines(output)) if line for line in [line.groups()]] == ['1', '2']


def test_costs_are_true(competition_size):
    _, output, _ = competition_size
    for line in log_lines(output):
        found = TRAIN_LINE.fullmatch(line)
        if found:
            iteration, cost, reading, rate = int(found[2]), float(found[6]), float(found[7]), float(found[8])
            assert 0 <= reading <= cost and rate == pytest.approx(32 / cost, rel=0.01)
            hours, minutes, seconds = map(int, found[9].split(':'))
            assert hours * 3600 + minutes * 60 + seconds == pytest.approx((50 - iteration) * cost, abs=1)


def test_what_a_run_says(competition_size):
    _, output, result = competition_size
    lines = log_lines(output)
    assert result.stdout.splitlines() == lines  # the screen and the file say the same
    assert re.fullmatch(STAMP + r'Python [\d.]+, Paddle [\d.]+, (no CUDA|CUDA .+), CPU with \d+ thread\(s\) of \d+ core\(s\) '
                        r'\(device: cpu was asked for\)', lines[0])
    assert re.fullmatch(STAMP + r'settings that differ from the defaults: device=cpu, .*train\.iters=50.*', lines[1])
    text = '\n'.join(lines)
    for word in ('random start: model.pretrained is none', 'mixed precision off', 'reading thread(s), no shared memory',
                 'on this CPU the run will take about', '-o train.iters=N', '-o render.size=224',
                 f'next: python predict.py', 'finished; best f1'):
        assert word in text
    assert lines.index(next(line for line in lines if 'on this CPU' in line)) < lines.index(
        next(line for line in lines if '[TRAIN]' in line))
    assert 'Traceback' not in result.stderr


def test_history(competition_size):
    _, output, _ = competition_size
    rows = history(output)
    assert list(rows[0]) == ['iteration', 'epoch', 'learning_rate', 'train_loss', 'eval_loss', 'accuracy', 'f1', 'auc']
    assert [int(row['iteration']) for row in rows] == [10, 20, 30, 40, 45, 50, 50]
    assert [bool(row['train_loss']) for row in rows] == [True] * 4 + [False, True, False]
    logged = [TRAIN_LINE.fullmatch(line)[4] for line in log_lines(output) if '[TRAIN]' in line]
    assert [f'{float(row["train_loss"]):.4f}' for row in rows if row['train_loss']] == logged
    scores = [EVAL_LINE.fullmatch(line) for line in log_lines(output)]
    assert [(f'{float(row["accuracy"]):.4f}', f'{float(row["f1"]):.4f}', f'{float(row["eval_loss"]):.4f}')
            for row in rows if row['eval_loss']] == [(s[2], s[3], s[4]) for s in scores if s]
    assert float(rows[0]['learning_rate']) == 0.001 * 9 / 200


def test_pictures_are_drawn(competition_size):
    _, output, _ = competition_size
    for name in ('curves.png', 'validation.png'):
        width, height = png_size(output, name)
        assert width >= 900 and height >= 500


def test_best_model(competition_size):
    root, output, _ = competition_size
    folder = os.path.join(output, 'best_model')
    with open(os.path.join(folder, 'metrics.json')) as file:
        kept = json.load(file)
    assert kept['threshold'] == 0.5 and kept['epoch'] in (1, 2) and kept['iteration'] == {1: 45, 2: 50}[kept['epoch']]
    assert set(kept['validation']) == {'accuracy', 'f1', 'auc', 'loss'}
    best = max((row for row in history(output) if row['f1']), key=lambda row: float(row['f1']))
    assert int(best['epoch']) == kept['epoch'] and float(best['f1']) == kept['validation']['f1']
    assert len(kept['validation_records']) == 160 and kept['validation_records'] == sorted(kept['validation_records'])
    assert sum(int(name[5:]) % 2 == 0 for name in kept['validation_records']) == 80  # half of them abnormal
    config = settings.load(os.path.join(folder, 'config.yml'))
    assert config.render.size == 32 and config.train.iters == 50 and config.data.root == root


def test_paddle_reads_the_weights(trained):
    import paddle
    folder = os.path.join(trained, 'best_model')
    weights = checkpoint.load_best(folder)[0]
    model = paddle.vision.models.resnet18(num_classes=2)
    missing, unexpected = model.set_state_dict(paddle.load(os.path.join(folder, 'model.pdparams')))
    assert missing == [] and unexpected == []
    there = checkpoint.weights_of(model)
    assert set(there) == set(weights)
    assert all(np.array_equal(value, there[key]) for key, value in weights.items())


def test_all_settings_in_one_run(drawn, tmp_path):
    result = run_train(drawn, tmp_path, 'train.iters=6', 'train.log_interval=1', 'train.warmup_iters=2',
                       'train.optimizer=momentum', 'train.learning_rate=0.01', 'train.weight_decay=0.0001',
                       'train.decay=polynomial', 'train.end_learning_rate=0.001', 'train.label_smoothing=0.1',
                       'train.class_weights=balanced', 'train.amp=true', 'train.clip_norm=0', 'train.best_metric=auc',
                       'data.workers=3', 'data.cache=false', 'device=auto', env={'CUDA_VISIBLE_DEVICES': ''})
    assert result.returncode == 0, result.stderr
    lines = log_lines(tmp_path)
    rates = [TRAIN_LINE.fullmatch(line)[5] for line in lines if '[TRAIN]' in line]
    assert rates == ['0.0000000000', '0.0050000000', '0.0100000000', '0.0070000000', '0.0040000000', '0.0010000000']
    text = '\n'.join(lines)
    for word in ('mixed precision on', 'best auc', '3 reading thread(s)', 'read anew in each epoch', 'Paddle finds no GPU'
                 if 'Paddle finds no GPU' in text else 'this Paddle is the CPU build'):
        assert word in text
    assert 'Traceback' not in result.stderr


# The labels, through the real script.

def with_labels(drawn, tmp_path, data):
    root = shutil.copytree(drawn, tmp_path / 'root')
    (root / 'trainreference.csv').write_bytes(data)
    return root


def test_every_wrong_label_is_named_before_anything_is_trained(drawn, tmp_path):
    with open(os.path.join(drawn, 'trainreference.csv')) as file:
        rows = file.read().splitlines()
    rows[1], rows[5], rows[6] = 'TRAIN0001,2', 'TRAIN0004,1', 'EXTRA.mat,0'  # twice 4, no 5 and 6
    rows[9] = ''
    root = with_labels(drawn, tmp_path, '\n'.join(rows).encode())
    result = run_train(root, tmp_path / 'output', 'train.iters=2')
    assert len(refused(result)) == 4
    refused(result, 'trainreference.csv, line 2: ', "tag '2'", 'expected 0 (normal) or 1 (abnormal)')
    refused(result, 'trainreference.csv, line 6: ', 'TRAIN0004 stood in line 5 already')
    refused(result, 'trainreference.csv, line 7: ', 'there is no picture of the record EXTRA')
    refused(result, 'trainreference.csv: no label for 4 of 40 records: TRAIN0001, TRAIN0005, TRAIN0006, TRAIN0009')
    assert not os.path.exists(tmp_path / 'output' / 'best_model') and '[TRAIN]' not in result.stdout


def test_harmless_labels_train(drawn, trained, tmp_path):
    with open(os.path.join(drawn, 'trainreference.csv')) as file:
        rows = [row.replace(',', '.mat; ') for row in file.read().splitlines()[1:]]
    root = with_labels(drawn, tmp_path, '\r\n\r\n'.join(['name;tag', *reversed(rows), '']).encode('utf-16'))
    result = run_train(root, tmp_path / 'output', 'train.iters=2', 'train.log_interval=2')
    assert result.returncode == 0, result.stderr
    assert '36 records train, 4 validate; 4 iterations an epoch' in result.stdout
    loss = [TRAIN_LINE.fullmatch(line)[4] for lines in (log_lines(tmp_path / 'output'), log_lines(trained))
            for line in lines if 'iter: 2/' in line]
    assert loss[0] == loss[1]  # the same records with the same labels in the same order


def test_labels_that_are_not_there(drawn, tmp_path):
    root = with_labels(drawn, tmp_path, b'')
    os.remove(root / 'trainreference.csv')
    refused(run_train(root, tmp_path / 'output'), 'trainreference.csv: no such file; expected the labels')


# Checks before training, without the cost of a script.

def load(root, *pairs):
    config = settings.load('config.yml', [*SMALL, f'data.root={root}', *pairs])
    return train.load_data(config, tasks.TASKS[config.task], 0, 1)


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(os.path.dirname(os.path.abspath(train.__file__)))


def refuse(root, *pairs):
    with pytest.raises(UserError) as caught:
        load(root, *pairs)
    line, = caught.value.lines
    return line


def test_all_records_of_one_class(drawn, tmp_path):
    root = with_labels(drawn, tmp_path, ('name,tag\n' + ''.join(f'TRAIN{i + 1:04d},1\n' for i in range(40))).encode())
    assert 'all 40 tags are 1, expected some 0 (normal) and some 1 (abnormal)' in refuse(root)


def test_batch_larger_than_the_records(drawn):
    assert 'train.batch_size is 37, with 36 training records' in refuse(drawn, 'train.batch_size=37')


def test_pictures_with_other_settings(drawn):
    line = refuse(drawn, 'render.size=96')
    assert 'TRAIN0001.png: drawn with other settings: size 64 (expected 96); redraw it with: python process.py' in line


def test_no_pictures(tmp_path):
    assert f'{tmp_path}/train: no pictures; draw them with: python process.py' in refuse(tmp_path)


def test_what_is_loaded(drawn):
    data = load(drawn)
    assert len(data.train_targets) == len(data.train_pictures) == 36 and data.epoch_iters == 4
    assert data.val_targets.tolist().count(1) == 2
    for paths, targets in ((data.train_pictures.paths, data.train_targets), (data.val_pictures.paths, data.val_targets)):
        assert [(int(path[-8:-4]) + 1) % 2 for path in paths] == targets.tolist()  # each picture with its own label
    assert data.train_pictures.augmentation and not data.val_pictures.augmentation
    assert not set(data.train_pictures.paths) & set(data.val_pictures.paths)
    assert data.fingerprint['data'] == load(drawn).fingerprint['data']


def test_no_record_twice_in_an_epoch():
    config = Config(train=Train(iters=10, batch_size=8))
    batches = []
    for iteration in (0, 2):  # an epoch that starts anew, and the rest of it after a resume
        epoch, rest = train.rest_of_epoch(iteration, 4, 36, config, 0, 1)
        assert epoch == 0 and len(rest) == 4 - iteration
        batches.append(rest)
    assert all(np.array_equal(a, b) for a, b in zip(batches[0][2:], batches[1]))
    assert len(set(np.concatenate(batches[0]))) == 32
    epoch, rest = train.rest_of_epoch(8, 4, 36, config, 0, 1)
    assert epoch == 2 and len(rest) == 2  # the run ends within the third epoch
    halves = [train.rest_of_epoch(0, 4, 36, config, rank, 2)[1][0] for rank in (0, 1)]
    assert sorted(np.concatenate(halves)) == sorted(batches[0][0])


# Loss, class weights, optimizer.

LOGITS = np.array([[2.0, -1.0], [0.5, 0.5], [-1.0, 3.0], [0.0, 1.0]], np.float32)
TARGETS = np.array([0, 1, 1, 0])


def log_softmax(logits):
    logits = logits.astype(np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss_of(logits, targets, weights=None, smoothing=0.0, task=ONE):
    import paddle
    return float(inference.compute_loss(paddle.to_tensor(logits), targets, weights, smoothing, task))


def test_cross_entropy_by_hand():
    per_record = -log_softmax(LOGITS)[np.arange(4), TARGETS]
    assert loss_of(LOGITS, TARGETS) == pytest.approx(per_record.mean(), rel=1e-6)
    assert loss_of(np.zeros((3, 2), np.float32), np.array([0, 1, 1])) == pytest.approx(math.log(2))
    weights = np.array([0.5, 2.0], np.float32)
    expected = (per_record * weights[TARGETS]).sum() / weights[TARGETS].sum()
    assert loss_of(LOGITS, TARGETS, weights) == pytest.approx(expected, rel=1e-6)
    right, wrong = per_record, -log_softmax(LOGITS)[np.arange(4), 1 - TARGETS]
    assert loss_of(LOGITS, TARGETS, smoothing=0.1) == pytest.approx((0.95 * right + 0.05 * wrong).mean(), rel=1e-6)


def test_loss_is_paddles_own():
    import paddle
    import paddle.nn.functional as F
    weights = np.array([0.7, 1.6], np.float32)
    theirs = F.cross_entropy(paddle.to_tensor(LOGITS), paddle.to_tensor(TARGETS), weight=paddle.to_tensor(weights))
    assert loss_of(LOGITS, TARGETS, weights) == pytest.approx(float(theirs), rel=1e-6)


def test_binary_cross_entropy_by_hand():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(5, 12)).astype(np.float32), (rng.random((5, 12)) < 0.3).astype(np.float32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    for smoothing, weights in ((0.0, np.ones(12)), (0.2, np.linspace(1, 5, 12))):
        soft = targets * (1 - smoothing) + smoothing / 2
        expected = -(weights * soft * np.log(p) + (1 - soft) * np.log(1 - p)).mean()
        assert loss_of(logits, targets, weights.astype(np.float32), smoothing, TWO) == pytest.approx(expected, rel=1e-5)
    assert loss_of(logits, targets, None, 0.0, TWO) == loss_of(logits, targets, np.ones(12, np.float32), 0.0, TWO)
    assert loss_of(np.full((1, 12), 200.0, np.float32), np.zeros((1, 12), np.float32), None, 0.0, TWO) == 200.0


def test_probabilities():
    expected = np.exp(log_softmax(LOGITS))[:, 1]
    assert np.allclose(inference.probabilities_of(LOGITS, ONE), expected, rtol=1e-12)
    extreme = np.array([[1000.0, -1000.0], [-1000.0, 1000.0]], np.float32)
    assert inference.probabilities_of(extreme, ONE).tolist() == [0.0, 1.0]
    logits = np.array([[0.0, 2.0, -800.0]], np.float32)
    assert np.allclose(inference.probabilities_of(logits, TWO), [[0.5, 1 / (1 + math.exp(-2)), 0.0]])


def test_class_weights():
    assert inference.weigh_classes(np.array([0, 0, 0, 1]), 'none', ONE) is None
    weights = inference.weigh_classes(np.array([0, 0, 0, 1]), 'balanced', ONE)
    assert weights.tolist() == pytest.approx([4 / 6, 2.0])  # n / (classes * count)
    targets = np.zeros((100, 12), np.float32)
    targets[:50, 0], targets[:10, 4], targets[0, 5] = 1, 1, 1
    assert inference.weigh_classes(targets, 'balanced', TWO)[[0, 4, 5, 6]].tolist() == pytest.approx([1, 9, 20, 20])


def step(train_settings, gradient=1.0, weight=2.0, lr=0.1):
    """What one step of the optimizer does to a weight, a bias and a statistic, all filled with `weight`."""
    import paddle
    layer = paddle.nn.Sequential(paddle.nn.Linear(2, 2), paddle.nn.BatchNorm1D(2))
    for value in layer.parameters():
        value.set_value(paddle.full(value.shape, weight))
    optimizer = optimizers.make_optimizer(train_settings, layer)
    optimizer.set_lr(lr)
    loss = sum((value.sum() * gradient for value in layer.parameters() if not value.stop_gradient), paddle.zeros([]))
    loss.backward()
    optimizer.step()
    after = {name: float(value.flatten()[0]) for name, value in layer.named_parameters()}
    return after['0.weight'], after['0.bias'], after['1.weight'], after['1._mean']


def test_adamw_decays_weights_alone():
    weight, bias, scale, mean = step(Train(weight_decay=0.1, clip_norm=0.0))
    assert bias == scale == pytest.approx(2 - 0.1, abs=1e-4)  # a first step of Adam has the length of the learning rate
    assert weight == pytest.approx(2 * (1 - 0.1 * 0.1) - 0.1, abs=1e-4)
    assert mean == 2


def test_momentum_decays_weights_alone():
    weight, bias, scale, mean = step(Train(optimizer='momentum', weight_decay=0.1, clip_norm=0.0))
    assert bias == scale == pytest.approx(2 - 0.1, abs=1e-6)
    assert weight == pytest.approx(2 - 0.1 * (1 + 0.1 * 2), abs=1e-6)
    assert mean == 2


def test_gradients_are_clipped_together():
    # Ten numbers have a gradient of 3 each: four weights, two biases, two scales and two shifts of BatchNorm.
    weight, bias, scale, _ = step(Train(optimizer='momentum', weight_decay=0.0, clip_norm=1.5), gradient=3.0)
    assert weight == bias == scale == pytest.approx(2 - 0.1 * 1.5 / math.sqrt(10), abs=1e-5)


# Small things around the loop.

def test_clock():
    assert [progress.clock(s) for s in (0, 0.4, 59.6, 3599.7, 3661, 360000, -5)] == [
        '00:00:00', '00:00:00', '00:01:00', '01:00:00', '01:01:01', '100:00:00', '00:00:00']


def test_timer(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, 'perf_counter', lambda: now[0])
    timer = progress.Timer()
    for reading, computing in ((0.5, 1.5), (0.1, 0.9)):
        timer.ask()
        now[0] += reading
        timer.got()
        now[0] += computing
        timer.done()
    assert (timer.reader_cost, timer.batch_cost) == (pytest.approx(0.3), pytest.approx(1.5))
    now[0] += 50  # an evaluation
    timer.pause(50)
    assert timer.batch_cost == pytest.approx(1.5)
    timer.restart()
    now[0] += 2
    timer.done()
    assert timer.batch_cost == pytest.approx(2)  # the original's was never reset


def test_curves_and_validation_of_odd_runs(tmp_path):
    path = str(tmp_path / 'a.png')
    plots.draw_curves([], path)
    plots.draw_curves([{'iteration': 1, 'epoch': 1, 'learning_rate': 0.1, 'train_loss': float('nan')}], path)
    targets = np.array([1, 1, 1])
    plots.draw_validation(targets, np.array([0.1, 0.6, 0.7]), np.array([0, 1, 1]), 0.5, 'only one class', path)
    rng = np.random.default_rng(0)
    targets = (rng.random((20, 12)) < 0.3).astype(np.float32)
    scores = metrics.score(targets, rng.random((20, 12)), np.full(12, 0.5), TWO)
    plots.draw_validation_classes(targets, rng.random((20, 12)), scores['class_f1'], TWO.class_names, 'task 2', path)
    assert png_size(path)[0] > 1000
