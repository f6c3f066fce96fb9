"""Reading pictures of sheets: how near to the true signals, which leads, what is refused and why.

A lead is compared at all moments that the sheet shows, but for 40 ms at its ends, after a shift of
at most 40 ms, to half a millisecond, and without a constant offset; what was not read counts as a
flat line, but not for whether it is the right lead. A tenth of a mm on paper is 4 ms: half a sample
off costs a sharp QRS 6 dB.
"""
import collections
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.ndimage import map_coordinates

from benchmarks.growth import MEASURE
from tests.copies import photo, scan
from tests.sheets import LAYOUTS, Style, draw_sheet, random_style
from tests.strangers import KINDS, stranger
from utils.ecg import records
from utils.ecg.signals import LEADS, SAMPLES, NotAnECG
from utils.running.errors import UserError

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SIGNALS = os.path.join(PROJECT, '..', 'shared', 'ecg-real', 'train')
ROWS = {'clean': 'aim 22 / 16', 'scans': 'aim 18 / 12', 'photos': 'aim 12 / 6',
        'other': 'aim: all refused'}
PHOTO_DPI = 250  # of the sheet that is photographed
SHIFT, FINER = 20, np.arange(-0.75, 1, 0.25)  # samples
FLAT_MV = 0.02  # standard deviation; a lead that varies less fell off, and has nothing to compare
RIGHT = 0.9  # correlation
LARGE = 30e6  # pixels
READ = 'import sys; from utils.ecg.paper import read_picture; read_picture(sys.argv[1])'


@dataclass
class Score:
    """How well a lead was read; decibels: of signal to noise; right: it is this lead, no other."""
    lead: int
    decibels: float
    correlation: float
    right: bool


@dataclass
class Reading:
    """What became of one picture.

    sheet: tests.sheets.Sheet, or None for what is none; name: str; signal: float32 array (12, 5000)
    values: float array (12, 5000), mV, NaN where nothing was read, or None if refused; refusal: str
    seconds: of CPU time; scores: list of Score
    """
    name: str
    path: str
    signal: np.ndarray
    sheet: object = None
    values: np.ndarray = None
    refusal: str = ''
    seconds: float = 0.0
    scores: list = field(default_factory=list)

    @property
    def decibels(self):
        """Of the sheet: the mean over its leads."""
        return np.mean([score.decibels for score in self.scores])


def compare(folder, count, out=None):
    """Read `count` sheets for each row of the table.

    folder: str, for the pictures; out: str, a folder for pictures of the best, the median and the
        worst of each row with the read traces over them, or None
    Yields: rows
    """
    if not os.path.isdir(SIGNALS):
        yield f'paper: the true signals are not there: {SIGNALS}'
        return
    names = sorted(os.listdir(SIGNALS))
    yield 'sheets: dB mean / 5th percentile over leads; seconds are of CPU time'
    for row in ROWS:
        readings = []
        for index in range(count):
            # Others for each row, so that no row rests on the few that are hard to read.
            name = names[(list(ROWS).index(row) * count + index) % len(names)]
            signal = records.read_record(os.path.join(SIGNALS, name))[0]
            readings.append(read(make_picture(row, index, signal, folder)))
        yield from describe(row, readings)
        if out and row != 'other':
            write_pictures(os.path.join(out, row), readings)
    yield from describe_large(folder)


def make_picture(row, index, signal, folder):
    """Draw a picture for a row of the table and write it: a Reading that has not been read."""
    rng = np.random.default_rng([list(ROWS).index(row), index])
    path = os.path.join(folder, f'{row}{index:04d}.png')
    if row == 'other':
        name, sheet = KINDS[index % len(KINDS)], None
        picture = stranger(name, signal, rng)
    else:
        dpi = {'clean': 200.0, 'scans': rng.uniform(150, 300), 'photos': PHOTO_DPI}[row]
        style = random_style(rng, LAYOUTS[index % len(LAYOUTS)], dpi)
        sheet = draw_sheet(signal, style)
        sheet = {'clean': lambda sheet, _: sheet, 'scans': scan, 'photos': photo}[row](sheet, rng)
        name, picture = style.layout + (' Cabrera' if style.cabrera else ''), sheet.picture
    cv2.imwrite(path, picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    return Reading(name, path, signal, sheet)


def read(reading):
    """Read a Reading's picture and score it; returns the same Reading."""
    from utils.ecg.paper import read_picture  # what needs no reader of pictures runs without one
    start = time.process_time()
    try:
        found = read_picture(reading.path)
        reading.values = to_leads(found[0].raw)
        if len(found) > 1:
            reading.values, reading.refusal = None, f'fault: {len(found)} sheets found'
    except (UserError, NotAnECG) as error:
        reading.refusal = str(error).replace(f'{reading.path}: ', '')
    except Exception as error:  # a fault, which is what is looked for here
        reading.refusal = f'fault: {type(error).__name__}: {error}'
    reading.seconds = time.process_time() - start
    if reading.values is not None and reading.sheet is not None:
        reading.scores = score(reading.values, reading.signal, np.isfinite(reading.sheet.truth))
    return reading


def to_leads(raw):
    """signals.Raw -> float array (12, 5000), rows in LEADS order, NaN where there is nothing."""
    values = np.full((len(LEADS), SAMPLES), np.nan)
    read_there = raw.values if raw.shown is None else np.where(raw.shown, raw.values, np.nan)
    for name, row in zip(raw.leads or LEADS, read_there):
        values[LEADS.index(name), :len(row)] = row[:SAMPLES]
    return values


def score(values, signal, shown):
    """Compare what was read with what is true.

    values: float array (12, 5000), NaN where nothing was read; signal: float array (12, 5000), mV
    shown: bool array (12, 5000), what the sheet shows
    Returns: list of Score, of the leads that the sheet shows and that did not fall off
    """
    scores = []
    for lead in range(len(LEADS)):
        inner = cv2.erode(shown[lead].astype(np.uint8), np.ones(2 * SHIFT + 1, np.uint8),
                          borderValue=0).ravel() > 0
        true = signal[lead, inner].astype(float)
        if not inner.any() or true.std() < FLAT_MV:
            continue
        padded = np.pad(values[lead], SHIFT, constant_values=np.nan)
        at = np.flatnonzero(inner) + SHIFT
        there = np.isfinite(padded[at])
        padded[np.isnan(padded)] = np.nanmedian(padded) if there.any() else 0
        nearest, _ = _best_shift(padded, at, true, np.arange(-SHIFT, SHIFT + 1.0))
        _, best = _best_shift(padded, at, true, nearest + FINER)
        if not there.any() or best[there].std() == 0:
            scores.append(Score(lead, 0.0, 0.0, False))
            continue
        with np.errstate(invalid='ignore'):  # a lead that fell off correlates with nothing
            alike = np.nan_to_num(np.corrcoef(best[there], signal[:, inner][:, there])[0, 1:])
        right = alike[lead] > RIGHT and alike[lead] >= alike.max()
        decibels = 10 * np.log10(true.var() / max((best - true).var(), 1e-9))
        scores.append(Score(lead, float(decibels), float(alike[lead]), bool(right)))
    return scores


def _best_shift(values, at, true, shifts):
    """The shift, samples, by which values at `at` are most like `true`: (it, those values)."""
    moved = [map_coordinates(values, [at + shift], order=3) for shift in shifts]
    best = np.argmin([(each - true).var() for each in moved])
    return shifts[best], moved[best]


def describe(row, readings):
    """The table's row, what was refused and why, which leads are wrong."""
    refused = [reading for reading in readings if reading.values is None]
    seconds = f'{np.mean([reading.seconds for reading in readings]):.2f} s a page'
    faults = sum(reading.refusal.startswith('fault: ') for reading in refused)
    share = f'{(len(refused) - faults) / len(readings):.1%} refused' \
        + (f', faults: {faults}' if faults else '')
    scores = [score for reading in readings for score in reading.scores]
    if scores:
        shown = [np.isfinite(reading.sheet.truth) for reading in readings if reading.scores]
        got = [np.isfinite(reading.values) for reading in readings if reading.scores]
        missing = np.mean([(there & ~here).sum() / there.sum() for there, here in zip(shown, got)])
        invented = np.mean([(here & ~there).sum() / there.sum() for there, here in zip(shown, got)])
        yield (f'{row:<7}{len(readings):>4} sheets  {figures_of(scores, f" ({ROWS[row]})")}  '
               f'{share}  {seconds}')
        yield f'          of the seconds shown {missing:.1%} not read, {invented:.1%} invented'
    else:
        yield f'{row:<7}{len(readings):>4} pictures  {share} ({ROWS[row]})  {seconds}'
    for (name, why), count in collections.Counter(
            (reading.name if row == 'other' else '', re.sub(r'\d+(\.\d+)?', 'N', reading.refusal))
            for reading in refused).most_common():
        yield f'  not read {count}: {name} {why}'
    for reading in readings:
        wrong = [LEADS[score.lead] for score in reading.scores if not score.right]
        if wrong:
            yield f'  {os.path.basename(reading.path)} ({reading.name}): wrong {", ".join(wrong)}'
        elif row == 'other' and reading.values is not None:
            yield f'  {os.path.basename(reading.path)} ({reading.name}): not refused'


def figures_of(scores, aim=''):
    """What a list of Score comes to, in words."""
    decibels = [score.decibels for score in scores]
    return (f'{np.mean(decibels):5.1f} / {np.percentile(decibels, 5):4.1f} dB{aim}  correlation '
            f'{np.mean([score.correlation for score in scores]):.4f}  leads right '
            f'{np.mean([score.right for score in scores]):.1%}')


def describe_large(folder):
    """One row: time and memory of a picture of 30 megapixels, in a process of its own."""
    style = Style(dpi=200)
    sheet = draw_sheet(np.zeros((len(LEADS), SAMPLES), np.float32), style)
    dpi = style.dpi * np.sqrt(LARGE / sheet.picture[..., 0].size)
    signal = records.read_record(os.path.join(SIGNALS, sorted(os.listdir(SIGNALS))[0]))[0]
    path = os.path.join(folder, 'large.png')
    cv2.imwrite(path, draw_sheet(signal, Style(dpi=dpi)).picture[..., ::-1])
    start = time.perf_counter()
    done = subprocess.run([sys.executable, '-c', MEASURE, sys.executable, '-c', READ, path],
                          cwd=PROJECT, text=True, capture_output=True,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    seconds = time.perf_counter() - start
    memory = int(done.stdout) / (2**20 if sys.platform == 'darwin' else 2**10)
    failed = f'; failed: {done.stderr.strip()[-200:]}' if done.returncode else ''
    yield (f'{LARGE / 1e6:.0f} megapixels: {seconds:.1f} s by the clock with the start of Python, '
           f'{memory:.0f} MiB (aim: 1024){failed}')


def write_pictures(folder, readings):
    """The best, the median and the worst as PNGs with what was read in red over what is there."""
    os.makedirs(folder, exist_ok=True)
    ranked = sorted((each for each in readings if each.scores), key=lambda each: -each.decibels)
    chosen = {'best': ranked[:1], 'median': ranked[len(ranked) // 2:][:1], 'worst': ranked[-1:],
              'refused': [each for each in readings if each.values is None][:3]}
    for word, some in chosen.items():
        for reading in some:
            picture = cv2.imread(reading.path)
            if reading.values is not None:
                lay_over(picture, reading.sheet, reading.values)
                word += f'-{reading.decibels:.1f}dB'
            cv2.imwrite(os.path.join(folder, f'{word}-{os.path.basename(reading.path)}'), picture)


def lay_over(picture, sheet, values):
    """Draw values where a sheet shows its leads, in red, in place.

    picture: uint8 array (height, width, 3), BGR; values: float array (12, 5000), mV
    """
    for place in sheet.places:
        at = np.arange(place.start, place.stop)
        at = at[np.isfinite(values[place.lead, at])]
        if len(at) == 0:
            continue
        level = np.median(sheet.truth[place.lead, at] - values[place.lead, at])
        x = place.x + (at - place.start) / 500 * sheet.style.speed
        y = place.y - place.sign * sheet.style.gain * (values[place.lead, at] + level)
        points = sheet.to_pixels @ np.stack([x, y, np.ones(len(at))])
        points = np.round((points[:2] / points[2]).T * 8).astype(np.int32)
        for stretch in np.split(points, np.flatnonzero(np.diff(at) > 1) + 1):
            cv2.polylines(picture, [stretch], False, (0, 0, 255), 1, cv2.LINE_AA, shift=3)
