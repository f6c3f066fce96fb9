"""Made-up 12-lead ECGs in the competition's layout, for a first run without data: python -m utils.demo OUT

A heart beat is a sum of Gaussian bumps, as in ECGSYN (McSharry et al., IEEE Trans Biomed Eng 2003), each with its own
amplitude in each of the eight leads that a recorder measures; the other four follow from I and II. Beats are laid on
a sequence of RR intervals that the diagnosis shapes; noise is added at the electrodes, whatever the diagnosis. Good
enough to see the pipeline run and learn; it says nothing about how well a model reads real ECGs.
"""
import argparse
import io
import os

import numpy as np
import scipy.io

from utils import errors, files
from utils.progress import Bar

RATE = 500  # Hz
SAMPLES = 5000  # 10 s
MIN_RECORDS = 40  # fewer would leave the smaller part without most diagnoses

# Labels 1-12 of task 2, in their order; 'other' is a complete left bundle branch block or left ventricular hypertrophy.
DIAGNOSES = ('normal', 'bradycardia', 'tachycardia', 'arrhythmia', 'AF', 'PVC', 'PAC', 'AVB1', 'CRBBB', 'T', 'ST',
             'other')

# What an abnormal record has: each diagnosis alone, then what goes together in a clinic.
ABNORMAL = tuple((name,) for name in DIAGNOSES[1:]) + (
    ('tachycardia', 'ST'), ('bradycardia', 'AVB1'), ('AF', 'T'), ('PVC', 'T'), ('PAC', 'CRBBB'),
    ('bradycardia', 'arrhythmia'), ('AF', 'CRBBB'), ('AVB1', 'CRBBB'), ('T', 'other'), ('tachycardia', 'T'))

# A beat is a table of bumps, one a row: columns centre, left width, right width (s), then mV in I, II, V1-V6.
# Time 0 is the onset of the QRS; ST and T stand where they do at an RR of 1 s.
RIGHT_ATRIUM, LEFT_ATRIUM, SEPTAL, MAIN, BASAL, LATE, ST, T = range(8)
V1, V5 = 2, 6  # places among the eight leads


def lead_mv(size, angle, chest):
    """Amplitudes in the eight measured leads of a wave, from its vector in the frontal plane and its chest leads.

    size: mV; angle: degrees, the electrical axis (0 along I, 90 along aVF); chest: (6,) mV in V1-V6
    Returns: float64 (8,), mV in I, II, V1-V6.
    """
    return np.concatenate([size * np.cos(np.radians([angle, angle - 60])), chest])


def sinus_beat(rng, case):
    """One patient's conducted beat, P to T, with the changes of shape that the diagnoses bring.

    rng: numpy Generator; case: names of DIAGNOSES
    Returns: float64 (8, 11), the table described above.
    """
    gain = rng.uniform(0.7, 1.4)
    axis = np.clip(rng.normal(48, 22), -15, 85)
    turn = rng.uniform(-0.5, 0.5)  # of the heart about its long axis: where in V1-V6 the QRS turns positive
    pr = rng.uniform(0.225, 0.32) if 'AVB1' in case else rng.uniform(0.125, 0.185)
    if 'tachycardia' in case:
        pr -= 0.015
    qrs = rng.uniform(0.078, 0.104)
    qtc = rng.uniform(0.385, 0.435)
    tilt = rng.normal(0, 12, 3)

    def wave(centre, left, right, size, angle, chest):
        chest = np.interp(np.arange(6) + turn, np.arange(6), chest) * rng.uniform(0.85, 1.15, 6)
        scale = gain * rng.uniform(0.85, 1.15)
        return np.concatenate([[centre, left, right], lead_mv(size, angle, chest) * scale])

    beat = np.array([
        wave(0.036 - pr, 0.015, 0.017, 0.070, 62 + tilt[0], [0.060, 0.060, 0.050, 0.045, 0.040, 0.035]),
        wave(0.068 - pr, 0.017, 0.015, 0.065, 45 + tilt[0], [-0.045, 0.000, 0.025, 0.035, 0.040, 0.040]),
        wave(0.22 * qrs, 0.09 * qrs, 0.09 * qrs, 0.10, axis + 165 + tilt[1], [0.24, 0.60, 0.45, 0.10, -0.06, -0.08]),
        wave(0.45 * qrs, 0.11 * qrs, 0.12 * qrs, 0.95, axis, [-0.90, -1.45, 0.45, 1.40, 1.50, 1.20]),
        wave(0.71 * qrs, 0.12 * qrs, 0.12 * qrs, 0.20, 2 * tilt[1] - 130, [-0.05, -0.15, -0.80, -0.55, -0.25, -0.12]),
        np.zeros(11),
        np.zeros(11),
        wave(qtc - 0.076, 0.062, 0.036, 0.26, np.clip(axis + tilt[2], 15, 65), [0.02, 0.38, 0.45, 0.42, 0.36, 0.27]),
    ])
    beat[[LATE, ST], 1:3] = 1.0  # unused bumps need a width all the same
    beat[T, 3 + V1] += rng.uniform(-0.12, 0.10)  # T in V1 is either way up in the healthy
    sokolow = beat[MAIN, 3 + V5] - beat[MAIN, 3 + V1]  # R in V5 + S in V1: 3.5 mV and more is hypertrophy
    beat[MAIN, 5:] *= min(1.0, 3.1 / sokolow)
    if 'AF' in case:
        beat[:SEPTAL, 3:] = 0
    if 'other' in case:
        # A left bundle branch block changes T by itself; T is a finding of its own only beside hypertrophy.
        blocked = rng.random() < 0.5 and 'T' not in case
        beat = left_bundle_branch_block(rng, beat, gain) if blocked else hypertrophy(rng, beat)
    if 'CRBBB' in case:
        right_bundle_branch_block(rng, beat, gain)
    if 'T' in case:
        change_t(rng, beat)
    if 'ST' in case:
        change_st(rng, beat, qrs)
    return beat


def right_bundle_branch_block(rng, beat, gain):
    """Change `beat` in place: the right ventricle comes late, so rsR' in V1, wide S in I and V6, T down in V1."""
    qrs = rng.uniform(0.125, 0.155)
    beat[MAIN, 5:7] *= 0.4
    beat[BASAL, 5:] *= np.array([0, 0, 0.6, 0.5, 0.5, 0.5])
    late = lead_mv(0.35, 180 + rng.normal(0, 15), [0.80, 0.50, -0.10, -0.30, -0.40, -0.35])
    beat[LATE] = [qrs - 0.047, 0.017, 0.022, *late * gain * rng.uniform(0.9, 1.2, 8)]
    beat[T, 5:8] = np.array([-0.25, -0.12, 0.15]) * gain * rng.uniform(0.7, 1.3)


def left_bundle_branch_block(rng, beat, gain):
    """`beat` with the QRS and T of a left bundle branch block: QS or rS in V1, a broad notched R in I and V6, no Q."""
    chest = np.array([-1.10, -1.60, -1.30, -0.40, 0.60, 0.95]) * gain
    wide = wide_beat(lead_mv(0.85 * gain, rng.uniform(-35, 30), chest), rng.uniform(0.130, 0.160), 0.5)
    wide[:SEPTAL] = beat[:SEPTAL]
    wide[SEPTAL, 5:7] = np.array([0.15, 0.25]) * gain * rng.uniform(0.3, 1.3)
    return wide


def hypertrophy(rng, beat):
    """`beat` with the voltages of left ventricular hypertrophy: R in V5 + S in V1 of 4.0-5.5 mV (Sokolow-Lyon: 3.5)."""
    scale = rng.uniform(4.0, 5.5) / (beat[MAIN, 3 + V5] - beat[MAIN, 3 + V1])
    beat[MAIN, 5:] *= scale
    beat[MAIN, 3:5] *= min(scale, 1.6)
    return beat


def wide_beat(mv, qrs, early):
    """A beat that spreads from one ventricle to the other by way of muscle: wide, notched, no P, ST and T discordant.

    mv: (8,) mV of the QRS in I, II, V1-V6; qrs: its duration in s; early: share of the first of its two summits
    Returns: float64 (8, 11), a table of bumps.
    """
    beat = np.zeros((8, 11))
    beat[:, 1:3] = 1.0
    beat[SEPTAL, :3] = 0.020, 0.009, 0.009
    beat[MAIN] = [0.36 * qrs, 0.14 * qrs, 0.16 * qrs, *1.5 * early * mv]
    beat[BASAL] = [0.66 * qrs, 0.15 * qrs, 0.13 * qrs, *1.5 * (1 - early) * mv]
    beat[T] = [qrs + 0.215, 0.085, 0.045, *-0.32 * mv]
    return beat


def ectopic_beat(rng, beat):
    """A ventricular premature beat, from the right ventricle (V1 negative) or the left (V1 positive)."""
    if rng.random() < 0.5:
        mv = lead_mv(1.1, rng.uniform(40, 100), np.array([-0.9, -1.4, -0.9, 0.4, 1.1, 1.0]))
    else:
        mv = lead_mv(1.0, rng.uniform(-120, -60), np.array([1.0, 1.5, 1.2, 0.5, -0.5, -0.8]))
    size = np.abs(beat[MAIN, 3:]).max() / 1.4
    mv *= np.clip(size, 0.8, 1.5) * rng.uniform(0.8, 1.2, 8)
    return wide_beat(mv, rng.uniform(0.135, 0.170), rng.uniform(0.60, 0.75))


def atrial_beat(rng, beat):
    """`beat` begun low in the atria: the P wave points up and away, a little closer to the QRS."""
    early = beat.copy()
    early[:SEPTAL, 0] += rng.uniform(0.0, 0.02)
    early[:SEPTAL, 3:5] *= rng.uniform(-1.1, -0.5)
    early[:SEPTAL, 5:] *= rng.uniform(-0.8, 0.4, 6)
    return early


def change_t(rng, beat):
    """Change `beat` in place: T flat nearly everywhere, or inverted in the anterolateral or the inferolateral leads."""
    depth = rng.uniform(0.15, 0.40)
    kind = rng.integers(3)
    if kind == 0:
        beat[T, 3:] *= rng.uniform(-0.15, 0.08, 8)
    elif kind == 1:
        beat[T, 3:] = lead_mv(0.7 * depth, rng.uniform(150, 200), depth * np.array([0.1, -0.4, -0.9, -1.0, -0.9, -0.6]))
    else:
        beat[T, 3:5] = lead_mv(depth, rng.uniform(-80, -50), [])
        beat[T, 8:] = -depth * np.array([0.4, 0.8, 0.8]) * rng.uniform(0.8, 1.2, 3)


def change_st(rng, beat, qrs):
    """Change `beat` in place: ST depressed laterally, raised anteriorly or raised inferiorly, by 0.16-0.3 mV."""
    level = rng.uniform(0.16, 0.30)
    chest, size, angle = (
        ([0.1, 0.0, -0.4, -0.9, -1.0, -0.9], -0.7, rng.uniform(30, 60)),
        ([0.5, 1.2, 1.3, 1.0, 0.4, 0.2], 0.3, rng.uniform(-30, 30)),
        ([0.0, -0.5, -0.4, 0.0, 0.2, 0.3], 1.1, rng.uniform(90, 110)),
    )[rng.integers(3)]
    beat[ST] = [qrs + 0.038, 0.021, 0.100, *level * lead_mv(size, angle, np.array(chest))]


def rhythm(rng, case):
    """When the beats come, from before the record to after it, and what they are.

    rng: numpy Generator; case: names of DIAGNOSES
    Returns: onsets, float64 (n,), s, and RR intervals before them, (n,), s, and kinds, list of 'sinus', 'PVC', 'PAC'.
    """
    low, high = 61, 98
    if 'bradycardia' in case:
        low, high = 38, 55
    elif 'tachycardia' in case:
        low, high = 105, 150
    elif 'AF' in case:
        low, high = 65, 125
    elif {'PVC', 'PAC', 'arrhythmia', 'AVB1'} & set(case):
        low, high = 62, 85
    mean = 60 / rng.uniform(low, high)
    count = int(12 / mean) + 12  # enough even where many intervals are short
    breath = 2 * np.pi * (rng.uniform(0.17, 0.28) * mean * np.arange(count) + rng.random())
    swing = rng.uniform(0.11, 0.17) if 'arrhythmia' in case else rng.uniform(0.0, 0.03) * mean
    rr = mean + swing * np.sin(breath) + rng.normal(0, 0.006, count).clip(-0.012, 0.012)
    if 'AF' in case:
        rr = np.maximum(mean * rng.gamma(18, 1 / 18, count), 0.32)
    kinds = ['sinus'] * count
    start = -rng.uniform(0.2, 1.2)
    ectopic = 'PVC' if 'PVC' in case else 'PAC' if 'PAC' in case else None
    if ectopic:
        gap = int(rng.integers(3, 6))
        for i in range(int(rng.integers(3, 5)), int(8.5 / mean), gap):
            kinds[i] = ectopic
            early = rng.uniform(0.55, 0.68) if ectopic == 'PVC' else rng.uniform(0.62, 0.74)
            # A PVC leaves the sinus node alone, so its pause is compensatory; a PAC resets it, so its pause is not.
            rr[i + 1] = (2 - early) * rr[i] if ectopic == 'PVC' else rng.uniform(1.02, 1.15) * rr[i]
            rr[i] *= early
    return start + np.cumsum(rr), rr, kinds


def heart_signal(rng, case):
    """What the heart alone gives in the eight measured leads: float64 (8, 5000), mV."""
    beat = sinus_beat(rng, case)
    onsets, rr, kinds = rhythm(rng, case)
    shapes = {'sinus': beat, 'PVC': ectopic_beat(rng, beat), 'PAC': atrial_beat(rng, beat)}
    breath = 1 + rng.uniform(0, 0.06) * np.sin(2 * np.pi * rng.uniform(0.17, 0.28) * onsets)
    # QT follows RR by its cube root (Fridericia), and slowly: mostly the mean RR counts, a little the last one.
    stretch = np.cbrt(0.75 * rr.mean() + 0.25 * rr)
    signal = np.zeros((8, SAMPLES + 4 * RATE))  # with 2 s to either side, for beats that only reach into the record
    for onset, scale, slow, kind in zip(onsets, breath, stretch, kinds):
        first = int((onset + 1.5) * RATE)  # a beat lasts from 0.5 s before its onset to less than 0.9 s after it
        if not 0 <= first <= signal.shape[1] - 700:
            continue
        waves = shapes[kind].copy()
        waves[T, :3] *= slow
        centre, left, right = waves[:, :3].T[:, :, None]
        distance = np.arange(first, first + 700) / RATE - 2 - onset - centre
        bumps = np.exp(-0.5 * (distance / np.where(distance < 0, left, right)) ** 2)
        signal[:, first:first + 700] += scale * waves[:, 3:].T @ bumps
    signal = signal[:, 2 * RATE:-2 * RATE]
    return signal + fibrillation(rng) if 'AF' in case else signal


def fibrillation(rng):
    """The fibrillatory waves of the atria, 5-8 Hz and largest in V1: float64 (8, 5000), mV."""
    time = np.arange(SAMPLES) / RATE
    slow = np.sin(2 * np.pi * (rng.uniform(0.1, 0.9, (4, 1)) * time + rng.random((4, 1))))
    phase = 2 * np.pi * np.cumsum(rng.uniform(5.5, 7.5) + 0.4 * slow[0] + 0.4 * slow[1]) / RATE
    wave = (1 + 0.3 * slow[2]) * np.sin(phase) + 0.3 * np.sin(2 * phase + slow[3])
    return np.outer(rng.uniform(0.04, 0.085) * lead_mv(0.5, rng.uniform(60, 100), [1.0, 0.6, 0.3, 0.2, 0.2, 0.2]), wave)


def electrode_noise(rng):
    """Wandering baseline, mains hum and muscle noise as the eight leads see them: float64 (8, 5000), mV.

    Drawn at the electrodes RA, LA, LL, V1-V6, so that it too obeys Einthoven; one record in six has a bad electrode.
    """
    time = np.arange(SAMPLES) / RATE
    frequency = rng.uniform(0.05, 0.5, 5)
    sway = np.sin(2 * np.pi * frequency[:, None] * time + rng.uniform(0, 2 * np.pi, (5, 1)))
    wander = rng.lognormal(np.log(0.006), 0.6) * (rng.normal(size=(9, 5)) / frequency) @ sway
    hum = rng.lognormal(np.log(0.002), 0.8) * rng.normal(size=(9, 1)) * np.sin(2 * np.pi * (50 * time + rng.random()))
    white = rng.normal(size=(9, SAMPLES + 2))
    muscle = rng.lognormal(np.log(0.004), 0.6) * (white[:, :-2] + white[:, 1:-1] + white[:, 2:]) / 3
    worse = np.ones((9, 1))
    if rng.random() < 1 / 6:
        worse[rng.integers(9)] = rng.uniform(3, 6)
    noise = wander + (hum + muscle) * worse
    right_arm, left_arm, leg = noise[:3]
    return np.vstack([left_arm - right_arm, leg - right_arm, noise[3:] - noise[:3].mean(axis=0)])


def make_record(seed, index, case):
    """One ECG, the same for the same arguments on every machine.

    seed: int >= 0; index: int >= 1, the record's number; case: names of DIAGNOSES that it shows
    Returns: float32 (12, 5000), mV, 500 Hz, rows I, II, III, aVR, aVL, aVF, V1-V6.
    """
    rng = np.random.default_rng((seed, index))
    noise = electrode_noise(rng)  # first, so that it cannot depend on the diagnosis
    measured = np.rint(1000 * (heart_signal(rng, case) + noise))  # a recorder's step is about 1 uV
    one, two = measured[:2]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return (np.vstack([limb, measured[2:]]) / 1000).astype(np.float32)


def draw_cases(rng, task, count):
    """What each of `count` records shows: half normal in task 1, a quarter in task 2, the others in turn.

    Returns: list of tuples of names of DIAGNOSES.
    """
    abnormal = ABNORMAL
    if task == 1:  # sinus arrhythmia is common in the healthy, 'other' is vague: a first task does better without
        abnormal = [case for case in ABNORMAL if 'arrhythmia' not in case and 'other' not in case]
    normal = count // 2 if task == 1 else count // 4
    cases = [('normal',)] * normal + [abnormal[i % len(abnormal)] for i in range(count - normal)]
    return [cases[i] for i in rng.permutation(count)]


def reference_csv(task, names, cases):
    """The text of trainreference.csv or of the key of val, in the form that the task has."""
    if task == 1:
        return 'name,tag\n' + ''.join(f'{name},{int(case != ("normal",))}\n' for name, case in zip(names, cases))
    labels = [sorted(DIAGNOSES.index(diagnosis) + 1 for diagnosis in case) for case in cases]
    return ''.join(','.join(map(str, [name, *row])) + '\n' for name, row in zip(names, labels))


def mat_bytes(ecg, header):
    """A MAT v5 file as bytes. scipy puts the date into the header, so no two files are alike: `header` replaces it.

    ecg: (12, 5000), mV; header: 116 bytes
    """
    data = io.BytesIO()
    scipy.io.savemat(data, {'ecgdata': ecg})
    return header + data.getvalue()[len(header):]


def refuse_foreign(out, beginnings):
    """Raise UserError if folder `out` holds a file that a run with the same arguments would not have written.

    beginnings: dict of path within `out` -> bytes: what that file begins with, or holds if it is a .csv
    """
    if os.path.exists(out) and not os.path.isdir(out):
        raise errors.UserError(f'{out} is a file, expected a folder to write to: name another')
    for folder, _, names in os.walk(out, followlinks=True):
        for name in names:
            path = os.path.join(folder, name)
            known = os.path.relpath(path, out)
            if name.endswith(files.PARTIAL):  # of a run that was killed: FILE.pid.partial
                if known[:-len(files.PARTIAL)].rpartition('.')[0] in beginnings:
                    continue
            elif known in beginnings:
                expected = beginnings[known]
                with open(path, 'rb') as file:
                    if file.read(len(expected) + name.endswith('.csv')) == expected:
                        continue
            raise errors.UserError(f'{path} is not of a demo with these arguments, and nothing of yours is to be '
                                   'overwritten: name a folder that is empty or new, or remove this one first')


def write_demo(out, task, count, seed):
    """Write `count` made-up records and their references under the folder `out`; the references come last.

    out: str; task: 1 or 2; count: int >= MIN_RECORDS; seed: int >= 0
    Raises UserError for a count or seed out of range, and if `out` holds anything but this very demo.
    """
    if count < MIN_RECORDS or seed < 0:
        raise errors.UserError(f'--records {count} --seed {seed}: expected at least {MIN_RECORDS} records '
                               '(200 for every diagnosis in both parts) and a seed of 0 or more')
    header = f'MATLAB 5.0 MAT-file, made-up ECG of utils.demo: task {task}, {count} records, seed {seed}'
    header = header.encode().ljust(116)
    train = round(0.8 * count)
    names = [f'TRAIN{i:04d}' for i in range(1, train + 1)] + [f'TEST{i:04d}' for i in range(1, count - train + 1)]
    folders = ['train'] * train + ['val'] * (count - train)
    rng = np.random.default_rng((seed, 0))
    cases = draw_cases(rng, task, train) + draw_cases(rng, task, count - train)
    paths = [os.path.join(folder, f'{name}.mat') for folder, name in zip(folders, names)]
    references = {'trainreference.csv': reference_csv(task, names[:train], cases[:train]),
                  'valreference.csv': reference_csv(task, names[train:], cases[train:])}
    refuse_foreign(out, {**dict.fromkeys(paths, header), **{path: references[path].encode() for path in references}})
    for folder in (out, os.path.join(out, 'train'), os.path.join(out, 'val')):
        os.makedirs(folder, exist_ok=True)
        files.clear_partials(folder)
    bar = Bar('demo', count, 'records')
    for index, (path, case) in enumerate(zip(paths, cases), start=1):
        files.write_bytes(os.path.join(out, path), mat_bytes(make_record(seed, index, case), header))
        bar.advance()
    for path, text in references.items():
        files.write_text(os.path.join(out, path), text)


def main():
    parser = argparse.ArgumentParser(
        prog='python -m utils.demo',
        description='Write made-up 12-lead ECGs in the layout of the competition: OUT/train, OUT/val, '
        'OUT/trainreference.csv, and the key of val, OUT/valreference.csv. The same arguments give the same files.')
    parser.add_argument('out', metavar='OUT', help='folder to write to: new, empty, or of the same demo')
    parser.add_argument('--task', type=int, choices=(1, 2), default=1,
                        help='1: normal or abnormal; 2: twelve diagnoses, several a record (default 1)')
    parser.add_argument('--records', type=int, default=200,
                        help=f'how many, 80%% train, 20%% val, 0.24 MB each; at least {MIN_RECORDS} (default 200)')
    parser.add_argument('--seed', type=int, default=0, help='another seed, other patients (default 0)')
    args = parser.parse_args()
    write_demo(args.out, args.task, args.records, args.seed)
    print(f'{args.records} made-up records of task {args.task} are in {args.out}')


if __name__ == '__main__':
    errors.run(main)
