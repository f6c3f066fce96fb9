"""The beats of an ECG, and the average one."""
import functools

import numpy as np

from utils.ecg.records import LEADS, SAMPLES, SAMPLING_RATE

BEFORE, AFTER = 150, 266  # samples of an average beat before and after the middle of its QRS
QRS_BAND = 2, (8, 30), 'bandpass'  # order, Hz, kind of a Butterworth filter
NO_WANDER = 1, 0.4, 'highpass'
CLOSEST, T_WAVE = 125, 180  # samples: QRSs are not nearer; what is nearer and weaker may be a T
QRS = np.arange(-50, 60)  # samples about the middle, by which beats are compared and aligned
SHIFTS = np.arange(-16, 17, 2)  # samples that a beat may be moved by to lie on the others
ALIKE = 0.75  # correlation of a beat of the same shape


def find_beats(signal):
    """Where the QRSs are: int array of sample numbers, the middle of each one's energy.

    signal: float32 array (12, 5000), mV, NaN where a lead is not shown; a flat one has none
    """
    from scipy.signal import find_peaks
    shown = np.isfinite(signal)
    fast = np.where(shown, _filtered(_filled(signal), QRS_BAND), np.nan)
    scale = np.nanpercentile(np.abs(fast), 98, axis=1, keepdims=True) + 0.02  # each has its say
    energy = np.sqrt(np.nansum((fast / scale) ** 2, axis=0) / np.maximum(shown.sum(axis=0), 1))
    window = np.hanning(51)  # 100 ms
    energy = np.convolve(energy, window / window.sum(), 'same')
    typical = np.percentile(energy.reshape(5, -1).max(axis=1), 40)  # one artefact is no beat
    peaks, _ = find_peaks(energy, height=max(0.4 * typical, 1e-6), distance=CLOSEST)
    kept = [peak for before, peak in zip([-SAMPLES, *peaks], peaks)
            if peak - before >= T_WAVE or energy[peak] >= 0.55 * energy[before]]
    return np.array(kept, int)


def average_beat(signal):
    """The median of the beats that are alike, the leads that are shown together aligned together.

    signal: float32 array (12, 5000), mV, NaN where a lead is not shown
    Returns: (beat, beats, part): float64 array (12, BEFORE + AFTER), mV from the level before the
        QRS, NaN for a lead that is not shown for so long; as find_beats(); the part of the beats
        that have this shape
    """
    beats, level = find_beats(signal), _filtered(_filled(signal), NO_WANDER)
    shown = np.isfinite(signal)
    beat, parts = np.full((len(LEADS), BEFORE + AFTER), np.nan), []
    for when in np.unique(shown, axis=0):
        leads, there = (shown == when).all(axis=1), np.flatnonzero(when)
        if len(there) < BEFORE + AFTER - 2 * SHIFTS[0] + 1:
            continue
        beat[leads], part = _average(level[leads], beats, there[0], there[-1] + 1)
        parts.append(part)
    return beat, beats, np.mean(parts)


def _average(level, beats, begin, end):
    """The average beat of some leads from sample `begin` on, before `end`; see average_beat()."""
    inside = beats[(beats >= begin + BEFORE - SHIFTS[0]) & (beats <= end - AFTER + SHIFTS[0])]
    if not len(inside):
        inside = np.array([(begin + end) // 2])  # no QRS is found, but there is something to show
    alike = np.corrcoef(_cut(level, inside, QRS).reshape(len(inside), -1)) \
        if len(inside) > 1 else np.ones((1, 1))
    first = np.nan_to_num(np.median(alike, axis=1)).argmax()  # the one most like the others
    same = inside[(alike[first] > ALIKE) | (np.arange(len(inside)) == first)]
    template = _cut(level, inside[[first]], QRS)[0]
    for _ in range(2):
        moved = _align(level, same, template)
        template = np.median(_cut(level, moved, QRS), axis=0)
    cut = _cut(level, moved, np.arange(-BEFORE, AFTER))
    cut -= np.median(cut[:, :, BEFORE - 55:BEFORE - 30], axis=2, keepdims=True)
    return np.median(cut, axis=0), len(same) / len(inside)


def _filled(signal):
    """The signal with its last value, or its next, where it is not shown, so that filters see no
    step there."""
    filled, samples = signal.copy(), np.arange(signal.shape[1])
    for row in filled:
        shown = np.isfinite(row)
        if not shown.all():
            row[:] = np.interp(samples, samples[shown], row[shown]) if shown.any() else 0
    return filled


def _filtered(signal, kind):
    """The signal through a filter, forwards and backwards, so that nothing moves in time."""
    from scipy.signal import sosfiltfilt  # here: its import takes longer than all others together
    return sosfiltfilt(_coefficients(*kind), signal, axis=1)


@functools.lru_cache
def _coefficients(order, hertz, kind):
    from scipy.signal import butter
    return butter(order, hertz, kind, fs=SAMPLING_RATE, output='sos')


def _cut(level, places, window):
    """Stretches of all leads about some places: float array (places, 12, window)."""
    return np.moveaxis(level[:, places[:, None] + window], 0, 1)


def _align(level, places, template):
    """The places, each moved to where its QRS is most like the template's, (12, len(QRS))."""
    tried = places[:, None] + SHIFTS
    stretches = level[:, tried[:, :, None] + QRS]  # leads, places, shifts, time
    stretches = stretches - stretches.mean(axis=(0, 3), keepdims=True)
    product = np.einsum('lpst,lt->ps', stretches, template - template.mean())
    likeness = product / (np.sqrt((stretches ** 2).sum(axis=(0, 3))) + 1e-9)
    return tried[np.arange(len(places)), likeness.argmax(axis=1)]
