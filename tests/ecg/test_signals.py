import glob
import os

import numpy as np
import pytest
from scipy.signal import resample_poly

from tests.helpers import PROJECT, make_signal
from utils.ecg import records, signals
from utils.ecg.signals import LEADS, Raw
from utils.ecg.signals import make_signal as make
from utils.running.errors import UserError


def make_ecg(seed=0):
    """A made-up ECG whose limb leads follow from I and II, in whole uV: float64 (12, 5000), mV."""
    eight = np.rint(1000 * make_signal(seed)[[0, 1, *range(6, 12)]].astype(float)) / 500
    one, two = eight[:2]
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.rint(1000 * np.vstack([limbs, eight[2:]])) / 1000


ECG = make_ecg()


def read(values, leads=LEADS, rate=500, unit='mV', **given):
    raw = Raw(np.asarray(values), leads and list(leads), rate, [unit] * len(values), [])
    return make('a.x', raw, **given)


def refusal(*arguments, **given):
    with pytest.raises(UserError) as caught:
        read(*arguments, **given)
    line, = caught.value.lines
    assert line.startswith('a.x: ')
    return line


def test_an_ecg_stays_as_it_is():
    signal, notes = read(ECG)
    assert signal.dtype == np.float32 and signal.flags.c_contiguous
    assert np.array_equal(signal, ECG.astype(np.float32)) and not notes


@pytest.mark.parametrize('unit, factor', [('uV', 1000), ('V', 0.001), ('MV', 1), ('\u00b5V', 1000)])
def test_units(unit, factor):
    assert np.abs(read(ECG * factor, unit=unit)[0] - ECG).max() < 1e-6


def test_what_the_file_does_not_say_is_given_or_asked_for():
    raw = Raw(1000 * ECG, list(LEADS), None, [None] * 12, [])
    assert np.abs(make('a.x', raw, 500, 'uV')[0] - ECG).max() < 1e-6
    with pytest.raises(UserError, match='rate or its unit; give --sampling-rate HZ and --unit'):
        make('a.x', raw)
    with pytest.raises(UserError, match='nothing says its unit; give --unit mV or --unit uV$'):
        make('a.x', raw, 500)


@pytest.mark.parametrize('change, words', [
    (lambda ecg: ecg * 1000, 'such as uV, '),  # uV
    (lambda ecg: ecg / 1000, 'a larger unit?'),
    (lambda ecg: 0 * ecg + 1, '12 are flat'),
    (lambda ecg: np.tile(ecg[1], (12, 1)), '11 are copies of others'),
    (lambda ecg: ecg * (np.arange(12) < 5)[:, None], '7 are flat'),
    (lambda ecg: ecg > 0.5, 'found logical, expected real numbers'),
    (lambda ecg: ecg * 1j, 'found complex numbers'),
    (lambda ecg: np.where(np.arange(5000) == 42, np.nan, ecg), 'missing (NaN, an empty cell) or'),
    (lambda ecg: np.where(np.arange(5000) == 42, -np.inf, ecg), 'the first, -inf, in lead I at'),
    (lambda ecg: np.where(np.arange(5000) < 99, -9999, ecg), 'the first, -9999, in lead I at'),
    (lambda ecg: np.where(np.arange(5000) < 4200, 0, ecg), 'all leads stand still for 8.'),
    (lambda ecg: np.where(np.arange(5000) == 42, 1e300, ecg), 'a heart gives 0.05 to some 5'),
    (lambda ecg: ecg[:, :900], '900 samples at 500 Hz are 1.80 s'),
])
def test_what_is_no_ecg_in_mv(change, words):
    assert words in refusal(change(ECG))


def test_a_wrong_unit_or_rate_that_the_file_names():
    assert 'a larger unit?' in refusal(ECG, unit='uV')
    assert "the unit 'K', expected mV, uV or V" in refusal(ECG, unit='K')
    for rate in (49, 1e6, float('nan')):
        assert 'expected 50 to 20000 Hz' in refusal(ECG, rate=rate)


@pytest.mark.parametrize('change, words', [
    (lambda ecg: ecg[8].__setitem__(slice(700, 702), 99), 'up to 99 mV in lead V3: a spike'),
    (lambda ecg: ecg.__setitem__([7, 9, 11], 0), 'V2, V4, V6 flat: a lead that fell off?'),
    (lambda ecg: ecg.__setitem__([4, 5], ecg[[5, 4]]), 'aVL, aVF do not follow from I and II'),
    (lambda ecg: ecg.__setitem__(7, ecg[6]), '1 leads are copies of others'),
    # A pacemaker's spikes in all leads, an electrode that moves: unlike, but real.
    (lambda ecg: ecg.__setitem__((slice(None), slice(100, None, 400)), 9.0), 'up to '),
    (lambda ecg: ecg.__setitem__((8, slice(2000, 2600)), 30.0), 'up to 30 mV in lead V3'),
    (lambda ecg: ecg.__setitem__((slice(None), slice(2500, None)), 0), 'still for 5 s from 5 s on'),
    (lambda ecg: ecg.__imul__(0.15), None),
])
def test_what_may_be_an_ecg_is_read(change, words):
    spoilt = ECG.copy()
    change(spoilt)
    signal, notes = read(spoilt)
    assert np.array_equal(signal, spoilt.astype(np.float32))
    assert any(words in note for note in notes) if words else not notes


def test_a_largest_value_of_1_mv_is_no_scale_where_the_steps_are_a_recorders():
    limited = np.clip(ECG, -0.9, 1)
    assert np.abs(limited).max() == 1 and np.array_equal(read(limited)[0], limited.astype('f4'))
    assert 'scaled to a largest value of 1' in refusal((ECG / np.abs(ECG).max()).astype('f4'))


def test_offsets_of_electrodes_are_taken_off():
    signal, notes = read(ECG + np.linspace(-30, 50, 12)[:, None])
    assert any('50 mV from 0' in note and 'median was taken off' in note for note in notes)
    assert np.abs(signal - (ECG - np.median(ECG, axis=1, keepdims=True))).max() < 1e-5
    assert np.array_equal(read(ECG + 0.9)[0], (ECG + 0.9).astype(np.float32))


@pytest.mark.parametrize('rate, up, down', [(250, 1, 2), (1000, 2, 1), (360, 18, 25)])
def test_other_rates_are_resampled(rate, up, down):
    smooth = resample_poly(resample_poly(ECG, 1, 5, axis=1), 5, 1, axis=1) + 0.8  # up to 40 Hz
    signal, notes = read(resample_poly(smooth, up, down, axis=1, padtype='line'), rate=rate)
    assert any(f'resampled from {rate} to 500 Hz' in note for note in notes)
    assert np.abs(signal - smooth)[:, 50:-50].max() < 0.01 and np.abs(signal - smooth).max() < 0.1


def test_long_and_short_recordings():
    signal, notes = read(np.c_[ECG, np.full((12, 5000), np.nan)])
    assert np.array_equal(signal, ECG.astype(np.float32)
                          ) and '20 s long; the first 10 s' in notes[0]
    signal, notes = read(ECG[:, :3000])
    assert np.array_equal(signal[:, :3000], ECG[:, :3000].astype(np.float32))
    assert not signal[:, 3000:].any() and '6 s long; padded with 0 mV at its end' in notes[0]


def test_leads_by_their_names():
    order = [3, 1, 2, 0, 4, 5, 11, 10, 9, 8, 7, 6]
    names = [f'MDC_ECG_LEAD_{LEADS[i].upper()}' for i in order[:6]]
    names += [f'lead {LEADS[i].lower()}' for i in order[6:]]
    signal, notes = read(np.vstack([ECG[order], ECG[:1]]), [*names, 'RESP'])
    assert np.array_equal(signal, ECG.astype(np.float32))
    assert 'reordered' in notes[0] and "not used: 'RESP'" in notes[1]
    assert 'no lead V6; found' in refusal(ECG, [*LEADS[:11], 'MLII'])
    assert 'more than one lead I;' in refusal(ECG, [*LEADS[:11], 'i'])


def test_eight_leads_are_enough():
    eight = [0, 1, *range(6, 12)]
    uv = (1000 * ECG[eight]).round().astype(np.int16)
    signal, notes = read(uv, [LEADS[i] for i in eight], unit='uV')
    assert np.abs(signal - ECG).max() < 0.0011  # ECG is in whole uV
    assert len(notes) == 1 and 'III, aVR, aVL, aVF not there: computed from I and II' in notes[0]
    assert 'no lead V1' in refusal(uv[[0, 1, 3, 4, 5, 6, 7]], ('I', 'II', *LEADS[7:]))
    with pytest.raises(signals.NotAnECG, match='where the file names them'):
        signals.raw_without_names(uv)


def test_leads_without_names_must_be_in_order():
    assert 'no lead names there; taken as I, II' in read(ECG, None)[1][0]
    assert 'aVL, aVF do not follow' in refusal(ECG[[0, 1, 2, 3, 5, 4, *range(6, 12)]], None)
    assert 'cannot be I, II' in refusal(np.r_[ECG[6:], ECG[:6]], None)


REAL = os.path.join(os.path.dirname(PROJECT), 'shared', 'ecg-real')


@pytest.mark.skipif(not os.path.isdir(REAL), reason='the real ECGs are not beside the project')
def test_real_ecgs_are_read_as_they_are():
    from scipy.io import loadmat
    noted = []
    for number, path in enumerate(sorted(glob.glob(os.path.join(REAL, '*', '*.mat')))):
        values = loadmat(path)['ecgdata']
        signal, notes = records.read_record(path)
        assert np.array_equal(signal, values.astype(np.float32)), path
        noted += notes
        if number % 7 == 0:
            for factor in (20, 200, 1000):
                try:
                    assert any('another unit?' in note for note in read(values * factor)[1]), path
                except UserError as error:
                    assert 'steps per mV' in str(error)
            assert 'a larger unit?' in refusal(values / 1000)
    assert len(noted) == 1 and 'TRAIN0237.mat: up to 11.5 mV in lead V4' in noted[0]
