import hashlib
import os
import socket

import numpy as np
import paddle
import pandas as pd
import pytest

from models import best_model, build_model, pretrained
from models.weights import weights_of
from utils.answers import tasks
from utils.pictures.render import settings_of
from utils.running.errors import UserError
from utils.running.settings import Config, Model, Render

DRAWN_WITH = settings_of(Render(size=64, beats=False))


def load(path, name='resnet18', drawn_with=DRAWN_WITH, task=1):
    """Load into a fresh network: (lines said, weights after)."""
    task = tasks.TASKS[task]
    model = build_model(name, len(task.class_names), seed=2)
    said = pretrained.load_pretrained(model, name, str(path), drawn_with, task)
    return said, weights_of(model)


def refuse(path, name='resnet18'):
    """The one line of the refusal; the network must be as it was."""
    model = build_model(name, 2, seed=2)
    before = weights_of(model)
    with pytest.raises(UserError) as caught:
        pretrained.load_pretrained(model, name, str(path), DRAWN_WITH, tasks.TASKS[1])
    after = weights_of(model)
    assert all(np.array_equal(value, before[key]) for key, value in after.items())
    line, = caught.value.lines
    return line


@pytest.fixture(scope='module')
def thousand(tmp_path_factory):
    """A .pdparams as Paddle writes it, of a network with 1,000 classes: (path, weights)."""
    path = str(tmp_path_factory.mktemp('weights') / 'thousand.pdparams')
    model = build_model('resnet18', 1000, seed=1)
    paddle.save(model.state_dict(), path)
    return path, weights_of(model)


def save_best(folder, weights, task):
    """A best_model of these weights; its path."""
    metrics = {'epoch': 1, 'iteration': 5, 'validation': {'f1': 0.5}}
    config = Config(task=task, render=Render(size=64, beats=False), model=Model(name='resnet18'))
    best_model.save_best(str(folder / 'best_model'), [weights], config, metrics,
                         pd.DataFrame({'name': []}))
    return folder / 'best_model'


def write(path, weights):
    paddle.save(weights, str(path))
    return path


def test_none_is_a_random_start():
    said, weights = load('none')
    fresh = weights_of(build_model('resnet18', 2, seed=2))
    assert 'random' in said[0] and all(np.array_equal(weights[key], fresh[key]) for key in fresh)


def test_head_of_another_size_stays_new_and_what_has_no_place_is_named(thousand, tmp_path):
    weights = thousand[1]
    path = write(tmp_path / 'more.pdparams', {**weights, 'ema.decay': np.ones(1, np.float32)})
    (said,), loaded = load(path)
    assert f'100 of 102 tensors of resnet18 from {path}' in said
    assert 'new, random: fc.bias, fc.weight' in said and said.endswith('; not used: ema.decay')
    fresh = weights_of(build_model('resnet18', 2, seed=2))
    for key, value in loaded.items():
        assert np.array_equal(value, (fresh if key.startswith('fc.') else weights)[key]), key


def test_after_task_3_each_class_begins_with_its_finding(tmp_path):
    start = weights_of(build_model('resnet18', len(tasks.TASKS[3].class_names), seed=1))
    folder = save_best(tmp_path, start, 3)
    (said,), loaded = load(folder, task=2)
    assert '102 of 102 tensors' in said
    for key in ('fc.weight', 'fc.bias'):
        finding = dict(zip(tasks.TASKS[3].class_names, start[key].T))
        classes = dict(zip(tasks.TASKS[2].class_names, loaded[key].T))
        assert np.array_equal(classes.pop('normal'), -finding['abnormal'])
        assert all(np.array_equal(value, finding[name]) for name, value in classes.items())
    line = refuse(folder, name='resnet34')
    assert 'model.name=resnet18' in line and 'render.size=64' in line
    (said,), loaded = load(folder, task=3)
    assert all(np.array_equal(value, loaded[key]) for key, value in start.items())


def test_a_best_model_folder(tmp_path):
    weights = weights_of(build_model('resnet18', 2, seed=1))
    folder = save_best(tmp_path, weights, 1)
    (said,), loaded = load(folder)
    assert f'102 of 102 tensors of resnet18 from {folder}' in said
    assert all(np.array_equal(value, loaded[key]) for key, value in weights.items())
    said, _ = load(folder, drawn_with=settings_of(Render(size=96, line_width=2.0)))
    assert len(said) == 2 and said[1].startswith('warning: ')
    for word in ('size 64 there, 96 here', 'line_width 1.0 there, 2.0 here', '-o render.size=64'):
        assert word in said[1]
    with open(folder / 'model.pdparams', 'r+b') as file:
        file.seek(5000)
        file.write(b'\1')
    assert 'checksum differs' in refuse(folder)


def test_no_useful_tensors(thousand, tmp_path):
    _, weights = thousand
    head = {key: value for key, value in weights.items() if key.startswith('fc.')}
    for name, held in (('prefixed', {f'backbone.{key}': value for key, value in weights.items()}),
                       ('head', head), ('empty', {})):
        line = refuse(write(tmp_path / f'{name}.pdparams', held))
        assert f'{name}.pdparams' in line and '100 of 102 tensors of resnet18' in line


def test_another_architecture(thousand, tmp_path):
    path, weights = thousand
    line = refuse(path, 'resnet34')
    assert '80 of 182 tensors of resnet34' in line and 'layer1.2.bn1._mean' in line
    other = {**weights, 'layer1.0.conv1.weight': np.zeros((64, 64, 1, 1), np.float32)}
    line = refuse(write(tmp_path / 'other.pdparams', other))
    assert 'expected shape [64, 64, 3, 3], found [64, 64, 1, 1]' in line


# ImageNet, without a network: the cache is a folder of the test, the connection fails, the md5 is
# the test file's.

@pytest.fixture
def offline(tmp_path, monkeypatch):
    import paddle.utils.download

    def fail(*_, **__):
        raise OSError('Network is unreachable')

    monkeypatch.setattr(socket, 'create_connection', fail)
    monkeypatch.setattr(paddle.utils.download, 'WEIGHTS_HOME', str(tmp_path / 'cache'))
    os.makedirs(tmp_path / 'cache')
    return tmp_path / 'cache' / 'resnet18.pdparams'


def test_imagenet_from_the_cache(thousand, offline, monkeypatch):
    with open(thousand[0], 'rb') as file:
        data = file.read()
    offline.write_bytes(data)
    url = paddle.vision.models.resnet.model_urls['resnet18'][0]
    monkeypatch.setitem(paddle.vision.models.resnet.model_urls, 'resnet18',
                        (url, hashlib.md5(data).hexdigest()))
    (said,), loaded = load('imagenet')
    assert f'100 of 102 tensors of resnet18 from {offline}' in said
    assert np.array_equal(loaded['conv1.weight'], thousand[1]['conv1.weight'])


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101'])
def test_imagenet_offline(name, offline):
    with pytest.raises(UserError) as caught:
        pretrained.imagenet_weights(name)
    line, = caught.value.lines
    for word in ('Network is unreachable', str(offline.parent / f'{name}.pdparams'),
                 *paddle.vision.models.resnet.model_urls[name], 'model.pretrained=none'):
        assert word in line


def test_imagenet_with_a_broken_file_in_the_cache(offline):
    offline.write_bytes(b'half a download')
    line = refuse('imagenet')
    for word in (str(offline), hashlib.md5(b'half a download').hexdigest(), 'remove it',
                 *paddle.vision.models.resnet.model_urls['resnet18']):
        assert word in line
    assert offline.read_bytes() == b'half a download'
