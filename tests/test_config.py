import ast
import glob
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import PROJECT, overrides, refused, run_script

from utils import config as settings
from utils import runtime
from utils.errors import UserError

CONFIG = os.path.join(PROJECT, 'config.yml')
SCRIPTS = ('process.py', 'train.py', 'predict.py')


def load(*pairs, text=None, tmp_path=None):
    if text is None:
        return settings.load(CONFIG, pairs)
    path = tmp_path / 'my.yml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode('utf-8'))
    return settings.load(str(path), pairs)


def message(*pairs, **where):
    """The one line with which settings are refused."""
    with pytest.raises(UserError) as caught:
        load(*pairs, **where)
    assert len(caught.value.lines) == 1
    return caught.value.lines[0]


def test_file_holds_the_defaults():
    assert load() == settings.Config()
    with open(CONFIG, encoding='utf-8') as file:
        values = yaml.safe_load(file)
    in_file = [f'{key}.{inner}' if isinstance(value, dict) else key for key, value in values.items()
               for inner in (value if isinstance(value, dict) else [None])]
    assert in_file == list(settings.flatten(settings.Config()))  # all of them, in the same order


def test_every_key_has_a_comment():
    with open(CONFIG, encoding='utf-8') as file:
        lines = [line for line in file.read().splitlines() if re.match(r' *\w+:', line)]
    assert len(lines) > 40
    for line in lines:
        is_section = re.fullmatch(r'\w+:', line)
        assert is_section or re.search(r'\S +# \S.{8,}', line), line


def test_settings_that_other_tools_rely_on():
    flat = settings.flatten(settings.Config())
    for key in ('task', 'seed', 'device', 'data.source', 'data.root', 'render.size', 'model.pretrained', 'train.iters',
                'train.batch_size', 'train.learning_rate', 'train.warmup_iters', 'output'):
        assert key in flat
    assert flat['train.iters'] == 10000 and flat['train.batch_size'] == 32 and flat['train.warmup_iters'] == 200


@pytest.mark.parametrize('pair, unknown, nearest', [
    ('train.iter=5', 'train.iter', 'train.iters'),
    ('tran.iters=5', 'tran', 'train'),
    ('train.learningrate=5', 'train.learningrate', 'train.learning_rate'),
    ('size=224', 'size', 'render.size'),
    ('iters=5', 'iters', 'train.iters'),
    ('render.sise=64', 'render.sise', 'render.size'),
    ('augment.flip=true', 'augment.flip', 'augment.'),
])
def test_unknown_key(pair, unknown, nearest):
    line = message(pair)
    assert f'unknown key {unknown};' in line and f'nearest known key is {nearest}' in line


@pytest.mark.parametrize('pair, words', [
    ('train.iters=many', ('train.iters is many (text)', 'a whole number')),
    ('train.iters=1.5', ('train.iters is 1.5', 'a whole number')),
    ('train.iters=true', ('train.iters is true', 'a whole number')),
    ('train.iters=', ('train.iters is empty', 'a whole number')),
    ('train.learning_rate=fast', ('train.learning_rate is fast', 'a number')),
    ('train.learning_rate=true', ('train.learning_rate is true', 'a number')),
    ('train.amp=maybe', ('train.amp is maybe', 'one of auto, true, false')),
    ('train.amp=1', ('train.amp is 1', 'text or true or false')),
    ('render.size=[64]', ('render.size is a list', 'a whole number')),
    ('render.size={a: 1}', ('render.size is a section of keys', 'a whole number')),
    ('data.source=5', ('data.source is 5', 'text')),
    ('model.name=null', ('model.name is empty', 'text')),
    ('output=2021-11-15', ('output is 2021-11-15', 'text')),
    ('train=5', ('train is a section of keys', '5')),
])
def test_wrong_type(pair, words):
    line = message(pair)
    assert all(word in line for word in words), line


@pytest.mark.parametrize('pair, words', [
    ('train.iters=0', ('train.iters is 0', 'at least 1')),
    ('train.batch_size=1', ('train.batch_size is 1', 'at least 2')),
    ('train.learning_rate=0', ('train.learning_rate is 0', 'above 0')),
    ('train.learning_rate=.nan', ('train.learning_rate is .nan', 'above 0')),
    ('train.learning_rate=.inf', ('train.learning_rate is .inf', 'above 0')),
    ('train.warmup_iters=-1', ('train.warmup_iters is -1', 'at least 0')),
    ('train.decay=step', ('train.decay is step', 'one of cosine, polynomial')),
    ('train.optimizer=sgd', ('train.optimizer is sgd', 'one of adamw, momentum')),
    ('train.label_smoothing=1', ('train.label_smoothing is 1.0', 'below 1')),
    ('train.best_metric=kappa', ('train.best_metric is kappa', 'one of f1, auc, accuracy, loss')),
    ('render.size=8', ('render.size is 8', 'from 32 to 4096')),
    ('data.validation_fraction=1', ('data.validation_fraction is 1.0', 'above 0 and below 1')),
    ('data.workers=0', ('data.workers is 0', 'auto or from 1 to 256')),
    ('data.workers=some', ('data.workers is some', 'auto or from 1 to 256')),
    ('augment.gain=1', ('augment.gain is 1.0', 'below 1')),
    ('augment.missing_lead=2', ('augment.missing_lead is 2.0', 'from 0 to 1')),
    ('predict.threshold=1.5', ('predict.threshold is 1.5', 'auto or from 0 to 1')),
    ('predict.answer=answer.txt', ('predict.answer is answer.txt', '.csv')),
    ('device=tpu', ('device is tpu', 'one of auto, gpu, cpu')),
    ('task=3', ('task is 3', 'one of 1, 2')),
    ('seed=-1', ('seed is -1', 'from 0')),
    ('model.name=vgg16', ('model.name is vgg16', 'resnet50')),
])
def test_impossible_value(pair, words):
    line = message(pair)
    assert all(word in line for word in words), line


def test_overrides_are_parsed_as_yaml():
    config = load('train.iters=500', 'train.learning_rate=1e-3', 'train.amp=false', 'data.source="2021"', 'device=cpu',
                  'train.clip_norm=2', 'predict.threshold=0', 'data.root=数据 1', 'train.iters=600')
    assert config.train.iters == 600  # the last one counts
    assert config.train.learning_rate == 0.001
    assert config.train.amp is False
    assert config.data.source == '2021'
    assert config.train.clip_norm == 2.0 and isinstance(config.train.clip_norm, float)
    assert config.predict.threshold == 0.0
    assert config.data.root == '数据 1'
    assert {key for key, _, _ in settings.differences(config)} == {
        'train.iters', 'train.amp', 'data.source', 'device', 'train.clip_norm', 'predict.threshold', 'data.root'}


def test_describe_names_what_differs():
    assert settings.describe(settings.Config()).endswith(': none')
    line = settings.describe(load('train.iters=5', 'train.amp=true', 'data.source=null'))
    assert line.endswith(': train.iters=5, train.amp=true')


@pytest.mark.parametrize('pair', ['train.iters', '=5', ''])
def test_override_without_key_or_value(pair):
    assert 'expected section.key=value' in message(pair)


def test_override_that_is_not_yaml():
    assert '-o train.iters=[1' in message('train.iters=[1')


def test_round_trip(tmp_path):
    config = load('data.root=数据', 'train.amp=true', 'predict.threshold=0.3', 'model.pretrained="a: b"')
    assert load(text=settings.to_yaml(config), tmp_path=tmp_path) == config


def test_keys_that_a_file_leaves_out_keep_their_defaults(tmp_path):
    assert load(text='', tmp_path=tmp_path) == settings.Config()
    assert load(text='train:\naugment:\n', tmp_path=tmp_path) == settings.Config()
    config = load(text='\ufefftrain:\n  iters: 7\n', tmp_path=tmp_path)  # with a byte order mark
    assert [key for key, _, _ in settings.differences(config)] == ['train.iters']


@pytest.mark.parametrize('text, words', [
    ('train:\n  iters: 5\n  iters: 6\n', ('my.yml, line 3', 'iters stands twice')),
    ('seed: 1\ntrain:\n  iters: 5\nseed: 2\n', ('my.yml, line 4', 'seed stands twice')),
    ('train:\n  iters: [5\n', ('my.yml, line', 'not valid YAML')),
    ('train:\n\titers: 5\n', ('my.yml, line 2', 'not valid YAML')),
    ('- 1\n- 2\n', ('my.yml', 'found a list at the top')),
    ('just words\n', ('my.yml', 'at the top', 'key: value')),
    ('a: &a [1]\nb: *a\n', ('my.yml', 'aliases')),
    ('seed: !!python/object/apply:os.system [ls]\n', ('my.yml', 'not valid YAML')),
    ('trian:\n  iters: 5\n', ('my.yml', 'unknown key trian', 'train')),
    ('训练: 5\n', ('my.yml', 'unknown key 训练')),
    ('1: 2\n', ('my.yml', 'unknown key 1')),
    ('# \u4e2d\u6587\n'.encode('gbk'), ('my.yml', 'not UTF-8')),
])
def test_files_that_are_not_settings(text, words, tmp_path):
    line = message(text=text, tmp_path=tmp_path)
    assert all(word in line for word in words), line


def test_settings_file_that_is_not_there():
    with pytest.raises(UserError, match='nowhere.yml: no such settings file'):
        settings.load('nowhere.yml')


@pytest.mark.parametrize('script, pair, words', [
    ('process.py', 'render.sise=64', ('config.yml', 'unknown key render.sise', 'nearest known key is render.size')),
    ('train.py', 'train.iters=soon', ('train.iters is soon (text)', 'a whole number')),
    ('predict.py', 'predict.threshold=7', ('predict.threshold is 7', 'auto or from 0 to 1')),
    ('train.py', 'train.iters', ('-o train.iters', 'section.key=value')),
])
def test_scripts_refuse_wrong_settings(script, pair, words):
    assert len(refused(run_script(script, '-o', pair), *words)) == 1


def test_scripts_refuse_a_key_that_stands_twice(tmp_path):
    (tmp_path / 'my.yml').write_text('render:\n  size: 64\n  size: 128\n')
    refused(run_script('process.py', '-c', tmp_path / 'my.yml'), 'my.yml, line 3', 'size stands twice')


@pytest.mark.parametrize('script', SCRIPTS)
def test_help(script):
    result = run_script(script, '--help')
    assert result.returncode == 0, result.stderr
    for word in ('--config', '--override', 'config.yml', 'train.iters=500'):
        assert word in result.stdout
    with open(os.path.join(PROJECT, script), encoding='utf-8') as file:
        summary = ast.get_docstring(ast.parse(file.read())).split('\n')[0]
    assert summary in result.stdout


def test_gpu_that_is_not_there(tmp_path):
    result = run_script('train.py', *overrides('device=gpu', f'output={tmp_path}'), env={'CUDA_VISIBLE_DEVICES': ''})
    refused(result, 'device: gpu was asked for, but', 'device: auto')


def test_auto_says_what_it_took_and_why(monkeypatch):
    import paddle
    monkeypatch.setattr(paddle, 'is_compiled_with_cuda', lambda: False)
    assert runtime.choose_device('auto') == ('cpu', 'this Paddle is the CPU build')
    assert runtime.choose_device('cpu') == ('cpu', 'device: cpu was asked for')
    monkeypatch.setattr(paddle, 'is_compiled_with_cuda', lambda: True)
    monkeypatch.setattr(paddle.device.cuda, 'device_count', lambda: 0)
    assert runtime.choose_device('auto') == ('cpu', 'Paddle finds no GPU')
    with pytest.raises(UserError, match='Paddle finds no GPU'):
        runtime.choose_device('gpu')
    monkeypatch.setattr(paddle.device.cuda, 'device_count', lambda: 2)
    taken = []
    monkeypatch.setattr(paddle.device, 'set_device', taken.append)
    assert runtime.choose_device('auto') == ('gpu:0', '2 GPU(s) found')
    assert taken == ['gpu:0']


def imports_of(path):
    """The names of the modules that a file imports when it is imported itself, in order."""
    with open(path, encoding='utf-8') as file:
        body = ast.parse(file.read()).body
    return [name for node in body if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])]


def entry_points():
    """The scripts that a user starts, and what imports Paddle for them."""
    found = glob.glob(os.path.join(PROJECT, '*.py')) + [os.path.join(PROJECT, 'utils', 'runtime.py'),
                                                         os.path.join(PROJECT, 'tests', 'conftest.py')]
    return sorted(os.path.relpath(path, PROJECT) for path in found)


@pytest.mark.parametrize('script', entry_points())
def test_zlib_comes_before_paddle(script):
    # Paddle 2.6 crashes in zlib when it is what loads libz first; an import sorter must not undo the order.
    assert imports_of(os.path.join(PROJECT, script))[0] in ('zlib', 'numpy')


def test_scripts_and_modules_are_imported_without_paddle():
    # So that --help and mistakes in the settings answer in a blink, and records are drawn without it.
    modules = [f'{folder}.{os.path.basename(path)[:-3]}' for folder in ('utils', 'models')
               for path in glob.glob(os.path.join(PROJECT, folder, '*.py')) if not path.endswith('__init__.py')]
    modules += [script[:-3] for script in SCRIPTS]
    code = f'import sys, {", ".join(modules)}; print([m for m in sys.modules if m.split(".")[0] == "paddle"])'
    result = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, text=True, capture_output=True)
    assert result.stdout.strip() == '[]', result.stderr


@pytest.mark.parametrize('name', ['records', 'tasks', 'schedule', 'metrics', 'render', 'plots', 'config', 'augment'])
def test_modules_that_know_nothing_of_paddle(name):
    with open(os.path.join(PROJECT, 'utils', f'{name}.py'), encoding='utf-8') as file:
        names = {alias.name for node in ast.walk(ast.parse(file.read())) if isinstance(node, ast.Import)
                 for alias in node.names}
    assert 'paddle' not in names
