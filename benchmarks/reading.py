"""PNG -> augmented batch, per core, and how many cores keep a fast device busy."""
import time

import numpy as np

from benchmarks.measure import alternate
from benchmarks.rendering import draw_all
from utils import images
from utils.config import Augment

BATCH = 32
NEEDED = 250  # pictures per second that one core should deliver
GPU_SPEEDS = (100, 400, 1600)  # pictures per second that a device might train on


def compare(source, folder, size, runs):
    """Yields: rows"""
    paths = draw_all(source, folder, size)
    augmentation = (Augment(), size / 24, 0)
    paths = [paths[i % len(paths)] for i in range(2 * BATCH)]
    batches = [np.arange(BATCH), np.arange(BATCH, 2 * BATCH)]

    def read(cached, workers):
        pictures = images.Pictures(paths, size, cached, augmentation)
        return lambda: sum(len(batch) for batch in images.read_batches(pictures, batches, 0, workers))

    cpu = alternate({'PNG': read(False, 1), 'memory': read(True, 1)}, runs)
    for name, seconds in cpu.items():
        rate = len(paths) / seconds
        yield (f'{f"reading and augmenting from {name}":<44} {seconds / len(paths) * 1e3:10.2f} ms   '
               f'{rate:7.0f} pictures/s of CPU time on one core (aim: {NEEDED})')
    wall = alternate({'1 thread': read(False, 1), '2 threads': read(False, 2)}, runs, time.perf_counter)
    yield f'  2 threads deliver {wall["1 thread"] / wall["2 threads"]:.2f} times what 1 does, by the clock'
    each = cpu['memory'] / len(paths)
    yield '  cores that read for a device of ' + ', '.join(f'{speed} pictures/s: {max(1, int(np.ceil(speed * each)))}'
                                                          for speed in GPU_SPEEDS)
