"""What the tests share: small ECGs, a way to run the real scripts."""
import os
import subprocess
import sys
import zlib  # noqa: F401  before Paddle, see models/device.py

import numpy as np

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SMALL = ('render.size=64', 'render.beats=false', 'model.name=resnet18', 'model.pretrained=none',
         'train.batch_size=8', 'device=cpu')


def run_script(script, *arguments, timeout=300, env=None, cwd=PROJECT):
    """Run a script of the project as a user would, but on one thread: small batches gain nothing
    from more, and on a machine with other work threads that wait for one another lose much.

    Returns: subprocess.CompletedProcess with text output
    """
    return subprocess.run([sys.executable, os.path.join(PROJECT, script), *map(str, arguments)],
                          cwd=cwd, text=True, capture_output=True, timeout=timeout,
                          env={'OMP_NUM_THREADS': '1', **os.environ, **(env or {})})


def overrides(*pairs):
    """'key=value' pairs as the command line takes them."""
    return [part for pair in pairs for part in ('-o', pair)]


def refused(result, *words):
    """Check that a script ended as it should for a user's mistake: exit code 2, no traceback, the
    words on one line.

    Returns: the lines of errors
    """
    assert result.returncode == 2, result.stdout + result.stderr
    assert 'Traceback' not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert any(all(word in line for word in words) for line in lines), result.stderr
    return lines


def make_signal(seed, rate=75.0):
    """A plain made-up ECG: one sharp wave per beat, another size in each lead.

    Returns: float32 array (12, 5000), mV
    """
    rng = np.random.default_rng(seed)
    seconds = np.arange(5000) / 500
    beats = np.arange(rng.uniform(0.1, 0.5), 10, 60 / rate)
    wave = np.exp(-0.5 * ((seconds[:, None] - beats) / 0.015) ** 2).sum(axis=1)
    signal = rng.uniform(0.3, 1.5, (12, 1)) * wave + rng.normal(0, 0.01, (12, 5000))
    return signal.astype(np.float32)


def write_competition(folder, train=40, val=6):
    """Write records in the competition's layout; every second is abnormal, its heart fast.

    Returns: str, the folder
    """
    from scipy.io import savemat
    for part, prefix, count in (('train', 'TRAIN', train), ('val', 'TEST', val)):
        os.makedirs(os.path.join(folder, part))
        for i in range(count):
            savemat(os.path.join(folder, part, f'{prefix}{i + 1:04d}.mat'),
                    {'ecgdata': make_signal((len(prefix), i), 150 if i % 2 else 70)})
    with open(os.path.join(folder, 'trainreference.csv'), 'w') as file:
        file.write('name,tag\n' + ''.join(f'TRAIN{i + 1:04d},{i % 2}\n' for i in range(train)))
    return str(folder)


class Program:
    """What runs when it is unpickled: it makes the file `marker`."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


def same_arrays(found, expected):
    """Whether two {name: numpy array} are equal."""
    return found.keys() == expected.keys() and \
        all(np.array_equal(value, expected[key]) for key, value in found.items())


def copy_with_labels(drawn, folder, text):
    """A data.root with the same pictures and other labels."""
    os.makedirs(folder)
    for name in ('train', 'render.json'):
        os.symlink(os.path.join(drawn, name), os.path.join(folder, name))
    with open(os.path.join(folder, 'trainreference.csv'), 'wb') as file:
        file.write(text.encode() if isinstance(text, str) else text)
    return str(folder)


def labels(drawn):
    """The lines of its trainreference.csv."""
    with open(os.path.join(drawn, 'trainreference.csv')) as file:
        return file.read().splitlines()
