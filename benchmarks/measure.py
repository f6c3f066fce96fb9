"""Times of several ways to do one thing, in turn, so that what else the machine does meets all."""
import statistics
import time


def alternate(ways, runs, clock=time.process_time):
    """Call each function once to warm up, then all of them in turn, `runs` times.

    ways: {name: function without arguments}; clock: process_time for one thread, else perf_counter
    Returns: {name: median seconds}
    """
    times = {name: [] for name in ways}
    for _ in range(runs + 1):
        for name, way in ways.items():
            start = clock()
            way()
            times[name].append(clock() - start)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def row(what, ours, reference, beside):
    """One line of the table: times of one item in ms, and their ratio.

    ours, reference: seconds; beside: str, what the reference is
    """
    return (f'{what:<44} {ours * 1e3:10.2f} ms   {reference * 1e3:10.2f} ms   '
            f'{reference / ours:7.2f} x   {beside}')
