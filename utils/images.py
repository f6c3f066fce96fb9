"""PNGs -> batches on the device: which pictures there are, the train/validation split, reading, uint8 -> float.

Pictures are read by threads of this process, not by DataLoader's worker processes: OpenCV decodes and remaps without the
interpreter's lock, so threads keep up, and there is no shared memory to run out of, no worker that the system can kill
and no queue that hangs when a picture is damaged. The decoded pictures, too, can be kept once for all readers.
"""
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from utils import runtime
from utils.augment import augment
from utils.errors import UserError
from utils.render import decode_png, read_stamp

IMAGENET_MEAN = 0.449  # of the three channels' (0.485, 0.456, 0.406), since ours are equal
IMAGENET_STD = 0.226
PREFETCH = 3  # batches that are read ahead


def list_pictures(root, part, drawn_with, how_to_draw):
    """The names of the pictures of one part, after checking that all were drawn with the right settings.

    root: str; part: 'train' or 'val'; drawn_with: dict, render.settings_of(); how_to_draw: str, the command for it
    Returns: sorted list of names
    Raises: UserError where there is none, or one was drawn with other settings
    """
    folder = os.path.join(root, part)
    names = sorted(entry.name[:-4] for entry in os.scandir(folder) if entry.name.endswith('.png')) \
        if os.path.isdir(folder) else []
    if not names:
        raise UserError(f'{folder}: no pictures; draw them with: {how_to_draw}')
    for name in names:
        path = os.path.join(folder, f'{name}.png')
        stamp = read_stamp(path)
        if stamp is None:
            raise UserError(f'{path}: damaged, or not drawn by process.py; draw it with: {how_to_draw}')
        wrong = [f'{key} {stamp.get(key)} (expected {value})' for key, value in drawn_with.items()
                 if stamp.get(key) != value]
        if wrong:
            raise UserError(f'{path}: drawn with other settings: {", ".join(wrong)}; redraw it with: {how_to_draw}')
    return names


def split(targets, fraction, seed):
    """Part the labelled records into training and validation, each class (or, with several labels, each label) alike.

    targets: int array (n,), or array (n, classes) of 0 and 1; fraction: float, the validation part; seed: int
    Returns: (train, validation), sorted int arrays of indices; validation has round(n * fraction) entries
    Raises: UserError where there are too few records
    """
    count = len(targets)
    wanted = round(count * fraction)
    if wanted < 1 or count - wanted < 2:
        raise UserError(f'{count} labelled records and data.validation_fraction {fraction:g} give {wanted} for '
                        f'validation and {count - wanted} for training, expected at least 1 and 2; add records or '
                        'change the fraction')
    rng = np.random.default_rng((seed, 0))
    if targets.ndim == 1:
        validation = _split_classes(targets, wanted, rng)
    else:
        validation = _split_labels(targets, wanted, rng)
    return np.setdiff1d(np.arange(count), validation), np.sort(validation)


def _split_classes(targets, wanted, rng):
    classes, counts = np.unique(targets, return_counts=True)
    shares = counts * wanted / len(targets)
    takes = np.floor(shares).astype(int)
    takes[np.argsort(takes - shares, kind='stable')[:wanted - takes.sum()]] += 1  # the largest remainders round up
    return np.concatenate([rng.permutation(np.flatnonzero(targets == c))[:take] for c, take in zip(classes, takes)])


def _split_labels(targets, wanted, rng):
    """Rarest label first, records go where that label is still owed most (Sechidis et al. 2011)."""
    count = len(targets)
    owed = np.outer((1 - wanted / count, wanted / count), targets.sum(axis=0))
    room = [count - wanted, wanted]
    left = np.ones(count, dtype=bool)
    chosen = []
    for record in rng.permutation(count):  # breaks ties at random
        counts = targets[left].sum(axis=0)
        if not counts.any():
            break
        label = np.where(counts > 0, counts, np.inf).argmin()
        record = rng.permutation(np.flatnonzero(left & (targets[:, label] == 1)))[0]
        part = max((p for p in (0, 1) if room[p]), key=lambda p: (owed[p, label], room[p]))
        owed[part] -= targets[record]
        room[part] -= 1
        left[record] = False
        if part:
            chosen.append(record)
    return np.array(chosen + list(rng.permutation(np.flatnonzero(left))[:room[1]]), dtype=int)


class Pictures:
    """The pictures of some records, read from PNGs or from memory.

    paths: list of str; size: int, pixels; cached: bool, keep each decoded picture; augmentation: None or
        (config.Augment, pixels_per_mv, seed)
    """

    def __init__(self, paths, size, cached, augmentation=None):
        self.paths, self.size, self.augmentation = paths, size, augmentation
        self.cache = [None] * len(paths) if cached else None

    def __len__(self):
        return len(self.paths)

    def read(self, index, epoch):
        """One picture, uint8 array (size, size); with augmentation it depends on seed, epoch and index, nothing else."""
        picture = self.cache[index] if self.cache else None
        if picture is None:
            picture = decode_png(self.paths[index], self.size)
            if self.cache:
                self.cache[index] = picture
        if self.augmentation is None:
            return picture
        settings, pixels_per_mv, seed = self.augmentation
        return augment(picture, np.random.default_rng((seed, 1, epoch, index)), settings, pixels_per_mv)


def fits_in_memory(cache, count, size):
    """Whether to keep `count` decoded pictures of size x size: data.cache, or if they take under half of what is free.

    cache: True, False or 'auto'
    """
    if cache != 'auto':
        return cache
    free = runtime.free_memory()
    return free is not None and count * size * size < free / 2


def epoch_order(count, seed, epoch):
    """The order of the training records in one epoch: a permutation that depends on seed and epoch alone."""
    return np.random.default_rng((seed, 2, epoch)).permutation(count)


def read_batches(pictures, batches, epoch, workers):
    """Read batches on `workers` threads, a few ahead of the one that is used.

    pictures: Pictures; batches: list of int arrays of indices; epoch: int; workers: int
    Yields: uint8 array (len(batch), size, size), in the order of `batches`
    Raises: UserError that names the damaged picture
    """
    cv2.setNumThreads(1)  # the threads here are the parallelism; OpenCV's own would only get into their way
    with ThreadPoolExecutor(workers, thread_name_prefix='read') as pool:
        waiting, ahead = iter(batches), deque()
        try:
            while True:
                while len(ahead) < PREFETCH:
                    batch = next(waiting, None)
                    if batch is None:
                        break
                    ahead.append([pool.submit(pictures.read, int(index), epoch) for index in batch])
                if not ahead:
                    return
                yield np.stack([future.result() for future in ahead.popleft()])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def to_input(batch):
    """Put a batch on the device and make it what the network takes.

    batch: uint8 array (n, size, size)
    Returns: float32 Tensor (n, 3, size, size), normalised as ImageNet's pictures were
    """
    import paddle
    return normalise(paddle.to_tensor(batch))


def normalise(pixels):
    """uint8 Tensor (n, size, size) -> float32 Tensor (n, 3, size, size), normalised as ImageNet's pictures were."""
    pixels = pixels.astype('float32').unsqueeze(1)
    pixels = pixels / 255.0 - IMAGENET_MEAN
    return (pixels / IMAGENET_STD).expand([-1, 3, -1, -1])
