"""PNG -> augmented batch, per core, and how many cores keep a fast device busy."""
import math
import statistics
import time

import numpy as np

from benchmarks.measure import alternate
from benchmarks.pictures import draw_all
from utils.pictures import loading
from utils.pictures.render import shape_of
from utils.running.settings import Augment, Render

BATCH = 32
NEEDED = 250  # pictures per second that one core should deliver
DEVICES = (100, 400, 1600)  # pictures per second that a device might train on


def compare(source, folder, size, runs):
    """Yields: rows"""
    paths = draw_all(source, folder, size)
    paths = [paths[index % len(paths)] for index in range(2 * BATCH)]
    augmentation = (Augment(), size / 24, 0)

    def read(cached, workers):
        pictures = loading.Pictures(paths, shape_of(Render(size=size)), cached, augmentation)
        batches = [(0, np.arange(BATCH)), (0, np.arange(BATCH, 2 * BATCH))]
        return lambda: sum(len(pixels) for _, _, pixels in
                           loading.read_batches(pictures, batches, workers))

    cpu = alternate({'PNG': read(False, 1), 'memory': read(True, 1)}, runs)
    for name, seconds in cpu.items():
        yield (f'{f"reading and augmenting from {name}":<44} {seconds / len(paths) * 1e3:10.2f} ms'
               f'   {len(paths) / seconds:7.0f} pictures/s of CPU time on one core (aim: {NEEDED})')
    wall = alternate({1: read(False, 1), 2: read(False, 2)}, runs, time.perf_counter)
    yield f'  2 threads deliver {wall[1] / wall[2]:.2f} times what 1 does, by the clock'
    each = cpu['memory'] / len(paths)
    yield '  cores that read for a device of ' + ', '.join(
        f'{speed} pictures/s: {max(1, math.ceil(speed * each))}' for speed in DEVICES)
    yield (f'{"a loop waits for a batch that is read":<44} '
           f'{hand_over(paths, size) * 1e3:10.2f} ms   {BATCH} pictures')


def hand_over(paths, size, batches=8):
    """How long a loop waits for each batch, though the pictures have been read; seconds, median.

    paths: list of str; size: int, pixels of their pictures
    """
    pictures = loading.Pictures(paths, shape_of(Render(size=size)), cached=True)
    order = [(0, np.arange(BATCH) % len(paths))] * (batches + loading.PREFETCH + 1)
    reading, waited = loading.read_batches(pictures, order, 1), []
    for _ in range(batches):
        start = time.perf_counter()
        next(reading)
        waited.append(time.perf_counter() - start)
        time.sleep(0.1)  # the step; the pictures are in memory, so they are read long before
    reading.close()
    return statistics.median(waited[1:])
