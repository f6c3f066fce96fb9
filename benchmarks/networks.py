"""Training and predicting: the network in several processes that take turns, one iteration each."""
import os
import statistics
import subprocess
import sys

from benchmarks.growth import PROJECT
from benchmarks.measure import row
from benchmarks.rendering import draw_all
from utils import files

# What is measured: who the worker is (see worker.py), and what its process finds in its environment.
# The defaults are what Paddle starts with; that GLIBC_TUNABLES is set at all keeps runtime.py from touching the allocator.
DEFAULTS = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'MKL_DEBUG_CPU_TYPE': '0', 'GLIBC_TUNABLES': ''}


def compare(part, source, folder, arguments):
    """Yields: rows"""
    if part == 'training':
        yield from compare_training(source, folder, arguments)
    else:
        yield from compare_predicting(arguments)


def compare_training(source, folder, arguments):
    labelled = label_pictures(source, folder, arguments)
    times = take_turns({'bare': ('paddle', {}), 'defaults': ('paddle', DEFAULTS), 'torch': ('torch', {}),
                        'loop': ('train.py', {'PICTURES': labelled})}, 'train', arguments)
    yield row(f'training, batch of {arguments.batch}', times['bare'], times['defaults'], "Paddle's defaults")
    if 'torch' in times:
        yield row('', times['bare'], times['torch'], 'PyTorch, its defaults')
    yield row("train.py's whole iteration", times['loop'], times['bare'], 'bare forward, backward, step')


def label_pictures(source, folder, arguments):
    """A data.root for train.py with so many pictures that the measured iterations are of its first epoch.

    Returns: str, the folder
    """
    root = os.path.join(folder, f'labelled_{arguments.size}')
    os.makedirs(os.path.join(root, 'train'))
    paths = draw_all(source, folder, arguments.size)
    lines = ['name,tag']
    for index in range(2 * arguments.batch * (arguments.runs + 3)):
        os.link(paths[index % len(paths)], os.path.join(root, 'train', f'TRAIN{index:04d}.png'))
        lines.append(f'TRAIN{index:04d},{index % 2}')
    files.write_text(os.path.join(root, 'trainreference.csv'), '\n'.join(lines) + '\n')
    return root


def compare_predicting(arguments):
    times = take_turns({'plain': ('paddle', {}), 'fp32': ('export-fp32', {}), 'bf16': ('export-bf16', {}),
                        'torch': ('torch', {})}, 'predict', arguments)
    for ours in ('fp32', 'bf16'):
        if ours in times:
            yield row(f'predicting {arguments.batch} pictures, export in {ours}', times[ours], times['plain'],
                      'plain network, both with all cores')
            if 'torch' in times:
                yield row('', times[ours], times['torch'], 'PyTorch fp32, channels_last')


def take_turns(workers, what, arguments):
    """Let workers do an iteration each, in turn.

    workers: {name: (kind, environment)}; what: 'train' or 'predict'
    Returns: {name: median seconds}, without those that cannot run here
    """
    running, times = {}, {}
    try:
        for name, (kind, environment) in workers.items():
            if kind == 'torch' and (not arguments.torch or arguments.model != 'resnet50'):
                continue
            python = arguments.torch if kind == 'torch' else sys.executable
            process = subprocess.Popen(
                [python, '-m', 'benchmarks.worker', kind, what, str(arguments.size), str(arguments.batch),
                 arguments.model], cwd=PROJECT, env={**os.environ, **environment}, text=True, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            running[name], times[name] = process, []
        for name in list(running):
            if ask(running[name]) is None:  # the warm-up
                running.pop(name).wait()
                times.pop(name)
        for _ in range(arguments.runs):
            for name, process in running.items():
                times[name].append(ask(process))
    finally:
        for process in running.values():
            process.stdin.close()
            process.wait()
    return {name: statistics.median(taken) for name, taken in times.items()}


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
