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


def test_patients_are_read_where_they_are_named(tmp_path):
    assert split.read_patients(str(tmp_path), ['a', 'b']) == ['a', 'b']
    (tmp_path / 'source.csv').write_text('name,ecg_id,patient\nb,1,007\na,2,007\n')
    assert split.read_patients(str(tmp_path), ['a', 'b', 'c']) == ['007', '007', 'c']
    for data in ('姓名,patient\n'.encode('gbk'), b'', b'name,patient\n"a,1\n'):
        (tmp_path / 'source.csv').write_bytes(data)
        with pytest.raises(UserError, match='source.csv'):
            split.read_patients(str(tmp_path), ['a'])


@pytest.mark.parametrize('count, fraction', [(4, 0.1), (2, 0.5), (3, 0.6), (0, 0.5)])
def test_too_few_records_to_part(count, fraction):
    with pytest.raises(UserError, match='labelled records'):
        split.validation_size(count, fraction)
