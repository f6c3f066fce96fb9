import csv
import json
import os
import shutil
import zipfile

import numpy as np
import pytest

from conftest import SMALL, overrides, refused, run_script
from models import build_model
from models.pretrained import load_pretrained
from utils import demo, files, metrics, plots, render, tasks
from utils.errors import UserError

TASK = tasks.TASKS[2]


def rows_of(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.reader(file))


@pytest.fixture(scope='module')
def demo2(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp('demo2') / 'demo')
    demo.write_demo(folder, 2, 80, 0)
    return folder


@pytest.fixture(scope='module')
def run2(demo2, trained, tmp_path_factory):
    """Task 2 drawn and trained from a model of task 1: (data.root, output, what train.py printed)."""
    root, output = (str(tmp_path_factory.mktemp(name)) for name in ('root2', 'output2'))
    common = overrides('task=2', f'data.root={root}', f'output={output}', *SMALL)
    result = run_script('process.py', *common, *overrides(f'data.source={demo2}'))
    assert result.returncode == 0, result.stderr
    result = run_script('train.py', *common, *overrides(
        f'model.pretrained={trained}/best_model', 'train.iters=14', 'train.warmup_iters=2', 'train.log_interval=7',
        'train.class_weights=balanced', 'train.label_smoothing=0.05', 'data.validation_fraction=0.25'))
    assert result.returncode == 0, result.stderr
    return root, output, result.stdout


@pytest.fixture(scope='module')
def own_output(run2, tmp_path_factory):
    """A folder with the model alone, as one would copy it to another machine."""
    output = tmp_path_factory.mktemp('own_output')
    shutil.copytree(os.path.join(run2[1], 'best_model'), output / 'best_model')
    return output


def predict(root, output, *pairs, reference=None):
    answer = os.path.join(output, 'answer.csv')
    result = run_script('predict.py', *overrides(f'data.root={root}', f'output={output}', f'predict.answer={answer}',
                                                 'device=cpu', *pairs),
                        *(('--reference', reference) if reference else ()))
    return result, answer


@pytest.fixture(scope='module')
def answered(run2, own_output, demo2):
    """The answer to the demo's test records, scored: (what predict.py printed, path of its answer.csv)."""
    result, answer = predict(run2[0], own_output, reference=os.path.join(demo2, 'valreference.csv'))
    assert result.returncode == 0, result.stderr
    return result.stdout, shutil.copytree(own_output, own_output.with_name('answered')) / os.path.basename(answer)


def test_training_starts_from_task_1_with_a_new_head(run2):
    _, _, said = run2
    line = next(line for line in said.splitlines() if 'loaded ' in line)
    assert 'new, random: fc.bias, fc.weight' in line
    assert 'warning' not in said
    assert '48 records train, 16 validate' in said
    assert said.count('[EVAL] epoch: ') >= 2


def test_what_training_leaves(run2):
    _, output, _ = run2
    with open(os.path.join(output, 'best_model', 'metrics.json')) as file:
        kept = json.load(file)
    assert len(kept['threshold']) == 12 and all(0 < threshold < 1 for threshold in kept['threshold'])
    scores = kept['validation']
    assert len(scores['class_f1']) == len(scores['class_auc']) == 12
    assert scores['f1'] == pytest.approx(np.mean(scores['class_f1']))
    assert len(kept['validation_records']) == 16
    with open(os.path.join(output, 'validation.png'), 'rb') as file:
        assert file.read(8) == b'\x89PNG\r\n\x1a\n'


def test_answers(run2, own_output, demo2, answered):
    root = run2[0]
    said, answer = answered
    names = sorted(name[:-4] for name in os.listdir(os.path.join(root, 'val')))
    rows = rows_of(answer)
    assert [row[0] for row in rows] == names
    for row in rows:
        labels = [int(label) for label in row[1:]]
        assert labels and labels == sorted(set(labels)) and 1 <= labels[0] and labels[-1] <= 12
        assert labels == [1] or 1 not in labels
    with zipfile.ZipFile(answer.with_name('answer.zip')) as archive, open(answer, 'rb') as file:
        assert archive.namelist() == ['answer.csv'] and archive.read('answer.csv') == file.read()
    table = rows_of(answer.with_name('probabilities.csv'))
    assert table[0] == ['name', *TASK.class_names] and [row[0] for row in table[1:]] == names
    probabilities = np.array([row[1:] for row in table[1:]], dtype=float)
    assert ((probabilities >= 0) & (probabilities <= 1)).all() and probabilities.sum(axis=1).std() > 0

    # The scores that are printed, computed once more from the files.
    truth, decisions = (tasks.read_reference(str(path), names, TASK)
                        for path in (os.path.join(demo2, 'valreference.csv'), answer))
    f1 = [metrics.f1(t, d) for t, d in zip(truth.T, decisions.T)]
    assert f'mean F1: {np.mean(f1):.4f} (95 % interval ' in said
    for name, count, value in zip(TASK.class_names, truth.sum(axis=0), f1):
        assert f'  {name}: {int(count)} records, F1 {value:.4f}, AUC ' in said

    # One-hot: the same answer in the other form, which --reference reads too.
    result, answer = predict(root, own_output, 'predict.answer_format=onehot', reference=str(answer))
    assert result.returncode == 0, result.stderr
    assert all(len(row) == 13 and set(row[1:]) <= {'0', '1'} for row in rows_of(answer))
    assert np.array_equal(tasks.read_reference(answer, names, TASK), decisions)
    assert 'accuracy of whole answers: 1.0000' in result.stdout
    all_ones = {i for i in range(12) if decisions[:, i].any()}
    assert result.stdout.count('F1 1.0000') == len(all_ones)


def test_a_threshold_for_all_classes(run2, own_output):
    root = run2[0]
    result, answer = predict(root, own_output, 'predict.threshold=1')
    assert result.returncode == 0 and 'threshold [1.0, 1.0' in result.stdout
    assert all(len(row) == 2 for row in rows_of(answer))  # none reaches it, so each gets its likeliest class
    table = rows_of(os.path.join(own_output, 'probabilities.csv'))[1:]
    for row, probabilities in zip(rows_of(answer), table):
        values = [float(value) for value in probabilities[1:]]
        assert values[int(row[1]) - 1] == max(values)


def test_own_ecgs(own_output, demo2, answered):
    result = run_script('predict.py', *overrides(f'output={own_output}', f'predict.answer={own_output}/own.csv',
                                                 'device=cpu'), '--input', os.path.join(demo2, 'val'))
    assert result.returncode == 0, result.stderr
    assert rows_of(own_output / 'own.csv') == rows_of(answered[1])


def test_bad_labels_stop_training(run2, tmp_path):
    root = tmp_path / 'root'
    shutil.copytree(run2[0], root)
    lines = (root / 'trainreference.csv').read_text().splitlines()
    lines[2] = lines[2].split(',')[0] + '.mat,1,5'
    lines[4] = lines[4].split(',')[0] + ',13'
    (root / 'trainreference.csv').write_text('\n'.join(lines) + '\n')
    result = run_script('train.py', *overrides('task=2', f'data.root={root}', f'output={tmp_path / "output"}', *SMALL))
    refused(result, 'trainreference.csv, line 3', 'label 1 (normal) beside others')
    refused(result, 'trainreference.csv, line 5', "'13'", 'from 1 to 12')


def test_one_hot_labels(tmp_path):
    path = str(tmp_path / 'reference.csv')

    def read(text, names=('A', 'B', 'C')):
        files.write_text(path, text)
        return tasks.read_reference(path, names, TASK)

    zeros = ','.join('0' * 12)
    targets = read('A,1,0,0,0,0,0,0,0,0,0,0,0\nB,0,0,0,0,1,0,0,0,0,0,0,1\nC.mat,5,12\n')  # each row by itself
    assert [np.flatnonzero(row).tolist() for row in targets] == [[0], [4, 11], [4, 11]]
    for row, words in ((zeros, 'found twelve times 0'), (zeros.replace('0', '1'), 'found label 1 .normal. beside'),
                       (zeros[2:], "found the label '0'"), (zeros + ',1', "found the label '0'"),
                       (zeros[:-1] + '2', "found the label '0'")):
        with pytest.raises(UserError, match=f'reference.csv, line 2: {words}'):
            read(f'A,2\nB,{row}\n', ('A', 'B'))


def test_thresholds_of_few_records_stay_near_the_shared_one():
    targets = np.zeros((40, 12))
    targets[0, 1] = targets[:20, 2] = targets[:, 3] = 1
    probabilities = np.full((40, 12), 0.1)
    probabilities[:, 1] = np.linspace(0.01, 0.8, 40)  # its one record gets least of all, so 0.005 is its best threshold
    probabilities[:20, 2], probabilities[:, 3] = 0.2, 0.6
    thresholds = metrics.tune_thresholds(targets, probabilities)
    shared = thresholds[0]
    assert 0.1 < shared <= 0.2 and thresholds[3] == shared  # classes without a record, and with every record
    assert thresholds[1] == pytest.approx((0.005 + 2 * shared) / 3)
    assert thresholds[2] == pytest.approx((20 * 0.15 + 2 * shared) / 22)
    assert not tasks.decide(probabilities, thresholds, TASK)[:, 1].all()


def test_validation_picture_with_absent_classes(tmp_path):
    rng = np.random.default_rng(0)
    targets = (rng.random((9, 12)) < 0.3).astype(int)
    targets[:, 0], targets[:, 1] = 0, 1
    plots.draw_validation_classes(targets, rng.random((9, 12)), [0.0] * 12, TASK.class_names, 'x', tmp_path / 'a.png')
    assert (tmp_path / 'a.png').stat().st_size > 10000


def test_pretrained_model_drawn_otherwise(trained):
    folder = os.path.join(trained, 'best_model')
    same = {'version': render.VERSION, 'size': 64, 'mv_per_lead': 2.0, 'line_width': 1.0}
    model = build_model('resnet18', 12, 0)
    assert len(load_pretrained(model, 'resnet18', folder, same)) == 1
    said = load_pretrained(model, 'resnet18', folder, {**same, 'size': 96, 'mv_per_lead': 3.0})
    assert len(said) == 2 and said[1].startswith(f'warning: {folder} was trained on pictures drawn otherwise (size 64 '
                                                 'there, 96 here, mv_per_lead 2.0 there, 3.0 here)')
    assert '-o render.size=64 -o render.mv_per_lead=2.0 -o render.line_width=1.0' in said[1]
    same_classes = load_pretrained(build_model('resnet18', 2, 0), 'resnet18', folder, same)
    assert 'new, random' not in same_classes[0]
    with pytest.raises(UserError, match='resnet34'):
        load_pretrained(build_model('resnet34', 2, 0), 'resnet34', folder, same)
