"""best_model: the folder that holds a trained model and all that prediction needs, and its weights.

It is swapped in whole: model.pdparams (Paddle's own format; one of each fold where there are
folds), config.yml, validation.csv with what was answered for the records that were not trained on,
and metrics.json, which holds the weights' checksums. Nothing is read with plain pickle.
"""
import hashlib
import io
import json
import os
import pickle

import numpy as np
import pandas as pd

from utils.answers import tasks
from utils.running import files, settings
from utils.running.errors import UserError

WEIGHTS = 'model.pdparams'
METRICS = 'metrics.json'
COMES_ALONG = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'ptbxl')
VALIDATION = 'validation.csv'
NAME_TABLE = 'StructuredToParameterName@@'  # what paddle.save adds to a state dict


class _Kind:
    """A pickled dtype; NumPy's own crashes over the state of a damaged one."""

    def __init__(self, name, *_):
        self.dtype = np.dtype(str(name))

    def __setstate__(self, state):
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])

    def read(self, data):
        return np.frombuffer(data.encode('latin-1') if isinstance(data, str) else data, self.dtype)


class _Array:
    """A pickled array: `value`."""

    def __setstate__(self, state):
        _, shape, kind, by_columns, data = state
        self.value = kind.read(data).reshape(shape, order='F' if by_columns else 'C')


# What a pickle of arrays may ask for; NumPy 2 and Python 3 have renamed two of the modules.
HARMLESS = {'numpy.ndarray': 'ndarray', 'numpy.dtype': _Kind,
            'numpy.core.multiarray._reconstruct': lambda *_: _Array(),
            'numpy.core.multiarray.scalar': lambda kind, data: kind.read(data)[0],
            'builtins.tuple': tuple, 'collections.OrderedDict': dict,
            '_codecs.encode': lambda text, _: text.encode('latin-1')}


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows NumPy arrays and plain containers; nothing else is even imported."""

    def find_class(self, module, name):
        module = module.replace('numpy._core', 'numpy.core').replace('__builtin__', 'builtins')
        if f'{module}.{name}' not in HARMLESS:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, as only a program does')
        return HARMLESS[f'{module}.{name}']


def read_weights(path, sha256=None):
    """Read the weights in a .pdparams file.

    path: str; sha256: str, the checksum that the file must have, or None
    Returns: {name: float32 array}
    Raises: UserError that says what the file is instead; nothing in the file is run
    """
    try:
        with open(path, 'rb') as file:
            data = file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UserError(f'{path}: no such file, expected weights (.pdparams)') from None
    if sha256 not in (None, hashlib.sha256(data).hexdigest()):
        raise UserError(f'{path}: not the file that train.py wrote (its checksum differs); copy '
                        'the whole folder again, or train anew')
    try:
        # latin1: what Python 2 and old Paddle pickled as bytes strings
        state = dict(_ArraysOnly(io.BytesIO(data), encoding='latin1').load())
    except Exception as error:  # a damaged pickle can raise almost anything
        page = '; it looks like a web page' if data[:256].lstrip()[:1] == b'<' else ''
        raise UserError(f'{path}: no weights of a network ({type(error).__name__}: '
                        f'{str(error)[:200]}){page}; expected what paddle.save(model.state_dict(), '
                        '...) writes; copy or download it again') from None
    state.pop(NAME_TABLE, None)
    weights = {}
    for key, value in state.items():
        if isinstance(value, tuple) and len(value) == 2:
            value = value[1]  # (name, array): how Paddle pickles a tensor that stands by itself
        value = getattr(value, 'value', value)
        if not isinstance(value, np.ndarray) or value.dtype not in (np.float32, np.float16):
            found = getattr(value, 'dtype', type(value).__name__)
            raise UserError(f'{path}: {str(key)[:100]!r} is {found}, expected a float32 tensor; '
                            'the file must hold a state dict alone')
        if not np.isfinite(value).all():
            raise UserError(f'{path}: {key} holds NaN or infinite values; use an earlier model')
        weights[str(key)] = value.astype(np.float32)
    return weights


def save_best(folder, networks, config, metrics, validation):
    """Put a best_model folder in the place of an earlier one, whole or not at all.

    folder: str; networks: list of {name: numpy array}; config: Config; metrics: dict for
        metrics.json; validation: pandas.DataFrame for validation.csv
    Raises: UserError when the disk is full; the earlier model is then still there
    """
    sums = {}
    with files.replacing_folder(folder) as partial:
        for number, weights in enumerate(networks, 1):
            name = WEIGHTS if len(networks) == 1 else f'fold_{number}.pdparams'
            data = pickle.dumps(weights, protocol=4)
            sums[name] = hashlib.sha256(data).hexdigest()
            files.write_bytes(os.path.join(partial, name), data)
        files.write_text(os.path.join(partial, 'config.yml'), settings.to_yaml(config))
        files.write_table(os.path.join(partial, VALIDATION), validation)
        files.write_json(os.path.join(partial, METRICS), {**without_nan(metrics), 'sha256': sums})


def without_nan(value):
    """Plain values for JSON: NaN, which JSON does not know, becomes None."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def find_best(path):
    """The best_model folder that `path` is or holds.

    path: str
    Returns: str
    Raises: UserError where there is none
    """
    found = _look_for_best(path)
    if not found:
        raise UserError(f'{path}: no trained model there; train one with train.py, or name another '
                        'best_model folder')
    return found


def has_best(path):
    """Whether find_best() would find one."""
    return _look_for_best(path) is not None


def _look_for_best(path):
    for folder in (path, os.path.join(path, 'best_model')):
        # While train.py swaps a better model in, the new one lies beside for a moment.
        for there in (folder, files.complete_name(folder), folder):
            if os.path.isfile(os.path.join(there, METRICS)):
                return there
    return None


def load_best(path):
    """Read a best_model folder; train.py may be at work on it.

    path: str, the folder or one that holds it
    Returns: (networks, config, metrics): list of {name: numpy array}, the Config it was trained
        with, dict
    Raises: UserError
    """
    folder = find_best(path)
    metrics = files.read_json(os.path.join(folder, METRICS))
    try:
        return _read_best(folder, metrics)
    except (UserError, OSError):
        now = find_best(path)
        if (now, files.read_json(os.path.join(now, METRICS))) == (folder, metrics):
            raise
        return load_best(path)  # a better model took its place while this one was read


def _read_best(folder, metrics):
    try:
        sums = dict(metrics['sha256'])
        numbers = metrics['epoch'], metrics['iteration'], metrics['validation']['f1']
        if not sums or not {type(each) for each in numbers} <= {int, float}:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(f'{folder}: {METRICS} is damaged or of an earlier version; train anew '
                        f'(from these weights: -o model.pretrained={folder}/{WEIGHTS}), or copy '
                        'the whole folder again') from None
    config = settings.load(os.path.join(folder, 'config.yml'), trained=True)
    # The weights come last: their checksums tell that all is of one model.
    networks = [read_weights(os.path.join(folder, os.path.basename(name)), str(expected))
                for name, expected in sums.items()]
    return networks, config, metrics


def load_validation(folder, task):
    """What a model answered for the records that it was not trained on.

    folder: str, a best_model; task: tasks.Task
    Returns: pandas.DataFrame, as tasks.validation_table() made it
    Raises: UserError
    """
    path = os.path.join(folder, VALIDATION)
    try:
        table = pd.read_csv(path, dtype={'name': str}, keep_default_na=False)
        targets, margins = tasks.of_validation_table(table, task)
        if not len(table) or not np.isfinite(margins).all() or targets.shape != margins.shape:
            raise ValueError('a value is missing')
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f'{path}: damaged or missing ({error}), expected the answers for the '
                        'validation records; copy the whole folder again, or train anew') from None
    return table
