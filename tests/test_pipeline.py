"""The three scripts in sequence, as a user runs them; every command they print is pasted."""
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import PROJECT, overrides, refused, run_script

from utils import checkpoint, images
from utils.config import Render
from utils.render import decode_png, settings_of
from utils.tasks import probabilities_of

NAMES = [f'TEST{i + 1:04d}' for i in range(6)]
SETTINGS = """
device: cpu
output: ~/out put
data: {source: '~/my ECGs #1', root: '~/pictures #2'}
render: {size: 64.0}
model: {name: resnet18, pretrained: none}
train: {iters: 2e1, batch_size: 8.0, warmup_iters: 5, eval_interval: 10}
"""


class Shell:
    """Where a user is: a folder to be in, a home, and a `python` that is this one."""

    def __init__(self, folder):
        self.here, self.home = folder / 'some where', folder / 'home'
        for each in (self.here, self.home / 'bin'):
            each.mkdir(parents=True)
        python = self.home / 'bin' / 'python'
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
        self.env = {'OMP_NUM_THREADS': '1', **os.environ, 'HOME': str(self.home),
                    'XDG_CACHE_HOME': os.path.expanduser('~/.cache'),
                    'PATH': f'{self.home}/bin{os.pathsep}{os.environ["PATH"]}'}

    def run(self, line):
        """Run a line as it was printed: subprocess.CompletedProcess with text output."""
        return subprocess.run(line, shell=True, cwd=self.here, env=self.env, text=True,
                              capture_output=True, timeout=300)

    def succeed(self, line):
        """What a line that ends well prints."""
        result = self.run(line)
        assert result.returncode == 0 and 'Traceback' not in result.stderr, result.stderr
        return result.stdout


def command_after(words, text):
    line, = set(re.findall(rf'{words}: (python .*?)(?:; anew: .*)?$', text, re.MULTILINE))
    return line


def contents(folder):
    """{name: bytes} of all files directly in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope='module')
def shell(competition, tmp_path_factory):
    found = Shell(tmp_path_factory.mktemp("a user's"))
    shutil.copytree(competition, found.home / 'my ECGs #1')
    (found.here / 'my settings.yml').write_text(SETTINGS)
    return found


@pytest.fixture(scope='module')
def first_run(shell):
    drawn = shell.succeed(f'python {shlex.quote(PROJECT)}/process.py -c "my settings.yml" '
                          '-o "predict.answer=~/answer #3.csv" -o "output=~/other output"')
    trained = shell.succeed(command_after('next', drawn))
    return drawn, trained, shell.succeed(command_after('next', trained))


def test_pasted_commands_do_what_they_say(shell, first_run):
    """Slow hearts from fast ones: what the network has not seen it calls right."""
    drawn, trained, _ = first_run
    assert '46 drawn' in drawn
    assert {path.name for path in shell.home.glob('[!.]*')} == {
        'answer #3.csv', 'answer #3.zip', 'bin', 'my ECGs #1', 'other output', 'pictures #2'}
    answer = pd.read_csv(shell.home / 'answer #3.csv')
    assert answer['name'].tolist() == NAMES and answer['tag'].tolist() == [0, 1] * 3
    assert 'iter: 20/20' in trained
    assert os.listdir(shell.here) == ['my settings.yml']  # nothing is left where the user is


def test_pictures_are_drawn_anew_as_it_says(shell, first_run):
    answer, pictures = shell.home / 'answer #3.csv', shell.home / 'pictures #2'
    train, predict = (command_after('next', said) for said in first_run[:2])
    before, all_pictures = answer.read_bytes(), contents(pictures / 'train')
    os.remove(pictures / 'train' / 'TRAIN0007.png')
    result = shell.run(train)
    refused(result, 'missing 1 (TRAIN0007)')
    assert '1 drawn, 45 up to date' in shell.succeed(command_after('then', result.stderr))
    assert contents(pictures / 'train') == all_pictures
    shell.succeed(train.replace('train.py', 'process.py') + ' -o render.size=48')
    result = shell.run(predict)
    refused(result, 'TEST0001.png', 'size 48 (expected 64)')
    assert answer.read_bytes() == before
    assert '46 drawn' in shell.succeed(command_after('draw it with', result.stderr))
    assert contents(pictures / 'train') == all_pictures
    assert images.list_pictures(str(pictures), 'val', settings_of(Render(size=64)), '') == NAMES


def test_several_networks_predict_together(drawn, trained, tmp_path):
    from models import build_model
    from models.inference import plain_network
    from models.weights import weights_of
    (weights,), config, kept = checkpoint.load_best(trained)
    models = [build_model('resnet18', 2, seed) for seed in (0, 1)]
    models[0].set_state_dict(weights)
    checkpoint.save_best(str(tmp_path / 'two'), [weights_of(model) for model in models], config,
                         kept, pd.DataFrame({'name': []}))
    result = run_script('predict.py', '--model', tmp_path / 'two', *overrides(
        f'data.root={drawn}', f'output={tmp_path}', f'predict.answer={tmp_path}/answer.csv'))
    assert result.returncode == 0, result.stderr
    pixels = np.stack([decode_png(f'{drawn}/val/{name}.png', 64) for name in NAMES])
    margins = [np.diff(plain_network(model)(pixels))[:, 0] for model in models]
    found = pd.read_csv(tmp_path / 'probabilities.csv')['abnormal']
    assert not np.allclose(*margins, atol=1e-3)
    assert np.allclose(found, probabilities_of(np.mean(margins, axis=0)), atol=1e-4)
