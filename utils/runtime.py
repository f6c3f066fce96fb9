"""The machine a script runs on: threads, device, what to print of them. Scripts call import_paddle() first."""
import zlib  # noqa: F401  Paddle 2.6 crashes in zlib when it is what loads libz first, so libz comes before it.

import ctypes
import os
import platform
import sys
import warnings

from utils.errors import UserError


def import_paddle():
    """Import Paddle, after setting what its CPU kernels read once, at the first operation, unless the user has set it.

    Paddle starts with one thread; and MKL, on AMD, with half of the vector width unless told otherwise.
    Returns: the module
    Raises: UserError where Paddle is not installed
    """
    if _cpu_vendor() == 'AuthenticAMD':
        os.environ.setdefault('MKL_DEBUG_CPU_TYPE', '5')
    chosen = 'OMP_NUM_THREADS' in os.environ or 'MKL_NUM_THREADS' in os.environ
    beside = int(os.environ.get('PADDLE_LOCAL_SIZE', 1))  # processes that paddle.distributed.launch started here
    for what in ('No ccache found', 'When training, we now always track global mean and variance',
                 'You are using GPU version Paddle, but your CUDA device is not set'):
        warnings.filterwarnings('ignore', what)  # of no use to a person who trains
    try:
        import paddle
    except ImportError as error:
        raise UserError(f'Paddle cannot be imported ({error}); install it as README.md says: '
                        'pip install -r requirements.txt') from None
    if not chosen:
        # After the import: before it, Paddle would print a warning that is meant for its data-parallel launcher.
        os.environ['OMP_NUM_THREADS'] = os.environ['MKL_NUM_THREADS'] = str(max(1, usable_cores() // beside))
    return paddle


def usable_cores():
    """How many cores this process may use: the affinity mask and the container's quota, not the machine's count."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    try:
        with open('/sys/fs/cgroup/cpu.max', encoding='ascii') as file:
            quota, period = file.read().split()
        if quota != 'max':
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # not Linux, or no cgroup v2: the affinity mask is all there is to know
    return cores


def free_memory():
    """Bytes of memory that can be taken without swapping, or None where the system does not say."""
    found = []
    try:
        with open('/proc/meminfo', encoding='ascii') as file:
            found += [int(line.split()[1]) * 1024 for line in file if line.startswith('MemAvailable')]
        with open('/sys/fs/cgroup/memory.max', encoding='ascii') as file:
            limit = file.read().strip()
        with open('/sys/fs/cgroup/memory.current', encoding='ascii') as file:
            found += [int(limit) - int(file.read())] if limit != 'max' else []
    except (OSError, ValueError):
        pass
    return min(found) if found else None


def choose_device(wanted):
    """Make Paddle use the device that `wanted` asks for.

    wanted: 'auto', 'gpu' or 'cpu'
    Returns: (device, reason); device 'gpu:N' or 'cpu', reason a phrase for the log
    Raises: UserError for 'gpu' where Paddle finds none
    """
    import paddle
    compiled = paddle.is_compiled_with_cuda()
    count = paddle.device.cuda.device_count() if compiled else 0
    if wanted == 'cpu':
        device, reason = 'cpu', 'device: cpu was asked for'
    elif count:
        rank = int(os.environ.get('FLAGS_selected_gpus', '0').split(',')[0])
        device, reason = f'gpu:{rank}', f'{count} GPU(s) found'
    else:
        reason = 'Paddle finds no GPU' if compiled else 'this Paddle is the CPU build'
        if wanted == 'gpu':
            raise UserError(f'device: gpu was asked for, but {reason}; choose a GPU machine'
                            f'{"" if compiled else " and install paddlepaddle-gpu"}, or set device: auto')
        device = 'cpu'
    if device == 'cpu':
        _keep_freed_memory()
    paddle.device.set_device(device)
    return device, reason


def _keep_freed_memory():
    """Make glibc reuse the memory of one iteration for the next, unless the user has set how it allocates.

    Paddle's CPU kernels return each large tensor to the system, which has to clear its pages when the next one takes them:
    a quarter of the time of a training step at 320 pixels, half at 640; what stays is up to a third more memory.
    """
    if any(name == 'GLIBC_TUNABLES' or name.startswith('MALLOC_') for name in os.environ):
        return
    if _has_glibc():
        libc = ctypes.CDLL(None)
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no block gets pages of its own
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: what is free stays


def release_freed_memory():
    """Give back what glibc keeps, between work that takes blocks of other sizes and could not use it."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _has_glibc():
    return sys.platform == 'linux' and hasattr(ctypes.CDLL(None), 'mallopt')  # musl has none


def tune_gpu(amp):
    """Let cuDNN measure its algorithms once for each shape, of which training has few; and, with mixed precision, let
    Paddle keep the channels last, where tensor cores are fastest and paddle.vision's networks have them first.

    amp: bool
    Source: https://www.paddlepaddle.org.cn/documentation/docs/zh/guides/performance_improving/training_improving_model_cn.html
    """
    import paddle
    paddle.set_flags({'FLAGS_cudnn_exhaustive_search': True})
    if amp:
        paddle.incubate.autotune.set_config({'layout': {'enable': True}})


def describe(device, reason):
    """What this run runs on, one line: versions, device, its memory or threads.

    device, reason: as choose_device returned them
    """
    import paddle
    line = f'Python {platform.python_version()}, Paddle {paddle.__version__}, '
    line += f'CUDA {paddle.version.cuda()}, ' if paddle.is_compiled_with_cuda() else 'no CUDA, '
    if device == 'cpu':
        line += f'CPU with {os.environ["OMP_NUM_THREADS"]} thread(s) of {usable_cores()} core(s)'
    else:
        card = paddle.device.cuda.get_device_properties(device)
        line += f'{device} {card.name} with {card.total_memory / 2**30:.1f} GiB'
    return f'{line} ({reason})'


def is_out_of_memory(error):
    """Whether an exception out of Paddle says that memory ran out; Paddle raises it as several types."""
    return isinstance(error, MemoryError) or 'ResourceExhausted' in str(error) or 'ut of memory' in str(error)


def describe_without_paddle():
    """What a run that needs no Paddle runs on, one line."""
    return f'Python {platform.python_version()}, {usable_cores()} core(s), {sys.platform}'


def _cpu_vendor():
    try:
        with open('/proc/cpuinfo', encoding='utf-8', errors='replace') as file:
            for line in file:
                if line.startswith('vendor_id'):
                    return line.split(':')[1].strip()
    except OSError:
        pass
    processor = os.environ.get('PROCESSOR_IDENTIFIER', '')  # Windows
    return 'AuthenticAMD' if 'AuthenticAMD' in processor else ''
