import numpy as np
import pytest

from utils.answers import tasks
from utils.running.errors import UserError

ONE, TWO = tasks.TASKS[1], tasks.TASKS[2]


def read(tmp_path, text, names, task=ONE, encoding='utf-8'):
    path = tmp_path / 'trainreference.csv'
    path.write_bytes(text.encode(encoding))
    return tasks.read_reference(str(path), names, task).tolist()


@pytest.mark.parametrize('text', [
    'name,tag\na,0\nb,1\n', 'a,0\nb,1', 'name;tag\nb;1\na;0\n', 'name\ttag\na\t0\nb\t1\n',
    '\ufeffname,tag\r\na,0.0\r\nb,1.0\r\n', ',name,tag\n0,a,0\n1,b,1\n',
    'a.mat,normal\nb.MAT,abnormal',
    'name,tag\n a , 正常\n\nb,异常\n', 'NAME,TAG,\na,0,\nb,1,\n', '0,a,0\n1,b,1\n',
    'name,tag\na,False\nb,True\n', 'name,tag\na,0e+00\nb,1.00\n',
    'train/a.mat,0\nC:\\b.mat,\uff11\n'])
def test_labels_as_people_have_them(text, tmp_path):
    assert read(tmp_path, text, ['b', 'a']) == [0, 1]


def test_numbers_in_front_are_an_index_only_where_no_records_are_called_so(tmp_path):
    assert read(tmp_path, '0,1\n1,0\n', ['0', '1']) == [1, 0]
    assert read(tmp_path, '"","name","tag"\n"1",2,1\n"2",1,0\n', ['1', '2']) == [0, 1]  # R's


@pytest.mark.parametrize('task, text, words', [
    (ONE, 'name,normal\na,0\nb,1\n', 'found the columns name, normal, expected name, tag'),
    (ONE, 'name,normal,abnormal\na,1,\nb,,1\n', 'found the columns name, normal, abnormal'),
    (ONE, 'name,tag,corrected\na,0,\nb,,1\n', "line 3: found the tag ',1'"),
    (ONE, 'filename,label\na,0\nb,1\n', 'no record filename among .* begin a header with name'),
    (TWO, f'name,{",".join(TWO.class_names[::-1])}\na{",0" * 11},1\n', 'the columns name, other'),
    (TWO, 'a,,,,,,1,,,,,,\nb,1,,,,,,,,,,,\n', "line 1: found the label ''")])
def test_labels_that_mean_something_else_are_refused(task, text, words, tmp_path):
    with pytest.raises(UserError, match=words):
        read(tmp_path, text, 'ab', task)


@pytest.mark.parametrize('encoding', ['utf-8', 'gb18030', 'utf-16'])
def test_names_to_the_letter(encoding, tmp_path):
    names = ['-1', '=x', 'NA', 'nan', '001', '1e5', 'True', '张三']
    text = tasks.answer_text(names, np.ones(8, int), ONE)
    assert text == 'name,tag\n' + ''.join(f'{name},1\n' for name in names)
    assert read(tmp_path, text, names, encoding=encoding) == [1] * 8


def test_every_problem_is_named_with_its_line(tmp_path):
    text = 'name,tag\na,0\nb,2\n\nc,\na,1\nz,0\n'
    with pytest.raises(UserError) as caught:
        read(tmp_path, text, ['a', 'b', 'c', 'd'])
    told = ' '.join(caught.value.lines)
    for words in ("line 3: found the tag '2'", "line 5: found 'c' alone", 'line 6: the record a',
                  'line 7: there is no record z', 'no label for 3 of 4 records'):
        assert words in told


def test_what_is_no_table(tmp_path):
    for data in (b'', b'\xff\xff\xff', b'\0\1\2'):
        (tmp_path / 'x.csv').write_bytes(data)
        with pytest.raises(UserError):
            tasks.read_reference(str(tmp_path / 'x.csv'), ['a'], ONE)
    with pytest.raises(UserError, match='no such file'):
        tasks.read_reference(str(tmp_path / 'none.csv'), ['a'], ONE)


def test_task_2_reads_lists_and_one_hot(tmp_path):
    onehot = ',0,0,1,0,0,0,0,1,0,0,0,0'
    found = np.array(read(tmp_path, f'a,1\nb,3,8,,\nc{onehot}\nd,3.0,8.0\n', 'abcd', TWO))
    assert [np.flatnonzero(row).tolist() for row in found] == [[0], [2, 7], [2, 7], [2, 7]]
    for words in (TWO.class_names, range(1, 13), [f'label{number}' for number in range(1, 13)]):
        text = f'name,{",".join(map(str, words))}\nc{onehot}\n'
        assert read(tmp_path, text, 'c', TWO) == [found[2].tolist()]


@pytest.mark.parametrize('labels', ['13', 'x', '1,3', '', '-1', '1.5', '0,2'])
def test_task_2_bad_labels(labels, tmp_path):
    with pytest.raises(UserError, match='line 1'):
        read(tmp_path, f'a,{labels}\n', ['a'], TWO)


def test_labels_of_the_other_task(tmp_path):
    with pytest.raises(UserError, match='set task: 2'):
        read(tmp_path, 'a,3,8\nb,1\n', 'ab', ONE)
    with pytest.raises(UserError, match='set task: 1'):
        read(tmp_path, 'name,tag\na,0\nb,1\n', 'ab', TWO)


def test_tags_1_and_2_are_no_labels_of_task_2(tmp_path):
    with pytest.raises(UserError, match='the tags are 1 and 2, .* write 0 for 1') as caught:
        read(tmp_path, 'name,tag\na,1\nb,2\n', 'ab', ONE)
    assert len(caught.value.lines) == 1 and 'set task' not in str(caught.value)
    with pytest.raises(UserError, match='no label for 1 of 2 records: b') as caught:
        read(tmp_path, 'name,tag\na,1\n', 'ab', ONE)
    assert 'set task' not in str(caught.value)


def test_the_extension_of_any_file_may_stand_in_a_reference(tmp_path):
    assert read(tmp_path, 'name,tag\np0.csv,1\nx.1,0\n', ['p0', 'x.1']) == [1, 0]
    with pytest.raises(UserError, match='line 3: there is no record p1 among these 1') as caught:
        read(tmp_path, 'name,tag\np0,1\np1,0\n', ['p0'])
    assert 'process.py' not in str(caught.value)


def test_decisions_of_task_2():
    thresholds = np.full(12, 0.5)
    probabilities = np.full((4, 12), 0.1)
    probabilities[0, [2, 5]] = 0.9
    probabilities[1, 7] = 0.4  # nothing reaches its threshold: the nearest
    probabilities[2, [0, 3]] = 0.9, 0.6  # normal wins
    probabilities[3, [0, 3]] = 0.6, 0.9  # normal loses
    found = [np.flatnonzero(row).tolist() for row in tasks.decide(probabilities, thresholds, TWO)]
    assert found == [[2, 5], [7], [0], [3]]
    thresholds[4] = 0.001  # so low a threshold is not the nearest of all
    assert tasks.decide(np.where(np.arange(12) == 7, 0.4, 1e-5)[None], thresholds, TWO)[0, 7] == 1


def test_answers_read_back(tmp_path):
    decisions = np.array([[1] + [0] * 11, [0, 0, 1, 0, 1] + [0] * 7])
    for form in ('list', 'onehot'):
        text = tasks.answer_text(['a', 'b'], decisions, TWO, form)
        assert read(tmp_path, text, 'ab', TWO) == decisions.tolist()
    assert tasks.answer_text(['a', 'b'], decisions, TWO) == 'a,1\nb,3,5\n'


def test_probabilities_and_validation_table():
    logits = np.array([[0.0, 2.0], [5.0, 0.0], [0.0, 2000.0]], np.float32)
    margins = tasks.margins_of(logits, ONE)
    assert margins.tolist() == [2.0, -5.0, 2000.0]
    softmax = np.exp(logits[:2, 1]) / np.exp(logits[:2]).sum(axis=1)
    assert np.allclose(tasks.probabilities_of(margins)[:2], softmax)
    for task, targets, said in ((ONE, np.array([0, 1, 1]), margins),
                                (TWO, np.eye(12, dtype=np.float32)[:3], np.ones((3, 12)))):
        table = tasks.validation_table(['x', 'NA', '1'], targets, said, task)
        back = tasks.of_validation_table(table, task)
        assert np.array_equal(back[0], targets) and np.array_equal(back[1], said)
