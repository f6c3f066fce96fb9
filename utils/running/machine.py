"""The machine a script runs on: its cores and its memory."""
import os
import platform
import sys


def usable_cores():
    """How many cores this process may use: the affinity mask and the container's quota."""
    if hasattr(os, 'sched_getaffinity'):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    try:
        with open('/sys/fs/cgroup/cpu.max', encoding='ascii') as file:
            quota, period = file.read().split()
        if quota != 'max':
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # not Linux, or no cgroup v2: the affinity mask is all there is to know
    return cores


def free_memory():
    """Bytes that can be taken without swapping, or None where the system does not say."""
    found = []
    try:
        with open('/proc/meminfo', encoding='ascii') as file:
            found += [int(line.split()[1]) * 1024 for line in file if 'MemAvailable' in line]
        with open('/sys/fs/cgroup/memory.max', encoding='ascii') as file:
            limit = file.read().strip()
        with open('/sys/fs/cgroup/memory.current', encoding='ascii') as file:
            taken = int(file.read())
        if limit != 'max':
            found.append(int(limit) - taken)
    except (OSError, ValueError):
        pass
    return min(found) if found else None


def workers_of(setting):
    """The number that data.workers stands for: 'auto' is one per core."""
    return usable_cores() if setting == 'auto' else setting


def describe():
    """What a run that needs no Paddle runs on, one line."""
    return f'Python {platform.python_version()}, {usable_cores()} core(s), {sys.platform}'
