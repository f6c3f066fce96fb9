import os
import threading

import numpy as np
import pytest
from conftest import make_signal

from utils import images, runtime
from utils.config import Augment, Render
from utils.errors import UserError
from utils.render import Renderer, encode_png, settings_of

SIZE = 48
DRAWN_WITH = settings_of(Render(size=SIZE))


@pytest.fixture(scope='module')
def pictures_on_disk(tmp_path_factory):
    """(root, list of paths, list of pictures): twelve pictures in root/train."""
    root = tmp_path_factory.mktemp('pictures')
    os.makedirs(root / 'train')
    renderer = Renderer(SIZE, 2.0, 1.0)
    paths, pictures = [], []
    for i in range(12):
        pictures.append(renderer.draw(make_signal(i, 60 + 5 * i)))
        paths.append(str(root / 'train' / f'A{i:02d}.png'))
        with open(paths[-1], 'wb') as file:
            file.write(encode_png(pictures[-1], {**DRAWN_WITH, 'record': i}))
    return str(root), paths, pictures


# The split.

def tags(normal, abnormal, seed=0):
    return np.random.default_rng(seed).permutation(np.repeat([0, 1], [normal, abnormal]))


@pytest.mark.parametrize('normal', [800, 500, 1300, 1])
def test_1600_records_give_1440_and_160(normal):
    targets = tags(normal, 1600 - normal)
    train, validation = images.split(targets, 0.1, 2021)
    assert (len(train), len(validation)) == (1440, 160)
    assert len(train) // 32 == 45
    assert abs(targets[validation].sum() - 160 * (1600 - normal) / 1600) <= 0.5  # each class alike


@pytest.mark.parametrize('count, fraction', [(40, 0.1), (37, 0.25), (353, 0.1), (3, 0.34), (10, 0.79)])
def test_split_parts_everything_once(count, fraction):
    targets = tags(count // 3, count - count // 3)
    train, validation = images.split(targets, fraction, 1)
    assert sorted([*train, *validation]) == list(range(count))
    assert len(validation) == round(count * fraction)
    assert (np.diff(train) > 0).all() and (np.diff(validation) > 0).all()


def test_split_depends_on_the_seed_alone():
    targets = tags(200, 200)
    first, again, other = (images.split(targets, 0.1, seed)[1] for seed in (2021, 2021, 2022))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    np.random.seed(1)
    assert np.array_equal(images.split(targets, 0.1, 2021)[1], first)


def test_split_of_several_labels_keeps_each_labels_share():
    rng = np.random.default_rng(0)
    targets = (rng.random((500, 12)) < np.linspace(0.02, 0.5, 12)).astype(np.float32)
    train, validation = images.split(targets, 0.2, 3)
    assert sorted([*train, *validation]) == list(range(500)) and len(validation) == 100
    assert np.abs(targets[validation].sum(axis=0) - 0.2 * targets.sum(axis=0)).max() <= 4
    assert targets[validation].any(axis=0).all()  # the rare ones, too


@pytest.mark.parametrize('count, fraction', [(3, 0.1), (2, 0.5), (10, 0.9), (0, 0.1)])
def test_too_few_records_to_part(count, fraction):
    with pytest.raises(UserError, match=f'{count} labelled records and data.validation_fraction'):
        images.split(np.arange(count) % 2, fraction, 1)


# Reading.

def augmented(paths, seed=7, cached=False):
    return images.Pictures(paths, SIZE, cached, (Augment(), SIZE / 24, seed))


def read(pictures, batches, epoch=0, workers=1):
    return list(images.read_batches(pictures, batches, epoch, workers))


def test_batches_come_in_order(pictures_on_disk):
    _, paths, drawn = pictures_on_disk
    batches = [np.array([3, 1, 2]), np.array([0, 11]), np.array([5])]
    for cached in (False, True):
        pictures = images.Pictures(paths, SIZE, cached)
        for _ in range(2):  # from the files, then from memory
            for batch, pixels in zip(batches, read(pictures, batches, workers=3)):
                assert pixels.dtype == np.uint8 and pixels.shape == (len(batch), SIZE, SIZE)
                assert all(np.array_equal(pixels[k], drawn[i]) for k, i in enumerate(batch))


def test_augmentation_depends_on_seed_epoch_and_record_alone(pictures_on_disk):
    _, paths, drawn = pictures_on_disk
    one = [augmented(paths).read(i, 0) for i in range(12)]
    batches = [np.array([11, 0, 5, 3]), np.array([1, 2, 4, 10]), np.array([6, 7, 8, 9])]
    for workers in (1, 2, 5):
        for cached in (False, True):
            pictures = augmented(paths, cached=cached)
            for batch, pixels in zip(batches * 2, read(pictures, batches * 2, workers=workers)):
                assert all(np.array_equal(pixels[k], one[i]) for k, i in enumerate(batch))
    assert not np.array_equal(augmented(paths).read(4, 1), one[4])
    assert not np.array_equal(augmented(paths, seed=8).read(4, 0), one[4])
    assert not np.array_equal(one[4], drawn[4])
    same_twice = images.Pictures([paths[0]] * 2, SIZE, False, (Augment(), SIZE / 24, 7))
    assert not np.array_equal(same_twice.read(0, 0), same_twice.read(1, 0))


def test_a_damaged_picture_is_named(pictures_on_disk, tmp_path):
    _, paths, _ = pictures_on_disk
    with open(paths[0], 'rb') as file:
        data = file.read()
    (tmp_path / 'bad.png').write_bytes(data[:len(data) // 2])
    pictures = images.Pictures([*paths, str(tmp_path / 'bad.png')], SIZE, False)
    with pytest.raises(UserError, match='bad.png: a damaged PNG'):
        read(pictures, [np.array([1, 2]), np.array([3, 12])], workers=2)


def test_no_reader_thread_stays_behind(pictures_on_disk):
    _, paths, _ = pictures_on_disk
    batches = [np.array([i]) for i in range(12)]
    for _ in images.read_batches(images.Pictures(paths, SIZE, False), batches, 0, 4):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith('read')]


def test_epoch_order():
    first = images.epoch_order(100, 1, 0)
    assert sorted(first) == list(range(100))
    assert np.array_equal(first, images.epoch_order(100, 1, 0))
    assert not np.array_equal(first, images.epoch_order(100, 1, 1))
    assert not np.array_equal(first, images.epoch_order(100, 2, 0))


def test_what_fits_in_memory(monkeypatch):
    assert images.fits_in_memory(True, 10**9, 640) is True and images.fits_in_memory(False, 1, 32) is False
    monkeypatch.setattr(runtime, 'free_memory', lambda: 1000 * 100 * 100)
    assert images.fits_in_memory('auto', 499, 100) and not images.fits_in_memory('auto', 501, 100)
    monkeypatch.setattr(runtime, 'free_memory', lambda: None)
    assert not images.fits_in_memory('auto', 1, 32)


# Which pictures there are.

def test_list_pictures(pictures_on_disk):
    root, paths, _ = pictures_on_disk
    names = images.list_pictures(root, 'train', DRAWN_WITH, 'python process.py')
    assert names == [os.path.basename(path)[:-4] for path in paths]


@pytest.mark.parametrize('root, part', [('pictures', 'val'), ('nowhere', 'train')])
def test_no_pictures(pictures_on_disk, root, part):
    root = pictures_on_disk[0] if root == 'pictures' else root
    with pytest.raises(UserError, match='no pictures; draw them with: python process.py -o x=1'):
        images.list_pictures(root, part, DRAWN_WITH, 'python process.py -o x=1')


@pytest.mark.parametrize('change', [{'size': 64}, {'mv_per_lead': 3.0}, {'line_width': 0.5}, {'version': 2}])
def test_pictures_with_other_settings(pictures_on_disk, change):
    (key, value), = change.items()
    with pytest.raises(UserError) as caught:
        images.list_pictures(pictures_on_disk[0], 'train', {**DRAWN_WITH, **change}, 'HOW')
    line, = caught.value.lines
    assert f'A00.png: drawn with other settings: {key} {DRAWN_WITH[key]} (expected {value}); redraw it with: HOW' in line


# On the device.

def test_to_input():
    batch = np.stack([np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)])
    pixels = images.to_input(batch)
    assert pixels.shape == [2, 3, 8, 8] and str(pixels.dtype).endswith('float32')
    mean, std = np.array([0.485, 0.456, 0.406]).mean(), np.array([0.229, 0.224, 0.225]).mean()  # of ImageNet's channels
    assert np.allclose(pixels[0].numpy(), -mean / std, atol=0.01)
    assert np.allclose(pixels[1].numpy(), (1 - mean) / std, atol=0.01)
