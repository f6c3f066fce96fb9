"""What train.py does beside steps and evaluations, and what a fast card would lose by it.

A CPU with tiny pictures stands in for the card: the network, and so its state of 270 MiB, is the
real one. Two things differ. On a CPU the background thread takes cores from the steps, so they grow
longer while it writes; the loop's own waiting is therefore counted apart. And a card comes to its
evaluations, saves and drawings by the clock, not by the epoch; so what each of them costs is
measured, and how often they come is worked out for the card.
"""
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import train
from benchmarks.growth import PROJECT, options
from benchmarks.pictures import draw_all, label_all
from benchmarks.reading import hand_over
from utils.running.errors import UserError
from utils.running.settings import Config

SIZE, BATCH = 64, 32
RECORDS, TRAINED = 1600, 1440  # labelled ones, and those of them that train
CARDS = (100, 300, 600)  # pictures of 640 pixels that a card trains on in a second
SMALL, SMALL_ITERATIONS = 32, 1020  # for what an iteration costs beside its step
SAVE_SECONDS = 20  # from one save to the next while we measure: often enough for a median


def compare(source, folder, arguments):
    """Yields: rows"""
    small = label_all(source, os.path.join(folder, 'iteration'), SMALL, 400)
    yield describe_iteration(trace_iteration(small, SMALL_ITERATIONS))
    root = label_all(source, os.path.join(folder, 'overhead'), SIZE, RECORDS)
    seconds, told = trace(root, BATCH, arguments.epochs * (TRAINED // BATCH), arguments.model)
    yield from describe(told, seconds)
    yield from describe_costs(told)
    with tempfile.TemporaryDirectory() as place:
        waiting = hand_over(draw_all(source, place, Config().render.size), Config().render.size)
    yield f'  the loop waits {waiting * 1e3:.2f} ms for a batch of 640 pixels that is read'
    iters = Config().train.iters
    yield (f'{"card":<20} {"the loop waits":>15} {"if all beside held it up":>26} '
           f'{f"and starting, of {iters} iterations":>36}')
    for card in CARDS:
        least, most = rate_of(told, waiting, card, False), rate_of(told, waiting, card, True)
        whole = most + (seconds - loop_of(told)) / (iters * BATCH / card)
        yield (f'{f"{card} pictures/s":<20} {share(least):>15.2%} {share(most):>26.2%} '
               f'{share(whole):>36.2%}')


def trace_iteration(root, iterations):
    """What iteration.py tells of pictures of SMALL, in a process of its own."""
    return watched('benchmarks.iteration', root, [
        f'render.size={SMALL}', 'train.batch_size=2', f'train.iters={iterations}',
        f'train.eval_interval={iterations}'])[1]


def describe_iteration(told):
    """A row: the medians, and the median of what each pair of neighbours is."""
    ratios = [ours / bare for ours, bare in zip(told['loop'], told['bare'])]
    return (f"train.py's iteration beside the bare step, on the interpreter's scale: "
            f"{typical(told['loop']) * 1e3:.1f} ms, {typical(told['bare']) * 1e3:.1f} ms: "
            f'{typical(ratios):.2f} times')


def trace(root, batch, iterations, model):
    """Run train.py on pictures of SIZE in a process of its own.

    Returns: (seconds of the whole process, what traced.py tells)
    """
    return watched('benchmarks.traced', root, [
        f'render.size={SIZE}', f'model.name={model}', f'train.batch_size={batch}',
        f'train.iters={iterations}', f'train.save_interval={SAVE_SECONDS / 60}'])


def watched(module, root, overrides):
    """Run train.py under one of our watching modules.

    Returns: (seconds of the whole process, what the module tells)
    """
    result = os.path.join(root, 'traced.json')
    command = [sys.executable, '-m', module, result, *options([
        f'data.root={root}', f'output={root}/output', 'device=cpu', 'model.pretrained=none',
        *overrides])]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=PROJECT, text=True, capture_output=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise UserError(f'train.py failed: {done.stderr.strip()[-500:]}')
    with open(result, encoding='utf-8') as file:
        return seconds, json.load(file)


def describe(told, seconds):
    """Yields: rows, where the time of the run went"""
    end, loop, parts = sum_of(told, 'finish'), loop_of(told), told['parts']
    kept = sum_of(told, 'keep_best')
    drawn = sum(told['loop']['draw'][:-1])  # the last belongs to the end
    spent = {'steps': parts['steps'], 'evaluation': parts['evaluation'] - kept - drawn,
             'reading': parts['reading'], 'saving': parts['saving'], 'best model': kept,
             'drawing': drawn}
    spent['other'] = loop - sum(spent.values())
    yield (f'train.py took {seconds:.1f} s, of which {seconds - end - loop:.1f} s to start and '
           f'{end:.1f} s to end; the loop {loop:.1f} s: '
           + ', '.join(f'{name} {each / loop:.2%}' for name, each in spent.items()))
    useful = spent['steps'] + spent['evaluation']
    beside = sum(wall for works in told['beside'].values() for wall, _ in works)
    yield (f'  neither step nor evaluation: {1 - useful / loop:.2%} of the loop, '
           f'{1 - useful / seconds:.2%} with starting and ending')
    yield (f'  work beside the loop was going on for {beside:.1f} s; on a CPU the steps lend it '
           'their cores')


def describe_costs(told):
    """Yields: rows, what each save, better model and drawing costs"""
    for name, function, works in PIECES:
        waits = told['loop'][function]
        each = [f'{work} {typical(wall for wall, _ in told["beside"][work]):.2f} s '
                f'({cpu_of(told, [work]):.2f} s of CPU)'
                for work in works if work in told['beside']]
        yield (f'  {name}, {len(waits)} times: the loop waits {typical(waits) * 1e3:.0f} ms; '
               f'beside it {", ".join(each)}')


# What the loop gives to the background: what a user sees, train.py's function, the thread's work.
PIECES = (('a save', 'save', ('save_last',)),
          ('a better model', 'keep_best', ('save_best', 'draw_validation')),
          ('a drawing', 'draw', ('write_table', 'draw_curves')))


def rate_of(told, waiting, card, beside):
    """Seconds outside steps and evaluations for each second of steps on a card.

    told: as traced.py tells it; waiting: seconds for each batch; card: pictures a second
    beside: bool, count the background's CPU time too, as if the loop stood still meanwhile: the
        most that it can cost, since the interpreter's lock is the only thing that the two share
    """
    epoch = TRAINED / card
    evaluation = epoch * math.ceil(train.EVALUATE_SECONDS / epoch)  # seconds, at the end of epochs
    every = {'save': 60 * Config().train.save_interval, 'keep_best': evaluation,  # at the most
             'draw': evaluation * math.ceil(train.DRAW_SECONDS / evaluation)}
    rate = waiting * card / BATCH
    for _, function, works in PIECES:
        seconds = typical(told['loop'][function]) + (cpu_of(told, works) if beside else 0)
        rate += seconds / every[function]
    return rate


def share(rate):
    """The part of the whole time that `rate` seconds beside each second of steps are."""
    return rate / (1 + rate)


def cpu_of(told, works):
    return sum(typical(cpu for _, cpu in told['beside'].get(each, [])) for each in works)


def typical(values):
    return statistics.median(list(values) or [0.0])


def loop_of(told):
    """Seconds of the loop alone."""
    return sum_of(told, 'train') - sum_of(told, 'finish')


def sum_of(told, function):
    return sum(told['loop'][function])
