"""Paddle and the device it runs on: threads, memory. Scripts call import_paddle() first."""
import ctypes
import os
import platform
import sys
import warnings
import zlib  # noqa: F401  Paddle 2.6 crashes in zlib when it is what loads libz first

from utils.running import machine
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
    """Make Paddle use the device that `wanted` asks for.

    wanted: 'auto', 'gpu' or 'cpu'
    Returns: (device, words); device 'gpu:N' or 'cpu'; words: what this run runs on, one line
    Raises: UserError for 'gpu' where Paddle finds none
    """
    import paddle
    compiled = paddle.is_compiled_with_cuda()
    count = paddle.device.cuda.device_count() if compiled else 0
    missing = 'Paddle finds no GPU' if compiled else 'this Paddle is the CPU build'
    if wanted == 'gpu' and not count:
        raise UserError(f'device: gpu was asked for, but {missing}; choose a GPU machine and '
                        'install paddlepaddle-gpu, or set device: auto')
    if wanted == 'cpu' or not count:
        device, reason = 'cpu', 'device: cpu was asked for' if wanted == 'cpu' else missing
        threads = os.environ.get('OMP_NUM_THREADS', '1')
        card = f'CPU with {threads} thread(s) of {machine.usable_cores()} core(s)'
        _keep_freed_memory()
    else:
        device = f'gpu:{os.environ.get("FLAGS_selected_gpus", "0").partition(",")[0]}'
        reason = f'{count} GPU(s) found'
        found = paddle.device.cuda.get_device_properties(device)
        card = f'{device} {found.name} with {found.total_memory / 2**30:.1f} GiB'
    paddle.device.set_device(device)
    cuda = f'CUDA {paddle.version.cuda()}' if compiled else 'no CUDA'
    return device, (f'Python {platform.python_version()}, Paddle {paddle.__version__}, {cuda}, '
                    f'{card} ({reason})')


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
    """Whether an exception says that memory ran out; Paddle raises it as several types."""
    text = str(error)
    return isinstance(error, MemoryError) or 'ResourceExhausted' in text or 'ut of memory' in text
