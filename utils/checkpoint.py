"""Save all or nothing, load safely, resume.

best_model/ is a folder that is swapped in whole: model.pdparams (Paddle's own format), config.yml, metrics.json, and
sha256.json with the checksum of each. last/ holds the newest two checkpoints of a run, one file each, so model, optimizer
and history can never be of two different moments. Nothing is read with plain pickle: a file can hold NumPy arrays and
plain containers, and nothing that runs.
"""
import hashlib
import io
import json
import os
import pickle
import pickletools
import shutil

import numpy as np

from utils import files
from utils.errors import UserError

WEIGHTS = 'model.pdparams'
CHECKSUMS = 'sha256.json'
WEIGHTS_LIMIT = 4 * 2**30  # bytes
NAME_TABLE = 'StructuredToParameterName@@'  # what paddle.save adds to a state dict
MAGIC = b'ECG checkpoint 1\n'
KEEP = 2  # checkpoints in last/: the newest, and the one to fall back to
OPCODE_LIMIT = 2_000_000  # of a pickle: a network needs thousands, the losses since the last line of the log some more

STATE = {'iteration': int, 'best': (dict, type(None)), 'history': list, 'losses': list, 'skipped': int, 'log_bytes': int,
         'bad': int, 'weights': dict, 'optimizer': dict, 'scaler': dict, 'fingerprint': dict}  # what a checkpoint holds
BEST = {'value', 'epoch', 'iteration', 'score'}  # what it says of the best model so far

_NUMBERS = ('f2', 'f4', 'f8', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'b1')


class _Dtype:
    """Stands for numpy.dtype while a file is read, so that no damaged state reaches NumPy's C code."""

    def __init__(self, code='', *_):
        if code not in _NUMBERS:
            raise pickle.UnpicklingError(f'it holds an array of {code!r}, expected numbers')
        self.dtype = np.dtype(code)

    def __setstate__(self, state):
        if state[1] in ('<', '>'):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray while a file is read; `value` is the array, a view of the file, once its state is there."""

    def __init__(self, *_):
        self.value = None

    def __setstate__(self, state):
        _, shape, kind, fortran, data = state
        data = data.encode('latin-1') if isinstance(data, str) else data  # as Python 2 pickled bytes
        self.value = np.frombuffer(data, kind.dtype).reshape(shape, order='F' if fortran else 'C')


def _scalar(kind, data):
    return np.frombuffer(data, kind.dtype)[0]


def _encode(text, encoding):
    return text.encode('latin-1')  # how protocol 2 spells bytes


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows NumPy arrays and plain containers; any other name in the file is refused, not imported."""

    KNOWN = {('numpy', 'ndarray'): _Array, ('numpy', 'dtype'): _Dtype, ('builtins', 'tuple'): tuple,
             ('__builtin__', 'tuple'): tuple, ('collections', 'OrderedDict'): dict, ('_codecs', 'encode'): _encode,
             ('numpy.core.multiarray', '_reconstruct'): _Array, ('numpy._core.multiarray', '_reconstruct'): _Array,
             ('numpy.core.multiarray', 'scalar'): _scalar, ('numpy._core.multiarray', 'scalar'): _scalar}

    def find_class(self, module, name):
        if (module, name) not in self.KNOWN:
            raise pickle.UnpicklingError(f'it asks for {module}.{name}, which only a program needs')
        return self.KNOWN[module, name]

    def persistent_load(self, _):
        raise pickle.UnpicklingError('it refers to something outside the file')


def _check_opcodes(data, start):
    """Refuse a pickle whose few bytes would make the unpickler take gigabytes: a far memo slot, endless copies.

    Raises: pickle.UnpicklingError, or what pickletools raises for a damaged file
    """
    copied, longest = 0, 0
    stream = io.BytesIO(data)
    stream.seek(start)
    for count, (opcode, argument, at) in enumerate(pickletools.genops(stream)):
        if count > OPCODE_LIMIT or at > start + len(data):
            raise pickle.UnpicklingError(f'more than {OPCODE_LIMIT} steps')
        if 'PUT' in opcode.name and argument > OPCODE_LIMIT:
            raise pickle.UnpicklingError(f'step {count} asks for the memo slot {argument}')
        if isinstance(argument, str):
            longest = max(longest, len(argument))
        elif opcode.name == 'REDUCE':
            copied += longest  # it may be _codecs.encode, which copies a text that the file holds once
            if copied > 2 * len(data) + 2**26:
                raise pickle.UnpicklingError('it copies its texts without end')


def _unwrap(value, done):
    """The plain containers that were read, with arrays in the place of what stood for them.

    done: {id: result} of the containers met so far, since a pickle can hold one of them a million times
    """
    if isinstance(value, _Array):
        if value.value is None:
            raise pickle.UnpicklingError('it holds an array without values')
        return value.value
    if isinstance(value, (dict, list, tuple)):
        if id(value) not in done:
            done[id(value)] = {key: _unwrap(inner, done) for key, inner in value.items()} if isinstance(value, dict) \
                else type(value)([_unwrap(inner, done) for inner in value])
        return done[id(value)]
    if isinstance(value, (str, bytes, int, float, complex, bool, np.generic)) or value is None:
        return value
    raise pickle.UnpicklingError(f'it holds a {type(value).__name__}, expected arrays and plain values')


def read_weights(path):
    """Read the weights in a .pdparams file.

    path: str
    Returns: {name: numpy array}
    Raises: UserError that says what the file is instead; nothing in the file is run
    """
    data = _read_limited(path)
    if data is None:
        raise UserError(f'{path}: {"a folder" if os.path.isdir(path) else "no such file"}, expected a file of weights '
                        '(.pdparams)')
    return _weights_in(path, data)


def _weights_in(path, data):
    state = _unpickle(path, data)
    if not isinstance(state, dict):
        raise UserError(f'{path}: holds a {type(state).__name__}, expected the weights of a network by name')
    state.pop(NAME_TABLE, None)
    weights = {}
    for key, value in state.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
            value = value[1]  # (name, array): how Paddle pickles a tensor that stands by itself
        if not isinstance(key, str) or not isinstance(value, np.ndarray):
            raise UserError(f'{path}: {str(key)[:100]!r} is a {type(value).__name__}, expected a tensor; the file must '
                            'hold a state dict alone, as paddle.save(model.state_dict(), ...) writes it')
        weights[key] = value
    return weights


def check_weights(path, weights):
    """Refuse weights that are not finite float32 before one of them is copied.

    path: str, for the message; weights: {name: numpy array}
    Raises: UserError
    """
    for key, value in weights.items():
        if value.dtype != np.float32:
            raise UserError(f'{path}: {key} is {value.dtype}, expected float32')
        if not np.isfinite(value).all():
            raise UserError(f'{path}: {key} holds NaN or infinite values; use an earlier model')


def weights_of(model):
    """A copy of all weights and BatchNorm statistics.

    model: paddle.nn.Layer
    Returns: {name: numpy array}
    """
    return {key: np.array(value.numpy()) for key, value in model.state_dict().items()}


def first_not_finite(weights):
    """The name of the first tensor with a NaN or infinite value, or None.

    weights: {name: numpy array}
    """
    return next((key for key, value in weights.items() if not np.isfinite(value).all()), None)


def without_nan(value):
    """Plain values for JSON: NaN, which JSON does not know, becomes None."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value


def save_best(folder, weights, config_yaml, metrics):
    """Put a best_model folder in the place of an earlier one, whole or not at all.

    folder: str; weights: {name: numpy array}; config_yaml: str; metrics: dict for metrics.json
    Raises: UserError when the disk is full; the earlier model is then still there
    """
    partial = f'{folder}.{os.getpid()}{files.PARTIAL}'
    shutil.rmtree(partial, ignore_errors=True)
    contents = {WEIGHTS: pickle.dumps(weights, protocol=4), 'config.yml': config_yaml.encode(),
                'metrics.json': (json.dumps(metrics, indent=2) + '\n').encode()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents[CHECKSUMS] = (json.dumps(sums, indent=2) + '\n').encode()
    try:
        os.makedirs(partial)
        for name, data in contents.items():
            files.write_bytes(os.path.join(partial, name), data)
        replace_folder(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def replace_folder(new, folder):
    """Put the folder `new` in the place of `folder`; recover_folder() mends what a kill in between leaves."""
    complete, old = _complete(folder), f'{folder}.old{files.PARTIAL}'
    recover_folder(folder)
    files.sync_folder(new)
    os.rename(new, complete)
    if os.path.isdir(folder):
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(complete, folder)
    files.sync_folder(os.path.dirname(folder) or '.')
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(folder):
    """Finish a replacement that was killed halfway: a complete new folder takes its place."""
    complete, old = _complete(folder), f'{folder}.old{files.PARTIAL}'
    if os.path.isdir(complete):
        shutil.rmtree(old, ignore_errors=True)
        if os.path.isdir(folder):
            os.rename(folder, old)
        os.rename(complete, folder)
    shutil.rmtree(old, ignore_errors=True)


def _complete(folder):
    return f'{folder}.complete'


def load_best(folder):
    """Read a best_model folder; train.py may be at work on it.

    folder: str
    Returns: (weights, path of its config.yml, metrics)
    Raises: UserError
    """
    there, contents = _read_checked(folder)
    return (_weights_in(os.path.join(there, WEIGHTS), contents[WEIGHTS]), os.path.join(there, 'config.yml'),
            _metrics_in(f'{folder}/metrics.json', contents['metrics.json']))


def _read_checked(folder):
    """Where a best_model folder lies, and {name: bytes} of its files, each as its checksum says.

    A reader changes nothing: where a run was killed, or is, between taking the old folder away and putting the new one
    in its place, the new one is read where it lies.
    """
    there = _complete(folder) if not os.path.isdir(folder) and os.path.isdir(_complete(folder)) else folder
    if not os.path.isdir(there):
        raise UserError(f'{folder}: no trained model there; train one with: python train.py')
    sums = _read_sums(there)
    contents = {}
    for name, expected in sums.items():
        path = os.path.join(there, name)
        contents[name] = _read_limited(path)
        if contents[name] is None or hashlib.sha256(contents[name]).hexdigest() != expected:
            if _read_sums(there) != sums:
                return _read_checked(folder)  # a better model took its place while this one was read
            if contents[name] is None:
                raise UserError(f'{path}: missing; copy the whole folder again, or train anew')
            raise UserError(f'{path}: not the file that train.py wrote (its checksum differs): damaged or edited; copy '
                            'the whole folder again, or train anew')
    return there, contents


def _read_sums(folder):
    try:
        with open(os.path.join(folder, CHECKSUMS), encoding='utf-8') as file:
            sums = json.loads(file.read(2**20))
        return {name: sums[name] for name in (WEIGHTS, 'config.yml', 'metrics.json')}
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f'{folder}: no {CHECKSUMS} there, expected a best_model folder as train.py leaves it; train one '
                        'with: python train.py') from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f'{folder}/{CHECKSUMS}: damaged; copy the whole folder again, or train anew') from None


def _read_limited(path):
    """The bytes of a file, or None where there is none."""
    try:
        with open(path, 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            if size > WEIGHTS_LIMIT:
                raise UserError(f'{path}: {size / 2**30:.1f} GiB, expected weights under {WEIGHTS_LIMIT >> 30} GiB')
            return file.read()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def _metrics_in(path, data):
    """What metrics.json says, after checking what predict.py relies on."""
    try:
        metrics = json.loads(data)
        numbers = [metrics['epoch'], metrics['iteration'], metrics['validation']['f1'],
                   *np.ravel(np.asarray(metrics['threshold'], dtype=float))]
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise ValueError('not a number')
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f'{path}: not as train.py wrote it ({type(error).__name__}: {str(error)[:100]}), expected epoch, '
                        'iteration, threshold and validation.f1; copy the whole folder again, or train anew') from None
    return metrics


def set_weights(model, weights, path):
    """Copy weights into a model after checking that every name, shape and type is right.

    model: paddle.nn.Layer; weights: {name: numpy array}; path: str, for the message
    Raises: UserError, before a single tensor was copied
    """
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    for key in sorted(set(own) ^ set(weights)):
        what = 'is missing' if key in own else 'has no place in the network'
        raise UserError(f'{path}: the tensor {key} {what}; expected the weights of the network that config.yml names')
    for key, shape in own.items():
        if list(weights[key].shape) != shape:
            raise UserError(f'{path}: {key} has the shape {list(weights[key].shape)}, expected {shape}')
    check_weights(path, weights)
    model.set_state_dict(weights)


def check_optimizer(path, model, state):
    """Refuse an optimizer's state that does not belong to a model, before a value of it is copied.

    path: str, for the message; model: paddle.nn.Layer; state: dict, as optimizers.numpy_state gives it
    Raises: UserError
    """
    shapes = {value.name: list(value.shape) for value in model.parameters()}
    for key, value in state.items():
        if not isinstance(value, np.ndarray):
            continue
        owner = max((name for name in shapes if str(key).startswith(f'{name}_')), key=len, default=None)
        if owner is None or list(value.shape) not in (shapes[owner], [1]) or not np.isfinite(value).all():
            raise UserError(f"{path}: the optimizer's {str(key)[:100]} ({value.dtype}, shape {list(value.shape)}) has no "
                            'place in this network, or is not finite; start afresh with -o train.resume=never')


def save_last(folder, state, iteration, alone=False):
    """Write a checkpoint into last/ and drop all others but the one before it.

    folder: str; state: dict of plain values and numpy arrays; iteration: int; alone: bool, the others are of another run
    Returns: the checkpoint's path
    """
    os.makedirs(folder, exist_ok=True)
    # As one text: a long history is millions of values, each a step of the pickle.
    body = pickle.dumps({**state, 'history': json.dumps(state['history'])}, protocol=4)
    path = os.path.join(folder, f'iter_{iteration:08d}.ckpt')
    files.write_bytes(path, MAGIC + hashlib.sha256(body).hexdigest().encode() + b'\n' + body)
    others = list_last(folder)
    at = others.index(path)
    # A newer one is damaged: this run fell back to one before it.
    for old in others[:at] + others[at + (1 if alone else KEEP):]:
        os.remove(old)
    return path


def list_last(folder):
    """The checkpoints in last/, newest first."""
    if not os.path.isdir(folder):
        return []
    names = [entry.name for entry in os.scandir(folder) if entry.name.startswith('iter_') and
             entry.name.endswith('.ckpt')]
    return [os.path.join(folder, name) for name in sorted(names, reverse=True)]


def load_last(folder):
    """Read the newest checkpoint that is whole.

    Returns: (state, notes), state None where there is no checkpoint; notes: list of str, one per damaged file
    Raises: UserError where there are checkpoints and none is whole
    """
    notes = []
    for path in list_last(folder):
        try:
            return _read_checkpoint(path), notes
        except UserError as error:
            notes.append(f'{error}; falling back to the checkpoint before it')
    if notes:
        raise UserError(f'{folder}: none of its {len(notes)} checkpoints can be read ({notes[0]}); start afresh with '
                        '-o train.resume=never')
    return None, notes


def _read_checkpoint(path):
    data = _read_limited(path)
    head = len(MAGIC) + 65
    found = hashlib.sha256(memoryview(data)[head:]).hexdigest().encode()
    if not data.startswith(MAGIC) or found != data[len(MAGIC):head - 1]:
        raise UserError(f'{path}: damaged or half written ({len(data)} bytes)')
    state = _unpickle(path, data, head)
    try:
        state['history'] = json.loads(state['history'])
    except (TypeError, KeyError, ValueError, RecursionError):
        raise UserError(f'{path}: its history is missing or of the wrong kind; not a checkpoint that train.py wrote') from None
    for key, kind in STATE.items():
        if key not in state or not isinstance(state[key], kind):
            raise UserError(f'{path}: its {key} is missing or of the wrong kind; not a checkpoint that train.py wrote')
    if state['iteration'] < 1 or not state['optimizer'] or not (state['best'] is None or BEST <= set(state['best'])):
        raise UserError(f'{path}: its iteration, optimizer or best are not as train.py wrote them')
    return state


def _unpickle(path, data, start=0):
    hint = ''
    if data[:256].lstrip()[:1] == b'<':
        hint = '; it looks like a web page, so the download failed'
    if not data:
        raise UserError(f'{path}: the file is empty, expected weights; copy or download it again')
    try:
        _check_opcodes(data, start)
        stream = io.BytesIO(data)
        stream.seek(start)
        # latin1: what Python 2 and old Paddle pickled as bytes strings
        return _unwrap(_ArraysOnly(stream, encoding='latin1').load(), {})
    except Exception as error:  # a damaged pickle can raise almost anything
        raise UserError(f'{path}: not a file of weights ({type(error).__name__}: {str(error)[:200]}){hint}; expected what '
                        'paddle.save or train.py wrote; it may be truncated: copy or download it again') from None
