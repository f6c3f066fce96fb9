"""Paddle and the device it runs on: threads, memory. Scripts call import_paddle() first."""
import contextlib
import ctypes
import os
import platform
import sys
import warnings
import zlib  # noqa: F401  Paddle 2.6 crashes in zlib when it is what loads libz first

from utils.running import cards, errors, machine
from utils.running.errors import UserError

USELESS = ('No ccache found', 'When training, we now always track global mean and variance',
           'You are using GPU version Paddle, but your CUDA device is not set')
PADDLE_ERRORS = RuntimeError, MemoryError, SystemError, OSError  # memory that ran out, among others


def import_paddle():
    """Import Paddle, and set what its CPU kernels read once unless the user has set it: it starts
    with one thread, and MKL, on AMD, with half of the vector width.

    Returns: the module
    Raises: UserError where Paddle is not installed
    """
    if _is_amd():
        os.environ.setdefault('MKL_DEBUG_CPU_TYPE', '5')
    chosen = 'OMP_NUM_THREADS' in os.environ or 'MKL_NUM_THREADS' in os.environ
    beside = int(os.environ.get('PADDLE_LOCAL_SIZE', 1))  # processes the launcher started here
    for text in USELESS:
        warnings.filterwarnings('ignore', text)
    try:
        import paddle
    except ImportError as error:
        raise UserError(f'Paddle cannot be imported ({error}); install it as README.md says: '
                        'pip install -r requirements.txt') from None
    if not chosen:
        # After the import: before it, Paddle would print a warning meant for its launcher.
        threads = str(max(1, machine.usable_cores() // beside))
        os.environ['OMP_NUM_THREADS'] = os.environ['MKL_NUM_THREADS'] = threads
    return paddle


def _is_amd():
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            return 'AuthenticAMD' in file.read()
    except OSError:
        return 'AuthenticAMD' in os.environ.get('PROCESSOR_IDENTIFIER', '')  # Windows


def choose_device(wanted):
    """Make Paddle use the device that `wanted` asks for, and try it where it is a GPU.

    wanted: 'auto', 'gpu' or 'cpu'
    Returns: (device, words); device 'gpu:N' or 'cpu'; words: what this run runs on, one line
    Raises: UserError where Paddle finds no GPU and one was asked for, or is in this machine, and
        where the GPU does not work
    """
    import paddle
    compiled = paddle.is_compiled_with_cuda()
    count = paddle.device.cuda.device_count() if compiled else 0
    if wanted != 'cpu' and not count:
        refuse_cpu(wanted, cards.find_cards())
    if wanted == 'cpu' or not count:
        missing = 'Paddle finds no GPU' if compiled else 'this Paddle is the CPU build'
        device, reason = 'cpu', 'device: cpu was asked for' if wanted == 'cpu' else missing
        threads = os.environ.get('OMP_NUM_THREADS', '1')
        card = f'CPU with {threads} thread(s) of {machine.usable_cores()} core(s)'
        _keep_freed_memory()
        paddle.device.set_device(device)
    else:
        device = f'gpu:{os.environ.get("FLAGS_selected_gpus", "0").partition(",")[0]}'  # noqa: SIM112
        reason = f'{count} GPU(s) found'
        try_card(device)
        found = paddle.device.cuda.get_device_properties(device)
        card = f'{device} {found.name} with {found.total_memory / 2**30:.1f} GiB'
    return device, f'Python {platform.python_version()}, {_build()}, {card} ({reason})'


def _build():
    """Which Paddle this is, and what it was built for."""
    import paddle
    cuda = 'no CUDA'
    if paddle.is_compiled_with_cuda():
        cuda = f'CUDA {paddle.version.cuda()}, cuDNN {paddle.version.cudnn()}'
    return f'Paddle {paddle.__version__}, {cuda}'


def refuse_cpu(wanted, found):
    """Stop where a GPU was asked for, or nvidia-smi sees one, and Paddle has none: days of training
    on the CPU are not what was meant.

    wanted: 'auto' or 'gpu'; found: cards.Cards or None
    Raises: UserError
    """
    import paddle
    if found is None and wanted == 'auto':
        return
    if found is None:
        raise UserError(f'device: gpu was asked for, but Paddle finds no GPU ({_build()}), and '
                        'nvidia-smi no card; choose a GPU machine, or set device: auto')
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    remedy = cards.remedy(found.cuda, found.capability)
    if not paddle.is_compiled_with_cuda():
        why = 'this Paddle is the CPU build'
        remedy = f'python -m pip uninstall -y paddlepaddle, then {remedy}'
    elif hidden is not None:
        why = f'CUDA_VISIBLE_DEVICES is {hidden!r}'
        remedy = 'unset CUDA_VISIBLE_DEVICES'
    else:
        why = 'the driver is too old for it, or this container was started without the GPU'
    raise UserError(f'nvidia-smi sees {found}, but {_build()}, finds no GPU: {why}; mend it: '
                    f'{remedy} ; or ask for the CPU: -o device=cpu / nvidia-smi 能看到显卡，但 '
                    f'Paddle 不能使用：请执行 {remedy} ；或用 -o device=cpu 在 CPU 上运行')


def try_card(device):
    """Use the card, and have it do what training does most, before anything else is done.

    device: 'gpu:N'
    Raises: UserError that names the card, Paddle, CUDA and cuDNN, and what mends it
    """
    import paddle
    try:
        paddle.device.set_device(device)
        maps = paddle.nn.functional.conv2d(paddle.ones([2, 3, 8, 8]), paddle.ones([4, 3, 3, 3]))
        product = paddle.matmul(maps.reshape([2, 144]), paddle.ones([144, 2]))
        if product.numpy().ravel().tolist() != [27.0 * 144] * 4:
            raise RuntimeError(f'27 * 144 is {product.numpy().ravel()[0]:g} there')
    except (*PADDLE_ERRORS, ValueError) as error:
        raise UserError(_explain(device, error)) from None


def _explain(device, error):
    """One line for a card that was tried in vain."""
    import paddle
    name, capability, cudnn = 'card unknown', (0, 0), None
    with contextlib.suppress(*PADDLE_ERRORS, ValueError):  # what is broken may not even tell this
        name = paddle.device.cuda.get_device_name(device)
        capability = paddle.device.cuda.get_device_capability(device)
        cudnn = paddle.device.get_cudnn_version()
    found = cards.find_cards()
    if is_out_of_memory(error):
        return (f'{device} {name}: its memory is taken ({errors.words_of_paddle(error)}); '
                'nvidia-smi shows by whom; choose another with CUDA_VISIBLE_DEVICES=N / '
                '显存已被占用')
    remedy = cards.remedy(found.cuda if found else (12, 4), capability)
    return (f'{device} {name} does not work: {errors.words_of_paddle(error)}; it has compute '
            f'capability {capability[0]}.{capability[1]}, {found or "nvidia-smi finds no card"}; '
            f'needed by {_build()}; cuDNN found: {cudnn or "none"}; mend it: {remedy} ; or ask for '
            f'the CPU: -o device=cpu / 显卡不能工作：请执行 {remedy} ；'
            '或用 -o device=cpu 在 CPU 上运行')


def _keep_freed_memory():
    """Make glibc reuse the memory of one iteration for the next, unless the user has set how.

    Paddle's CPU kernels return each large tensor to the system, which has to clear its pages when
    the next one takes them: a quarter of the time of a training step at 320 pixels, half at 640;
    what stays is up to a third more memory.
    """
    chosen = any(name == 'GLIBC_TUNABLES' or name.startswith('MALLOC_') for name in os.environ)
    if _has_glibc() and not chosen:
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets pages of its own
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: what is free stays


def release_freed_memory():
    """Give back what glibc keeps, between work that takes blocks of other sizes."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc():
    return sys.platform == 'linux' and hasattr(ctypes.CDLL(None), 'mallopt')  # musl has none


def tune(device):
    """On a GPU, let cuDNN measure its algorithms once for each shape, of which training has few."""
    import paddle
    if device != 'cpu':
        paddle.set_flags({'FLAGS_cudnn_exhaustive_search': True})


def choose_precision(wanted, device):
    """Whether to train in mixed precision.

    wanted: 'auto', True or False; device: as choose_device() returns it
    Returns: (amp, words)
    """
    import paddle
    if wanted is False:
        return False, 'mixed precision off'
    if device != 'cpu' and paddle.device.cuda.get_device_capability(device) >= (7, 0):
        return True, 'mixed precision on'
    return False, 'mixed precision off: it needs an NVIDIA card of compute capability 7.0 or more'


def is_out_of_memory(error):
    """Whether an exception says that memory ran out; Paddle raises it as several types, CUDA's,
    cuDNN's and cuBLAS's as an OSError.
    """
    text = str(error)
    return isinstance(error, MemoryError) or any(
        words in text for words in ('ResourceExhausted', 'ut of memory', '_ALLOC_FAILED'))


@contextlib.contextmanager
def out_of_memory_says(words):
    """Memory that runs out within the block is a mistake that the user can mend: a UserError."""
    try:
        yield
    except PADDLE_ERRORS as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(words) from None
