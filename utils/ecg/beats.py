"""The average beat of an ECG, and what simple rules measure in it."""
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
# What measure() tells: rates and widths, then five waves of each lead, mV.
MEASURES = ('heart rate', 'irregularity', 'other beats', 'QRS width') + tuple(
    f'{wave} {lead}' for wave in ('R', 'S', 'ST', 'T', 'P') for lead in LEADS)


def find_beats(signal):
    """Where the QRSs are: int array of sample numbers, the middle of each one's energy.

    signal: float32 array (12, 5000), mV; a flat one has none
    """
    from scipy.signal import find_peaks
    fast = _filtered(signal, QRS_BAND)
    scale = np.percentile(np.abs(fast), 98, axis=1, keepdims=True) + 0.02  # each lead has its say
    energy = np.sqrt(((fast / scale) ** 2).mean(axis=0))
    window = np.hanning(51)  # 100 ms
    energy = np.convolve(energy, window / window.sum(), 'same')
    typical = np.percentile(energy.reshape(5, -1).max(axis=1), 40)  # one artefact is no beat
    peaks, _ = find_peaks(energy, height=max(0.4 * typical, 1e-6), distance=CLOSEST)
    kept = [peak for before, peak in zip([-SAMPLES, *peaks], peaks)
            if peak - before >= T_WAVE or energy[peak] >= 0.55 * energy[before]]
    return np.array(kept, int)


def average_beat(signal):
    """The median of the beats that are alike, all leads aligned together on the QRS.

    signal: float32 array (12, 5000), mV
    Returns: (beat, beats, part): float64 array (12, BEFORE + AFTER), mV from the level before the
        QRS; as find_beats(); the part of the beats that have this shape
    """
    beats = find_beats(signal)
    inside = beats[(beats >= BEFORE - SHIFTS[0]) & (beats <= SAMPLES - AFTER + SHIFTS[0])]
    if not len(inside):
        inside = np.array([SAMPLES // 2])  # no QRS is found, but something is there to be shown
    level = _filtered(signal, NO_WANDER)
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
    return np.median(cut, axis=0), beats, len(same) / len(inside)


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


def measure(signal):
    """What simple rules read off an ECG: float64 array (64,), in the order of MEASURES.

    signal: float32 array (12, 5000), mV
    Heart rate a minute; irregularity, the standard deviation of RR by its mean; the part of beats
    that have another shape; width of the QRS, s; mV of R, S, ST (at J + 40 ms), T and P.
    """
    beat, beats, part = average_beat(signal)
    rr = np.diff(beats) / SAMPLING_RATE if len(beats) > 1 else np.ones(1)
    slope = np.sqrt((np.gradient(beat, axis=1) ** 2).mean(axis=0)) * SAMPLING_RATE  # mV/s
    slope = np.convolve(slope, np.ones(5) / 5, 'same')[BEFORE - 60:BEFORE + 75]
    steep = np.flatnonzero(slope > 0.12 * slope.max() + 0.6)
    begin, end = BEFORE - 60 + (steep[[0, -1]] if len(steep) else np.array([40, 85]))
    qrs = beat[:, begin - 3:end + 4]
    j_point = min(end + 20, BEFORE + AFTER - 60)
    st = beat[:, j_point:j_point + 10].mean(axis=1)
    return np.concatenate([
        [60 / np.median(rr), rr.std() / rr.mean(), 1 - part, (end - begin) / SAMPLING_RATE],
        qrs.max(axis=1), qrs.min(axis=1), st, _largest(beat[:, j_point + 20:]),
        _largest(beat[:, :begin - 10])])


def _largest(wave):
    """The value farthest from 0 in each row."""
    return np.take_along_axis(wave, np.abs(wave).argmax(axis=1)[:, None], 1)[:, 0]
