"""Time and memory of process.py and predict.py against the number of records: straight lines."""
import os
import subprocess
import sys
import time

import pandas as pd

from benchmarks.pictures import mat_files
from models import best_model, build_model
from models.weights import weights_of
from utils.running import settings
from utils.running.errors import UserError

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIZE = 64  # pixels: the work per record is small, so what the number of records costs shows
# Between this process and the script, since a process that is started counts its starter's memory
# as its own until it runs.
MEASURE = ('import resource, subprocess, sys; '
           'code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL); '
           'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)')


def grow(source, folder, counts):
    """Yields: rows"""
    overrides = [f'render.size={SIZE}', 'model.name=resnet18', 'model.pretrained=none',
                 'device=cpu', f'output={folder}/output']
    keep_model(f'{folder}/output/best_model', overrides)
    yield f'{"records":>8}  {"process.py":>32}  {"again, up to date":>32}  {"predict.py":>32}'
    for count in counts:
        here = os.path.join(folder, f'growth_{count}')
        link_records(source, os.path.join(here, 'ecgs'), count)
        at = [f'data.source={here}/ecgs', f'data.root={here}/pictures',
              f'predict.answer={here}/answer.csv']
        told = [cost(script, overrides + at, count)
                for script in ('process.py', 'process.py', 'predict.py')]
        yield f'{count:>8}  ' + '  '.join(f'{line:>32}' for line in told)


def link_records(source, target, count):
    """Put `count` test records into `target`: links to the few that there are take no room."""
    os.makedirs(os.path.join(target, 'val'))
    paths = mat_files(source)
    for index in range(count):
        os.link(paths[index % len(paths)], os.path.join(target, 'val', f'TEST{index:05d}.mat'))


def keep_model(folder, overrides):
    """A best_model folder with random weights."""
    config = settings.load(os.path.join(PROJECT, 'config.yml'), overrides)
    os.makedirs(os.path.dirname(folder))
    metrics = {'epoch': 1, 'iteration': 1, 'threshold': 0.5, 'validation': {'f1': 0.0}}
    best_model.save_best(folder, [weights_of(build_model(config.model.name, 2, 0))], config,
                         metrics, pd.DataFrame({'name': ['A'], 'abnormal: truth': [1],
                                                'abnormal: log-odds': [0.5]}))


def options(overrides):
    """'key=value' strings as the scripts' command line takes them."""
    return [part for item in overrides for part in ('-o', item)]


def cost(script, overrides, count):
    """Run a script.

    Returns: str, seconds, ms for each record, and the largest memory of one of its processes
    """
    start = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', MEASURE, sys.executable, script,
                           *options(overrides)], cwd=PROJECT, text=True, capture_output=True)
    if done.returncode:
        raise UserError(f'{script} failed: {done.stderr.strip()[-500:]}')
    seconds = time.perf_counter() - start
    unit = 2**20 if sys.platform == 'darwin' else 2**10
    return (f'{seconds:.1f} s, {seconds / count * 1e3:.2f} ms each, '
            f'{int(done.stdout) / unit:.0f} MiB')
