"""What reading sheets costs the answers: the AUC of "abnormal" from sheets, against that from the
signals themselves, masked to the seconds that the sheets show."""
import os

import numpy as np
import pandas as pd

from benchmarks.paper import make_picture, read
from models.inference import mean_of, plain_network
from models.trained import load_trained
from utils.answers import metrics
from utils.ecg import records
from utils.ecg.signals import LEADS, SAMPLING_RATE, Raw, make_signal
from utils.pictures.render import renderer_of

NORMAL = 'super:NORM'
ROWS = ('clean', 'scans')
BATCH = 8


def compare(model, fold, count, folder):
    """Ask a model about the same records as signals and as sheets.

    model: str, a best_model folder, of any task; fold: str, a folder of PTB-XL with val/*.mat and
        val_source.csv, whose column `statements` has super:NORM where a record is normal
    count: int, records; folder: str, for the pictures
    Yields: rows
    """
    trained = load_trained(model, 1, 'auto')  # all that have learnt task 1 answer it
    abnormal = choose(fold, count)
    yield f'answers: {len(abnormal)} records, {abnormal.sum()} abnormal; {model}'
    for row in ROWS:
        kept, pictures, refused = [], {'signal': [], 'masked': [], 'sheet': []}, 0
        for index, name in enumerate(abnormal.index):
            path = os.path.join(fold, 'val', f'{name}.mat')
            signal = records.read_record(path)[0]
            reading = read(make_picture(row, index, signal, folder))
            os.remove(reading.path)
            if reading.values is None:
                refused += 1
                continue
            kept.append(name)
            for kind, values in (('signal', signal), ('masked', reading.sheet.truth),
                                 ('sheet', reading.values)):
                pictures[kind].append(draw(values, trained.config.render))
        if not kept:
            yield f'{row:<7} all {refused} refused'
            continue
        yield describe(row, abnormal[kept].to_numpy(),
                       {kind: ask(trained, some) for kind, some in pictures.items()}, refused)


def choose(fold, count):
    """Some records of a fold: pandas.Series of int, 1 abnormal, by name."""
    table = pd.read_csv(os.path.join(fold, 'val_source.csv'), index_col='name')
    normal = table['statements'].fillna('').str.split(';').map(lambda words: NORMAL in words)
    chosen = np.random.default_rng(0).permutation(len(table))[:count]
    return (~normal).astype(int).iloc[np.sort(chosen)]


def draw(values, render):
    """The picture that the network sees; values: float array (12, 5000), mV, NaN: not shown."""
    raw = Raw(np.nan_to_num(values), list(LEADS), SAMPLING_RATE, ['mV'] * len(LEADS), [],
              np.isfinite(values))
    return renderer_of(render).draw(make_signal('sheet', raw)[0])


def ask(trained, pictures):
    """The log-odds of "abnormal": float array (n,)."""
    network = mean_of([plain_network(model) for model in trained.models])
    margins = trained.margins_of(np.concatenate([
        network(np.stack(pictures[at:at + BATCH])) for at in range(0, len(pictures), BATCH)]))
    return -margins[:, 0] if trained.task.multi_label else margins  # normal is its first class


def describe(row, abnormal, margins, refused):
    """A row: AUC from whole signals, from masked ones and from sheets, and the difference."""
    whole, masked, sheet = (metrics.auc(abnormal, margins[kind])
                            for kind in ('signal', 'masked', 'sheet'))
    return (f'{row:<7}{len(abnormal):>4} read, {refused} refused  AUC of abnormal: whole signals '
            f'{whole:.4f}, masked {masked:.4f}, sheets {sheet:.4f}: {sheet - masked:+.4f} '
            '(aim: -0.01 at most)')
