"""Slow work, such as writing to a disk, beside the loop that gives it out."""
from collections import deque
from concurrent.futures import ThreadPoolExecutor

# Pieces of work: a better model, its picture, two of the curves and a save may come at once. Some
# hold a copy of the network, so there must be a limit.
MOST_WAITING = 5


class Background:
    """One thread that does the work in the order in which it is given.

    Used as a context manager: the block ends when all work is done. An error of the work is raised
    in the thread that gives it, at the next call; what was waiting behind it is not done, since it
    may build on it.
    """

    def __init__(self):
        self.thread = ThreadPoolExecutor(1, thread_name_prefix='background')
        self.waiting = deque()
        self.failed = False

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.thread.shutdown(wait=True)
        if kind is None:
            self.wait()

    def submit(self, function, *arguments):
        """Do function(*arguments) soon; waits only where too much is waiting."""
        self.check()
        self.wait(MOST_WAITING - 1)
        self.waiting.append(self.thread.submit(self._do, function, arguments))

    def check(self):
        """Raise what has gone wrong."""
        while self.waiting and self.waiting[0].done():
            self.waiting.popleft().result()

    def wait(self, until=0):
        """Wait until no more than `until` pieces of work are left."""
        while len(self.waiting) > until:
            self.waiting.popleft().result()

    def _do(self, function, arguments):
        if self.failed:
            return
        try:
            function(*arguments)
        except BaseException:
            self.failed = True
            raise
