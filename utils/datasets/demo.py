"""Write made-up ECGs in the competition's layout; OUT/truth.csv tells what each shows, and where.

A beat is a sum of Gaussian bumps, as in ECGSYN (McSharry et al., IEEE Trans Biomed Eng 2003), in
the eight leads that a recorder measures. The diagnosis shapes beats and RR intervals, but not the
noise of the electrodes. `rng` is a numpy Generator, `case` names the DIAGNOSES of a record.
"""
import argparse
import io
import os

import numpy as np
import pandas as pd
import scipy.io

from utils.ecg.records import LEADS, PARTS, REFERENCE, SAMPLES, SAMPLING_RATE
from utils.running import errors, files, log

# Labels 1-12 of task 2, for short; 'other' is left bundle branch block (LBBB) or
# ventricular hypertrophy (LVH) here.
DIAGNOSES = ('normal', 'bradycardia', 'tachycardia', 'arrhythmia', 'AF', 'PVC', 'PAC', 'AVB1',
             'CRBBB', 'T', 'ST', 'other')

TIME = np.arange(SAMPLES) / SAMPLING_RATE  # s
MAT_HEADER = b'MATLAB 5.0 MAT-file, made-up ECG'.ljust(116)  # scipy's own has the date in it

# What an abnormal record has: each diagnosis alone, then what goes together in a clinic.
ABNORMAL = [tuple(case.split()) for case in (
    *DIAGNOSES[1:], 'tachycardia ST', 'bradycardia AVB1', 'AF T', 'PVC T', 'PAC CRBBB',
    'bradycardia arrhythmia', 'AF CRBBB', 'AVB1 CRBBB', 'T other', 'tachycardia T')]

# Lowest and highest mean heart rate, beats a minute: of a case's names the first one here counts.
RATES = {'bradycardia': (38, 55), 'tachycardia': (105, 150), 'AF': (65, 125), 'PVC': (62, 85),
         'PAC': (62, 85), 'arrhythmia': (62, 85), 'AVB1': (62, 85)}

# A beat is a float64 array (8, 11) of bumps, one a row: centre, left width, right width (s), then
# mV in I, II, V1-V6. Time 0 is the onset of the QRS; T stands where it does at an RR of 1 s.
RIGHT_ATRIUM, LEFT_ATRIUM, SEPTAL, MAIN, BASAL, LATE, ST, T = range(8)
V1, V3, V4, V5 = 5, 7, 8, 9  # columns of a beat
NO_BEAT = np.tile([0, 0.01, 0.01] + 8 * [0.0], (8, 1))


def lead_mv(size, angle, chest):
    """A wave's mV in I, II, V1-V6 from its mV and degrees in the frontal plane, and in V1-V6."""
    return np.concatenate([size * np.cos(np.radians([angle, angle - 60])), chest])


def all_leads(mv):
    """The twelve leads, (12, n) in LEADS order, from those in I, II, V1-V6, (8, n)."""
    one, two = mv[:2]
    return np.vstack([one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2, mv[2:]])


def healthy_beat(rng, case):
    """One patient's conducted beat; its gain, a factor; the duration of its QRS, s."""
    gain = rng.uniform(0.7, 1.4)
    axis = np.clip(rng.normal(48, 22), -15, 85)
    turn = rng.uniform(-0.5, 0.5)  # of the heart about its long axis, in chest leads
    pr = rng.uniform(0.225, 0.32) if 'AVB1' in case else rng.uniform(0.125, 0.185)
    pr -= 0.015 * ('tachycardia' in case)
    qrs = rng.uniform(0.078, 0.104)
    qtc = rng.uniform(0.385, 0.435)
    tilt = rng.normal(0, 12, 3)
    t_axis = np.clip(axis + tilt[2], 15, 65)

    def wave(centre, left, right, size, angle, chest):
        chest = np.interp(np.arange(6) + turn, np.arange(6), chest) * rng.uniform(0.85, 1.15, 6)
        scale = gain * rng.uniform(0.85, 1.15)
        return [centre, left, right, *lead_mv(size, angle, chest) * scale]

    beat = NO_BEAT.copy()
    beat[[RIGHT_ATRIUM, LEFT_ATRIUM, SEPTAL, MAIN, BASAL, T]] = [
        wave(0.036 - pr, 0.015, 0.017, 0.07, 62 + tilt[0], [0.06, 0.06, 0.05, 0.045, 0.04, 0.035]),
        wave(0.068 - pr, 0.017, 0.015, 0.065, 45 + tilt[0], [-0.045, 0, 0.025, 0.035, 0.04, 0.04]),
        wave(0.22, 0.09, 0.09, 0.1, axis + 165 + tilt[1], [0.24, 0.6, 0.45, 0.1, -0.06, -0.08]),
        wave(0.45, 0.11, 0.12, 0.95, axis, [-0.9, -1.45, 0.45, 1.4, 1.5, 1.2]),
        wave(0.71, 0.12, 0.12, 0.2, 2 * tilt[1] - 130, [-0.05, -0.15, -0.8, -0.55, -0.25, -0.12]),
        wave(qtc - 0.076, 0.062, 0.036, 0.26, t_axis, [0.02, 0.38, 0.45, 0.42, 0.36, 0.27])]
    beat[SEPTAL:LATE, :3] *= qrs
    beat[T, V1] += rng.uniform(-0.12, 0.10)  # T in V1 is either way up in the healthy
    beat[MAIN, V1:] *= min(1, 3.1 / (beat[MAIN, V5] - beat[MAIN, V1]))  # less than in LVH
    beat[:SEPTAL, 3:] *= 'AF' not in case
    return beat, gain, qrs


def change_beat(rng, beat, finding, gain, qrs):
    """Change a healthy_beat() in place as the finding does: LBBB, LVH, CRBBB, T or ST."""
    if finding == 'LBBB':  # QS or rS in V1, a broad notched R in I and V6, no Q
        mv = gain * lead_mv(0.85, rng.uniform(-35, 30), [-1.1, -1.6, -1.3, -0.4, 0.6, 0.95])
        beat[SEPTAL:] = wide_beat(mv, rng.uniform(0.130, 0.160), 0.5)[SEPTAL:]
        beat[SEPTAL, V1:V3] = np.array([0.15, 0.25]) * gain * rng.uniform(0.3, 1.3)
    elif finding == 'LVH':  # R in V5 + S in V1 of 4.0-5.5 mV (Sokolow-Lyon: 3.5)
        scale = rng.uniform(4.0, 5.5) / (beat[MAIN, V5] - beat[MAIN, V1])
        beat[MAIN, V1:] *= scale
        beat[MAIN, 3:V1] *= min(scale, 1.6)
    elif finding == 'CRBBB':  # the right ventricle comes late: rsR' in V1, wide S in I and V6
        end = rng.uniform(0.125, 0.155)
        beat[MAIN, V1:V3] *= 0.4
        beat[BASAL, V1:] *= np.array([0, 0, 0.6, 0.5, 0.5, 0.5])
        late = lead_mv(0.35, 180 + rng.normal(0, 15), [0.8, 0.5, -0.1, -0.3, -0.4, -0.35])
        beat[LATE] = [end - 0.047, 0.017, 0.022, *late * gain * rng.uniform(0.9, 1.2, 8)]
        beat[T, V1:V4] = np.array([-0.25, -0.12, 0.15]) * gain * rng.uniform(0.7, 1.3)
    elif finding == 'ST':  # depressed laterally, raised anteriorly or raised inferiorly
        level = rng.uniform(0.16, 0.30)
        size, angle, chest = (
            (-0.7, rng.uniform(30, 60), [0.1, 0, -0.4, -0.9, -1, -0.9]),
            (0.3, rng.uniform(-30, 30), [0.5, 1.2, 1.3, 1, 0.4, 0.2]),
            (1.1, rng.uniform(90, 110), [0, -0.5, -0.4, 0, 0.2, 0.3]))[rng.integers(3)]
        beat[ST] = [qrs + 0.038, 0.021, 0.100, *level * lead_mv(size, angle, chest)]
    elif finding == 'T':  # flat nearly everywhere, or inverted anterolaterally or inferolaterally
        depth = rng.uniform(0.15, 0.40)
        place = rng.integers(3)
        if place == 0:
            beat[T, 3:] *= rng.uniform(-0.15, 0.08, 8)
        elif place == 1:
            beat[T, 3:] = -depth * lead_mv(0.7, rng.uniform(-30, 20), [-0.1, 0.4, 0.9, 1, 0.9, 0.6])
        else:
            beat[T, 3:V1] = lead_mv(depth, rng.uniform(-80, -50), [])
            beat[T, V4:] = -depth * np.array([0.4, 0.8, 0.8]) * rng.uniform(0.8, 1.2, 3)


def sinus_beat(rng, case):
    """One patient's conducted beat with all that the case does to it; make_record()'s leads_..."""
    beat, gain, qrs = healthy_beat(rng, case)
    findings = set(case)
    if 'other' in case:  # LBBB changes T by itself; T is a finding of its own only beside LVH
        findings.add('LBBB' if rng.random() < 0.5 and 'T' not in case else 'LVH')
    leads = {}
    for finding in ('LBBB', 'LVH', 'CRBBB', 'T', 'ST'):
        before = beat.copy()
        if finding in findings:
            change_beat(rng, beat, finding, gain, qrs)
        mv = np.abs(all_leads((beat - before)[:, 3:].T)).max(axis=1)
        leads[f'leads_{finding}'] = ' '.join(LEADS[i] for i in np.argsort(-mv) if mv[i] >= 0.1)
    return beat, leads


def wide_beat(mv, qrs, early):
    """A ventricular beat: mv of its QRS, (8,); qrs in s; `early` is its first summit's share."""
    beat = NO_BEAT.copy()
    beat[MAIN] = [0.36 * qrs, 0.14 * qrs, 0.16 * qrs, *1.5 * early * mv]
    beat[BASAL] = [0.66 * qrs, 0.15 * qrs, 0.13 * qrs, *1.5 * (1 - early) * mv]
    beat[SEPTAL, :3] = 0.020, 0.009, 0.009
    beat[T] = [qrs + 0.215, 0.085, 0.045, *-0.32 * mv]
    return beat


def premature_beat(rng, sinus, case):
    """The PVC, of the right ventricle (V1 negative) or the left, or PAC beside a sinus beat."""
    if rng.random() < 0.5:
        mv = lead_mv(1.1, rng.uniform(40, 100), [-0.9, -1.4, -0.9, 0.4, 1.1, 1])
    else:
        mv = lead_mv(1.0, rng.uniform(-120, -60), [1, 1.5, 1.2, 0.5, -0.5, -0.8])
    mv *= np.clip(np.abs(sinus[MAIN, 3:]).max() / 1.4, 0.8, 1.5) * rng.uniform(0.8, 1.2, 8)
    pvc = wide_beat(mv, rng.uniform(0.135, 0.170), rng.uniform(0.60, 0.75))
    pac = sinus.copy()  # but its P begins low in the atria and points up
    pac[:SEPTAL, 0] += rng.uniform(0, 0.02)
    pac[:SEPTAL, 3:V1] *= rng.uniform(-1.1, -0.5)
    pac[:SEPTAL, V1:] *= rng.uniform(-0.8, 0.4, 6)
    return pvc if 'PVC' in case else pac


def rhythm(rng, case):
    """The beats from before the record to after it: onset, s; RR before it, s; is it premature."""
    mean = 60 / rng.uniform(*next((RATES[name] for name in RATES if name in case), (61, 98)))
    count = int(12 / mean) + 12  # enough even where many intervals are short
    breath = 2 * np.pi * (rng.uniform(0.17, 0.28) * mean * np.arange(count) + rng.random())
    swing = rng.uniform(0.11, 0.17) if 'arrhythmia' in case else rng.uniform(0, 0.03) * mean
    rr = mean + swing * np.sin(breath) + rng.normal(0, 0.006, count).clip(-0.012, 0.012)
    if 'AF' in case:
        rr = np.maximum(mean * rng.gamma(18, 1 / 18, count), 0.32)
    premature = np.zeros(count, bool)
    start = -rng.uniform(0.2, 1.2)
    if 'PVC' in case or 'PAC' in case:
        gap = rng.integers(3, 6)
        for i in range(rng.integers(3, 5), int(8.5 / mean), gap):
            premature[i] = True
            early = rng.uniform(0.55, 0.68) if 'PVC' in case else rng.uniform(0.62, 0.74)
            # A PVC leaves the sinus node alone: its pause is compensatory. A PAC resets the node.
            pause = 2 - early if 'PVC' in case else rng.uniform(1.02, 1.15)
            rr[i:i + 2] = rr[i] * early, rr[i] * pause
    return start + np.cumsum(rr), rr, premature


def fibrillation(rng):
    """The fibrillatory waves of the atria, 5-8 Hz and largest in V1: float64 (8, 5000), mV."""
    slow = np.sin(2 * np.pi * (rng.uniform(0.1, 0.9, (4, 1)) * TIME + rng.random((4, 1))))
    hertz = rng.uniform(5.5, 7.5) + 0.4 * slow[0] + 0.4 * slow[1]
    phase = 2 * np.pi * np.cumsum(hertz) / SAMPLING_RATE
    wave = (1 + 0.3 * slow[2]) * np.sin(phase) + 0.3 * np.sin(2 * phase + slow[3])
    size = rng.uniform(0.04, 0.085)
    return np.outer(size * lead_mv(0.5, rng.uniform(60, 100), [1, 0.6, 0.3, 0.2, 0.2, 0.2]), wave)


def electrode_noise(rng):
    """Wandering baseline, mains hum, muscle noise, sometimes a bad electrode: (8, 5000), mV."""
    frequency = rng.uniform(0.05, 0.5, 5)
    sway = np.sin(2 * np.pi * frequency[:, None] * TIME + rng.uniform(0, 2 * np.pi, (5, 1)))
    wander = rng.lognormal(np.log(0.006), 0.6) * (rng.normal(size=(9, 5)) / frequency) @ sway
    hum = rng.lognormal(np.log(0.002), 0.8) * rng.normal(size=(9, 1))
    hum = hum * np.sin(2 * np.pi * (50 * TIME + rng.random()))
    white = rng.normal(size=(9, SAMPLES + 2))
    muscle = (white[:, :-2] + white[:, 1:-1] + white[:, 2:]) / 3 * rng.lognormal(np.log(0.004), 0.6)
    worse = np.ones((9, 1))
    if rng.random() < 1 / 6:
        worse[rng.integers(9)] = rng.uniform(3, 6)
    # Drawn at RA, LA, LL, V1-V6, so that the noise obeys Einthoven, too.
    right, left, leg, *chest = wander + (hum + muscle) * worse
    return np.vstack([left - right, leg - right, chest - (right + left + leg) / 3])


def make_record(seed, index, case):
    """The ECG number `index` >= 1 of `seed` >= 0, the same on every machine, and what it shows.

    Returns: signal, float32 (12, 5000), mV, 500 Hz, rows in LEADS order; truth, dict, a row of
        truth.csv: leads_LBBB, _LVH, _CRBBB, _T, _ST, where that finding changes a wave by 0.1 mV
        or more, the most first; heart_rate, the mean a minute; pr (NaN in AF) and qrs, s;
        ectopic_seconds, where the QRS of each PVC or PAC begins. Lists are texts with spaces.
    """
    rng = np.random.default_rng((seed, index))
    noise = electrode_noise(rng)  # first, so that it cannot depend on the diagnosis
    sinus, leads = sinus_beat(rng, case)
    onsets, rr, premature = rhythm(rng, case)
    ectopic = premature_beat(rng, sinus, case)
    heart = ventricles(rng, sinus, ectopic, onsets, rr, premature)
    heart += fibrillation(rng) if 'AF' in case else 0
    inside = (onsets >= 0) & (onsets < SAMPLES / SAMPLING_RATE)
    truth = {'diagnoses': ' '.join(case), **leads,
             'heart_rate': round(60 / np.diff(onsets[inside]).mean(), 1),
             'pr': np.nan if 'AF' in case else round(2.2 * sinus[0, 1] - sinus[0, 0], 3),
             'qrs': round((sinus[SEPTAL:ST, 0] + 2.2 * sinus[SEPTAL:ST, 2]).max(), 3),
             'ectopic_seconds': ' '.join(f'{onset:.2f}' for onset in onsets[inside & premature])}
    measured = np.rint(1000 * (heart + noise))  # a recorder's step is about 1 uV
    return (all_leads(measured) / 1000).astype(np.float32), truth


def ventricles(rng, sinus, ectopic, onsets, rr, premature):
    """All beats of a record, a little larger and smaller with each breath: (8, 5000), mV."""
    breath = 1 + rng.uniform(0, 0.06) * np.sin(2 * np.pi * rng.uniform(0.17, 0.28) * onsets)
    stretch = np.cbrt(0.75 * rr.mean() + 0.25 * rr)  # of QT (Fridericia); it follows RR slowly
    heart = np.zeros((8, SAMPLES))
    for onset, early, scale, slow in zip(onsets, premature, breath, stretch):
        beat = (ectopic if early else sinus).copy()
        beat[T, :3] *= slow
        centre, left, right = beat[:, :3].T[:, :, None]
        away = TIME - onset - centre
        bumps = np.exp(-0.5 * (away / np.where(away < 0, left, right)) ** 2)
        heart += scale * beat[:, 3:].T @ bumps
    return heart


def draw_cases(rng, task, count):
    """What `count` records show: half are normal in task 1, a quarter in task 2."""
    abnormal = [case for case in ABNORMAL if task == 2 or not {'arrhythmia', 'other'} & set(case)]
    normal = count // 2 if task == 1 else count // 4
    cases = [('normal',)] * normal + [abnormal[i % len(abnormal)] for i in range(count - normal)]
    return [cases[i] for i in rng.permutation(count)]


def open_folder(out, setting):
    """Make the folder `out` with both parts, for made-up ECGs that the dict `setting` decides.
    Raises UserError if `out` holds anything but these very ones."""
    marker = os.path.join(out, 'demo.json')
    os.makedirs(out, exist_ok=True)
    foreign = [name for name in os.listdir(out) if not name.startswith('demo.json')]
    if foreign and files.read_json(marker) != setting:
        raise errors.UserError(f'{out} holds {foreign[0]}, no demo of {setting}: name a new folder')
    files.write_json(marker, setting)
    for folder in (out, *(os.path.join(out, part) for part in PARTS)):
        os.makedirs(folder, exist_ok=True)
        files.clear_partials(folder)


def write_mat(path, signal):
    """Write a record in the competition's format; signal: float32 array (12, 5000), mV."""
    mat = io.BytesIO()
    scipy.io.savemat(mat, {'ecgdata': signal}, do_compression=True)
    files.write_bytes(path, MAT_HEADER + mat.getvalue()[len(MAT_HEADER):])


def write_demo(out, task, records, seed):
    """Write `records` >= 40 made-up ECGs of `task` 1 or 2 into the folder `out`, references last.
    Raises UserError if `out` holds anything but this very demo."""
    open_folder(out, {'task': task, 'records': records, 'seed': seed})
    train = round(0.8 * records)
    rng = np.random.default_rng((seed, 0))
    cases = draw_cases(rng, task, train) + draw_cases(rng, task, records - train)
    truths, rows = [], []
    with log.bar(records, 'demo', 'records') as bar:
        for i, case in enumerate(cases):
            name = f'TRAIN{i + 1:04d}' if i < train else f'TEST{i - train + 1:04d}'
            path = os.path.join(out, PARTS[i >= train], f'{name}.mat')
            signal, truth = make_record(seed, i + 1, case)
            write_mat(path, signal)
            labels = sorted(DIAGNOSES.index(diagnosis) + 1 for diagnosis in case)
            labels = [int(labels != [1])] if task == 1 else labels
            rows.append(','.join(map(str, [name, *labels])) + '\n')
            truths.append({'name': name, **truth})
            bar.update(1)
    head = 'name,tag\n' if task == 1 else ''
    files.write_table(os.path.join(out, 'truth.csv'), pd.DataFrame(truths))
    files.write_text(os.path.join(out, 'valreference.csv'), head + ''.join(rows[train:]))
    files.write_text(os.path.join(out, REFERENCE), head + ''.join(rows[:train]))


def main():
    parser = argparse.ArgumentParser('python -m utils.datasets.demo',
                                     description=__doc__.splitlines()[0])
    parser.add_argument('out', metavar='OUT', help='folder: new, empty, or of the same demo')
    parser.add_argument('--task', type=int, choices=(1, 2), default=1, help='2: twelve diagnoses')
    parser.add_argument('--records', type=int, default=200, help='a fifth is val; 0.1 MB each')
    parser.add_argument('--seed', type=int, default=0, help='another seed, other patients')
    args = parser.parse_args()
    if args.records < 40 or args.seed < 0:
        parser.error('expected --records of 40 or more (200 for all diagnoses), --seed from 0 on')
    write_demo(args.out, args.task, args.records, args.seed)
    print(f'{args.records} made-up records of task {args.task} are in {args.out}')


if __name__ == '__main__':
    errors.run(main)
