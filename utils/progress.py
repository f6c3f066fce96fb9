"""Progress that a person can follow: a bar with rate and ETA, the original's log lines, and a log file."""
import os
import sys
import time


def clock(seconds):
    """Seconds as 'HH:MM:SS'."""
    seconds = int(max(seconds, 0) + 0.5)
    return f'{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}'


class Bar:
    """A one-line progress bar on stderr; on a screen it redraws itself, in a file it prints every tenth of the way.

    total: int, how many items there are; unit: str, what an item is called
    """

    WIDTH = 30

    def __init__(self, title, total, unit):
        self.title, self.total, self.unit = title, total, unit
        self.start = time.perf_counter()
        self.done = 0
        self.last_drawn = 0.0
        self.screen = sys.stderr.isatty()

    def advance(self, count=1):
        """Note that `count` more items are done."""
        before, self.done = self.done, self.done + count
        now = time.perf_counter()
        if self.screen:
            due = now - self.last_drawn > 0.1
        else:
            due = before * 10 // max(self.total, 1) != self.done * 10 // max(self.total, 1)
        if due or self.done == self.total:
            self.last_drawn = now
            self._draw(now)

    def _draw(self, now):
        rate = self.done / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate if rate else 0
        filled = self.WIDTH * self.done // max(self.total, 1)
        line = (f'{self.title} [{"#" * filled}{"." * (self.WIDTH - filled)}] {self.done}/{self.total} '
                f'{rate:.1f} {self.unit}/s ETA {clock(left)}')
        end = '\n' if not self.screen or self.done == self.total else ''
        sys.stderr.write(('\r' if self.screen else '') + line + end)
        sys.stderr.flush()


class Timer:
    """Times of the iterations since the last line of the log.

    reader_cost: mean seconds per iteration spent waiting for pictures; batch_cost: mean seconds per iteration in all
    """

    def __init__(self):
        self.restart()

    def restart(self):
        """Begin a new window."""
        self.start = self.asked = time.perf_counter()
        self.reading, self.iterations = 0.0, 0

    def ask(self):
        """The loop begins to wait for the next batch."""
        self.asked = time.perf_counter()

    def got(self):
        """The batch is there."""
        self.reading += time.perf_counter() - self.asked

    def done(self):
        """One iteration is over."""
        self.iterations += 1

    def pause(self, seconds):
        """Leave out what was not training: evaluating and saving."""
        self.start += seconds

    @property
    def reader_cost(self):
        return self.reading / max(self.iterations, 1)

    @property
    def batch_cost(self):
        return (time.perf_counter() - self.start) / max(self.iterations, 1)


class Log:
    """The original's log lines, to the screen and to a file.

    path: str, or None for no file; keep: int, bytes of an earlier log that this one goes on from; screen: bool
    """

    def __init__(self, path, keep=0, screen=True):
        self.path, self.file, self.screen = path, None, screen
        if path is not None:
            self.file = open(path, 'ab', buffering=0)  # a line that a full disk refuses is not tried again at the end
            self.file.truncate(min(keep, os.path.getsize(path)))

    def info(self, message):
        """Write one line: time, [INFO], a tab, the message."""
        line = f'{time.strftime("%Y-%m-%d %H:%M:%S")} [INFO]\t{message}\n'
        if self.screen:
            sys.stdout.write(line)
            sys.stdout.flush()
        if self.file:
            try:
                self.file.write(line.encode('utf-8'))
            except OSError as error:
                error.filename = self.path
                raise

    def size(self):
        """Bytes written so far, to go on from after a resume."""
        return os.fstat(self.file.fileno()).st_size if self.file else 0
