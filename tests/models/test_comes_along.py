"""A network of task 3, as the one that comes along is, asked the other tasks by the scripts."""
import json
import os

import numpy as np
import pandas as pd
import pytest
import scipy.io

from models import best_model
from models.publish import publish
from tests.helpers import SMALL, make_signal, overrides, refused, run_script
from utils.answers.findings import FINDINGS, Found
from utils.answers.tasks import TASKS, read_reference, targets_of_findings

COUNT = len(FINDINGS)


@pytest.fixture(scope='module')
def learnt(tmp_path_factory):
    """The output of a short training on 40 ECGs of task 3, the fast ones abnormal and AF."""
    folder = tmp_path_factory.mktemp('task3')
    os.makedirs(folder / 'ecgs' / 'train')
    lines = []
    for index in range(40):
        fast = index % 2
        scipy.io.savemat(folder / 'ecgs' / 'train' / f'A{index:02d}.mat',
                         {'ecgdata': make_signal((3, index), 150 if fast else 70)})
        row = np.zeros(COUNT, int)
        row[[0, place('atrial fibrillation')]] = fast
        lines.append(','.join([f'A{index:02d}', *map(str, row)]) + '\n')
    (folder / 'ecgs' / 'trainreference.csv').write_text(''.join(lines))
    run = overrides(*SMALL, 'task=3', f'data.source={folder}/ecgs', f'data.root={folder}/pictures',
                    f'output={folder}/output', 'train.iters=12', 'train.warmup_iters=1',
                    'augment.printed=0.3', 'data.validation_fraction=0.2')
    for script in ('process.py', 'train.py'):
        done = run_script(script, *run)
        assert done.returncode == 0, done.stderr
    return folder


def place(name):
    return TASKS[3].class_names.index(name)


def test_it_answers_both_tasks_and_says_what_it_found(learnt, tmp_path):
    said = {}
    for task in (1, 2, 3):
        output = tmp_path / str(task)
        done = run_script('predict.py', '--input', learnt / 'ecgs' / 'train', '--model',
                          learnt / 'output', '--report', 'en', '--report-records', 2,
                          *overrides(f'task={task}', f'output={output}',
                                     f'predict.answer={output}/answer.csv', 'device=cpu'))
        assert done.returncode == 0, done.stderr
        said[task] = pd.read_csv(output / 'input_probabilities.csv')
        assert (output / 'input_report.html').stat().st_size > 10000
    assert len(pd.read_csv(tmp_path / '1' / 'answer.csv')) == 40
    assert list(said[2].columns[1:13]) == list(TASKS[2].class_names)
    assert 'findings' in said[1] and 'findings' in said[2] and 'findings' not in said[3]
    order = said[1]['abnormal'].rank()  # the same network: the same order whoever asks
    assert np.allclose(order, said[3]['abnormal'].rank())
    assert np.allclose(order, said[2]['normal'].rank(ascending=False))


def test_training_begins_with_its_answers(learnt, drawn, tmp_path):
    run = [*SMALL, f'data.root={drawn}', f'output={tmp_path}', 'train.iters=2',
           'train.learning_rate=0.0000000001', f'model.pretrained={learnt}/output/best_model']
    done = run_script('train.py', *overrides(*run))
    assert done.returncode == 0, done.stderr
    assert 'loaded 102 of 102 tensors' in done.stdout
    before = best_model.load_best(str(learnt / 'output'))[0][0]
    after = best_model.load_best(str(tmp_path))[0][0]
    for key in ('fc.weight', 'fc.bias'):
        normal, abnormal = after[key].T
        assert np.allclose(abnormal - normal, before[key].T[0], atol=1e-6)


def test_half_the_room_gives_the_same_answers(learnt, tmp_path):
    source, small = str(learnt / 'output' / 'best_model'), str(tmp_path / 'small')
    assert publish(source, small) < 0.001
    (whole,), _, kept = best_model.load_best(source)
    (half,), _, metrics = best_model.load_best(small)
    assert metrics['threshold'] == kept['threshold']
    size = [os.path.getsize(os.path.join(each, 'model.pdparams')) for each in (source, small)]
    assert size[1] < 0.55 * size[0]
    for key, value in whole.items():
        assert half[key].dtype == np.float32 and np.allclose(half[key], value, rtol=1e-3, atol=1e-6)


def test_where_nothing_was_trained_the_one_that_comes_along_answers(tmp_path):
    samples = os.path.join('dataset', 'samples')
    done = run_script('predict.py', '--input', samples, *overrides(
        f'output={tmp_path}', f'predict.answer={tmp_path}/answer.csv', 'device=cpu'))
    assert done.returncode == 0, done.stderr
    assert 'the model that comes along answers' in done.stdout.splitlines()[0]
    table = pd.read_csv(tmp_path / 'input_probabilities.csv', index_col='name')
    assert table.loc['normal', 'abnormal'] < 0.5 < table.loc['left_bundle_branch_block', 'abnormal']
    assert 'atrial fibrillation' in table.loc['atrial_fibrillation', 'findings']
    assert 'complete left bundle branch block' in table.loc['left_bundle_branch_block', 'findings']
    # The competition's pictures are another thing: a model must know how they were drawn.
    refused(run_script('predict.py', *overrides(f'output={tmp_path}')), 'no trained model')


def test_the_one_that_comes_along_is_whole_and_small():
    networks, config, metrics = best_model.load_best(best_model.COMES_ALONG)
    assert len(networks) == 1 and config.task == 3 and config.augment.printed > 0
    sizes = [entry.stat().st_size for entry in os.scandir(best_model.COMES_ALONG)]
    assert sum(sizes) < 25e6
    json.dumps(metrics, allow_nan=False)


def test_findings_are_the_specific_ones_first():
    thresholds = np.full(COUNT, 0.5)
    row = np.zeros((1, COUNT))
    row[0, [place('abnormal'), place('conduction disturbance'), place('other')]] = 0.9
    assert Found(row, thresholds).words(0) == 'conduction disturbance 0.90'
    row[0, place('complete right bundle branch block')] = 0.6
    row[0, place('atrial fibrillation')] = 0.7
    assert Found(row, thresholds).words(0) == \
        'atrial fibrillation 0.70, complete right bundle branch block 0.60'
    assert Found(row * 0.1, thresholds).of(0) == []


def test_labels_of_task_3_are_those_of_the_others(tmp_path):
    rows = np.zeros((3, COUNT), int)
    rows[0, [0, place('atrial fibrillation'), place('other')]] = 1
    rows[1, place('sinus rhythm')] = 1
    rows[2, 0] = 1
    path = tmp_path / 'reference.csv'
    path.write_text(''.join(f'{name},{",".join(map(str, row))}\n'
                            for name, row in zip('abc', rows)))
    targets = read_reference(str(path), 'abc', TASKS[3])
    assert np.array_equal(targets, rows)
    assert targets_of_findings(targets, TASKS[1]).tolist() == [1, 0, 1]
    twelve = targets_of_findings(targets, TASKS[2])
    assert [np.flatnonzero(row).tolist() for row in twelve] == [[4, 11], [0], [11]]
