"""MAT record -> PNG, against a new matplotlib figure for each record, per core."""
import os
import time

import matplotlib
import numpy as np
import scipy
import scipy.io

import process
from benchmarks.measure import alternate, row
from benchmarks.pictures import mat_files
from utils.ecg import records
from utils.pictures.render import Renderer, encode_png
from utils.running import files, machine, pool
from utils.running.settings import Render

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402

TOGETHER = 4  # records in one measurement


def versions():
    """The libraries that decide these figures."""
    return (f'NumPy {np.__version__}, SciPy {scipy.__version__}, matplotlib '
            f'{matplotlib.__version__}')


def compare(source, folder, size, runs):
    """Yields: rows"""
    paths, target = mat_files(source)[:TOGETHER], os.path.join(folder, 'picture.png')
    renderer, stamp = Renderer(size, 2.0, 1.0), {'size': size}

    def ours():
        for path in paths:
            picture = renderer.draw(records.read_record(path)[0])
            files.write_bytes(target, encode_png(picture, stamp))

    times = alternate({'ours': ours, 'ticks': lambda: draw_fresh(paths, target, size, True),
                       'off': lambda: draw_fresh(paths, target, size, False)}, runs)
    each = {name: seconds / TOGETHER for name, seconds in times.items()}
    yield row('record to PNG, CPU time', each['ours'], each['ticks'], 'new figure with ticks each')
    yield row('', each['ours'], each['off'], 'new figure, axes off, each')
    signals = [records.read_record(path)[0] for path in paths]
    pictures = [renderer.draw(signal) for signal in signals]
    parts = alternate({
        'reading': lambda: [records.read_record(path) for path in paths],
        'drawing': lambda: [renderer.draw(signal) for signal in signals],
        'PNG': lambda: [encode_png(picture, stamp) for picture in pictures]}, runs)
    yield '  of which ' + ', '.join(f'{name} {seconds / TOGETHER * 1e3:.2f} ms'
                                    for name, seconds in parts.items())
    kib = np.mean([len(encode_png(picture, stamp)) for picture in pictures]) / 1024
    yield f'  {kib:.1f} KiB a PNG (the last reference: {os.path.getsize(target) / 1024:.1f} KiB)'


def draw_fresh(paths, target, size, axes_on):
    """What one writes first: a new figure for each record."""
    for path in paths:
        figure, axes = plt.subplots(12, 1, figsize=(size / 100, size / 100), dpi=100)
        for ax, lead in zip(axes, scipy.io.loadmat(path)['ecgdata']):
            ax.plot(lead, color='black', linewidth=0.72)
            if not axes_on:
                ax.axis('off')
        figure.savefig(target, dpi=100)
        plt.close(figure)


def scale(source, folder, size, runs):
    """How much all cores together draw, beside what the machine gives to processes that count.

    Yields: rows
    """
    cores = machine.usable_cores()
    if cores == 1:
        return
    jobs = [('train', '', path, os.path.join(folder, f'scale_{index}.png'), Render(size=size))
            for index, path in enumerate(mat_files(source) * cores)]

    def draw(workers):
        for job in jobs:
            if os.path.exists(job[3]):
                os.remove(job[3])
        return len(list(pool.run_jobs(process.draw, jobs, workers)))

    wall = alternate({
        'draw 1': lambda: draw(1), 'draw all': lambda: draw(cores),
        'count 1': lambda: len(list(pool.run_jobs(count, list(range(len(jobs))), 1))),
        'count all': lambda: len(list(pool.run_jobs(count, list(range(len(jobs))), cores)))},
        runs, time.perf_counter)
    gains = [wall[f'{what} 1'] / wall[f'{what} all'] / cores for what in ('draw', 'count')]
    yield (f'  {cores} processes of process.py deliver {gains[0]:.0%} of {cores} times what one '
           f'does, their start included; where they only count to a number: {gains[1]:.0%}')


def count(_):
    return sum(range(500_000))
