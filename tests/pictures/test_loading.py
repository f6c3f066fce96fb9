import json
import os
import shutil
import threading

import numpy as np
import pytest

from tests.helpers import make_signal
from utils.pictures import loading
from utils.pictures.render import Renderer, encode_png, settings_of
from utils.running.errors import UserError
from utils.running.settings import Augment, Render

SIZE = 64
DRAWN_WITH = settings_of(Render(size=SIZE))
NAMES = [f'r{i}' for i in range(8)]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A data.root with pictures of the part train, as process.py leaves it."""
    root = tmp_path_factory.mktemp('root')
    (root / 'train').mkdir()
    renderer = Renderer(SIZE, 2.0, 1.0)
    for seed, name in enumerate(NAMES):
        png = encode_png(renderer.draw(make_signal(seed)), {**DRAWN_WITH, 'record': seed})
        (root / 'train' / f'{name}.png').write_bytes(png)
    (root / 'render.json').write_text(json.dumps({
        **DRAWN_WITH, 'train': NAMES, 'val': [], 'not_drawn': {'train': [], 'val': []},
        'finished': True, 'command': 'python process.py -o mend=it'}))
    return root


@pytest.fixture
def root(source, tmp_path):
    return shutil.copytree(source, tmp_path / 'root')


def list_train(root, drawn_with=DRAWN_WITH):
    return loading.list_pictures(str(root), 'train', drawn_with, 'python process.py -o redraw=it')


def test_all_pictures_are_listed(root):
    assert list_train(root) == NAMES


@pytest.mark.parametrize('change, words', [
    (lambda root: os.remove(root / 'train' / 'r3.png'), r'missing 1 \(r3\).*-o mend=it'),
    (lambda root: shutil.copy(root / 'train/r3.png', root / 'train/x.png'), r'1 \(x\).*mend=it'),
    (lambda root: manifest(root, finished=False), 'did not finish.*mend=it'),
    (lambda root: manifest(root, not_drawn={'train': ['r1'], 'val': []}), r'could not.*1.*\(r1\)'),
    (lambda root: os.remove(root / 'render.json'), 'no pictures that process.py drew.*redraw=it'),
    (lambda root: (root / 'render.json').write_text('[1'), 'no pictures that process.py drew'),
    (lambda root: (root / 'train/r2.png').write_bytes(b'\x89PNG'), 'r2.png: damaged.*redraw=it'),
    (lambda root: shutil.rmtree(root / 'train'), 'missing 8'),
])
def test_what_is_missing_left_over_or_unfinished_is_refused(change, words, root):
    change(root)
    with pytest.raises(UserError, match=words):
        list_train(root)


def manifest(root, **change):
    known = json.loads((root / 'render.json').read_text())
    (root / 'render.json').write_text(json.dumps({**known, **change}))


@pytest.mark.parametrize('change', [{'size': 96}, {'mv_per_lead': 3.0}, {'version': 0}])
def test_pictures_with_other_settings(change, root):
    key, value = next(iter(change.items()))
    with pytest.raises(UserError, match=rf'{key} .*\(expected {value}\).*redraw=it'):
        list_train(root, {**DRAWN_WITH, **change})


def test_a_part_without_records(root):
    (root / 'val').mkdir()
    with pytest.raises(UserError, match='no records'):
        loading.list_pictures(str(root), 'val', DRAWN_WITH, 'python process.py')


def paths_of(root):
    return [str(root / 'train' / f'{name}.png') for name in NAMES]


@pytest.mark.parametrize('workers', [1, 3])
@pytest.mark.parametrize('cached', [True, False])
def test_batches_come_in_order_whoever_reads(source, workers, cached):
    augmentation = (Augment(), SIZE / 24, 5)
    batches = [(epoch, np.random.default_rng(epoch).permutation(8)[:5]) for epoch in range(6)]
    read = loading.Pictures(paths_of(source), (SIZE, SIZE), cached, augmentation)
    alone = loading.Pictures(paths_of(source), (SIZE, SIZE), False, augmentation)
    found = list(loading.read_batches(read, iter(batches), workers))
    assert [epoch for epoch, _, _ in found] == list(range(6))
    for (epoch, indices), (_, told, pixels) in zip(batches, found):
        assert told is indices
        expected = np.stack([alone.read(index, epoch) for index in indices])
        assert np.array_equal(pixels, expected)
    assert not np.array_equal(alone.read(0, 0), alone.read(0, 1))
    assert not [each for each in threading.enumerate() if each.name.startswith('read')]


def test_a_damaged_picture_is_named_and_no_reader_stays_behind(root):
    data = (root / 'train/r5.png').read_bytes()
    (root / 'train/r5.png').write_bytes(data[:len(data) // 2])
    pictures = loading.Pictures(paths_of(root), (SIZE, SIZE), False)
    with pytest.raises(UserError, match='r5.png: a damaged PNG'):
        list(loading.read_batches(pictures, [(0, np.arange(8))], 2))
    assert not [each for each in threading.enumerate() if each.name.startswith('read')]


def test_epochs_have_orders_of_their_own():
    first, second = (loading.epoch_order(100, 1, epoch) for epoch in (0, 1))
    assert sorted(first) == list(range(100)) and not np.array_equal(first, second)
    assert np.array_equal(first, loading.epoch_order(100, 1, 0))


def test_what_fits_in_memory(monkeypatch):
    monkeypatch.setattr(loading.machine, 'free_memory', lambda: 1000)
    assert loading.fits_in_memory('auto', 4, (11, 11))
    assert not loading.fits_in_memory('auto', 5, (11, 11))
    assert loading.fits_in_memory(True, 10**9, (640, 640))
    assert not loading.fits_in_memory(False, 1, (8, 8))
    monkeypatch.setattr(loading.machine, 'free_memory', lambda: None)
    assert not loading.fits_in_memory('auto', 1, (8, 8))
