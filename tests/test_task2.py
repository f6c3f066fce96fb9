"""Task 2 through the scripts: drawn, trained from a model of task 1, predicted, scored."""
import os

import numpy as np
import pandas as pd
import pytest

from models import best_model
from tests.helpers import SMALL, overrides, run_script
from utils.answers import metrics, tasks
from utils.datasets import demo

TASK = tasks.TASKS[2]


def rows_of(path):
    with open(path, encoding='utf-8') as file:
        return [line.split(',') for line in file.read().splitlines()]


def ran(script, *arguments):
    result = run_script(script, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope='module')
def demo2(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('demo2') / 'demo')
    demo.write_demo(folder, 2, 80, 0)
    return folder


@pytest.fixture(scope='module')
def run2(demo2, trained, tmp_path_factory):
    """(data.root, output, what train.py printed)."""
    root, output = (str(tmp_path_factory.mktemp(name)) for name in ('root2', 'output2'))
    common = overrides('task=2', f'data.root={root}', f'output={output}', *SMALL)
    ran('process.py', *common, *overrides(f'data.source={demo2}'))
    return root, output, ran('train.py', *common, *overrides(
        f'model.pretrained={trained}/best_model', 'train.iters=5', 'train.warmup_iters=2',
        'train.log_interval=5', 'train.class_weights=balanced', 'train.label_smoothing=0.05',
        'data.validation_fraction=0.25'))


def predict(run2, output, *pairs, extra=()):
    """What predict.py prints, all it writes in `output`; the model is that of run2."""
    return ran('predict.py', '--model', run2[1], *overrides(
        f'data.root={run2[0]}', f'output={output}', f'predict.answer={output}/answer.csv',
        'device=cpu', *pairs), *extra)


@pytest.fixture(scope='module')
def answered(run2, demo2, tmp_path_factory):
    """The answer to the demo's test records, scored: (what predict.py printed, its folder)."""
    folder = tmp_path_factory.mktemp('answered')
    truth = os.path.join(demo2, 'valreference.csv')
    return predict(run2, folder, extra=('--reference', truth)), folder


def test_training_starts_from_task_1_with_a_new_head(run2):
    root, output, said = run2
    line = next(line for line in said.splitlines() if 'loaded ' in line)
    assert 'new, random: fc.bias, fc.weight' in line and 'warning' not in said
    assert '48 records train, 16 validate' in said and said.count('[EVAL] epoch: ') == 1
    _, _, kept = best_model.load_best(output)
    assert len(kept['threshold']) == 12 and all(0 < each < 1 for each in kept['threshold'])
    scores = kept['validation']
    assert scores['f1'] == pytest.approx(np.mean(scores['class_f1']))
    assert len(scores['class_f1']) == len(scores['class_auc']) == 12
    with open(os.path.join(output, 'validation.png'), 'rb') as file:
        assert file.read(8) == b'\x89PNG\r\n\x1a\n'


def test_answers_have_the_contests_form_and_the_scores_that_are_printed(run2, demo2, answered):
    said, folder = answered
    names = sorted(name[:-4] for name in os.listdir(os.path.join(run2[0], 'val')))
    rows = rows_of(folder / 'answer.csv')
    assert [row[0] for row in rows] == names
    for row in rows:
        labels = [int(label) for label in row[1:]]
        assert labels and labels == sorted(set(labels)) and labels[0] >= 1 and labels[-1] <= 12
        assert labels == [1] or 1 not in labels
    table = pd.read_csv(folder / 'probabilities.csv')
    assert list(table) == ['name', *TASK.class_names, 'unsure'] and table['name'].tolist() == names
    probabilities = table.iloc[:, 1:-1].to_numpy()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    truth, decisions = (tasks.read_reference(str(path), names, TASK) for path in (
        os.path.join(demo2, 'valreference.csv'), folder / 'answer.csv'))
    f1 = [metrics.f1(one, other) for one, other in zip(truth.T, decisions.T)]
    assert f'mean F1: {np.mean(f1):.4f} (95 % interval ' in said
    for name, count, value in zip(TASK.class_names, truth.sum(axis=0), f1):
        assert f'  {name}: {int(count)} records, F1 {value:.4f}, AUC ' in said


def test_own_ecgs_get_the_answer_that_their_pictures_got(run2, demo2, answered, tmp_path):
    first = answered[1] / 'answer.csv'
    said = predict(run2, tmp_path, 'predict.answer_format=onehot', extra=(
        '--input', os.path.join(demo2, 'val'), '--reference', str(first)))
    rows = rows_of(tmp_path / 'answer.csv')
    assert all(len(row) == 13 and set(row[1:]) <= {'0', '1'} for row in rows)
    names = [row[0] for row in rows]
    one, other = (tasks.read_reference(str(path), names, TASK)
                  for path in (first, tmp_path / 'answer.csv'))
    assert np.array_equal(one, other) and 'accuracy: 1.0000' in said
    assert said.count('F1 1.0000') == one.any(axis=0).sum()
