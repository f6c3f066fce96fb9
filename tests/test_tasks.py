import numpy as np
import pytest

from utils import files, tasks
from utils.errors import UserError

ONE, TWO = tasks.TASKS[1], tasks.TASKS[2]
PLAIN = 'name,tag\nTRAIN0001,0\nTRAIN0002,1\nTRAIN0003,1\n'
NAMES = ('TRAIN0001', 'TRAIN0002', 'TRAIN0003')


def read(data, tmp_path, names=NAMES, task=ONE):
    path = tmp_path / 'trainreference.csv'
    path.write_bytes(data if isinstance(data, bytes) else data.encode('utf-8'))
    return tasks.read_reference(str(path), names, task)


def problems(data, tmp_path, names=NAMES, task=ONE):
    with pytest.raises(UserError) as caught:
        read(data, tmp_path, names, task)
    return caught.value.lines


@pytest.mark.parametrize('data', [
    PLAIN,
    'TRAIN0001,0\nTRAIN0002,1\nTRAIN0003,1\n',
    'name,tag\nTRAIN0003,1\nTRAIN0001,0\nTRAIN0002,1',
    'name,tag\nTRAIN0001.mat,0\nTRAIN0002.MAT,1\nTRAIN0003,1\n',
    '\nname,tag\n\nTRAIN0001,0\n\n  \nTRAIN0002,1\nTRAIN0003,1\n\n\n',
    ' Name , Tag \n TRAIN0001 , 0\nTRAIN0002,\t1\nTRAIN0003,1.0\n',
    '"name","tag"\n"TRAIN0001","0"\n"TRAIN0002","1"\n"TRAIN0003","1"\n',
    'name,tag,\nTRAIN0001,0,\nTRAIN0002,1,,\nTRAIN0003,1,\n',
    PLAIN.replace(',', ';'),
    PLAIN.replace(',', '\t'),
    PLAIN.replace('\n', '\r\n'),
    b'\xef\xbb\xbf' + PLAIN.encode(),
    PLAIN.encode('utf-16'),
    b'\xfe\xff' + PLAIN.encode('utf-16-be'),
], ids=['plain', 'no header', 'another order', 'mat', 'blank lines', 'spaces', 'quotes', 'padded', 'semicolons', 'tabs',
        'crlf', 'utf-8 bom', 'utf-16', 'utf-16 big endian'])
def test_harmless_differences_are_read(data, tmp_path):
    targets = read(data, tmp_path)
    assert targets.dtype == np.int64 and targets.tolist() == [0, 1, 1]


def test_gbk(tmp_path):
    targets = read('name,tag\n患者甲,0\n患者乙,1\n'.encode('gbk'), tmp_path, ('患者甲', '患者乙'))
    assert dict(zip(sorted(('患者甲', '患者乙')), targets)) == {'患者甲': 0, '患者乙': 1}


@pytest.mark.parametrize('tag', ['2', '-1', 'abnormal', '0.5', '01', '', 'nan', '1,0', '１'])
def test_bad_tag(tag, tmp_path):
    lines = problems(f'name,tag\nTRAIN0001,0\nTRAIN0002,{tag}\nTRAIN0003,1\n', tmp_path)
    assert 'trainreference.csv, line 3: ' in lines[0] and 'found' in lines[0] and 'expected' in lines[0]


def test_every_problem_is_named_with_its_line(tmp_path):
    lines = problems('name,tag\n\nTRAIN0001,0\nTRAIN0002,yes\nEXTRA,1\nTRAIN0001,1\nTRAIN0001.mat,0\nalone\n', tmp_path)
    assert len(lines) == 6
    assert "line 4: found the tag 'yes', expected 0 (normal) or 1 (abnormal)" in lines[0]
    assert 'line 5: there is no picture of the record EXTRA' in lines[1]
    assert 'line 6: the record TRAIN0001 stood in line 3 already' in lines[2]
    assert 'line 7: the record TRAIN0001 stood in line 3 already' in lines[3]
    assert "line 8: found 'alone' alone" in lines[4]
    assert 'no label for 2 of 3 records: TRAIN0002, TRAIN0003' in lines[5]


def test_hundreds_of_problems_are_counted(tmp_path):
    lines = problems('name,tag\n' + ''.join(f'X{i},1\n' for i in range(500)), tmp_path)
    assert len(lines) == 21 and 'and 481 more problems' in lines[-1]


@pytest.mark.parametrize('data, words', [
    (b'', 'no label for 3 of 3 records'),
    (b'\xff\x00\x81\x20\xff\xff', 'neither UTF-8, UTF-16 nor GBK'),
    ('name,tag\n"TRAIN0001,0\n' + 'x' * 200_000, 'not a CSV row'),
])
def test_what_is_no_table(data, words, tmp_path):
    assert any(words in line for line in problems(data, tmp_path))


def test_labels_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match='nowhere.csv: no such file; expected the labels'):
        tasks.read_reference(str(tmp_path / 'nowhere.csv'), NAMES, ONE)


def test_task_2_reads_several_labels(tmp_path):
    targets = read('A,1\nB.mat,5,12\nC,2,8,8\n', tmp_path, 'ABC', TWO)
    assert targets.dtype == np.float32 and targets.shape == (3, 12)
    assert [np.flatnonzero(row).tolist() for row in targets] == [[0], [4, 11], [1, 7]]
    assert [tasks.words_for(row, TWO) for row in targets] == [
        'normal', 'atrial fibrillation, other', 'sinus bradycardia, first-degree AV block']
    assert [tasks.is_abnormal(row, TWO) for row in targets] == [False, True, True]


@pytest.mark.parametrize('labels, words', [('13', "'13'"), ('0', "'0'"), ('1,5', 'normal) beside others'), ('', 'alone'),
                                           ('AF', "'AF'"), ('2.0', "'2.0'"), ('9' * 5000, 'from 1 to 12')])
def test_task_2_bad_labels(labels, words, tmp_path):
    assert words in problems(f'A,2\nB,{labels}\n', tmp_path, 'AB', TWO)[0]


def test_nearest_class_of_unequal_thresholds():
    probabilities = np.zeros((2, 12))
    probabilities[0, 0] = 0.54  # normal, just below its threshold; class 8 is at 0, as far below its as a class can be
    thresholds = np.full(12, 0.5)
    thresholds[[0, 7]] = 0.6, 0.05
    probabilities[1, [0, 4]] = 0.62, 0.99  # both reached, the other by far
    assert [np.flatnonzero(row).tolist() for row in tasks.decide(probabilities, thresholds, TWO)] == [[0], [4]]


@pytest.mark.parametrize('text, task, other', [('A,1\nB,2,5\nC,12\n', ONE, 2), ('name,tag\nA,0\nB,1\nC,0\n', TWO, 1)])
def test_labels_of_the_other_task(text, task, other, tmp_path):
    assert list(problems(text, tmp_path, 'ABC', task)) == [
        f'{tmp_path}/trainreference.csv: these look like the labels of task {other}, expected those of task {task.number}; '
        f'set task: {other} (-o task={other})']


def test_decide():
    assert tasks.decide(np.array([0.2, 0.5, 0.7]), 0.5, ONE).tolist() == [0, 1, 1]
    probabilities = np.full((4, 12), 0.1)
    probabilities[0, [0, 4]] = 0.6, 0.9  # normal and AF: AF is surer
    probabilities[1, [0, 4]] = 0.9, 0.6
    probabilities[2, 7] = 0.4  # nothing reaches its threshold: the nearest is taken
    probabilities[3, [3, 5]] = 0.8
    rows = tasks.decide(probabilities, np.full(12, 0.5), TWO)
    assert [np.flatnonzero(row).tolist() for row in rows] == [[4], [0], [7], [3, 5]]


def test_answer():
    rows = tasks.answer_rows(['A', 'B'], np.array([1, 0]), ONE)
    assert files.csv_text(rows) == 'name,tag\nA,1\nB,0\n'
    decisions = np.zeros((2, 12), dtype=int)
    decisions[0, 0] = decisions[1, [4, 11]] = 1
    assert files.csv_text(tasks.answer_rows(['A', 'B'], decisions, TWO)) == 'A,1\nB,5,12\n'


def test_an_answer_reads_back(tmp_path):
    rows = tasks.answer_rows(NAMES, np.array([1, 0, 1]), ONE)
    assert read(files.csv_text(rows), tmp_path).tolist() == [1, 0, 1]
