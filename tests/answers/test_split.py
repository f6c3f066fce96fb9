import numpy as np
import pytest

from utils.answers import split
from utils.running.errors import UserError


@pytest.mark.parametrize('sizes', [[1440, 160], [320] * 5])
@pytest.mark.parametrize('abnormal', [0.1, 0.394, 0.5])
def test_1600_records_are_dealt_exactly_and_each_class_alike(sizes, abnormal):
    targets = (np.random.default_rng(1).random(1600) < abnormal).astype(int)
    part = split.split(targets, sizes, range(1600), 2021)
    assert np.bincount(part).tolist() == sizes
    shares = [targets[part == number].mean() for number in range(len(sizes))]
    assert np.ptp(shares) < 0.01
    assert np.array_equal(part, split.split(targets, sizes, range(1600), 2021))
    assert not np.array_equal(part, split.split(targets, sizes, range(1600), 2022))


def test_several_labels_and_patients():
    rng = np.random.default_rng(2)
    targets = (rng.random((1000, 12)) < np.linspace(0.02, 0.4, 12)).astype(np.float32)
    patients = rng.integers(0, 700, 1000)
    part = split.split(targets, [200] * 5, patients, 1)
    for patient in np.unique(patients):
        assert len(set(part[patients == patient])) == 1
    assert np.abs(np.bincount(part) - 200).max() <= 5
    counts = np.array([targets[part == number].sum(axis=0) for number in range(5)])
    assert np.ptp(counts, axis=0).max() <= 0.25 * counts.mean(axis=0).max()


@pytest.mark.parametrize('text', [
    'name,ecg_id,patient\nb,1,007\na,2,007\nc,3,\n', 'Name;Patient\nb;007\na;007\nc;\n',
    'name, patient_id\nb, 007\na, 007\nc,\nz, 1\n',
    ',name,Patient ID\n0,b,007\n1,a,007\n2,c,\n',
    'sep=;\nname;patient\n"a.mat";"007"\nb.mat;007\nc.mat;\n',
    '# name\tsubject\na\t007\nb\t007\nc\t\n',
    '"name","patient"\n"a","007"\n"b","007"\n"c",NA\n', 'name,patient\na,007\nb,007\nc,unknown\n'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16', 'gbk'])
def test_patients_are_read_in_the_forms_of_labels(text, encoding, tmp_path):
    assert split.read_patients(str(tmp_path), ['a', 'b']) == ['a', 'b']
    (tmp_path / 'source.csv').write_bytes(text.encode(encoding))
    assert split.read_patients(str(tmp_path), ['a', 'b', 'c']) == ['007', '007', 'c']


@pytest.mark.parametrize('data, words', [
    ('姓名,patient\n'.encode('gbk'), 'found the columns 姓名, patient, expected name'),
    (b'', 'expected name first'), (b'name,patient\n"01,1\n', 'none for 2 of 2 records'),
    (b'name,patient\n1,P1\n2,P2\n', 'has a spreadsheet taken zeros away'),
    (b'name,patient\n01,P1\n01,P2\n02,P1\n', '3 lines'),
    (b'name,age\n01,7\n02,8\n', 'found the columns name, age')])
def test_patients_that_are_not_understood_are_refused(data, words, tmp_path):
    (tmp_path / 'source.csv').write_bytes(data)
    with pytest.raises(UserError, match=f'source.csv: .*{words}'):
        split.read_patients(str(tmp_path), ['01', '02'])



@pytest.mark.parametrize('count, fraction', [(4, 0.1), (2, 0.5), (3, 0.6), (0, 0.5)])
def test_too_few_records_to_part(count, fraction):
    with pytest.raises(UserError, match='labelled records'):
        split.validation_size(count, fraction)
