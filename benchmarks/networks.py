"""Training and predicting: the network in several processes that take turns, one iteration each."""
import os
import re
import statistics
import subprocess
import sys

from benchmarks.growth import PROJECT
from benchmarks.measure import row

# What is measured: who the worker is (see worker.py), and what its process finds in its environment.
ALONE = {'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'MKL_DEBUG_CPU_TYPE': '0'}  # what Paddle starts with


def compare(part, source, folder, arguments):
    """Yields: rows"""
    if part == 'training':
        yield from compare_training(source, folder, arguments)
    else:
        yield from compare_predicting(arguments)


def compare_training(source, folder, arguments):
    times = take_turns({'bare': ('paddle', {}), 'defaults': ('paddle', ALONE), 'torch': ('torch', {})}, 'train',
                       arguments)
    yield row(f'training, batch of {arguments.batch}', times['bare'], times['defaults'], "Paddle's defaults")
    if 'torch' in times:
        yield row('', times['bare'], times['torch'], 'PyTorch, its defaults')
    yield from compare_loop(source, folder, arguments)


def compare_loop(source, folder, arguments):
    """train.py's whole iteration, reading included, against the bare step."""
    overrides = [f'data.source={source}', f'data.root={folder}/pictures', f'output={folder}/run', 'device=cpu',
                 f'render.size={arguments.size}', f'model.name={arguments.model}', 'model.pretrained=none',
                 f'train.batch_size={arguments.batch}', f'train.iters={2 + arguments.runs}', 'train.log_interval=1',
                 'train.resume=never', 'data.validation_fraction=0.05']
    run('process.py', overrides)
    costs, reading, bare = [], [], []
    for _ in range(2):
        lines = re.findall(r'batch_cost: ([\d.]+), reader_cost: ([\d.]+)', run('train.py', overrides))
        costs += [float(cost) for cost, _ in lines[2:]]
        reading += [float(cost) for _, cost in lines[2:]]
        bare.append(take_turns({'bare': ('paddle', {})}, 'train', arguments)['bare'])
    yield row("train.py's iteration", statistics.median(costs), statistics.mean(bare), 'bare forward, backward, step')
    yield f'  of which waiting for pictures {100 * statistics.median(reading) / statistics.median(costs):.2f} %'


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


def run(script, overrides):
    return subprocess.run([sys.executable, script, *(part for item in overrides for part in ('-o', item))], cwd=PROJECT,
                          text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
