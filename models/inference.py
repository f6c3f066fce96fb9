"""Pictures -> logits: the plain network, and a faster one for CPUs, made anew for each prediction.

The fast one is Paddle Inference with oneDNN. Its program is written into a private folder, read and
thrown away, so nothing that lies on a disk is ever run. It is only speed: where it cannot be made,
or does not answer as the plain network does, the plain network predicts.
"""
import contextlib
import os
import tempfile

import numpy as np

from models import normalise, to_input
from utils.answers.tasks import probabilities_of
from utils.pictures import loading
from utils.pictures.augment import shift_in_time
from utils.running import machine

CHECKED = 8  # pictures that both networks are asked about before the fast one is trusted
# How far its probabilities may be off; oneDNN rounds otherwise (1e-6), bf16 has 8 bits.
TOLERANCE = {'fp32': 0.001, 'bf16': 0.05}
UNSURE = 0.5  # log-odds: what bf16 puts this near a threshold is asked again in fp32


def plain_network(model):
    """A model as a function: uint8 array (n, height, size) -> logits, float32 array (n, classes).

    It runs without gradients and with BatchNorm's running statistics.
    model: paddle.nn.Layer, put into evaluation mode
    """
    import paddle

    def network(pixels):
        with paddle.no_grad():
            return model(to_input(pixels)).astype('float32').numpy()

    model.eval()
    return network


def mean_of(networks):
    """Several functions as plain_network() returns them as one, which gives their logits' mean."""
    return lambda pixels: np.mean([network(pixels) for network in networks], axis=0)


def several_views(network, views):
    """A network that looks at each ECG as if it had begun at `views` different moments.

    network: function, as plain_network() returns it, and so is what is returned: the logits' mean
    """
    if views == 1:
        return network
    return lambda pixels: np.mean([network(shift_in_time(pixels, view / views))
                                   for view in range(views)], axis=0)


def predict_logits(network, pictures, batch_size, workers, on_batch=None):
    """Run a network over all pictures.

    network: function, as plain_network() returns it; pictures: loading.Pictures
    batch_size, workers: int; on_batch: function(count) called after each batch, or None
    Returns: float32 array (n, classes)
    """
    batches = [(0, np.arange(at, min(at + batch_size, len(pictures))))
               for at in range(0, len(pictures), batch_size)]
    logits = []
    for _, _, pixels in loading.read_batches(pictures, batches, workers):
        logits.append(network(pixels))
        if on_batch:
            on_batch(len(pixels))
    return np.concatenate(logits)


def fastest_network(models, margins_of, limits, device, precision, pixels):
    """The fastest network that answers as the plain one does, on the pictures it is tried with.

    models: list of paddle.nn.Layer, whose mean is asked for; margins_of: function, logits as
    log-odds of the task, see tasks.margins_of(); limits: log-odds, float or array (classes,), where
    the answer changes
    device: 'cpu' or 'gpu:N'; precision: 'fp32' or 'bf16'; pixels: uint8 array (n, height, size)
    Returns: (network, notes); network: function, as plain_network() returns it; notes: list of str,
        what runs, and why what was asked for does not
    """
    import paddle
    plain = mean_of([plain_network(model) for model in models])
    if device != 'cpu':
        fp32 = ', fp32: predict.precision is for CPUs' if precision == 'bf16' else ''
        return plain, [f'plain network{fp32}']
    notes = []
    if precision == 'bf16' and not paddle.base.core.supports_bfloat16_fast_performance():
        precision = 'fp32'
        notes.append('fp32: this CPU has no bf16 instructions (avx512_bf16 or amx_bf16)')
    try:
        fast = mean_of([_make_fast(model, precision, pixels.shape[1:]) for model in models])
        difference = _compare(fast(pixels), plain(pixels), margins_of, TOLERANCE[precision])
    except Exception as error:  # Paddle's C++ side can raise anything; the plain network works
        why = str(error).strip().partition('\n')[0]
        return plain, notes + [f'plain network, slower: oneDNN in {precision} does not: {why}']
    notes.append(f"oneDNN in {precision}: its probabilities differ from the plain network's by at "
                 f'most {difference:.1e} on {len(pixels)} pictures')
    if precision == 'bf16':
        notes.append('what bf16 puts near a threshold is asked again in fp32')
        return _ask_again(fast, plain, margins_of, limits), notes
    return fast, notes


def _ask_again(fast, exact, margins_of, limits):
    """A network that answers as `fast`, and near a threshold as `exact`, so that tags are equal."""
    def network(pixels):
        logits = fast(pixels)
        near = np.abs(margins_of(logits) - limits).reshape(len(logits), -1) < UNSURE
        unsure = np.flatnonzero(near.any(axis=1))
        if len(unsure):
            logits[unsure] = exact(pixels[unsure])
        return logits
    return network


def _compare(logits, expected, margins_of, tolerance):
    """The largest difference of two networks' probabilities; an error where it is too large.

    A network that is sure of everything has equal probabilities whatever happens to its logits,
    so both are looked at.
    """
    ours, theirs = (probabilities_of(margins_of(each)) for each in (logits, expected))
    difference = float(np.abs(ours - theirs).max())
    of_logits = float(np.abs(logits - expected).max() / max(1.0, np.abs(expected).max()))
    if not (difference <= tolerance and of_logits <= 10 * tolerance):
        raise ValueError(f"its probabilities differ from the plain network's by up to "
                         f'{difference:.1e}, its logits by {of_logits:.1e} of the largest')
    return difference


def _make_fast(model, precision, shape):
    """`model`, with normalise() before it, as a program that Paddle Inference runs.

    shape: (height, width) of the pictures
    """
    import paddle

    class Network(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixels):
            return self.model(normalise(pixels))

    network = Network()
    network.eval()
    pixels = paddle.static.InputSpec([None, *shape], 'uint8', 'pixels')
    with tempfile.TemporaryDirectory() as folder, _quiet():
        static = paddle.jit.to_static(network, input_spec=[pixels], full_graph=True)
        paddle.jit.save(static, os.path.join(folder, 'network'))
        return _load(folder, precision)


def _load(folder, precision):
    """The program in `folder` as a function, as plain_network() returns it."""
    import paddle
    from paddle import inference
    ending = 'json' if paddle.framework.use_pir_api() else 'pdmodel'
    config = inference.Config(os.path.join(folder, f'network.{ending}'),
                              os.path.join(folder, 'network.pdiparams'))
    config.disable_gpu()
    config.disable_glog_info()
    threads = int(os.environ.get('OMP_NUM_THREADS') or machine.usable_cores())
    config.set_cpu_math_library_num_threads(threads)
    config.enable_mkldnn()
    if precision == 'bf16':
        config.enable_mkldnn_bfloat16()
    predictor = inference.create_predictor(config)
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def network(pixels):
        source.copy_from_cpu(np.ascontiguousarray(pixels))
        predictor.run()
        return result.copy_to_cpu()
    return network


@contextlib.contextmanager
def _quiet():
    """Keep Paddle's C++ side from telling its passes and its doubts on stderr."""
    kept = os.dup(2)
    try:
        with open(os.devnull, 'w', encoding='utf-8') as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
