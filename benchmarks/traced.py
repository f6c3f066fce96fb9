"""The real train.py with a stopwatch at its doors: python -m benchmarks.traced RESULT.json ...

What follows is train.py's own command line. The result: {'loop': {function of train.py: list of
seconds}, 'parts': {part: seconds} as train.py's last line tells them, 'beside': {what the
background thread did: list of [seconds, seconds of CPU]}}.
"""
import functools
import json
import sys
import time
import zlib  # noqa: F401  before Paddle, see models/device.py
from collections import defaultdict

import train

WATCHED = ('train', 'finish', 'evaluate_and_keep', 'keep_best', 'draw', 'save')


def main():
    path = sys.argv.pop(1)
    loop, beside, parts = defaultdict(list), defaultdict(list), {}
    for name in WATCHED:
        setattr(train, name, watch(getattr(train, name), loop[name]))
    train.train = keep_parts(train.train, parts)
    train.Background = watch_background(train.Background, beside)
    train.main()
    with open(path, 'w', encoding='utf-8') as file:
        json.dump({'loop': loop, 'parts': parts, 'beside': beside}, file)


def watch(function, seconds):
    """The function, which notes in the list `seconds` how long each call took."""
    @functools.wraps(function)
    def watched(*arguments):
        start = time.perf_counter()
        result = function(*arguments)
        seconds.append(time.perf_counter() - start)
        return result
    return watched


def keep_parts(function, parts):
    """train.train(), which leaves in the dict `parts` what its run spent on what."""
    def kept(run):
        function(run)
        parts.update(run.chrono.spent)
    return kept


def watch_background(kind, beside):
    """The class Background, which notes in `beside` what each piece of its work took."""
    class Watched(kind):
        def submit(self, function, *arguments):
            def work():
                start, cpu = time.perf_counter(), time.thread_time()
                function(*arguments)
                beside[function.__name__].append([time.perf_counter() - start,
                                                  time.thread_time() - cpu])
            super().submit(work)
    return Watched


if __name__ == '__main__':
    main()
