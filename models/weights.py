"""Weights and optimizer state as NumPy arrays and back, checked before a single one is copied."""
import numpy as np

from models.optimizer import load_scaler
from utils.running.errors import UserError

# A mean over LONG iterations and more takes in every fifth: the others say the same, and cost.
LONG, EVERY = 100, 5


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


def is_finite(model):
    """Whether all weights and BatchNorm statistics are finite numbers; a NaN in the optimizer's
    state gets into the weights in the same step.

    model: paddle.nn.Layer
    """
    import paddle
    with paddle.no_grad():
        total = paddle.add_n([value.sum() for value in model.state_dict().values()])
        return bool(paddle.isfinite(total))


def state_arrays(average, optimizer, scaler):
    """All that a run needs to go on, as {name: numpy array}; see set_state().

    average: Average; optimizer: paddle.optimizer.Optimizer; scaler: paddle.amp.GradScaler
    """
    parts = {'model': average.model.state_dict(), 'average': average.network.state_dict(),
             'optimizer': optimizer.state_dict(), 'scaler': scaler.state_dict()}
    return {f'{part}/{key}': np.array(value) for part, state in parts.items()
            for key, value in state.items()}


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
    load_scaler(scaler, parts['scaler'])


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
        theirs = model.state_dict()
        self.pairs = [(value, theirs[key]) for key, value in network.state_dict().items()]

    def follow(self, iteration):
        """Take the weights of now into the mean, after the iteration with this number, from 1."""
        import paddle
        span = max(1.0, self.share * iteration)
        every = 1 if span < LONG else EVERY
        if iteration % every:
            return
        weight = paddle.to_tensor(every / span, dtype='float32')
        with paddle.no_grad():
            for value, new in self.pairs:
                value.lerp_(new, weight)
