"""Sheets that others drew, and how another program read them: ECGMiner's validation (Santamonica et
al. 2024), whose repository has 200 sheets of LUDB with what is true and what it read itself."""
import os
from types import SimpleNamespace

import numpy as np
import pandas as pd

from benchmarks.paper import Reading, figures_of, read, score
from utils.ecg.signals import LEADS, SAMPLES

TRUE, PICTURES, OTHER = 'original/signal', 'original/img', 'digitized/signal'
STRIP = 'II'


def compare(folder, count):
    """Read the first `count` sheets of a folder: 3 x 4 with a strip of II, 10 s at 500 Hz.

    folder: str, with NAME.png in PICTURES, and of each lead a column of 5000 mV in NAME.csv in TRUE
        and, what the other program read, in OTHER
    Yields: rows
    """
    sheet = SimpleNamespace(truth=np.where(shown_of_each(), 0.0, np.nan))
    names = sorted(os.path.splitext(name)[0] for name in os.listdir(f'{folder}/{PICTURES}'))[:count]
    readings, others = [], []
    for name in names:
        signal = read_leads(f'{folder}/{TRUE}/{name}.csv')
        readings.append(read(Reading(name, f'{folder}/{PICTURES}/{name}.png', signal, sheet)))
        others += score(read_leads(f'{folder}/{OTHER}/{name}.csv'), signal, shown_of_each())
    yield f'sheets of {folder}: dB mean / 5th percentile over leads'
    refused = [reading for reading in readings if reading.values is None]
    seconds = np.mean([reading.seconds for reading in readings])
    ours = [each for reading in readings for each in reading.scores]
    read_well = f'{figures_of(ours)}, ' if ours else ''
    yield f'ours   {read_well}{len(refused)} of {len(names)} refused, {seconds:.2f} s a page'
    yield f'theirs {figures_of(others)}'
    for reading in refused:
        yield f'  {reading.name}: {reading.refusal}'
    for reading in readings:
        wrong = [f'{LEADS[each.lead]} ({each.decibels:.0f} dB)' for each in reading.scores
                 if not each.right]
        if wrong:
            yield f'  {reading.name}: wrong {", ".join(wrong)}'


def shown_of_each():
    """What such a sheet shows: bool array (12, 5000)."""
    column = np.arange(len(LEADS)) // 3
    shown = np.arange(SAMPLES) * 4 // SAMPLES == column[:, None]
    shown[LEADS.index(STRIP)] = True
    return shown


def read_leads(path):
    """A CSV with a column for each lead: float array (12, 5000), mV."""
    return pd.read_csv(path)[list(LEADS)].to_numpy(float).T[:, :SAMPLES]
