"""The three scripts in sequence, as a user runs them; every command they print is pasted."""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from models import best_model
from tests.helpers import PROJECT, SMALL, overrides, refused, run_script
from utils.answers.tasks import probabilities_of
from utils.pictures import loading
from utils.pictures.render import decode_png, settings_of
from utils.running.settings import Render, Train

REAL = os.path.join(os.path.dirname(PROJECT), 'shared', 'ecg-real')
NAMES = [f'TEST{i + 1:04d}' for i in range(6)]
SETTINGS = """
device: cpu
output: ~/out put
data: {source: '~/my ECGs #1', root: '~/pictures #2'}
render: {size: 64.0, beats: false}
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


def test_a_finished_run_goes_on_for_longer(shell, first_run):
    from models.optimizer import learning_rate
    finished = shell.succeed(command_after('next', first_run[0]))
    assert '[TRAIN]' not in finished and 'train.resume=never' in finished
    assert command_after('next', finished) == command_after('next', first_run[1])
    extended = shell.succeed(command_after('longer', finished))
    rates = re.findall(r'iter: (\d+)/40.* lr: ([\d.]+),', extended)
    schedule = Train(iters=40, warmup_iters=5)
    assert rates == [(str(at), f'{learning_rate(at, schedule):.10f}') for at in (30, 40)]


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
    drawn_with = settings_of(Render(size=64, beats=False))
    assert loading.list_pictures(str(pictures), 'val', drawn_with, '') == NAMES


def test_from_another_folder(shell, competition, tmp_path):
    """The settings beside the scripts count, and their paths from there."""
    project = tmp_path / 'the project'
    project.mkdir()
    for name in ('process.py', 'train.py', 'predict.py'):
        (project / name).symlink_to(os.path.join(PROJECT, name))
    (project / 'config.yml').write_text(
        SETTINGS.replace('~/out put', 'out').replace('~/', './').replace('2e1', '2'))
    shutil.copytree(competition, project / 'my ECGs #1')
    said = shell.succeed(f'python {shlex.quote(str(project))}/process.py')
    assert f'settings: {project / "config.yml"}' in said
    for _ in ('train.py', 'predict.py'):
        said = shell.succeed(command_after('next', said))
    assert os.listdir(shell.here) == ['my settings.yml']
    assert {'out', 'pictures #2', 'answer.csv', 'answer.zip'} < set(os.listdir(project))
    assert pd.read_csv(project / 'answer.csv')['name'].tolist() == NAMES


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='sends the signals of Unix')
def test_folds(shell, drawn, tmp_path):
    """A stopped fold goes on, and the networks of all predict together."""
    from models import build_model
    from models.inference import plain_network
    words = [sys.executable, os.path.join(PROJECT, 'train.py'), *overrides(
        *SMALL, f'data.root={drawn}', f'output={tmp_path}/out', 'train.iters=6',
        f'predict.answer={tmp_path}/answer.csv', 'train.folds=2', 'train.log_interval=1',
        'train.eval_interval=6')]
    running = subprocess.Popen(words, env=shell.env, text=True, stdout=subprocess.PIPE)
    log = tmp_path / 'out' / 'folds' / '2' / 'train.log'
    while not log.exists() or '[TRAIN]' not in log.read_text():
        assert running.poll() is None
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    stopped = running.communicate(timeout=60)[0]
    assert running.returncode == 143
    assert 'next: ' not in stopped and not (tmp_path / 'out' / 'best_model').exists()
    first = contents(tmp_path / 'out' / 'folds' / '1' / 'best_model')
    finished = shell.succeed(command_after('go on with', stopped))
    assert 'going on after iteration' in finished
    assert [line.split('iter: ')[1].split('/')[0] for line in log.read_text().splitlines()
            if '[TRAIN]' in line] == [str(i + 1) for i in range(6)]
    assert contents(tmp_path / 'out' / 'folds' / '1' / 'best_model') == first
    table = pd.read_csv(tmp_path / 'out' / 'out_of_fold.csv')
    labels = pd.read_csv(os.path.join(drawn, 'trainreference.csv'))
    assert table.to_numpy()[:, :2].tolist() == labels.to_numpy().tolist()  # every record once

    shell.succeed(command_after('next', finished))
    networks, _, kept = best_model.load_best(str(tmp_path / 'out'))
    pixels = np.stack([decode_png(f'{drawn}/val/{name}.png', (64, 64)) for name in NAMES])
    margins = []
    for number, weights in enumerate(networks, 1):
        own, = best_model.load_best(str(tmp_path / 'out' / 'folds' / str(number)))[0]
        assert all(np.array_equal(own[key], weights[key]) for key in weights)
        model = build_model('resnet18', 2, 0)
        model.set_state_dict(weights)
        margins.append(np.diff(plain_network(model)(pixels))[:, 0])
    found = pd.read_csv(tmp_path / 'out' / 'probabilities.csv')['abnormal']
    assert len(networks) == 2 and not np.allclose(*margins, atol=1e-3)
    expected = probabilities_of(np.mean(margins, axis=0) / kept['temperature'])
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(not os.path.isdir(REAL), reason='the real ECGs are not on this machine')
def test_real_ecgs(tmp_path):
    settings = overrides(*SMALL, f'data.source={REAL}', f'data.root={tmp_path}/pictures',
                         f'output={tmp_path}/output', f'predict.answer={tmp_path}/answer.csv',
                         'train.iters=4', 'train.log_interval=2')
    key = os.path.join(REAL, 'valreference.csv')
    for line in (['process.py'], ['train.py'], ['predict.py', '--reference', key]):
        result = run_script(*line, *settings)
        assert result.returncode == 0 and 'Traceback' not in result.stderr, result.stderr
    drawn = json.loads((tmp_path / 'pictures' / 'render.json').read_text())
    assert drawn['finished'] and len(drawn['train'] + drawn['val']) == 353
    names = sorted(pd.read_csv(key)['name'])
    assert pd.read_csv(tmp_path / 'answer.csv')['name'].tolist() == names
    assert f'scores on {len(names)} records' in result.stdout
