"""Made-up ECGs as varied as a hospital's: what a network learns to measure from, before it sees the
few real ones that are labelled. python -m utils.datasets.start OUT writes them.

Its labels are what each ECG shows and, for each number that rules read off it, whether that is
above the lowest quarter of all ECGs, above half, above three quarters. Beats are tables as in
demo.py; `case` is a tuple of names of FINDINGS.
"""
import argparse
import contextlib
import os

import numpy as np
from scipy.signal import butter, sosfilt

from utils.answers.tasks import FINDINGS, RHYTHMS, SHAPES
from utils.datasets import demo
from utils.datasets.demo import BASAL, LATE, MAIN, SEPTAL, ST, V1, V4, V5, T, lead_mv
from utils.ecg.beats import measure
from utils.ecg.records import PARTS, REFERENCE, SAMPLES, SAMPLING_RATE
from utils.running import errors, files, log, machine, pool

I, II, V6 = 3, 4, 10  # noqa: E741  columns of a beat, by their leads
NORMAL_PART = 0.45
# How often each of SHAPES and RHYTHMS is drawn, and how often a rhythm instead of a shape.
SHAPE_WEIGHTS = np.array([1, 2, 1, 3, 1, 1, 1, 1, 1, 2, 1, 4, 3, 1]) / 23
RHYTHM_WEIGHTS = np.array([1, 1, 1, 2, 2, 1]) / 8
RHYTHM_PART = 0.3
# What a finding rules out, in this order.
EXCLUDES = {
    'LBBB': ('CRBBB', 'IRBBB', 'LAFB', 'LPFB', 'LVH', 'RVH', 'infarction', 'paced', 'T', 'ST'),
    'paced': ('CRBBB', 'IRBBB', 'LAFB', 'LPFB', 'LVH', 'RVH', 'infarction', 'T', 'ST', 'AVB1',
              'bradycardia', 'tachycardia', 'arrhythmia', 'long QT'),
    'CRBBB': ('IRBBB',), 'LAFB': ('LPFB', 'RVH'), 'LVH': ('RVH', 'low voltage'),
    'RVH': ('low voltage', 'LPFB'), 'bradycardia': ('tachycardia',),
    'AF': ('AVB1', 'PAC', 'arrhythmia', 'bradycardia', 'tachycardia', 'PVC'),
    'PVC': ('PAC', 'arrhythmia'), 'arrhythmia': ('tachycardia', 'PAC')}
AXES = {'LAFB': (-80, -42), 'LPFB': (98, 150), 'RVH': (95, 150)}  # degrees
RATES = {'bradycardia': (36, 55), 'tachycardia': (102, 160), 'AF': (55, 150), 'paced': (59, 76),
         'PVC': (52, 95), 'PAC': (52, 95), 'arrhythmia': (52, 95), 'AVB1': (52, 95)}
CARTS = [butter(2, hertz, fs=SAMPLING_RATE, output='sos') for hertz in (35, 40, 75, 100, 150)]


def draw_case(rng):
    """What an ECG shows: nothing, or one to three findings that go together."""
    if rng.random() < NORMAL_PART:
        return ()
    case = set()
    for _ in range(1 + (rng.random() < 0.35) + (rng.random() < 0.1)):
        names, weights = (RHYTHMS, RHYTHM_WEIGHTS) if rng.random() < RHYTHM_PART else \
            (SHAPES, SHAPE_WEIGHTS)
        case.add(str(rng.choice(names, p=weights)))
    for finding, others in EXCLUDES.items():
        if finding in case:
            case -= set(others)
    return tuple(sorted(case))


def healthy_beat(rng, case):
    """One patient's conducted beat, as demo.healthy_beat(), of more kinds of patients.

    Returns: (beat, gain, intervals): table (8, 11), factor, [PR, QRS, QTc] in s
    """
    gain = np.exp(rng.normal(0, 0.28)).clip(0.5, 1.8)
    axis = np.clip(rng.normal(48, 27), -25, 90)
    for finding in set(AXES) & set(case):
        axis = rng.uniform(*AXES[finding])
    turn, tilt = rng.uniform(-1, 1), rng.normal(0, 15, 3)
    pr, qrs, qtc = draw_intervals(rng, case)

    def wave(time, size, angle, chest, factor, spread=0.15):
        chest = np.interp(np.arange(6) + turn, np.arange(6), chest)
        mv = lead_mv(size, angle, chest * rng.uniform(1 - spread, 1 + spread, 6))
        return [*time, *mv * factor * gain * rng.uniform(1 - spread, 1 + spread)]

    p_size, t_size = 1.4 * np.exp(rng.normal(0, 0.35)), np.exp(rng.normal(0, 0.3)).clip(0.55, 2.2)
    limb, late = np.exp(rng.normal(0, 0.25)), rng.uniform(0.3, 1.6)
    septal, late_tilt = rng.uniform(0.2, 1.5), 2 * tilt[1] - 130
    t_axis = np.clip(np.clip(axis, -10, 90) + tilt[2], 5, 75)
    beat = demo.NO_BEAT.copy()
    beat[[0, 1, SEPTAL, MAIN, BASAL, T]] = [
        wave((0.036 - pr, 0.015, 0.017), 0.07, 62 + tilt[0],
             [0.06, 0.06, 0.05, 0.045, 0.04, 0.035], p_size),
        wave((0.068 - pr, 0.017, 0.015), 0.065, 45 + tilt[0],
             [-0.045, 0, 0.025, 0.035, 0.04, 0.04], p_size),
        wave((0.22 * qrs, 0.09 * qrs, 0.09 * qrs), 0.1, axis + 165 + tilt[1],
             [0.24, 0.6, 0.45, 0.1, -0.06, -0.08], septal, 0.3),
        wave((0.45 * qrs, rng.uniform(0.09, 0.13) * qrs, rng.uniform(0.1, 0.14) * qrs),
             1.08 * limb, axis, [-0.9, -1.45, 0.45, 1.4, 1.5, 1.2], 1, 0.2),
        wave((0.71 * qrs, 0.12 * qrs, 0.12 * qrs), 0.2, late_tilt,
             [-0.05, -0.15, -0.8, -0.55, -0.25, -0.12], late, 0.3),
        wave((qtc - 0.076, rng.uniform(0.05, 0.07), rng.uniform(0.03, 0.042)), 0.34, t_axis,
             [0.02, 0.38, 0.45, 0.42, 0.36, 0.27], t_size, 0.2)]
    beat[T, V1] += rng.uniform(-0.18, 0.15)
    if rng.random() < 0.5:  # the ST segment of the healthy climbs a little, in V1-V3 most
        chest = rng.uniform(0, 0.14) * np.array([0.7, 1, 1, 0.7, 0.4, 0.2])
        beat[ST] = [qrs + 0.06, 0.03, 0.08, *lead_mv(0.03, 50, chest)]
    beat[MAIN, V1:] *= min(1, 3.2 / (beat[MAIN, V5] - beat[MAIN, V1]))  # less than in LVH
    beat[:SEPTAL, 3:] *= 'AF' not in case
    return beat, gain, [pr * ('AF' not in case), qrs, qtc]


def draw_intervals(rng, case):
    """PR, QRS and QTc of one patient, s."""
    pr = np.clip(rng.normal(0.152, 0.02), 0.115, 0.195)
    pr = rng.uniform(0.21, 0.34) if 'AVB1' in case else pr
    pr -= 0.015 * ('tachycardia' in case)
    qrs = np.clip(rng.normal(0.084, 0.009), 0.064, 0.108)
    qtc = np.clip(rng.normal(0.412, 0.018), 0.36, 0.45)
    qtc = rng.uniform(0.475, 0.56) if 'long QT' in case else qtc
    return pr, qrs, qtc


def change_beat(rng, beat, finding, gain, qrs):
    """Change a healthy_beat() in place as the finding does, more mildly at times than demo.py."""
    if finding in ('LBBB', 'LVH', 'CRBBB', 'T', 'ST'):
        if finding == 'T' and rng.random() < 0.5:  # merely flat
            beat[T, 3:] *= rng.uniform(-0.1, 0.45) * rng.uniform(0.7, 1.3, 8)
            return
        demo.change_beat(rng, beat, finding, gain, qrs)
        if finding == 'ST' and rng.random() < 0.5:
            beat[ST, 3:] *= rng.uniform(0.3, 0.7)
        if finding == 'LVH' and rng.random() < 0.5:  # strain
            beat[T, [I, V4, V5, V6]] = -rng.uniform(0.05, 0.3) * np.array([0.6, 0.5, 1, 1])
            mv = -rng.uniform(0.03, 0.12) * np.array([0.6, 0.3, -0.6, -0.6, 0, 0.5, 1, 1])
            beat[ST] = [qrs + 0.04, 0.02, 0.09, *mv]
    elif finding == 'RVH':
        beat[MAIN, V1:] = np.array([0.9, 0.6, 0.3, 0.4, 0.5, 0.4]) * gain * rng.uniform(0.8, 1.3)
        beat[BASAL, V1:] = np.array([1, 4, 8, 9, 9, 7]) * -0.1 * gain * rng.uniform(0.7, 1.3)
        beat[T, V1:V4] = np.array([-0.25, -0.2, -0.1]) * rng.uniform(0.5, 1.5)
    elif finding == 'infarction':
        infarct(rng, beat, gain, qrs)
    elif finding == 'LAFB':
        beat[BASAL, V4:] = -rng.uniform(0.3, 0.7) * gain * np.array([1, 0.9, 0.8])
    elif finding == 'IRBBB':
        chest = np.array([0.3, 0.15, 0, -0.08, -0.12, -0.12]) * rng.uniform(0.7, 1.6)
        beat[LATE] = [qrs + 0.004, 0.009, 0.011, *lead_mv(0.15, 180 + rng.normal(0, 20), chest)]
    elif finding == 'paced':
        chest = np.array([-0.9, -1.3, -1.3, -1, -0.6, -0.3] if rng.random() < 0.7 else
                         [-1, -1.5, -1, -0.2, 0.6, 0.8])
        mv = lead_mv(0.8 * gain, rng.uniform(-90, -50), chest * gain)
        beat[SEPTAL:] = demo.wide_beat(mv, rng.uniform(0.14, 0.18), 0.5)[SEPTAL:]
        beat[:SEPTAL, 3:] *= rng.random() < 0.5
        spike = lead_mv(0.8, rng.uniform(-110, -60), rng.uniform(-1, 0.3, 6))
        beat[LATE] = [-0.006, 0.0012, 0.0012, *rng.uniform(0.1, 1.2) * spike]
    elif finding == 'low voltage':
        beat[:, I:V1] *= rng.uniform(0.25, 0.45)
        if rng.random() < 0.6:
            beat[:, V1:] *= rng.uniform(0.3, 0.6)


def infarct(rng, beat, gain, qrs):
    """Q waves and lost R waves, inferior, anterior, lateral or two of them, of any age."""
    place, depth, age = rng.integers(4), rng.uniform(0.18, 0.55), rng.random()
    beat[SEPTAL, :3] = np.array([0.26, *2 * [rng.uniform(0.15, 0.2)]]) * qrs
    if place in (0, 3):
        beat[SEPTAL, I:V1] = lead_mv(depth, rng.uniform(-110, -70), [])
        beat[MAIN, II] *= rng.uniform(0.3, 0.8)
        if age < 0.7:
            beat[T, I:V1] = lead_mv(rng.uniform(0.05, 0.3), rng.uniform(-85, -35), [])
    if place in (1, 3):
        last = V4 + int(rng.integers(2))
        beat[SEPTAL, V1:last] = -rng.uniform(0, 0.3, last - V1)
        beat[MAIN, V1:last] = -np.array([0.8, 1.3, 1.1, 0.6])[:last - V1] * gain \
            * rng.uniform(0.6, 1.1)
        if age < 0.6:
            beat[T, V1 + 1:V6] = -rng.uniform(0.05, 0.45) * np.array([0.7, 1, 1, 0.7])
        elif age > 0.8:
            mv = rng.uniform(0.08, 0.3) * np.array([0.2, 0, 0.6, 1, 1, 0.7, 0.3, 0.1])
            beat[ST] = [qrs + 0.04, 0.02, 0.10, *mv]
    if place == 2:
        beat[SEPTAL, I:V1] = lead_mv(depth * 0.8, rng.uniform(150, 190), [])
        beat[SEPTAL, V5:] = -depth * np.array([0.8, 1])
        beat[MAIN, [I, V5, V6]] *= rng.uniform(0.3, 0.7)
        if age < 0.7:
            beat[T, [I, V4, V5, V6]] = -rng.uniform(0.03, 0.25) * np.array([0.8, 0.5, 1, 1])


def rhythm(rng, case):
    """As demo.rhythm(), with more of the healthy's own irregularity."""
    low, high = next((RATES[name] for name in RATES if name in case), (52, 100))
    mean = 60 / np.exp(rng.uniform(np.log(low), np.log(high)))
    count = int(12 / mean) + 14
    breath = 2 * np.pi * (rng.uniform(0.17, 0.28) * mean * np.arange(count) + rng.random())
    swing = rng.uniform(0.1, 0.17) if 'arrhythmia' in case else rng.uniform(0, 0.075) * mean
    jitter = rng.normal(0, 0.008, count).clip(-0.016, 0.016)
    rr = mean + (swing * np.sin(breath) + jitter) * ('paced' not in case)
    if 'AF' in case:
        rr = np.maximum(rng.gamma(rng.uniform(12, 30), 1, count), 0.3)
        rr = np.maximum(rr * mean / rr.mean(), 0.3)
    premature = np.zeros(count, bool)
    if 'PVC' in case or 'PAC' in case:
        beats = np.arange(2, max(int(9 / mean), 5))
        for i in rng.choice(beats, min(int(rng.integers(1, 5)), 3), replace=False):
            if premature[i - 1:i + 2].any():
                continue
            premature[i] = True
            early = rng.uniform(0.5, 0.75)
            rr[i + 1] = rr[i] * (2 - early if 'PVC' in case else rng.uniform(1, 1.2))
            rr[i] *= early
    return np.cumsum(rr) - rng.uniform(0.2, 1.2), rr, premature


def make_record(seed, index):
    """The ECG number `index` of `seed`, the same on every machine.

    Returns: signal, float32 (12, 5000), mV, 500 Hz; findings, uint8 (len(FINDINGS),) of 0 and 1;
        numbers, float64 (67,), of MEASURES and INTERVALS
    """
    rng = np.random.default_rng((seed, 3, index))
    noise = demo.electrode_noise(rng) * np.exp(rng.normal(0.3, 0.6))
    case = draw_case(rng)
    beat, gain, intervals = healthy_beat(rng, case)
    for finding in SHAPES:
        if finding in case:
            change_beat(rng, beat, finding, gain, intervals[1])
    if {'LBBB', 'CRBBB', 'paced'} & set(case):
        intervals[1] = 0.145
    onsets, rr, premature = rhythm(rng, case)
    ectopic = demo.premature_beat(rng, beat, case)
    heart = demo.ventricles(rng, beat, ectopic, onsets, rr, premature) + noise
    heart += demo.fibrillation(rng) if 'AF' in case else 0
    if rng.random() < 0.15:  # a loose electrode: one lead jumps and comes back
        at = rng.integers(SAMPLES)
        back = np.exp(-np.arange(SAMPLES - at) / SAMPLING_RATE / rng.uniform(0.2, 2))
        heart[rng.integers(8), at:] += rng.normal() * back
    signal = demo.all_leads(heart)
    if rng.random() < 0.5:
        signal = sosfilt(CARTS[rng.integers(len(CARTS))], signal, axis=1)
    signal = (np.rint(1000 * signal) / 1000).astype(np.float32)
    findings = np.array([name in case for name in FINDINGS], np.uint8)
    findings[0] = bool(case)
    return signal, findings, np.array([*measure(signal), *intervals])


def labels_of(findings, numbers):
    """The labels of task 3 of all ECGs: uint8 array (n, classes) of 0 and 1.

    findings, numbers: of all ECGs, as make_record() returns them
    """
    quarters = np.quantile(numbers, (0.25, 0.5, 0.75), axis=0)
    above = numbers[:, :, None] > quarters.T
    return np.concatenate([findings, above.reshape(len(numbers), -1)], axis=1)


def write_start(out, records, seed):
    """Write made-up ECGs and their labels of task 3 into the folder `out`, labels last.
    Raises UserError if `out` holds anything but these very ones."""
    demo.open_folder(out, {'task': 3, 'records': records, 'seed': seed})
    jobs = [(seed, index, os.path.join(out, PARTS[0], f'{name_of(index)}.mat'))
            for index in range(records)]
    made = {}
    with log.bar(records, 'making up', 'records') as bar, \
            contextlib.closing(pool.run_jobs(_write, jobs, machine.usable_cores())) as results:
        for (_, index, path), result in results:
            if isinstance(result, pool.Crashed):
                raise errors.UserError(f'{path}: {result}; memory ran out: run it again')
            made[index] = result
            bar.update()
    labels = labels_of(*(np.array(each) for each in zip(*(made[index] for index in sorted(made)))))
    rows = [','.join([name_of(index), *map(str, np.flatnonzero(row) + 1)]) + '\n'
            for index, row in enumerate(labels)]
    files.write_text(os.path.join(out, REFERENCE), ''.join(rows))


def name_of(index):
    return f'START{index:05d}'


def _write(job):
    """Make up one record and write it; called in a process of its own."""
    seed, index, path = job
    signal, findings, numbers = make_record(seed, index)
    demo.write_mat(path, signal)
    return findings, numbers


def main():
    parser = argparse.ArgumentParser('python -m utils.datasets.start',
                                     description=__doc__.splitlines()[0])
    parser.add_argument('out', metavar='OUT', help='folder: new, empty, or of the same ECGs')
    parser.add_argument('--records', type=int, default=4000, help='0.1 MB each')
    parser.add_argument('--seed', type=int, default=0, help='another seed, other patients')
    args = parser.parse_args()
    if args.records < 40 or args.seed < 0:
        parser.error('expected --records of 40 or more, --seed from 0 on')
    write_start(args.out, args.records, args.seed)
    print(f'{args.records} made-up records to start from are in {args.out}')


if __name__ == '__main__':
    errors.run(main)
