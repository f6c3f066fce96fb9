"""How fast the pipeline is on this machine, each figure beside its reference, measured in turn.

A ratio is the reference's median time through ours: above 1 we are faster. On a machine that does
other things as well, ratios hold as far as anything does; times do not. Made-up ECGs and random
weights: neither changes what has to be done.
"""
import argparse
import itertools
import platform
import tempfile
import zlib  # noqa: F401  before Paddle, see models/device.py

from benchmarks import (
    growth,
    networks,
    overhead,
    paper,
    paper_answers,
    paper_others,
    reading,
    rendering,
    saving,
)
from models import device
from utils.datasets.demo import write_demo
from utils.running import errors

PARTS = ('rendering', 'reading', 'training', 'saving', 'predicting', 'growth', 'overhead',
         'paper')
RECORDS = 40  # made-up ones that everything is measured with


def main():
    arguments = parse_arguments()
    paddle = device.import_paddle()
    print(device.choose_device('auto')[1])
    print(f'{platform.machine()}, {rendering.versions()}, Paddle {paddle.__version__}; medians of '
          f'{arguments.runs}, {arguments.size} x {arguments.size} pixels\n')
    with tempfile.TemporaryDirectory() as folder:
        records = f'{folder}/ecgs'
        write_demo(records, 1, RECORDS, 0)
        for part in arguments.parts or PARTS:
            for row in rows_of(part, records, folder, arguments):
                print(row, flush=True)
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(prog='python -m benchmarks', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('parts', nargs='*', metavar='PART',
                        help=f'what to measure: {", ".join(PARTS)} (default: all)')
    parser.add_argument('--size', type=int, default=640,
                        help='width and height of the pictures, pixels (default 640)')
    parser.add_argument('--batch', type=int, default=8,
                        help='pictures per batch of the network (default 8)')
    parser.add_argument('--model', default='resnet50',
                        help='the network; PyTorch is compared for resnet50 (default); with '
                             '--fold a best_model folder')
    parser.add_argument('--runs', type=int, default=5,
                        help='how often each is measured, in turn (default 5)')
    parser.add_argument('--records', type=int, nargs='+', metavar='N',
                        help='numbers of records for growth (default 500 1000 2000), of sheets '
                             'for each row of paper (default 24)')
    parser.add_argument('--epochs', type=int, default=10,
                        help='epochs of 45 iterations for overhead (default 10)')
    parser.add_argument('--torch', metavar='PYTHON',
                        help='a Python that has PyTorch, to compare with')
    parser.add_argument('--out', metavar='FOLDER',
                        help='of paper: where to write some of the sheets and what was read')
    parser.add_argument('--fold', metavar='FOLDER',
                        help='of paper: records of PTB-XL that --model answers from sheets, too, '
                             'instead of the table; a folder with val/ and val_source.csv')
    parser.add_argument('--sheets', metavar='FOLDER',
                        help='of paper: sheets that others drew and read, instead of the table; '
                             'validation/LUDB of ECGMiner\'s repository')
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f'there is no part {", ".join(sorted(unknown))}; the parts are '
                     f'{", ".join(PARTS)}')
    return arguments


def rows_of(part, records, folder, arguments):
    """The rows of one part, one str each, as they become known."""
    size, runs = arguments.size, arguments.runs
    if part == 'rendering':
        return itertools.chain(rendering.compare(records, folder, size, runs),
                               rendering.scale(records, folder, size, runs))
    if part == 'reading':
        return reading.compare(records, folder, size, runs)
    if part == 'training':
        return networks.compare_training(records, folder, arguments)
    if part == 'saving':
        return saving.compare(folder, arguments)
    if part == 'predicting':
        return networks.compare_predicting(arguments)
    if part == 'growth':
        return growth.grow(records, folder, arguments.records or [500, 1000, 2000])
    if part == 'paper':
        count = (arguments.records or [24])[0]
        if arguments.sheets:
            return paper_others.compare(arguments.sheets, count)
        return paper_answers.compare(arguments.model, arguments.fold, count, folder) \
            if arguments.fold else paper.compare(folder, count, arguments.out)
    return overhead.compare(records, folder, arguments)


if __name__ == '__main__':
    errors.run(main)
