"""Checkpoints of a run: all of them or nothing is saved, read safely, and gone on from.

last/ holds the newest two of a run, one .npz each, so model, optimizer and history can never be of
two different moments.
"""
import glob
import json
import os
import zipfile

import numpy as np

from models.optimizer import learning_rate
from utils.running import files, settings
from utils.running.errors import UserError

KEEP = 2  # the newest, and the one to fall back to


def save_last(folder, state, arrays, alone=False):
    """Write a checkpoint into last/ and drop all others but the one before it.

    folder: str; state: dict of plain values with the key iteration; arrays: {name: numpy array}
    alone: bool, the others are of another run
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f'iter_{state["iteration"]:08d}.npz')
    arrays = {'state': np.frombuffer(json.dumps(state).encode(), np.uint8), **arrays}
    # Not numpy.savez, which in NumPy 1 prints a traceback when the disk is full.
    with files.replacing(path) as file, zipfile.ZipFile(file, 'w') as archive:
        for name, array in arrays.items():
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    there = list_last(folder)
    at = there.index(path)
    # A newer one is damaged: this run fell back to one before it.
    for old in there[:at] + there[at + (1 if alone else KEEP):]:
        os.remove(old)


def list_last(folder):
    """The checkpoints in last/, newest first."""
    return sorted(glob.glob(os.path.join(glob.escape(folder), 'iter_*.npz')), reverse=True)


def load_last(folder):
    """Read the newest checkpoint that is whole.

    Returns: (state, arrays, notes) as save_last() took them, (None, None, notes) where there is no
        checkpoint; notes: list of str, one per damaged file
    Raises: UserError where there are checkpoints and none is whole
    """
    notes = []
    for path in list_last(folder):
        try:
            with np.load(path, allow_pickle=False) as file:
                if file.zip.testzip():  # NumPy does not see damage that makes an array shorter
                    raise ValueError('a checksum differs')
                arrays = {key: file[key] for key in file.files}
            return json.loads(arrays.pop('state').tobytes()), arrays, notes
        except Exception as error:  # a damaged zip can raise almost anything
            notes.append(f'{path}: damaged ({type(error).__name__}: {str(error)[:100]}); falling '
                         'back to the checkpoint before it')
    earlier = glob.glob(os.path.join(glob.escape(folder), 'iter_*.ckpt'))
    if notes or earlier:
        why = notes[0] if notes else 'they are of an earlier version'
        raise UserError(f'{folder}: none of its checkpoints can be read ({why}); start afresh with '
                        '-o train.resume=never')
    return None, None, []


def resume(config, insist, fingerprint):
    """The newest whole checkpoint, for a run that goes on.

    config: Config; insist: bool, a fresh run is not wanted; fingerprint: {setting: value} that must
        be as it was, see training_data.py
    Returns: (state, arrays, notes) as load_last(); state None for a fresh run
    Raises: UserError where a setting that matters has changed, or there is none to go on from
    """
    last = os.path.join(config.output, 'last')
    insist = insist or config.train.resume == 'extend'
    if config.train.resume == 'never' and not insist:
        return None, None, []
    state, arrays, notes = load_last(last)
    if state is None and insist:
        raise UserError(f'{last}: there is no checkpoint to go on from; start without --resume and '
                        '-o train.resume=extend')
    if state is None:
        return state, arrays, notes
    _refuse_changes(state['fingerprint'], fingerprint, last, config.train.resume == 'extend')
    state['progress'].pop('bad', None)  # older runs counted how often they went back from a NaN
    iteration = state['iteration']
    if iteration < config.train.iters:
        rate = learning_rate(iteration + 1, config.train)
        notes.append(f'going on after iteration {iteration} of {config.train.iters}, from {last}, '
                     f'with learning rate {rate:.10f}; to start afresh instead: -o '
                     'train.resume=never')
    return state, arrays, notes


def _refuse_changes(there, now, last, extend):
    """Refuse a checkpoint of a run with other settings; extend: bool, but for its length."""
    changed = [f'{key} {there.get(key, settings.before(key))} there, {value} now'
               for key, value in {**settings.REMOVED, **now}.items()
               if there.get(key, settings.before(key)) != value
               and not (key in ('train.iters', 'train.epochs') and extend)]
    if changed:
        raise UserError(f'{last} is of a run with other settings: {"; ".join(changed)}; set them '
                        'back to go on, or start afresh with -o train.resume=never, or in another '
                        'folder with -o output=FOLDER; only train.iters can be raised, with -o '
                        'train.resume=extend / 设置与上次训练不同：改回原来的设置可接着训练；'
                        '或用 -o train.resume=never 重新训练，或用 -o output=FOLDER 换一个文件夹')
