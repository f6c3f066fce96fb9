import hashlib
import os
import shutil
import socket

import numpy as np
import pytest
from conftest import SMALL, overrides, refused, run_script

import models
from models import pretrained
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
    return said, checkpoint.weights_of(model)


def refuse(path, name='resnet18'):
    """The one line of the refusal; the network must be as it was."""
    model = build(seed=2, name=name)
    before = checkpoint.weights_of(model)
    with pytest.raises(UserError) as caught:
        pretrained.load_pretrained(model, name, str(path), DRAWN_WITH)
    assert all(np.array_equal(value, before[key]) for key, value in checkpoint.weights_of(model).items())
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
    return path, checkpoint.weights_of(model)


def write(path, weights):
    import paddle
    paddle.save(weights, str(path))
    return path


def test_build_model():
    import paddle
    model = build(12)
    first, again, other = (checkpoint.weights_of(m) for m in (model, build(12), build(12, seed=2)))
    assert all(np.array_equal(value, again[key]) for key, value in first.items())
    assert not np.array_equal(first['conv1.weight'], other['conv1.weight'])
    assert model(paddle.zeros([2, 3, 64, 64])).shape == [2, 12]


def test_none_is_a_random_start():
    model = build()
    assert pretrained.load_pretrained(model, 'resnet18', 'none', DRAWN_WITH) == ['random start: model.pretrained is none']


def test_head_of_another_size_stays_new(thousand):
    path, weights = thousand
    (said,), loaded = load(path)
    assert said == f'loaded 100 of 102 tensors of resnet18 from {path}; new, random: fc.bias, fc.weight'
    fresh = checkpoint.weights_of(build(seed=2))
    for key, value in loaded.items():
        assert np.array_equal(value, (fresh if key.startswith('fc.') else weights)[key]), key


def test_head_of_the_same_size_is_loaded(tmp_path):
    model = build()
    path = write(tmp_path / 'two.pdparams', model.state_dict())
    (said,), loaded = load(path)
    assert said == f'loaded 102 of 102 tensors of resnet18 from {path}'
    assert all(np.array_equal(value, loaded[key]) for key, value in checkpoint.weights_of(model).items())


def test_tensors_without_a_place_are_named(thousand, tmp_path):
    path = write(tmp_path / 'more.pdparams', {**thousand[1], 'ema.decay': np.ones(1, np.float32)})
    assert load(path)[0][0].endswith('; not used: ema.decay')


def test_a_best_model_folder(trained):
    folder = os.path.join(trained, 'best_model')
    said, loaded = load(folder)
    assert said == [f'loaded 102 of 102 tensors of resnet18 from {folder}']
    weights = checkpoint.load_best(folder)[0]
    assert all(np.array_equal(value, loaded[key]) for key, value in weights.items())


@pytest.mark.parametrize('name', ['best_model', 'best_model/model.pdparams'])
def test_a_best_model_that_knows_other_pictures(name, trained):
    folder = os.path.join(trained, name)
    said = pretrained.load_pretrained(build(), 'resnet18', folder, settings_of(Render(size=96, line_width=2.0)))
    assert len(said) == 2 and said[1].startswith(f'warning: {folder} was trained on pictures drawn otherwise')
    for word in ('size 64 there, 96 here', 'line_width 1.0 there, 2.0 here', '-o render.size=64'):
        assert word in said[1]


def test_a_best_model_that_was_changed(trained, tmp_path):
    folder = shutil.copytree(os.path.join(trained, 'best_model'), tmp_path / 'best_model')
    with open(folder / 'model.pdparams', 'r+b') as file:
        file.seek(5000)
        file.write(b'\1')
    assert 'its checksum differs' in refuse(folder)
    assert 'no sha256.json there' in refuse(tmp_path)


def test_zero_useful_tensors(thousand, tmp_path):
    path, weights = thousand
    prefixed = write(tmp_path / 'prefixed.pdparams', {f'backbone.{key}': value for key, value in weights.items()})
    assert f'{prefixed}: none of its 102 tensors fits resnet18; expected the weights of a resnet18' in refuse(prefixed)
    head = write(tmp_path / 'head.pdparams', {key: value for key, value in weights.items() if key.startswith('fc.')})
    assert 'none of its 2 tensors fits resnet18' in refuse(head)
    empty = write(tmp_path / 'empty.pdparams', {})
    assert 'none of its 0 tensors fits' in refuse(empty)


def test_another_architecture(thousand, tmp_path):
    path, weights = thousand
    line = refuse(path, 'resnet34')
    assert '80 tensors of resnet34 are not in it, the first is layer1.2.bn1._mean: expected shape [64], found nothing' in line
    assert 'set model.name to the network that the file holds' in line
    other = {**weights, 'layer1.0.conv1.weight': np.zeros((64, 64, 1, 1), np.float32)}  # as in resnet50
    line = refuse(write(tmp_path / 'other.pdparams', other))
    assert '1 tensors of resnet18 are not in it, the first is layer1.0.conv1.weight' in line
    assert 'expected shape [64, 64, 3, 3], found [64, 64, 1, 1]' in line


@pytest.mark.parametrize('change, words', [
    (lambda w: {**w, 'bn1.bias': np.full(64, np.nan, np.float32)}, 'bn1.bias holds NaN or infinite values'),
    (lambda w: {**w, 'bn1.bias': np.zeros(64)}, 'bn1.bias is float64, expected float32'),
    (lambda w: {'model': w, 'epoch': 3}, "'model' is a dict, expected a tensor"),
    (lambda w: list(w.values())[:2], 'holds a list, expected the weights of a network by name'),
], ids=['nan', 'float64', 'wrapped', 'list'])
def test_weights_that_are_not_usable(change, words, thousand, tmp_path):
    line = refuse(write(tmp_path / 'a.pdparams', change(thousand[1])))
    assert str(tmp_path / 'a.pdparams') in line and words in line


@pytest.mark.parametrize('data, words', [(b'', 'the file is empty'), (b'<html>404</html>', 'it looks like a web page'),
                                         (None, 'it may be truncated')])
def test_files_that_hold_no_weights(data, words, thousand, tmp_path):
    if data is None:
        with open(thousand[0], 'rb') as file:
            data = file.read(1_000_000)
    (tmp_path / 'a.pdparams').write_bytes(data)
    assert words in refuse(tmp_path / 'a.pdparams')


def test_a_path_that_is_not_there(tmp_path):
    line = refuse(tmp_path / 'nowhere.pdparams')
    assert f'model.pretrained: {tmp_path}/nowhere.pdparams does not exist; expected imagenet, none, or the path' in line


# ImageNet, without a network: the cache is a folder of the test, the connection fails, the md5 is the test file's.

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
    monkeypatch.setitem(paddle.vision.models.resnet.model_urls, 'resnet18', (url, hashlib.md5(data).hexdigest()))
    (said,), loaded = load('imagenet')
    assert said == f'loaded 100 of 102 tensors of resnet18 from {offline}; new, random: fc.bias, fc.weight'
    assert np.array_equal(loaded['conv1.weight'], thousand[1]['conv1.weight'])


@pytest.mark.parametrize('name', ['resnet18', 'resnet34', 'resnet50', 'resnet101'])
def test_imagenet_offline(name, offline):
    import paddle
    url, md5 = paddle.vision.models.resnet.model_urls[name]
    with pytest.raises(UserError) as caught:
        pretrained.imagenet_weights(name)
    line, = caught.value.lines
    for word in ('Network is unreachable', url, str(offline.parent / f'{name}.pdparams'), md5, 'model.pretrained=none'):
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
    return run_script('train.py', *overrides(*SMALL, f'data.root={drawn}', f'output={output}', 'train.iters=2', *pairs),
                      env=env)


def test_imagenet_offline_through_the_script(drawn, tmp_path):
    (tmp_path / 'sitecustomize.py').write_text(NO_NETWORK)
    result = train(drawn, tmp_path / 'output', 'model.pretrained=imagenet',
                   env={'HOME': str(tmp_path / 'home'), 'PYTHONPATH': str(tmp_path)})
    path = f'{tmp_path}/home/.cache/paddle/hapi/weights/resnet18.pdparams'
    lines = refused(result, 'cannot be downloaded', 'https://', 'resnet18.pdparams', path, 'md5', 'model.pretrained=none')
    assert len(lines) == 1
    assert not os.path.exists(tmp_path / 'output' / 'best_model')


def test_a_pdparams_file_through_the_script(drawn, thousand, tmp_path):
    result = train(drawn, tmp_path, f'model.pretrained={thousand[0]}')
    assert result.returncode == 0, result.stderr
    assert f'loaded 100 of 102 tensors of resnet18 from {thousand[0]}; new, random: fc.bias, fc.weight' in result.stdout


def test_zero_useful_tensors_through_the_script(drawn, thousand, tmp_path):
    path = write(tmp_path / 'a.pdparams', {f'module.{key}': value for key, value in thousand[1].items()})
    refused(train(drawn, tmp_path / 'output', f'model.pretrained={path}'), str(path), 'none of its 102 tensors fits')


def test_a_path_that_is_not_there_through_the_script(drawn, tmp_path):
    refused(train(drawn, tmp_path, 'model.pretrained=nowhere.pdparams'), 'nowhere.pdparams does not exist')
