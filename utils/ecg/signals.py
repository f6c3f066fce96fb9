"""What any file holds of an ECG -> the signal that is drawn. One way, whoever reads the file.

What a file says of its sampling rate, unit and leads counts; what it leaves open must be given, or
it is refused: a wrong unit or lead gives a wrong answer that looks like any other.
"""
import contextlib
import math
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from utils.running.errors import UserError

LEADS = ('I', 'II', 'III', 'aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6')
SAMPLING_RATE = 500  # Hz
SAMPLES = 5000  # 10 s
SECONDS = SAMPLES / SAMPLING_RATE
MIN_SECONDS = 2  # a shorter strip may not hold two beats
RATES = (50, 20000)  # Hz
PER_MV = {'mv': 1, 'uv': 1000, '\u00b5v': 1000, '\u03bcv': 1000, 'v': 0.001,  # two letters mu
          'volt': 0.001, 'volts': 0.001, 'millivolt': 1, 'millivolts': 1, 'microvolt': 1000,
          'microvolts': 1000, '\u6beb\u4f0f': 1, '\u5fae\u4f0f': 1000}
# Names of leads, and what may stand around them; a minus alone in front turns a lead over.
AROUND_LEAD = (r'^((MDC|ECG|EKG|LEAD|ABLEITUNG|D[E\u00c9]RIVATION|[\u5bfc\u5c0e][\u8054\u806f])'
               r'(\s+-\s+|[\s_.:]+|-)?|[\s_]+)+|[\s_.-]*(LEAD|[\u5bfc\u5c0e][\u8054\u806f])$')
LEAD_NAMES = {**{lead.upper(): lead for lead in LEADS}, 'DI': 'I', 'DII': 'II', 'DIII': 'III',
              **{f'C{number}': f'V{number}' for number in range(1, 7)}}  # in IEC 60601
BASELINE_MV = 1.0  # how far from 0 a lead's median may be: an electrode's offset says nothing
# A heart gives some 5 mV at most. Of 353 clinical ECGs two exceed 5.01 mV; their typical lead (the
# median of the leads' 99th percentiles) is 0.3 to 2.1 mV.
SHIFTED_MV = 0.1  # of 353 clinical ECGs none has all twelve medians so far on one side of 0
NOTED_MV = 6  # a value above it is noted: a pacemaker's spike, an artefact?
TYPICAL_MV = 8  # a typical lead above it has another unit,
CREDIBLE_MV = 100  # and so has a single value above this one,
TINY_MV = 0.05  # or a largest value below this one
CUT = '{:.6g} s long; the first 10 s are used, the rest is cut off'
STEPS = 4000  # per mV: what recorders have, 1000, 500, 400, 250, 200, are parts of it
STILL_SECONDS = 0.5  # of 353 clinical ECGs none stands still so long in all leads
MISSING = (-32768, 32767, -9999)  # what programs write for a value that they have not
SILENT_LEADS = 6  # more of the twelve that are flat or copies of others are no recording
KINDS = {'b': 'logical', 'c': 'complex numbers', 'O': 'cell', 'U': 'char', 'V': 'struct'}


class Raw(NamedTuple):
    """What a file holds.

    values: array (n, samples), one row per lead; leads: n names, or None where there are none
    rate: float, Hz, or None; units: n units, None in the place of an unknown one
    notes: list of str, what reading had to say; shown: bool array (n, samples) of the 12 leads in
    LEADS order, where a sheet of paper shows a lead, or None: at all times
    """
    values: np.ndarray
    leads: list
    rate: float
    units: list
    notes: list
    shown: np.ndarray = None


class NotAnECG(Exception):
    """Why a file gives no signal; naming() adds which file."""


@contextlib.contextmanager
def naming(path):
    """Turn NotAnECG into a UserError that begins with `path`."""
    try:
        yield
    except NotAnECG as error:
        raise UserError(f'{path}: {error}') from None


@contextlib.contextmanager
def reading_with(package, expected):
    """Turn whatever a package raises over a file into NotAnECG; expected: str, what to do then."""
    try:
        yield
    except ImportError as error:
        raise NotAnECG(f'it is read with the package {package}, which cannot be imported '
                       f'({error}): pip install {package}') from None
    except (MemoryError, NotAnECG):
        raise
    except Exception as error:  # whatever its parser stumbles over
        raise NotAnECG(f'{package} cannot read it ({type(error).__name__}: {str(error)[:200]}); '
                       f'{expected}') from None


def make_signal(path, raw, rate=None, unit=None, advice=''):
    """Make the signal out of what a file holds.

    path: str, for the messages; raw: Raw; rate: Hz, unit: 'mV', 'uV' or 'V', or None: what holds
        where the file does not say it; advice: str, what else helps against a wrong unit
    Returns: (signal, notes); signal: float32 array (12, 5000), mV, 500 Hz, rows in LEADS order,
        NaN where raw.shown says that a lead is not there; notes: list of str, what was mended or
        looks wrong
    Raises: UserError that names the file, what was found and what was expected
    """
    with naming(path), np.errstate(over='ignore', invalid='ignore'):  # 1e300 is refused, too
        values, units, notes = _choose_leads(raw, [each or unit for each in raw.units])
        if raw.shown is not None:
            values = np.where(raw.shown, values, 0)
        rate = raw.rate or rate
        _check_rate_and_units(rate, units)
        seconds = values.shape[1] / rate
        if seconds < MIN_SECONDS:
            raise NotAnECG(f'{values.shape[1]} samples at {rate:g} Hz are {seconds:.2f} s, '
                           f'expected 10 s, at least {MIN_SECONDS} s')
        whole, values = values, _to_mv(values[:, :math.ceil(SECONDS * rate)], units)
        _check_scale(whole)
        baseline = np.median(values, axis=1, keepdims=True)
        centred = values - baseline
        if raw.shown is None:  # of a sheet the leads were checked at the times that they share
            notes += _check_leads(centred, raw.leads is not None) + _check_still(centred, rate)
        notes += _check_size(centred, advice)
        far = [lead for lead, each in zip(LEADS, baseline) if abs(each) > BASELINE_MV]
        if abs(baseline).min() > SHIFTED_MV and np.ptp(baseline) < abs(baseline).min():
            notes.append(f'all leads lie about {np.median(baseline):.2g} mV from 0, no heart\'s do '
                         '(aVR, aVL and aVF add up to 0): is it scaled, and not mV?')
        if far:  # an electrode's offset; a picture shows mV from 0
            values = centred
            notes.append(f'the baseline of {", ".join(far)} is up to {np.abs(baseline).max():.3g} '
                         "mV from 0; each lead's median was taken off")
        signal, more = _to_ten_seconds(values, rate, seconds)
        if raw.shown is not None:
            signal[~raw.shown] = np.nan
    return signal, [f'{path}: {note}' for note in [*raw.notes, *notes, *more]]


def lead_of(name):
    """The lead that a name stands for, as in LEADS, or None: 'Lead avr', 'MDC_ECG_LEAD_AVR'."""
    plain = unicodedata.normalize('NFKC', name[:100]).strip().upper()
    return LEAD_NAMES.get(re.sub(AROUND_LEAD, '', plain))


def same_rate(one, other):
    """Whether two sampling rates, Hz, mean the same one."""
    return abs(one / other - 1) <= 0.005


def kind_of(values):
    """What stands in the place of numbers, in a word; None where `values` are real numbers."""
    if not isinstance(values, np.ndarray):
        return type(values).__name__
    return None if values.dtype.kind in 'iuf' else KINDS.get(values.dtype.kind, values.dtype.name)


def raw_without_names(values):
    """The Raw of an array that says nothing of itself; its 12 leads may be its columns."""
    if values.ndim != 2 or len(LEADS) not in values.shape:
        raise NotAnECG(f'the shape {values.shape}, expected (12, {SAMPLES}): 12 leads x samples, '
                       'or turned; I, II and V1 to V6 are enough where the file names them')
    values = values if values.shape[0] == len(LEADS) else values.T
    return Raw(values, None, None, [None] * len(LEADS), [])


def _choose_leads(raw, units):
    """The twelve leads in LEADS order: (values, their units, notes)."""
    values, names = raw.values, raw.leads
    if kind_of(values) or values.ndim != 2:
        raise NotAnECG(f'found {kind_of(values) or values.shape}, expected real numbers, 12 leads '
                       'x samples')
    if names is None:
        return values, units, [f'no lead names there; taken as {", ".join(LEADS)}']
    known = [lead_of(name) for name in names]
    missing = [lead for lead in LEADS if lead not in known]
    twice = [lead for lead in LEADS if known.count(lead) > 1]
    needed = [lead for lead in missing if lead not in LEADS[2:6]]
    if twice or needed:
        raise NotAnECG(f'{"more than one" if twice else "no"} lead {", ".join(twice or needed)}; '
                       f'found {", ".join(map(repr, names[:20]))}, expected each of '
                       f'{", ".join(LEADS)} once (III, aVR, aVL and aVF may be missing)')
    notes = []
    if missing:
        one, two = known.index('I'), known.index('II')
        computed = _from_limbs(*values[[one, two]].astype(np.float64))
        values = np.vstack([values, *(computed[lead] for lead in missing)])
        units = units + [units[one]] * len(missing)
        notes.append(f'{", ".join(missing)} not there: computed from I and II')
    chosen = [(known + missing).index(lead) for lead in LEADS]
    own = [at for at in chosen if at < len(names)]
    if own != sorted(own):
        notes.append('leads reordered by their names')
    if len(own) < len(names):
        unused = [repr(name) for at, name in enumerate(names) if at not in own]
        notes.append(f'not used: {", ".join(unused[:20])}')
    return values[chosen], [units[at] for at in chosen], notes


def _from_limbs(one, two):
    """What Einthoven and Goldberger make of I and II: {lead: its values}."""
    return {'III': two - one, 'aVR': -(one + two) / 2, 'aVL': one - two / 2, 'aVF': two - one / 2}


def _check_rate_and_units(rate, units):
    """Ask for what is missing, refuse what is impossible; rate: Hz or None; units: list."""
    missing = [] if rate else [('its sampling rate', '--sampling-rate HZ')]
    if not all(units):
        missing.append(('its unit', '--unit mV or --unit uV'))
    if missing:
        raise NotAnECG(f'nothing says {" or ".join(what for what, _ in missing)}; give '
                       + ' and '.join(option for _, option in missing))
    if not RATES[0] <= rate <= RATES[1]:
        raise NotAnECG(f'a sampling rate of {rate:g} Hz, expected {RATES[0]} to {RATES[1]} Hz')
    unknown = [unit for unit in units if unit.lower() not in PER_MV]
    if unknown:
        raise NotAnECG(f'the unit {unknown[0]!r}, expected mV, uV or V')


def _to_mv(values, units):
    values = values.astype(np.float64)
    bad = ~np.isfinite(values) | np.isin(values, MISSING)
    if bad.any():
        lead, sample = np.argwhere(bad)[0]
        raise NotAnECG(f'{bad.sum()} values are missing (NaN, an empty cell) or infinite, the '
                       f'first, {values[lead, sample]:g}, in lead {LEADS[lead]} at sample '
                       f'{sample}; expected finite numbers and none that stands for a missing one')
    equal = (values == values[0]).all(axis=0)  # of no heart, but 0: II = I + III
    if equal[0] and values[0, 0] and not equal.all():
        raise NotAnECG(f'the first sample is {values[0, 0]:g} in all leads, as gains or rates are '
                       'and no ECG; take that row out')
    return values / np.array([PER_MV[unit.lower()] for unit in units])[:, None]


def _check_still(values, rate):
    """Notes on all leads standing still, as where zeros were put in; values: (12, n); rate: Hz."""
    moves = np.flatnonzero(np.r_[True, np.diff(values, axis=1).any(axis=0), True])
    at = np.diff(moves).argmax()
    still = (moves[at + 1] - moves[at] - 1) / rate
    if values.shape[1] / rate - still < MIN_SECONDS:
        raise NotAnECG(f'all leads stand still for {still:.3g} s, expected an ECG of at least '
                       f'{MIN_SECONDS} s')
    return [f'all leads stand still for {still:.3g} s from {moves[at] / rate:.3g} s on, which no '
            'model was trained on: is a part missing there?'] if still > STILL_SECONDS else []


def _check_leads(centred, named):
    """Notes on leads that look wrong.

    centred: float array (12, n), mV from each lead's median
    named: bool, the file says which lead is which; else an impossible order is refused
    """
    flat = [lead for lead, row in zip(LEADS, centred) if not row.any()]
    distinct = {row.tobytes() for lead, row in zip(LEADS, centred) if lead not in flat}
    copies = len(LEADS) - len(flat) - len(distinct)
    if len(flat) + copies > SILENT_LEADS:
        raise NotAnECG(f'of 12 leads {len(flat)} are flat and {copies} are copies of others, '
                       'expected an ECG')
    notes = [f'{", ".join(flat)} flat: a lead that fell off?'] if flat else []
    if copies:
        notes.append(f'{copies} leads are copies of others')
    expected = _from_limbs(centred[0], centred[1])
    wrong = [lead for lead, row in zip(LEADS[2:6], centred[2:6])
             if np.std(expected[lead] - row) > 0.5 * np.std(row)]
    if wrong and not named and not set(flat) & set(LEADS[:6]):
        raise NotAnECG(f'no lead names there, and the first six cannot be {", ".join(LEADS[:6])}: '
                       f'{", ".join(wrong)} do not follow from I and II; put the leads in the '
                       f'order {", ".join(LEADS)}, or give a file that names them')
    if wrong:
        notes.append(f'{", ".join(wrong)} do not follow from I and II: are the leads what they '
                     'are called?')
    return notes


def _check_scale(values):
    """Refuse what was scaled, all of it or lead by lead, and has lost its mV; values: (12, n)."""
    values = np.where(np.isfinite(values), values, np.nan).astype(np.float64)
    values = values[np.nanstd(values, axis=1) > 0]  # a flat lead stays flat
    # A recorder's steps are 1 uV or so; of what was divided by its own largest value they are not.
    steps = values[np.isfinite(values)] * STEPS
    largest = np.abs(steps).max(initial=0)
    divided = abs(largest - STEPS) < 0.01 and np.abs(steps - np.rint(steps)).max() > 0.05
    for axis in (None, 1) if len(values) else ():
        span = np.stack([np.nanmin(values, axis), np.nanmax(values, axis)])
        spread = np.stack([np.nanmean(values, axis), np.nanstd(values, axis)])
        checks = [('0 to 1', span, (0, 1)), ('-1 to 1', span, (-1, 1)),
                  ('a mean of 0 and a deviation of 1', spread, (0, 1)),
                  ('a largest value of 1', np.abs(span).max(axis=0, keepdims=True), 1)]
        for what, found, expected in checks if divided or axis else checks[:3]:
            if np.abs(found.T - expected).max() < 0.001:
                raise NotAnECG(f'scaled to {what}, so that its mV are lost; expected the values '
                               'of before, in mV or uV')


def _check_size(centred, advice):
    """Notes on values that are rather large; what cannot be this unit is refused."""
    sizes = np.abs(centred)
    largest = sizes.max()
    reach = np.percentile(sizes, 99, axis=1)
    typical = np.median(reach[reach > 0]) if reach.any() else 0
    large = typical > TYPICAL_MV or largest > CREDIBLE_MV
    if large or largest < TINY_MV:
        guess = 'a smaller unit such as uV, or a recorder\'s steps' if large else 'a larger unit'
        change = 'divide by 1000 or by the steps per mV' if large else 'multiply by 1000'
        raise NotAnECG(f'values up to {largest:.4g} mV and typically {typical:.4g}, a heart gives '
                       f'{TINY_MV} to some 5: is it {guess}? {change}{advice}')
    if largest > NOTED_MV:
        lead = LEADS[sizes.max(axis=1).argmax()]
        return [f'up to {largest:.3g} mV in lead {lead}: a spike, an artefact, or another unit?']
    return []


def _to_ten_seconds(values, rate, seconds):
    """10 s at 500 Hz out of the first 10 s: (float32 array (12, 5000), notes)."""
    notes = []
    if rate != SAMPLING_RATE:
        from scipy.signal import resample_poly  # takes a second to import, and is seldom needed
        ratio = Fraction(SAMPLING_RATE / rate).limit_denominator(1000)
        # A line through the ends is taken off first: a baseline that is not 0 would ring there.
        values = resample_poly(values, ratio.numerator, ratio.denominator, axis=1, padtype='line')
        notes.append(f'resampled from {rate:g} to {SAMPLING_RATE} Hz')
    if seconds > SECONDS + 0.5 / SAMPLING_RATE:
        notes.append(CUT.format(seconds))
    elif values.shape[1] < SAMPLES:
        notes.append(f'{seconds:.4g} s long; padded with 0 mV at its end to 10 s, which no model '
                     'was trained on')
    signal = np.zeros((len(LEADS), SAMPLES), dtype=np.float32)
    values = values[:, :SAMPLES]
    signal[:, :values.shape[1]] = values
    return signal, notes
