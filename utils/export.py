"""The best model as a program for Paddle Inference: written once when training ends, run by predict.py on CPUs.

It stands in best_model beside the weights, as inference.json (Paddle 3) or inference.pdmodel (Paddle 2) and
inference.pdiparams. An export is only speed, never needed: where there is none that this Paddle can run and that
answers as the plain network does, the plain network predicts. A program is more than data: Paddle has operations that
write files. So one that holds any operation but those of a ResNet is not run.
"""
import contextlib
import glob
import hashlib
import json
import os
import shutil
import sys
import tempfile

import numpy as np

from utils import checkpoint, files, images, runtime
from utils.inference import plain_network, probabilities_of
from utils.tasks import log_odds

NAME = 'inference'
PROGRAMS = {True: f'{NAME}.json', False: f'{NAME}.pdmodel'}  # by whether Paddle's programs are of the new kind (PIR)
PARAMETERS = f'{NAME}.pdiparams'
# What the programs of paddle.vision's ResNets are made of, as Paddle 3 (by number of dialect) and Paddle 2 name it.
OPERATIONS = {True: {'p', '1.data', '1.fetch', '1.add', '1.batch_norm_', '1.cast', '1.conv2d', '1.expand', '1.flatten',
                     '1.full', '1.full_int_array', '1.matmul', '1.pool2d', '1.relu', '1.scale', '1.unsqueeze'},
              False: {'feed', 'fetch', 'batch_norm', 'cast', 'conv2d', 'elementwise_add', 'expand_v2',
                      'flatten_contiguous_range', 'matmul_v2', 'pool2d', 'relu', 'scale', 'unsqueeze2'}}
CHECKED = 8  # pictures that both networks are asked about before the export is trusted
# How far an export's probabilities may be from the plain network's; oneDNN rounds otherwise (1e-6), bf16 has 8 bits.
TOLERANCE = {'fp32': 0.001, 'bf16': 0.05}
UNSURE = 0.5  # log-odds, 0.12 around a probability of 0.5: what bf16 puts this near a threshold is asked again in fp32


def add_export(folder, model):
    """Put an export of `model` into its best_model folder, whole or not at all.

    folder: str, as checkpoint.save_best left it; model: paddle.nn.Layer with the weights of that folder
    Raises: UserError when the disk is full, or whatever Paddle says; the folder is then what it was before
    """
    import paddle
    partial = f'{folder}.{os.getpid()}{files.PARTIAL}'
    shutil.rmtree(partial, ignore_errors=True)
    with open(os.path.join(folder, checkpoint.CHECKSUMS), encoding='utf-8') as file:
        sums = {name: value for name, value in json.load(file).items() if not name.startswith(NAME)}
    try:
        os.makedirs(partial)
        for name in sums:
            with open(os.path.join(folder, name), 'rb') as file:
                files.write_bytes(os.path.join(partial, name), file.read())
        pixels = paddle.static.InputSpec([None, None, None], 'uint8', 'pixels')
        with _quiet():
            network = paddle.jit.to_static(_with_input(model), input_spec=[pixels], full_graph=True)
            paddle.jit.save(network, os.path.join(partial, NAME))
        for path in glob.glob(os.path.join(glob.escape(partial), f'{NAME}.*')):
            with open(path, 'rb') as file:
                data = file.read()
            files.write_bytes(path, data)  # to the disk, as everything else there
            sums[os.path.basename(path)] = hashlib.sha256(data).hexdigest()
        files.write_json(os.path.join(partial, checkpoint.CHECKSUMS), sums)
        checkpoint.replace_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def has_export(folder):
    """Whether a best_model folder holds an export that this Paddle can run."""
    return os.path.isfile(os.path.join(folder, _program_name()))


def choose_network(folder, model, task, thresholds, device, precision, pixels):
    """The fastest network that answers as the plain one does, on the pictures it is tried with.

    folder: str, a best_model folder; model: paddle.nn.Layer with its weights; task: tasks.Task
    thresholds: as tasks.decide takes them; device: 'cpu' or 'gpu:N'; precision: 'fp32' or 'bf16'
    pixels: uint8 array (n, size, size), some real pictures
    Returns: (network, notes); network: function, uint8 array (n, size, size) -> logits float32 (n, classes);
        notes: list of str, what runs, and why what was asked for does not
    """
    network = plain = plain_network(model)
    notes = []
    if device != 'cpu':
        return network, ['plain network' + (', fp32: predict.precision is for CPUs' if precision == 'bf16' else '')]
    if precision == 'bf16' and not _has_bf16():
        precision = 'fp32'
        notes.append('fp32: this CPU has no bf16 instructions (avx512_bf16 or amx_bf16), predict.precision is bf16')
    expected = network(pixels)
    for tried in ('fp32', 'bf16') if precision == 'bf16' else ('fp32',):
        try:
            export = load_export(folder, tried)
            difference = _compare(export(pixels), expected, task, TOLERANCE[tried])
        except Exception as error:  # Paddle's C++ side can raise anything; the plain network always works
            notes.append(f'not with oneDNN in {tried}: ' + str(error).strip().partition('\n')[0])
            continue
        network = export if tried == 'fp32' else _ask_again(export, network, task, thresholds)
        notes.append(f"Paddle Inference with oneDNN in {tried}: its probabilities differ from the plain network's by "
                     f'at most {difference:.1e} on {len(pixels)} pictures')
        if tried == 'bf16':
            notes.append('what bf16 puts near a threshold is asked again in fp32')
    if network is plain:
        notes.append('plain network: the same answer, slower')
    return network, notes


def _ask_again(fast, exact, task, thresholds):
    """A network that answers as `fast`, and where that is near a threshold, as `exact`, so that tags are the same."""
    limits = log_odds(thresholds)

    def network(pixels):
        logits = fast(pixels)
        margin = logits if task.multi_label else logits[:, 1:] - logits[:, :1]
        unsure = np.flatnonzero((np.abs(margin - limits) < UNSURE).any(axis=1))
        if len(unsure):
            logits[unsure] = exact(pixels[unsure])
        return logits
    return network


class _Unusable(Exception):
    """Why an export cannot be used, a phrase."""


def load_export(folder, precision):
    """The export in a best_model folder as a function, uint8 array (n, size, size) -> logits float32 (n, classes)."""
    program = _program_name()
    if not has_export(folder):
        other = next((name for name in PROGRAMS.values() if os.path.exists(os.path.join(folder, name))), None)
        raise _Unusable(f'{folder} holds {other}, which another Paddle wrote; this one needs {program}' if other else
                        f'{folder} holds no export, which train.py writes when it ends')
    with open(os.path.join(folder, checkpoint.CHECKSUMS), encoding='utf-8') as file:
        sums = json.load(file)
    with tempfile.TemporaryDirectory() as private:  # what is run is what was looked at, whatever happens to the folder
        for name in (program, PARAMETERS):
            with open(os.path.join(folder, name), 'rb') as file:
                data = file.read()
            if hashlib.sha256(data).hexdigest() != sums.get(name):
                raise _Unusable(f'{folder}/{name} is not what train.py wrote (its checksum differs)')
            strange = _operations(data) - OPERATIONS[_new_programs()] if name == program else ()
            if strange:
                raise _Unusable(f'{folder}/{name} does more than a ResNet ({", ".join(sorted(strange))[:100]})')
            with open(os.path.join(private, name), 'wb') as file:
                file.write(data)
        predictor = _make_predictor(private, precision)
    source = predictor.get_input_handle(predictor.get_input_names()[0])
    result = predictor.get_output_handle(predictor.get_output_names()[0])

    def network(pixels):
        source.copy_from_cpu(np.ascontiguousarray(pixels))
        predictor.run()
        return result.copy_to_cpu()
    return network


def _make_predictor(folder, precision):
    from paddle import inference
    config = inference.Config(os.path.join(folder, _program_name()), os.path.join(folder, PARAMETERS))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(int(os.environ.get('OMP_NUM_THREADS') or runtime.usable_cores()))
    config.enable_mkldnn()
    with _quiet():
        if precision == 'bf16':
            config.enable_mkldnn_bfloat16()
        return inference.create_predictor(config)


def _operations(program):
    """The names of all operations in a program.

    program: bytes, as paddle.jit.save writes them
    """
    if _new_programs():
        return set(_operations_below(json.loads(program)))
    import paddle
    description = paddle.base.core.ProgramDesc(program)
    blocks = [description.block(number) for number in range(description.num_blocks())]
    return {block.op(number).type() for block in blocks for number in range(block.op_size())}


def _operations_below(value):
    if isinstance(value, dict):
        for operation in value.get('ops', []):
            yield operation['#']
        value = value.values()
    if not isinstance(value, (str, int, float, bool, type(None))):
        for inner in value:
            yield from _operations_below(inner)


def _compare(logits, expected, task, tolerance):
    """The largest difference of two networks' probabilities; an error where it, or the logits', is too large.

    A network that is sure of everything has equal probabilities whatever happens to its logits, so both are looked at.
    """
    if not np.isfinite(logits).all():
        raise _Unusable('it answers NaN or infinite values')
    difference = float(np.abs(probabilities_of(logits, task) - probabilities_of(expected, task)).max())
    of_logits = float(np.abs(logits - expected).max() / max(1.0, np.abs(expected).max()))
    if not (difference <= tolerance and of_logits <= 10 * tolerance):
        raise _Unusable(f"its probabilities differ from the plain network's by up to {difference:.1e} and its logits "
                        f'by {of_logits:.1e} of the largest; allowed are {tolerance:g} and {10 * tolerance:g}')
    return difference


def _with_input(model):
    """The model with images.normalise() before it, so that an export takes the pictures as they are."""
    import paddle

    class Network(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, pixels):
            return self.model(images.normalise(pixels))

    network = Network()
    network.eval()
    return network


def _program_name():
    return PROGRAMS[_new_programs()]


def _new_programs():
    import paddle
    return bool(paddle.framework.use_pir_api())


def _has_bf16():
    import paddle
    return paddle.base.core.supports_bfloat16_fast_performance()


@contextlib.contextmanager
def _quiet():
    """Keep Paddle's C++ side from telling its passes, hundreds of lines, on the screen."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        for handle, copy in enumerate(kept, 1):
            os.dup2(copy, handle)
            os.close(copy)
        os.close(nowhere)
