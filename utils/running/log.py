"""Progress that a person can follow: bars, the original's log lines, and where the time goes."""
import contextlib
import logging
import os
import sys
import time

from tqdm import tqdm


def clock(seconds):
    """Seconds as 'HH:MM:SS'."""
    seconds = int(max(seconds, 0) + 0.5)
    return f'{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'


def bar(total, title, unit):
    """A progress bar with rate and ETA on stderr; into a file it writes every ten seconds.

    total: int, how many items there are; title, unit: str, what is done and to what
    Returns: tqdm.tqdm
    """
    pause = 0.1 if sys.stderr.isatty() else 10
    return tqdm(total=total, desc=title, unit=f' {unit}', mininterval=pause, maxinterval=pause)


def open_log(path, keep=0):
    """The log of a run: the original's lines, on the screen and in a file.

    path: str, or None for a log that says nothing, of a process beside the first; keep: int, bytes
        of an earlier log that this one goes on from
    Returns: logging.Logger
    """
    log = logging.getLogger('train')
    log.setLevel(logging.INFO)
    log.propagate = False
    log.handlers = [logging.NullHandler()]
    if path is not None:
        with open(path, 'ab') as file:
            file.truncate(min(keep, os.path.getsize(path)))
        file = open(path, 'a', encoding='utf-8', errors='backslashreplace')  # noqa: SIM115
        log.handlers = [_RaisingHandler(sys.stdout, None), _RaisingHandler(file, path)]
    return log


class _RaisingHandler(logging.StreamHandler):
    """Raises where a line cannot be written; logging itself would print a traceback and go on."""

    def __init__(self, stream, path):
        super().__init__(stream)
        self.path = path
        self.setFormatter(logging.Formatter('%(asctime)s [%(levelname)s]\t%(message)s',
                                            '%Y-%m-%d %H:%M:%S'))

    def handleError(self, record):
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and self.path is not None:
            error.filename = self.path
        raise error


class Chrono:
    """Where the time of a run goes.

    spent: {part: seconds} of the whole run; batch_cost, reader_cost: mean seconds of an iteration,
    and of its waiting for pictures, since the last restart()
    """

    def __init__(self):
        self.spent = {'reading': 0.0, 'steps': 0.0, 'evaluation': 0.0, 'saving': 0.0}
        self.begun = time.perf_counter()
        self.restart()

    def restart(self):
        """Begin a new window for the costs."""
        self.before = dict(self.spent)
        self.iterations = 0

    @contextlib.contextmanager
    def part(self, name):
        """Count the time of a block for one part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] += time.perf_counter() - start

    @property
    def reader_cost(self):
        return (self.spent['reading'] - self.before['reading']) / max(self.iterations, 1)

    @property
    def batch_cost(self):
        steps = self.spent['steps'] - self.before['steps']
        return steps / max(self.iterations, 1) + self.reader_cost

    def shares(self):
        """One line: how long it took, and which part of it was what."""
        whole = time.perf_counter() - self.begun
        parts = {**self.spent, 'other': whole - sum(self.spent.values())}
        words = ', '.join(f'{name} {100 * seconds / whole:.1f} %'
                          for name, seconds in parts.items())
        return f'{clock(whole)}: {words}'
