import os

import numpy as np
import pytest

from models import ranks
from models.training_data import batches_left, load_data
from tests.helpers import PROJECT, SMALL, copy_with_labels, labels
from utils.running import settings
from utils.running.errors import UserError


def load(root, *pairs, fold=0):
    config = settings.load(os.path.join(PROJECT, 'config.yml'),
                           [*SMALL, f'data.root={root}', *pairs])
    return load_data(config, fold, 'python process.py')


def refuse(root, *pairs):
    with pytest.raises(UserError) as caught:
        load(root, *pairs)
    line, = caught.value.lines
    return line


def test_labels_as_people_have_them(drawn, tmp_path):
    rows = [row.replace(',', '.mat; ') for row in labels(drawn)[1:]]
    text = '\r\n\r\n'.join(['name;tag', *reversed(rows), ''])
    root = copy_with_labels(drawn, tmp_path / 'root', text.encode('utf-16'))
    assert load(root).fingerprint == {**load(drawn).fingerprint}  # checksum of names and labels


def test_what_cannot_be_trained_is_one_line(drawn, tmp_path):
    ones = 'name,tag\n' + ''.join(f'TRAIN{i + 1:04d},1\n' for i in range(40))
    root = copy_with_labels(drawn, tmp_path / 'root', ones)
    assert 'all 40 tags are 1, expected some 0 (normal) and some 1 (abnormal)' in refuse(root)
    os.remove(os.path.join(root, 'trainreference.csv'))
    assert 'trainreference.csv: no such file' in refuse(root)
    assert '37, with 36 training records' in refuse(drawn, 'train.batch_size=37')
    assert 'TRAIN0001.png: drawn with size 64' in refuse(drawn, 'render.size=96')
    assert f'{tmp_path}: no pictures that process.py drew' in refuse(tmp_path)


def test_each_picture_has_its_own_label_and_part(drawn):
    data = load(drawn)
    assert len(data.targets) == len(data.pictures) == 36 and data.epoch_iters == 4
    assert sorted(data.val_targets) == [0, 0, 1, 1]
    for pictures, targets in ((data.pictures, data.targets), (data.val_pictures, data.val_targets)):
        assert [(int(path[-8:-4]) + 1) % 2 for path in pictures.paths] == targets.tolist()
    assert data.pictures.augmentation and not data.val_pictures.augmentation
    assert not set(data.pictures.paths) & set(data.val_pictures.paths)
    folds = [load(drawn, 'train.folds=3', fold=fold).val_names for fold in range(3)]
    assert sorted(sum(folds, [])) == [f'TRAIN{i + 1:04d}' for i in range(40)]


def test_batches_hold_each_record_once_an_epoch_wherever_a_run_goes_on(drawn, monkeypatch):
    def batches(done, world=1, rank=0):
        monkeypatch.setattr(ranks, 'world', lambda: world)
        monkeypatch.setattr(ranks, 'rank', lambda: rank)
        config = settings.load(os.path.join(PROJECT, 'config.yml'), [*SMALL, 'train.iters=10'])
        return list(batches_left(data, config, done))

    data = load(drawn)
    whole = batches(0)
    assert [epoch for epoch, _ in whole] == [0] * 4 + [1] * 4 + [2] * 2
    assert len(set(np.concatenate([batch for _, batch in whole[:4]]))) == 32
    assert sorted(whole[0][1]) != sorted(whole[4][1])
    for (_, one), (_, other) in zip(whole[6:], batches(6)):
        assert np.array_equal(one, other)
    halves = [batches(0, 2, rank)[0][1] for rank in (0, 1)]
    assert sorted(np.concatenate(halves)) == sorted(whole[0][1])
    assert len(halves[0]) == len(halves[1])
