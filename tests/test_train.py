import csv
import json
import os
import re
import struct

import numpy as np
import pandas as pd
import pytest

import train
from models import best_model
from tests import helpers
from tests.helpers import PROJECT, SMALL, overrides, refused, run_script
from utils.answers import tasks
from utils.pictures import loading
from utils.pictures.render import encode_png, settings_of
from utils.running.settings import Render

STAMP = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\]\t'
TRAIN_LINE = re.compile(
    STAMP + r'\[TRAIN\] epoch: (\d+), iter: (\d+)/(\d+), loss: (\d+\.\d{4}), lr: (\d\.\d{10}), '
    r'batch_cost: (\d+\.\d{4}), reader_cost: (\d+\.\d{5}), ips: (\d+\.\d{4}) samples/sec \| '
    r'ETA (\d\d):(\d\d):(\d\d)')
EVAL_LINE = re.compile(STAMP + r'\[EVAL\] epoch: (\d+) avg accuracy: ([01]\.\d{4}), '
                       r'f1: ([01]\.\d{4}), auc: (?:[01]\.\d{4}|nan), loss: (\d+\.\d{4})')


def run_train(root, output, *pairs, **options):
    return run_script('train.py', *overrides(*SMALL, f'data.root={root}', f'output={output}',
                                             *pairs), **options)


def log_of(output):
    """(all lines of train.log, the fields of its [TRAIN] lines, those of its [EVAL] lines)."""
    with open(os.path.join(output, 'train.log'), encoding='utf-8', newline='') as file:
        lines = file.read().splitlines()
    return [lines, *([found.groups() for found in map(pattern.fullmatch, lines) if found]
                     for pattern in (TRAIN_LINE, EVAL_LINE))]


def history(output):
    with open(os.path.join(output, 'history.csv'), newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """(data.root, output, CompletedProcess): a run over one epoch of 9 iterations and a little."""
    root, output = tmp_path_factory.mktemp('320'), str(tmp_path_factory.mktemp('output'))
    os.makedirs(root / 'train')
    rng, drawn_with = np.random.default_rng(0), settings_of(Render(size=32, beats=False))
    names = [f'TRAIN{i + 1:04d}' for i in range(320)]
    for i, name in enumerate(names):
        picture = rng.integers(200, 256, (32, 32), dtype=np.uint8)
        (root / 'train' / f'{name}.png').write_bytes(
            encode_png(picture, {**drawn_with, 'record': i}))
    (root / loading.MANIFEST).write_text(json.dumps(
        {**drawn_with, 'train': names, 'val': [], 'not_drawn': {'train': [], 'val': []},
         'finished': True, 'command': 'python process.py'}))
    (root / 'trainreference.csv').write_text(
        'name,tag\n' + ''.join(f'{name},{i % 2}\n' for i, name in enumerate(names)))
    result = run_train(root, output, 'render.size=32', 'train.iters=12', 'train.batch_size=32',
                       'train.log_interval=5')
    assert result.returncode == 0, result.stderr
    return str(root), output, result


def test_log_is_the_originals_with_true_numbers(finished):
    _, output, result = finished
    lines, trained, evaluated = log_of(output)
    assert result.stdout.splitlines() == lines  # the screen and the file say the same
    assert [line[:3] for line in trained] == [
        ('1', '5', '12'), ('2', '10', '12')]
    assert [line[4] for line in trained] == ['0.0000200000', '0.0000450000']
    for _, iteration, _, _, _, cost, reading, rate, hours, minutes, seconds in trained:
        assert 0 <= float(reading) <= float(cost)
        assert float(rate) == pytest.approx(32 / float(cost), rel=0.01)
        left = int(hours) * 3600 + int(minutes) * 60 + int(seconds)
        assert left == pytest.approx((12 - int(iteration)) * float(cost), abs=1)
    assert [line[0] for line in evaluated] == ['1', '2']
    text = '\n'.join(lines)
    for words in ('(device: cpu was asked for)', 'settings that differ', 'random start',
                  '288 records train, 32 validate; 9 iterations an epoch',
                  'on this CPU the run will take', 'mixed precision off', 'finished after'):
        assert text.count(words) == 1, words
    assert 'Traceback' not in result.stderr


def test_history_says_what_the_log_says(finished):
    _, output, _ = finished
    rows, (_, trained, evaluated) = history(output), log_of(output)
    assert list(rows[0]) == list(train.COLUMNS)
    assert [int(row['iteration']) for row in rows] == [5, 9, 10, 12]
    assert [f'{float(row["train_loss"]):.4f}' for row in rows if row['train_loss']] == [
        line[3] for line in trained]
    assert [tuple(f'{float(row[key]):.4f}' for key in ('accuracy', 'f1', 'eval_loss'))
            for row in rows if row['eval_loss']] == [line[1:] for line in evaluated]
    assert float(rows[0]['learning_rate']) == 0.001 * 4 / 200
    for name in ('curves.png', 'validation.png'):
        with open(os.path.join(output, name), 'rb') as file:
            width, height = struct.unpack('>II', file.read(24)[16:])
        assert width >= 900 and height >= 500


def test_the_best_model_is_kept_with_all_that_prediction_needs(finished):
    root, output, _ = finished
    _, config, kept = best_model.load_best(output)
    assert config.render.size == 32 and config.train.iters == 12 and config.data.root == root
    best = min((row for row in history(output) if row['f1']),
               key=lambda row: float(row['eval_loss']))
    assert kept['epoch'] == int(best['epoch']) and kept['iteration'] == int(best['iteration'])
    assert kept['validation']['f1'] == float(best['f1'])
    table = pd.read_csv(os.path.join(output, 'best_model', best_model.VALIDATION))
    assert len(table) == 32 and table['name'].is_monotonic_increasing
    targets, _ = tasks.of_validation_table(table, tasks.TASKS[1])
    assert targets.tolist() == [int(name[5:]) % 2 == 0 for name in table['name']]
    assert targets.sum() == 16


def test_settings_reach_the_training(drawn, tmp_path):
    result = run_train(
        drawn, tmp_path, 'train.iters=6', 'train.log_interval=1', 'train.warmup_iters=2',
        'train.optimizer=momentum', 'train.learning_rate=0.01', 'train.weight_decay=0.0001',
        'train.decay=polynomial', 'train.end_learning_rate=0.001', 'train.label_smoothing=0.1',
        'train.class_weights=balanced', 'train.amp=true', 'train.clip_norm=0', 'train.ema=0',
        'train.best_metric=auc', 'train.eval_interval=2', 'data.workers=3', 'data.cache=false',
        'device=auto', env={'CUDA_VISIBLE_DEVICES': '', 'PATH': ''})
    assert result.returncode == 0, result.stderr
    lines, trained, evaluated = log_of(tmp_path)
    assert [line[4] for line in trained] == [
        '0.0000000000', '0.0050000000', '0.0100000000', '0.0070000000', '0.0040000000',
        '0.0010000000']
    assert [line[0] for line in evaluated] == ['1', '1', '2']  # iterations 2, 4 and 6 of 4 each
    for words in ('mixed precision off: it needs', 'best auc', '3 reading thread(s)', 'read anew'):
        assert words in '\n'.join(lines)
    assert 'Traceback' not in result.stderr


# train.py, to which SIGTERM comes when one fold has ended and the next has not begun.
STOPPED_BETWEEN_FOLDS = """
import zlib, os, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import train
from utils.running import errors

def finish(run, unharmed=train.finish):
    unharmed(run)
    os.kill(os.getpid(), signal.SIGTERM)

train.finish = finish
errors.run(train.main)
"""


def test_folds_stop_go_on_and_are_scored_together(drawn, tmp_path):
    (tmp_path / 'stopped.py').write_text(STOPPED_BETWEEN_FOLDS)
    output, pairs = tmp_path / 'output', ('train.folds=2', 'train.iters=2', 'train.batch_size=16')
    stopped = run_script(tmp_path / 'stopped.py', PROJECT, *overrides(
        *SMALL, f'data.root={drawn}', f'output={output}', *pairs))
    assert stopped.returncode == 143 and 'next: ' not in stopped.stdout, stopped.stderr
    assert sorted(os.listdir(output / 'folds')) == ['1'] and not (output / 'best_model').exists()
    result = run_train(drawn, output, *pairs)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('this run is finished') == 1
    assert result.stdout.count('[EVAL] epoch') == 2  # of the second fold, one an epoch
    assert 'out of fold, 40 records:' in result.stdout
    # While a fold is left, no line points to the best model of all, which is not there yet.
    assert result.stdout.count('next: ') == 1 and 'next: ' in result.stdout.splitlines()[-1]
    networks, _, _ = best_model.load_best(str(output))
    assert len(networks) == 2
    assert not np.array_equal(networks[0]['fc.weight'], networks[1]['fc.weight'])
    table = pd.read_csv(output / 'out_of_fold.csv')
    assert table['name'].tolist() == [f'TRAIN{i + 1:04d}' for i in range(40)]


def test_every_wrong_label_is_named_before_anything_is_trained(drawn, tmp_path):
    rows = helpers.labels(drawn)
    rows[1], rows[5], rows[6] = 'TRAIN0001,2', 'TRAIN0004,1', 'EXTRA.mat,0'  # twice 4, no 5 and 6
    rows[9] = ''
    root = helpers.copy_with_labels(drawn, tmp_path / 'root', '\n'.join(rows))
    result = run_train(root, tmp_path / 'output', 'train.iters=2')
    assert len(refused(result)) == 4
    for words in (('line 2: ', "'2'"), ('line 6: ', 'TRAIN0004', 'line 5'), ('line 7: ', 'EXTRA'),
                  ('4 of 40 records', 'TRAIN0001, TRAIN0005, TRAIN0006, TRAIN0009')):
        refused(result, 'trainreference.csv', *words)
    assert os.listdir(tmp_path / 'output') == ['.lock'] and '[TRAIN]' not in result.stdout
