"""Jobs on several processes, where one that crashes costs that job and no other."""
import contextlib
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker

MEMORY_OF_A_JOB = 2 * 2**30  # bytes a process may take beyond what it has when it starts
TRIES = 2  # the system may kill an innocent process when memory is short


class Crashed(Exception):
    """What stands for the result of a job whose process died; its text says how."""


def run_jobs(function, jobs, workers):
    """Call function(job) for each job on `workers` processes of their own.

    Each process is a pool of one, so that it is known which job a process that died was doing.
    function: importable; jobs: list; workers: int
    Yields: (job, result) in the order in which they finish; Crashed for a job whose process died
        twice or ran out of the memory a job may take
    """
    waiting = [(job, TRIES) for job in reversed(jobs)]
    idle, running = [], {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job, tries = waiting.pop()
                executor, future = _submit(idle, function, job)
                running[future] = executor, job, tries
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                executor, job, tries = running.pop(future)
                try:
                    result = future.result()
                    idle.append(executor)
                except BrokenProcessPool:
                    executor.shutdown()
                    if tries > 1:
                        waiting.insert(0, (job, tries - 1))  # after all others
                        continue
                    result = Crashed('it crashed the process that read it, twice')
                yield job, result
    finally:
        for executor in [*idle, *(executor for executor, _, _ in running.values())]:
            executor.shutdown(wait=False, cancel_futures=True)
        if running:  # stopped halfway: what a job has not finished is not waited for
            for process in multiprocessing.active_children():
                process.terminate()


def _submit(idle, function, job):
    """Give a job to a process of `idle`, or to a new one: (executor, future)."""
    with _ctrl_c_held_back():  # the main process alone decides what it means
        while idle:
            executor = idle.pop()
            try:
                return executor, executor.submit(_call, function, job)
            except BrokenProcessPool:  # it died while it had nothing to do
                executor.shutdown()
        executor = ProcessPoolExecutor(1, multiprocessing.get_context('spawn'), _start)
        return executor, executor.submit(_call, function, job)


def _start():
    """Prepare a process: it ends when the main one does, and may take so much memory."""
    threading.Thread(target=_follow_main_process, daemon=True).start()
    with contextlib.suppress(ImportError, OSError, ValueError):  # not Linux
        import resource
        with open('/proc/self/statm', encoding='ascii') as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY_OF_A_JOB,) * 2)


def _follow_main_process():
    multiprocessing.parent_process().join()
    os._exit(1)


def _call(function, job):
    try:
        return function(job)
    except MemoryError:
        return Crashed(f'it took more than {MEMORY_OF_A_JOB >> 30} GiB of memory')


@contextlib.contextmanager
def _ctrl_c_held_back():
    """Ctrl-C waits until the end of the block, and never reaches a process started within."""
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # where it starts within, it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
