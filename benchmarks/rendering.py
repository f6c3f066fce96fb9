"""MAT record -> PNG, against a new matplotlib figure for each record, per core."""
import multiprocessing
import os
import time

import matplotlib
import numpy as np
import scipy
import scipy.io

import process
from benchmarks.measure import alternate, row
from utils import files, records, runtime
from utils.config import Render
from utils.render import Renderer, encode_png, settings_of

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402

TOGETHER = 4  # records in one measurement


def versions():
    """The libraries that decide these figures."""
    return f'NumPy {np.__version__}, SciPy {scipy.__version__}, matplotlib {matplotlib.__version__}'


def compare(source, folder, size, runs):
    """Yields: rows"""
    train = os.path.join(source, 'train')
    paths = [os.path.join(train, name) for name in sorted(os.listdir(train))[:TOGETHER]]
    target = os.path.join(folder, 'picture.png')
    renderer = Renderer(size, 2.0, 1.0)

    def ours():
        for path in paths:
            files.write_bytes(target, encode_png(renderer.draw(records.read_record(path)[0]), {'size': size}))

    def fresh(axes_on):
        for path in paths:
            ecg = scipy.io.loadmat(path)['ecgdata']
            figure, axes = plt.subplots(12, 1, figsize=(size / 100, size / 100), dpi=100)
            for ax, lead in zip(axes, ecg):
                ax.plot(lead, color='black', linewidth=0.72)
                if not axes_on:
                    ax.axis('off')
            figure.savefig(target, dpi=100)
            plt.close(figure)

    times = alternate({'ours': ours, 'ticks': lambda: fresh(True), 'off': lambda: fresh(False)}, runs)
    each = {name: seconds / TOGETHER for name, seconds in times.items()}
    yield row('record to PNG, CPU time', each['ours'], each['ticks'], 'new figure with ticks each')
    yield row('', each['ours'], each['off'], 'new figure, axes off, each')
    signals = [records.read_record(path)[0] for path in paths]
    pictures = [renderer.draw(signal) for signal in signals]
    parts = alternate({'reading': lambda: [records.read_record(path) for path in paths],
                       'drawing': lambda: [renderer.draw(signal) for signal in signals],
                       'PNG': lambda: [encode_png(picture, {'size': size}) for picture in pictures]}, runs)
    yield '  of which ' + ', '.join(f'{name} {seconds / TOGETHER * 1e3:.2f} ms' for name, seconds in parts.items())
    sizes = [len(encode_png(picture, {'size': size})) for picture in pictures]
    yield f'  {np.mean(sizes) / 1024:.1f} KiB a PNG (the last reference: {os.path.getsize(target) / 1024:.1f} KiB)'


def scale(source, folder, size, runs):
    """How much all cores together draw, beside what the machine gives to processes that only count.

    Yields: rows
    """
    cores, train = runtime.usable_cores(), os.path.join(source, 'train')
    if cores == 1:
        return
    names = sorted(os.listdir(train))
    jobs = [(os.path.join(train, name), os.path.join(folder, f'scale_{index}.png'), name)
            for index, name in enumerate(names * cores)]
    context, drawn_with = multiprocessing.get_context('spawn'), settings_of(Render(size=size))

    def draw(pool):
        for _, target, _ in jobs:
            if os.path.exists(target):
                os.remove(target)
        pool.map(process.draw_chunk, [[job] for job in jobs], 4)

    with context.Pool(1, process.start_worker, (drawn_with,)) as one, \
            context.Pool(cores, process.start_worker, (drawn_with,)) as every:
        wall = alternate({'draw 1': lambda: draw(one), 'draw all': lambda: draw(every),
                          'count 1': lambda: one.map(count, range(len(jobs)), 4),
                          'count all': lambda: every.map(count, range(len(jobs)), 4)}, runs, time.perf_counter)
    gains = [wall[f'{what} 1'] / wall[f'{what} all'] / cores for what in ('draw', 'count')]
    yield (f'  {cores} processes of process.py deliver {gains[0]:.0%} of {cores} times what one does; where they only '
           f'count to a number: {gains[1]:.0%}')


def count(_):
    return sum(range(500_000))


def draw_all(source, folder, size):
    """Draw the records of `source` as PNGs for the other parts.

    Returns: list of paths
    """
    renderer, paths = Renderer(size, 2.0, 1.0), []
    train = os.path.join(source, 'train')
    for name in sorted(os.listdir(train)):
        paths.append(os.path.join(folder, f'{size}_{name}.png'))
        picture = renderer.draw(records.read_record(os.path.join(train, name))[0])
        with open(paths[-1], 'wb') as file:
            file.write(encode_png(picture, {**settings_of(Render(size=size)), 'record': len(paths)}))
    return paths
