import argparse
import os
import re
import shlex

import numpy as np
import pytest
import yaml

from tests.helpers import PROJECT, overrides, refused, run_script
from utils.running import settings
from utils.running.errors import UserError

CONFIG = os.path.join(PROJECT, 'config.yml')


def load(*pairs, text=None, tmp_path=None, base=''):
    if text is None:
        return settings.load(CONFIG, pairs, base)
    path = tmp_path / 'my.yml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode('utf-8'))
    return settings.load(str(path), pairs, base)


def message(*pairs, **where):
    """The one line with which settings are refused."""
    with pytest.raises(UserError) as caught:
        load(*pairs, **where)
    line, = caught.value.lines
    return line


def test_file_holds_the_defaults_and_explains_each():
    assert load() == settings.Config()
    with open(CONFIG, encoding='utf-8') as file:
        text = file.read()
    in_file = [f'{key}.{inner}' if isinstance(value, dict) else key
               for key, value in yaml.safe_load(text).items()
               for inner in (value if isinstance(value, dict) else [None])]
    assert in_file == list(settings.flatten(settings.Config()))  # all of them, in the same order
    for line in re.findall(r'^ *\w+: .*', text, re.MULTILINE):
        assert re.search(r'\S +# \S.{8,}', line), line


@pytest.mark.parametrize('pair, unknown, nearest', [
    ('train.iter=5', 'train.iter', 'train.iters'),
    ('TRAIN.Iters=5', 'TRAIN.Iters', 'train.iters'),
    ('render.sise=64', 'render.sise', 'render.size'),
    ('train=5', 'train', 'train.'),
])
def test_unknown_key(pair, unknown, nearest):
    line = message(pair)
    assert f'unknown key {unknown};' in line and f' {nearest}' in line
    assert 'section.key=value' in message('train.iters')  # without a value


@pytest.mark.parametrize('pair, found, expected', [
    ('train.iters=many', "'many'", 'a whole number'),
    ('train.iters=1.5', '1.5', 'a whole number'),
    ('train.learning_rate=.nan', 'nan', 'a number'),
    ('train.amp=1', '1', 'true or false'),
    ('render.size=[64]', '[64]', 'a whole number'),
    ('data.source=5', '5', 'text'),
    ('model.name=null', 'empty', 'text'),
    ('train.iters=0', '0', 'at least 1'),
    ('train.eval_interval=0', '0', 'auto or at least 1'),
    ('render.size=8', '8', 'from 32 to 4096'),
    ('data.workers=some', "'some'", 'auto or from 1 to 256'),
    ('predict.threshold=nan', 'nan', 'auto or from 0 to 1'),
    ('predict.answer=answer.txt', 'answer.txt', '.csv'),
    ('task=true', 'True', '1, 2'),
    ('seed=2147483648', '2147483648', 'to 2147483647'),
    ('output=', "''", 'a path'),
    ('output="a\\0b"', 'a', 'a path'),
])
def test_impossible_value(pair, found, expected):
    line = message(pair)
    key = pair.partition('=')[0]
    assert line.startswith(f'-o {pair}: {key} is ') and found in line, line
    assert expected in line.rpartition('expected')[2], line


@pytest.mark.parametrize('pair, value', [
    ('train.iters=1e4', 10000), ('render.size=640.0', 640), ('train.learning_rate=1e-3', 0.001),
    ('train.clip_norm=2', 2.0), ('predict.threshold=0', 0.0), ('predict.threshold=auto', 'auto'),
    ('data.workers=auto', 'auto'), ('train.eval_interval=7', 7), ('train.amp=false', False),
    ('data.cache=auto', 'auto'), ('data.source=null', None), ('data.source="2021"', '2021'),
    ('data.source=x #1', 'x #1'), ('data.source=#1', '#1'), ('data.source=&a', '&a'),
    ('data.root=a: b', 'a: b'), ('data.root=[1', '[1'), ('data.root=数据 1', '数据 1'),
    ('data.root=2021-11-15', '2021-11-15'), ('output=a=b', 'a=b'),
    ('model.pretrained=none', 'none'),
    ('data.source=~/ecgs', os.path.expanduser('~/ecgs')),
])
def test_override_is_what_it_looks_like(pair, value):
    found = settings.flatten(load(pair))[pair.partition('=')[0]]
    assert found == value and type(found) is type(value)


def test_round_trip_to_the_letter(tmp_path):
    rng = np.random.default_rng(0)
    letters = list('ab 1.0:#-"\'\\[]{}&*!|>%@`~=,\n\t数据é') + ['null', 'true', '1e5', '\x1b']
    for _ in range(100):
        text = 'x'.join(rng.choice(letters, rng.integers(1, 6))) + 'x'
        config = settings.Config(output=text, data=settings.Data(source=text),
                                 predict=settings.Predict(threshold=float(rng.random())),
                                 train=settings.Train(amp=bool(rng.integers(2))))
        assert load(text=settings.to_yaml(config), tmp_path=tmp_path) == config


def test_keys_that_a_file_leaves_out_keep_their_defaults(tmp_path):
    for text in ('', 'train:\naugment:\n'):
        assert load(text=text, tmp_path=tmp_path) == settings.Config()
    config = load(text='\ufefftrain:\n  iters: 7\n', tmp_path=tmp_path)  # with a byte order mark
    assert config == settings.Config(train=settings.Train(iters=7))


@pytest.mark.parametrize('text, words', [
    ('train:\n  iters: 5\n  iters: 6\n', ('my.yml, line 3', 'iters')),
    ('train:\n\titers: 5\n', ('my.yml, line 2', 'YAML')),
    ('- 1\n- 2\n', ('my.yml', 'a list')),
    ('train: 5\n', ('my.yml', 'train', '5')),
    ('seed: [1]\n', ('my.yml: seed', 'a list')),
    ('seed: 2021-13-77\n', ('my.yml',)),
    ('1: 2\n', ('my.yml', '1')),
    ('output: "\\ud800"\n', ('my.yml', 'output', 'a path')),
    ('# \u4e2d\u6587\n'.encode('gbk'), ('my.yml', 'UTF-8')),
])
def test_files_that_are_not_settings(text, words, tmp_path):
    line = message(text=text, tmp_path=tmp_path)
    assert all(word in line for word in words), line


def test_paths_count_from_the_folder_of_the_settings(tmp_path):
    config = load('data.source=mine', text='data:\n  root: pictures\n', tmp_path=tmp_path,
                  base='/x')
    assert config.data.root == '/x/pictures' and config.output == '/x/output'
    assert config.predict.answer == '/x/answer.csv'
    assert config.data.source == 'mine'  # typed here and now, so from the current folder
    assert config.model.pretrained == 'imagenet'


def test_settings_beside_the_script(tmp_path, monkeypatch, capsys):
    (tmp_path / 'project').mkdir()
    (tmp_path / 'project' / 'config.yml').write_text('seed: 7\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['project/process.py'])
    config = settings.parse_arguments('')[1]
    assert config.seed == 7 and config.output == str(tmp_path / 'project' / 'output')
    assert str(tmp_path / 'project' / 'config.yml') in capsys.readouterr().out
    (tmp_path / 'config.yml').write_text('seed: 8\n')
    assert settings.parse_arguments('')[1] == settings.Config(seed=8)
    monkeypatch.setattr('sys.argv', ['project/process.py', '-c', 'nowhere.yml'])
    with pytest.raises(UserError, match='nowhere.yml'):
        settings.parse_arguments('')


def test_what_may_change_when_a_run_goes_on():
    matter = settings.that_matter(settings.Config())
    assert {'seed', 'render.size', 'train.learning_rate', 'augment.noise'} < set(matter)
    for key in ('device', 'output', 'data.workers', 'train.log_interval', 'predict.threshold'):
        assert key not in matter and settings.default_of(key) is not None
    assert settings.before('of.tomorrow') is None


def test_a_model_older_than_a_setting_has_what_was_done_then(tmp_path):
    path = tmp_path / 'config.yml'
    path.write_text('render: {size: 64}\n')
    old, new = (settings.load(str(path), trained=trained) for trained in (True, False))
    assert (old.render.beats, new.render.beats) == (False, True)
    assert old.render.size == new.render.size == 64


def test_a_model_may_name_a_setting_that_is_gone(tmp_path):
    path = tmp_path / 'config.yml'
    path.write_text('train: {backbone_rate: 0.1, iters: 7}\n')
    assert settings.load(str(path), trained=True).train.iters == 7
    with pytest.raises(UserError, match='unknown key train.backbone_rate'):
        settings.load(str(path))


def test_a_printed_command_can_be_pasted(tmp_path, monkeypatch):
    (tmp_path / 'my config.yml').write_text('seed: 7\n')
    monkeypatch.setattr('sys.argv', ['train.py', '-c', str(tmp_path / 'my config.yml'),
                                     '-o', "output=it's $HOME", '-o', 'seed = 1', '-o', 'seed=2',
                                     '-o', 'train.resume=never'])
    arguments, config = settings.parse_arguments('')
    line = settings.command('train.py', arguments, 'train.iters=50', without=('train.resume',))
    words = shlex.split(line)
    assert words[:2] == ['python', 'train.py']
    monkeypatch.setattr('sys.argv', words[1:])
    again = settings.parse_arguments('')[1]
    expected = {**settings.flatten(config), 'train.iters': 50, 'train.resume': 'auto'}
    assert settings.flatten(again) == expected and config.seed == 2
    assert settings.describe(load('train.iters=600', 'data.source=null')).endswith(
        ': train.iters=600')
    nothing = argparse.Namespace(config=None, override=[])
    assert shlex.split(settings.command('predict.py', nothing)) == ['python', 'predict.py']


def test_a_script_refuses_wrong_settings():
    assert len(refused(run_script('process.py', *overrides('render.sise=64')), 'render.size')) == 1
