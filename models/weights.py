"""Weights and optimizer state as NumPy arrays and back, checked before a single one is copied."""
import numpy as np

from utils.running.errors import UserError


def weights_of(model):
    """A copy of all weights and BatchNorm statistics.

    model: paddle.nn.Layer
    Returns: {name: numpy array}
    """
    return {key: np.array(value.numpy()) for key, value in model.state_dict().items()}


def set_weights(model, weights, path):
    """Copy weights into a model after checking that every name and shape is right.

    model: paddle.nn.Layer; weights: {name: float32 array}; path: str, for the message
    Raises: UserError, before a single tensor was copied
    """
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    found = {key: list(value.shape) for key, value in weights.items()}
    for key in sorted(own.keys() | found.keys()):
        if own.get(key) != found.get(key):
            raise UserError(f'{path}: the tensor {key} has the shape {found.get(key)}, expected '
                            f'{own.get(key)}, as in the network that config.yml names')
    model.set_state_dict(weights)


def _tensors_of(average, optimizer):
    """The Tensors that a training changes, by the names that state_arrays() gives them."""
    parts = {'model': average.model.state_dict(), 'average': average.network.state_dict(),
             'optimizer': optimizer.state_dict()}
    return {f'{part}/{key}': value for part, state in parts.items()
            for key, value in state.items() if hasattr(value, 'numpy')}


def state_arrays(average, optimizer, scaler):
    """All that a run needs to go on, as {name: numpy array}; see set_state().

    average: Average; optimizer: paddle.optimizer.Optimizer; scaler: paddle.amp.GradScaler
    """
    arrays = {key: np.array(value.numpy())
              for key, value in _tensors_of(average, optimizer).items()}
    arrays.update({f'scaler/{key}': np.array(value)
                   for key, value in scaler.state_dict().items()})
    return arrays


def set_state(average, optimizer, scaler, arrays, path):
    """Put the arrays of state_arrays() back, after checking them.

    path: str, for the message
    Raises: UserError, before a single tensor of what does not fit was copied
    """
    parts = {'model': {}, 'average': {}, 'optimizer': {}, 'scaler': {}}
    for key, value in arrays.items():
        part, _, name = key.partition('/')
        parts.setdefault(part, {})[name] = value
    shapes = {value.name: list(value.shape) for value in average.model.parameters()}
    for key, value in parts['optimizer'].items():
        owner = max((name for name in shapes if key.startswith(f'{name}_')), key=len, default=None)
        if owner is None or list(value.shape) not in (shapes[owner], [1]) or \
                value.dtype != np.float32:
            raise UserError(f"{path}: the optimizer's {key[:100]} ({value.dtype}, shape "
                            f'{list(value.shape)}) has no place in this network; start afresh with '
                            '-o train.resume=never')
    set_weights(average.model, parts['model'], path)
    set_weights(average.network, parts['average'], path)
    optimizer.set_state_dict(parts['optimizer'])
    if parts['scaler']:  # empty after training without mixed precision, as on a CPU
        scaler.load_state_dict({key: value if value.ndim else value.item()
                                for key, value in parts['scaler'].items()})


class Average:
    """A network whose weights and statistics are the mean of those of one in training.

    share: float, the part of all iterations so far that the mean is over, about; 0: the last one
    model: paddle.nn.Layer to follow; network: another of the same kind, which gets the mean
    """

    def __init__(self, model, network, share):
        self.model = model
        self.network = network
        self.share = share
        network.set_state_dict(model.state_dict())

    def follow(self, iteration):
        """Take the weights of now into the mean, after the iteration with this number, from 1."""
        import paddle
        theirs = self.model.state_dict()
        with paddle.no_grad():
            for key, value in self.network.state_dict().items():
                value.lerp_(theirs[key], 1 / max(1.0, self.share * iteration))


class LastGood:
    """The last state of a training in which every number was finite, kept on the device.

    One look at all weights, statistics and the optimizer's state every few iterations costs less
    than one at each step's loss, and sees more: a ReLU can hide a NaN from the loss.
    """

    def __init__(self, average, optimizer):
        self.average = average
        self.optimizer = optimizer
        self.copies = None

    def is_finite(self):
        """Whether all numbers are finite, in this process."""
        import paddle
        tensors = _tensors_of(self.average, self.optimizer).values()
        sums = [value.astype('float32').sum() for value in tensors]
        return bool(paddle.isfinite(paddle.stack([each.reshape([]) for each in sums])).all())

    def keep(self):
        """Take the state of now for the last good one."""
        tensors = _tensors_of(self.average, self.optimizer)
        self.copies = {key: value.clone() for key, value in tensors.items()}

    def take(self, arrays):
        """Take the arrays of set_state(), which a run goes on from, for the last good state."""
        self.copies = arrays

    def put_back(self):
        """Give model and optimizer the last good state; False where there is none yet."""
        if self.copies is None:
            return False
        for key, value in _tensors_of(self.average, self.optimizer).items():
            value.set_value(self.copies[key])
        return True
