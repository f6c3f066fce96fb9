"""What a training learns from: labelled pictures, found, checked, parted and put into batches."""
import dataclasses
import os
import zlib
from dataclasses import dataclass

import numpy as np

from models import ranks
from utils.answers import split, tasks
from utils.ecg import records
from utils.pictures import loading
from utils.pictures.render import read_stamp, settings_of, shape_of
from utils.running import machine, settings
from utils.running.errors import UserError


@dataclass(frozen=True)
class TrainingData:
    """Pictures and targets of both parts; of the validation pictures, those of this process.

    fingerprint: {setting: value} that a run must have as it was to go on; notes: list of str
    """
    pictures: loading.Pictures
    targets: np.ndarray
    val_pictures: loading.Pictures
    val_targets: np.ndarray
    val_names: list
    epoch_iters: int
    workers: int
    fingerprint: dict
    notes: list


def load_data(config, fold, how_to_draw):
    """Find the labelled pictures, check them and their labels, and part them.

    fold: int, counted from 0, the part of train.folds that validates; how_to_draw: str, the command
    Returns: TrainingData
    Raises: UserError before anything is trained
    """
    root, shape = config.data.root, shape_of(config.render)
    names = loading.list_pictures(root, 'train', settings_of(config.render), how_to_draw)
    targets = _read_targets(root, names, tasks.TASKS[config.task])
    paths = np.array([os.path.join(root, 'train', f'{name}.png') for name in names])
    validates = split.choose_validation(targets, split.read_patients(root, names), fold, config)
    training, validation = np.flatnonzero(~validates), np.flatnonzero(validates)
    epoch_iters = _count_batches(len(training), config.train.batch_size)
    workers = machine.workers_of(config.data.workers)
    cached = loading.fits_in_memory(config.data.cache, len(names) * ranks.world(), shape)
    pixels_per_mv = config.render.size / len(records.LEADS) / config.render.mv_per_lead
    augmentation = config.augment, pixels_per_mv, config.seed
    own = paths[validation[ranks.part_of(len(validation))]]
    checksums = [read_stamp(path)['record'] for path in paths]
    identity = zlib.crc32(repr((names, checksums)).encode() + targets.tobytes())
    return TrainingData(
        pictures=loading.Pictures(paths[training], shape, cached, augmentation),
        targets=targets[training], val_pictures=loading.Pictures(own, shape, cached),
        val_targets=targets[validation], val_names=[names[index] for index in validation],
        epoch_iters=epoch_iters, workers=workers,
        # Without folds it is the second part of two that validates.
        fingerprint={**settings.that_matter(config), 'fold': fold if config.train.folds > 1 else 1,
                     'data': f'{len(names)} records, checksum {identity:08x}'},
        notes=[f'{len(training)} records train, {len(validation)} validate; {epoch_iters} '
               f'iterations an epoch; {workers} reading thread(s); decoded pictures are '
               + ('kept in memory' if cached else 'read anew in each epoch')])


def with_iterations(config, data):
    """The settings with train.iters as train.epochs has it, if it has; data: TrainingData."""
    if not config.train.epochs:
        return config
    iters = config.train.epochs * data.epoch_iters
    return dataclasses.replace(config, train=dataclasses.replace(config.train, iters=iters))


def _read_targets(root, names, task):
    reference = os.path.join(root, records.REFERENCE)
    targets = tasks.read_reference(reference, names, task)
    if not task.multi_label and len(np.unique(targets)) < 2:
        raise UserError(f'{reference}: all {len(names)} tags are {targets[0]}, expected some 0 '
                        '(normal) and some 1 (abnormal)')
    return targets


def _count_batches(count, batch_size):
    """How many whole batches, each in equal parts for all processes, `count` records make."""
    if count < batch_size or batch_size % ranks.world():
        raise UserError(f'train.batch_size is {batch_size}, with {count} training records and '
                        f'{ranks.world()} process(es); expected at most as many as records, and a '
                        'multiple of the processes')
    return count // batch_size


def batches_left(data, config, done):
    """(epoch, indices) of each iteration that is left, this process's part of each batch.

    data: TrainingData; config: Config; done: int, iterations
    """
    size, order_of = config.train.batch_size, None
    for iteration in range(done, config.train.iters):
        epoch, at = divmod(iteration, data.epoch_iters)
        if order_of != epoch:
            order_of, order = epoch, loading.epoch_order(len(data.targets), config.seed, epoch)
        yield epoch, order[at * size:(at + 1) * size][ranks.rank()::ranks.world()]
