import hashlib
import os
import shutil
import socket

import numpy as np
import pytest
from conftest import SMALL, overrides, refused, run_script

import models
from models import pretrained
from models.weights import weights_of
from utils import checkpoint
from utils.config import Render
from utils.errors import UserError
from utils.render import settings_of

DRAWN_WITH = settings_of(Render(size=64))


def build(classes=2, seed=1, name='resnet18'):
    return models.build_model(name, classes, seed)


def load(path, name='resnet18'):
    """Load into a fresh network.

    Returns: (lines said, weights after)
    """
    model = build(seed=2, name=name)
    said = pretrained.load_pretrained(model, name, str(path), DRAWN_WITH)
    return said, weights_of(model)


def refuse(path, name='resnet18'):
    """The one line of the refusal; the network must be as it was."""
    model = build(seed=2, name=name)
    before = weights_of(model)
    with pytest.raises(UserError) as caught:
        pretrained.load_pretrained(model, name, str(path), DRAWN_WITH)
    after = weights_of(model)
    assert all(np.array_equal(value, before[key]) for key, value in after.items())
    line, = caught.value.lines
    return line


@pytest.fixture(scope='module')
def thousand(tmp_path_factory):
    """A .pdparams as Paddle writes it, of a network with 1,000 classes.

    Returns: (path, {name: numpy array})
    """
    import paddle
    path = str(tmp_path_factory.mktemp('weights') / 'thousand.pdparams')
    model = build(1000)
    paddle.save(model.state_dict(), path)
    return path, weights_of(model)


def write(path, weights):
    import paddle
    paddle.save(weights, str(path))
    return path


def test_build_model():
    import paddle
    model = build(12)
    first, again, other = (weights_of(m) for m in (model, build(12), build(12, seed=2)))
    assert all(np.array_equal(value, again[key]) for key, value in first.items())
    assert not np.array_equal(first['conv1.weight'], other['conv1.weight'])
    assert model(paddle.zeros([2, 3, 64, 64])).shape == [2, 12]


def test_none_is_a_random_start():
    model = build()
    said = pretrained.load_pretrained(model, 'resnet18', 'none', DRAWN_WITH)
    assert said == ['random start: model.pretrained is none']


def test_head_of_another_size_stays_new(thousand):
    path, weights = thousand
    (said,), loaded = load(path)
    assert said.startswith(f'loaded 100 of 102 tensors of resnet18 from {path}; new, random: fc')
    fresh = weights_of(build(seed=2))
    for key, value in loaded.items():
        assert np.array_equal(value, (fresh if key.startswith('fc.') else weights)[key]), key


def test_head_of_the_same_size_is_loaded(tmp_path):
    model = build()
    path = write(tmp_path / 'two.pdparams', model.state_dict())
    (said,), loaded = load(path)
    assert said == f'loaded 102 of 102 tensors of resnet18 from {path}'
    assert all(np.array_equal(value, loaded[key]) for key, value in weights_of(model).items())


def test_tensors_without_a_place_are_named(thousand, tmp_path):
    path = write(tmp_path / 'more.pdparams', {**thousand[1], 'ema.decay': np.ones(1, np.float32)})
    assert load(path)[0][0].endswith('; not used: ema.decay')


def test_a_best_model_folder(trained):
    folder = os.path.join(trained, 'best_model')
    said, loaded = load(folder)
    assert said == [f'loaded 102 of 102 tensors of resnet18 from {folder}']
    weights = checkpoint.load_best(folder)[0][0]
    assert all(np.array_equal(value, loaded[key]) for key, value in weights.items())


def test_a_best_model_that_knows_other_pictures(trained):
    folder = os.path.join(trained, 'best_model')
    drawn_with = settings_of(Render(size=96, line_width=2.0))
    said = pretrained.load_pretrained(build(), 'resnet18', folder, drawn_with)
    assert len(said) == 2 and said[1].startswith(f'warning: {folder} was trained on pictures')
    for word in ('size 64 there, 96 here', 'line_width 1.0 there, 2.0 here', '-o render.size=64'):
        assert word in said[1]


def test_a_best_model_that_was_changed(trained, tmp_path):
    folder = shutil.copytree(os.path.join(trained, 'best_model'), tmp_path / 'best_model')
    with open(folder / 'model.pdparams', 'r+b') as file:
        file.seek(5000)
        file.write(b'\1')
    assert 'its checksum differs' in refuse(folder)


def test_zero_useful_tensors(thousand, tmp_path):
    _, weights = thousand
    head = {key: value for key, value in weights.items() if key.startswith('fc.')}
    for name, held in (('prefixed', {f'backbone.{key}': value for key, value in weights.items()}),
                       ('head', head), ('empty', {})):
        line = refuse(write(tmp_path / f'{name}.pdparams', held))
        assert f'{name}.pdparams: 100 of 102 tensors of resnet18 are not in it' in line


def test_another_architecture(thousand, tmp_path):
    path, weights = thousand
    line = refuse(path, 'resnet34')
    assert '80 of 182 tensors of resnet34 are not in it' in line
    assert 'layer1.2.bn1._mean: expected shape [64], found nothing' in line
    other = {**weights, 'layer1.0.conv1.weight': np.zeros((64, 64, 1, 1), np.float32)}
    line = refuse(write(tmp_path / 'other.pdparams', other))
    assert '1 of 102 tensors of resnet18 are not in it' in line
    assert 'expected shape [64, 64, 3, 3], found [64, 64, 1, 1]' in line


@pytest.mark.parametrize('change', [
    lambda w: {**w, 'bn1.bias': np.full(64, np.nan, np.float32)},
    lambda w: {**w, 'bn1.bias': np.zeros(64)}, lambda w: {'model': w, 'epoch': 3},
    lambda w: list(w.values())[:2]], ids=['nan', 'float64', 'wrapped', 'list'])
def test_weights_that_are_not_usable(change, thousand, tmp_path):
    line = refuse(write(tmp_path / 'a.pdparams', change(thousand[1])))
    assert str(tmp_path / 'a.pdparams') in line


def test_a_path_that_is_not_there(tmp_path):
    line = refuse(tmp_path / 'nowhere.pdparams')
    assert f'model.pretrained: {tmp_path}/nowhere.pdparams does not exist' in line


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
    import paddle
    with open(thousand[0], 'rb') as file:
        data = file.read()
    offline.write_bytes(data)
    url = paddle.vision.models.resnet.model_urls['resnet18'][0]
    monkeypatch.setitem(paddle.vision.models.resnet.model_urls, 'resnet18',
                        (url, hashlib.md5(data).hexdigest()))
    (said,), loaded = load('imagenet')
    assert said.startswith(f'loaded 100 of 102 tensors of resnet18 from {offline}; new, random: fc')
    assert np.array_equal(loaded['conv1.weight'], thousand[1]['conv1.weight'])


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101'])
def test_imagenet_offline(name, offline):
    import paddle
    url, md5 = paddle.vision.models.resnet.model_urls[name]
    with pytest.raises(UserError) as caught:
        pretrained.imagenet_weights(name)
    line, = caught.value.lines
    for word in ('Network is unreachable', url, str(offline.parent / f'{name}.pdparams'), md5,
                 'model.pretrained=none'):
        assert word in line


def test_imagenet_with_a_broken_file_in_the_cache(offline):
    import paddle
    offline.write_bytes(b'half a download')
    line = refuse('imagenet')
    assert line.startswith(f'{offline}: not the ImageNet weights of resnet18') and 'remove it' in line
    assert hashlib.md5(b'half a download').hexdigest() in line
    assert all(word in line for word in paddle.vision.models.resnet.model_urls['resnet18'])
    assert offline.read_bytes() == b'half a download'


# Through the real script.

NO_NETWORK = """
import socket


def fail(*_, **__):
    raise OSError('Network is unreachable')


socket.create_connection = fail
"""


def train(drawn, output, *pairs, env=None):
    return run_script('train.py', *overrides(*SMALL, f'data.root={drawn}', f'output={output}',
                                             'train.iters=2', *pairs), env=env)


def test_imagenet_offline_through_the_script(drawn, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(NO_NETWORK)
    result = train(drawn, tmp_path / 'output', 'model.pretrained=imagenet',
                   env={'HOME': str(tmp_path / 'home'), 'PYTHONPATH': str(tmp_path)})
    path = f'{tmp_path}/home/.cache/paddle/hapi/weights/resnet18.pdparams'
    lines = refused(result, 'cannot be downloaded', 'https://', path, 'md5', 'model.pretrained=none')
    assert len(lines) == 1
    assert not os.path.exists(tmp_path / 'output' / 'best_model')


def test_a_pdparams_file_through_the_script(drawn, thousand, tmp_path):
    result = train(drawn, tmp_path, f'model.pretrained={thousand[0]}')
    assert result.returncode == 0, result.stderr
    assert f'loaded 100 of 102 tensors of resnet18 from {thousand[0]}; new, random' in result.stdout


def test_zero_useful_tensors_through_the_script(drawn, thousand, tmp_path):
    held = {f'module.{key}': value for key, value in thousand[1].items()}
    path = write(tmp_path / 'a.pdparams', held)
    result = train(drawn, tmp_path / 'output', f'model.pretrained={path}')
    refused(result, str(path), '100 of 102 tensors')


def test_a_path_that_is_not_there_through_the_script(drawn, tmp_path):
    result = train(drawn, tmp_path, 'model.pretrained=nowhere.pdparams')
    refused(result, 'nowhere.pdparams does not exist')
