"""Training and predicting: the network in several processes that take turns, one iteration each."""
import os
import statistics
import subprocess
import sys

from benchmarks.growth import PROJECT
from benchmarks.measure import row
from benchmarks.pictures import label_all

# What Paddle starts with; that GLIBC_TUNABLES is set at all keeps device.py from the allocator.
DEFAULTS = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'MKL_DEBUG_CPU_TYPE': '0',
            'GLIBC_TUNABLES': ''}


def compare_training(source, folder, arguments):
    """Yields: rows"""
    # So many pictures that all that is measured is in train.py's first epoch.
    root = label_all(source, os.path.join(folder, 'labelled'), arguments.size,
                     2 * arguments.batch * (arguments.runs + 3))
    times = take_turns({'bare': ('paddle', {}), 'defaults': ('paddle', DEFAULTS),
                        'torch': ('torch', {}), 'loop': ('train.py', {'PICTURES': root})},
                       'train', arguments)
    yield row(f'training, batch of {arguments.batch}', times['bare'], times['defaults'],
              "Paddle's defaults")
    if 'torch' in times:
        yield row('', times['bare'], times['torch'], 'PyTorch, its defaults')
    yield row("train.py's whole iteration", times['loop'], times['bare'],
              'bare forward, backward, step')


def compare_predicting(arguments):
    """Yields: rows"""
    times = take_turns({'plain': ('paddle', {}), 'fp32': ('fp32', {}), 'bf16': ('bf16', {}),
                        'torch': ('torch', {})}, 'predict', arguments)
    for ours in ('fp32', 'bf16'):
        if ours in times:
            yield row(f'predicting {arguments.batch} pictures, oneDNN in {ours}', times[ours],
                      times['plain'], 'plain network, both with all cores')
            if 'torch' in times:
                yield row('', times[ours], times['torch'], 'PyTorch fp32, channels_last')


def take_turns(workers, what, arguments):
    """Let workers do an iteration each, in turn.

    workers: {name: (kind, environment)}, see worker.py; what: 'train' or 'predict'
    Returns: {name: median seconds}, without those that cannot run here
    """
    running = {}
    try:
        for name, (kind, environment) in workers.items():
            if kind != 'torch' or (arguments.torch and arguments.model == 'resnet50'):
                running[name] = start(kind, environment, what, arguments)
        for name in list(running):
            if ask(running[name]) is None:  # the warm-up
                running.pop(name).wait()
        times = {name: [] for name in running}
        for _ in range(arguments.runs):
            for name, process in running.items():
                times[name].append(ask(process))
    finally:
        for process in running.values():
            process.stdin.close()
            process.wait()
    return {name: statistics.median(taken) for name, taken in times.items()}


def start(kind, environment, what, arguments):
    """A worker process that waits to be asked."""
    python = arguments.torch if kind == 'torch' else sys.executable
    words = [kind, what, str(arguments.size), str(arguments.batch), arguments.model]
    return subprocess.Popen([python, '-m', 'benchmarks.worker', *words], cwd=PROJECT, text=True,
                            env={**os.environ, **environment}, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def ask(process):
    """Let one worker do one iteration; seconds, or None where it cannot."""
    try:
        process.stdin.write('go\n')
        process.stdin.flush()
    except OSError:
        return None
    for line in process.stdout:
        if line.startswith('took '):
            return float(line.split()[1])
    return None
