"""PNGs -> batches: which pictures there are, whether they are the right ones, reading ahead.

Pictures are read by threads of this process, not by DataLoader's worker processes: Pillow decodes
and OpenCV remaps without the interpreter's lock, so threads keep up, and there is no shared memory
to run out of, no worker that the system can kill and no queue that hangs when a picture is damaged.
"""
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from utils.pictures.augment import augment
from utils.pictures.render import MANIFEST, decode_png, read_stamp
from utils.running import files, machine
from utils.running.errors import UserError

PREFETCH = 3  # batches that are read ahead


def list_pictures(root, part, drawn_with, how_to_draw):
    """The names of one part's records, after checking that each has its picture and no other is
    there, all drawn with the right settings.

    root: str; part: 'train' or 'val'; drawn_with: dict, render.settings_of(); how_to_draw: str, the
        command for pictures with these settings
    Returns: sorted list of names
    Raises: UserError
    """
    folder = os.path.join(root, part)
    manifest = files.read_json(os.path.join(root, MANIFEST))
    there = {path.stem for path in Path(folder).glob('*.png')}
    try:
        expected, left_out = set(manifest[part]), manifest['not_drawn'][part]
        finished, mend = manifest['finished'], manifest['command']
    except (KeyError, TypeError):
        raise UserError(f'{root}: no pictures that process.py drew ({MANIFEST} is missing or of '
                        f'another version); draw them with: {how_to_draw}') from None
    if left_out:
        raise UserError(f'{folder}: process.py could not draw {len(left_out)} records '
                        f'({_some(left_out)}); mend or remove these records, then: {mend}')
    if there != expected or not finished:
        differ = [f'{what} {len(names)} ({_some(names)})' for what, names in
                  (('missing', expected - there), ('not of these records', there - expected))
                  if names]
        raise UserError(f'{folder}: {len(there)} pictures, expected those of {len(expected)} '
                        f'records ({"; ".join(differ) or "process.py did not finish"}); remove '
                        f'what does not belong there, then: {mend}')
    if not expected:
        raise UserError(f'{folder}: no pictures, since the source has no records for it; draw them '
                        f'with: {how_to_draw} -o data.source=PATH')
    for name in sorted(expected):
        _check_stamp(os.path.join(folder, f'{name}.png'), drawn_with, how_to_draw)
    return sorted(expected)


def _some(names):
    return ', '.join(sorted(names)[:5]) + (', ...' if len(names) > 5 else '')


def _check_stamp(path, drawn_with, how_to_draw):
    stamp = read_stamp(path)
    if stamp is None:
        raise UserError(f'{path}: damaged, or not drawn by process.py; draw it with: {how_to_draw}')
    wrong = [f'{key} {stamp.get(key)} (expected {value})' for key, value in drawn_with.items()
             if stamp.get(key) != value]
    if wrong:
        raise UserError(f'{path}: drawn with {", ".join(wrong)}; draw it with: {how_to_draw}')


class Pictures:
    """The pictures of some records, read from PNGs or from memory.

    paths: list of str; shape: (height, width), pixels; cached: bool, keep each decoded picture
    augmentation: None or (settings.Augment, pixels_per_mv, seed)
    """

    def __init__(self, paths, shape, cached, augmentation=None):
        self.paths = paths
        self.shape = shape
        self.augmentation = augmentation
        self.cache = [None] * len(paths) if cached else None

    def __len__(self):
        return len(self.paths)

    def read(self, index, epoch):
        """One picture, uint8 array of self.shape; augmented by seed, epoch and index alone."""
        picture = self.cache[index] if self.cache else None
        if picture is None:
            picture = decode_png(self.paths[index], self.shape)
            if self.cache:
                self.cache[index] = picture
        if self.augmentation is None:
            return picture
        settings, pixels_per_mv, seed = self.augmentation
        rng = np.random.default_rng((seed, 1, epoch, index))
        return augment(picture, rng, settings, pixels_per_mv)


def fits_in_memory(cache, count, shape):
    """Whether to keep `count` decoded pictures of (height, width) `shape`: `cache`, or where that
    is 'auto', if they take under half of the free memory."""
    if cache != 'auto':
        return cache
    free = machine.free_memory()
    return free is not None and count * shape[0] * shape[1] < free / 2


def epoch_order(count, seed, epoch):
    """The order of the training records in one epoch, by seed and epoch alone."""
    return np.random.default_rng((seed, 2, epoch)).permutation(count)


def read_batches(pictures, batches, workers):
    """Read batches on `workers` threads, a few ahead of the one that is used.

    pictures: Pictures; batches: iterable of (epoch, int array of indices); workers: int
    Yields: (epoch, indices, uint8 array (len(indices), height, width)), in the order of `batches`
    Raises: UserError that names the damaged picture
    """
    cv2.setNumThreads(1)  # the threads here are the parallelism; OpenCV's would get in their way
    pool = ThreadPoolExecutor(workers, thread_name_prefix='read')
    ahead = deque()
    try:
        for epoch, batch in batches:
            pixels = np.empty((len(batch), *pictures.shape), np.uint8)
            ahead.append((epoch, batch, pixels, [
                pool.submit(_read_into, place, pictures, int(index), epoch)
                for place, index in zip(pixels, batch)]))
            if len(ahead) > PREFETCH:
                yield _finish(ahead.popleft())
        while ahead:
            yield _finish(ahead.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _read_into(place, pictures, index, epoch):
    place[:] = pictures.read(index, epoch)  # here, so that the loop has nothing to put together


def _finish(batch):
    epoch, indices, pixels, futures = batch
    for future in futures:
        future.result()
    return epoch, indices, pixels
