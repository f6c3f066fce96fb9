"""Made-up ECGs: the same everywhere, true to their labels, never written over others' files."""
import os

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.signal

from utils.datasets import demo
from utils.ecg.records import LEADS, SAMPLES, SAMPLING_RATE
from utils.running import files
from utils.running.errors import UserError

II, V1, V5, V6 = 1, 6, 10, 11  # rows of a record


def records(*case, count=6):
    """[(signal, truth)] of some patients."""
    return [demo.make_record(5, index, case) for index in range(1, count + 1)]


def beat_times(ecg):
    """When the slope over all leads, smoothed over 40 ms, is highest: the middle of each QRS, s."""
    slope = np.sqrt(np.square(np.gradient(ecg.astype(float), axis=1)).sum(axis=0))
    energy = np.convolve(slope, np.ones(20) / 20, 'same')
    height = 0.3 * np.percentile(energy, 99)
    return scipy.signal.find_peaks(energy, height=height, distance=140)[0] / SAMPLING_RATE


def average_beat(ecg):
    """The median beat, from 0.5 s before the middle of its QRS to 0.5 s after it: (12, 500) mV."""
    places = np.rint(beat_times(ecg) * SAMPLING_RATE).astype(int)
    places = places[(places > 250) & (places < SAMPLES - 250)]
    beat = np.median([ecg[:, place - 250:place + 250] for place in places], axis=0)
    return beat - np.median(beat, axis=1, keepdims=True)


def contents(folder):
    paths = [os.path.join(base, name) for base, _, names in os.walk(folder) for name in names]
    return {os.path.relpath(path, folder): open(path, 'rb').read() for path in paths}


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    out = str(tmp_path_factory.mktemp('demo') / 'out')
    demo.write_demo(out, 1, 40, 7)
    return out


def test_layout(small):
    names = [f'TRAIN{i:04d}' for i in range(1, 33)] + [f'TEST{i:04d}' for i in range(1, 9)]
    paths = [f'{"train" if name.startswith("TRAIN") else "val"}/{name}.mat' for name in names]
    assert len(contents(small)) == 40 + 4  # demo.json and the three tables
    train, val = (pd.read_csv(f'{small}/{part}reference.csv') for part in ('train', 'val'))
    assert train['tag'].sum() == 16 and val['tag'].sum() == 4
    truth = pd.read_csv(f'{small}/truth.csv')
    assert list(truth['name']) == names == [*train['name'], *val['name']]
    assert list(truth['diagnoses'] != 'normal') == [*train['tag'], *val['tag']]
    for i, path in enumerate(paths):
        ecg = scipy.io.loadmat(f'{small}/{path}')['ecgdata']
        same, other = (demo.make_record(seed, i + 1, truth['diagnoses'][i].split())[0]
                       for seed in (7, 8))
        assert ecg.dtype == np.float32 and 0.3 < np.abs(ecg).max() < 8
        assert np.array_equal(ecg, same) and not np.array_equal(ecg, other)


@pytest.mark.parametrize('case', demo.ABNORMAL, ids=' '.join)
def test_einthoven_and_goldberger(case):
    one, two, *others = demo.make_record(0, 9, case)[0].astype(float)[:6]
    expected = [two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    assert np.allclose(others, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('case, slowest, fastest, least, most', [
    ('normal', 60, 100, 0, 0.12), ('arrhythmia', 60, 100, 0.16, 1), ('AF', 60, 140, 0.2, 2),
    ('bradycardia', 36, 59, 0, 0.12), ('tachycardia', 101, 155, 0, 0.12)])
def test_heart_rate_and_how_rr_varies(case, slowest, fastest, least, most):
    for ecg, truth in records(case):
        rr = np.diff(beat_times(ecg))
        assert slowest <= 60 / rr.mean() <= fastest and least < np.ptp(rr) < most
        assert abs(60 / rr.mean() / truth['heart_rate'] - 1) < 0.03


@pytest.mark.parametrize('case', ['PVC', 'PAC'])
def test_premature_beats_their_pause_and_where_they_are(case):
    for ecg, truth in records(case):
        times = beat_times(ecg)
        rr = np.diff(times)
        early = np.flatnonzero(rr[:-1] < 0.85 * np.median(rr))
        both = (rr[early] + rr[early + 1]) / np.median(rr)
        assert np.all(np.abs(both - 2) < 0.12 if case == 'PVC' else both < 1.92)
        told = np.array(truth['ectopic_seconds'].split(), float)
        assert 1 <= len(early) <= len(told) <= len(early) + 1  # the last one may have no pause
        assert np.all(np.abs(told[:len(early)] - times[early + 1]) < 0.15)
        places = np.rint(times[early[0]:early[0] + 2] * SAMPLING_RATE).astype(int)
        beats = np.array([ecg[:, place - 60:place + 60] for place in places])
        beats = np.abs(beats - np.median(ecg, axis=1, keepdims=True))
        usual, ectopic = (beats.sum(axis=2) / beats.max(axis=2)).mean(axis=1)  # how wide
        assert (ectopic > 1.3 * usual) == (case == 'PVC')


def test_first_degree_block_has_a_long_pr():
    usual, block = records('bradycardia'), records('bradycardia', 'AVB1')  # P clear of the last T
    for cases, low, high in ((usual, 0.11, 0.20), (block, 0.22, 0.36)):
        for ecg, truth in cases:
            top_of_p = (230 - np.argmax(average_beat(ecg)[II, 20:218])) / SAMPLING_RATE
            assert low - 0.02 < top_of_p < high and low < truth['pr'] < high


def test_bundle_branch_blocks_are_wide_with_their_signs_in_v1_and_v6():
    for (usual, narrow), (block, wide) in zip(records('normal'), records('CRBBB')):
        usual, block = average_beat(usual)[:, 255:290], average_beat(block)[:, 255:290]
        assert usual[V1].max() < 0.3 < block[V1].max() and block[V6].min() < -0.15
        assert narrow['qrs'] < 0.115 and wide['qrs'] >= 0.12
    left = [(ecg, truth) for ecg, truth in records('other', count=30) if truth['leads_LBBB']]
    assert len(left) > 5
    for ecg, truth in left:
        qrs = average_beat(ecg)[:, 200:300]
        assert qrs[V1].min() < -0.5 and qrs[V1].max() < 0.5 < qrs[V6].max()
        assert truth['qrs'] >= 0.12


def test_only_hypertrophy_has_its_voltages():
    for case in (('normal',), ('other', 'T')):
        for ecg, _ in records(*case, count=20):
            beat = average_beat(ecg)  # Sokolow-Lyon: R in V5 and S in V1
            assert (beat[V5].max() - beat[V1].min() > 3.5) == ('other' in case)


def test_st_and_t_changes_stand_out_in_the_leads_that_are_told():
    for (usual, none), (t_changed, _), (st_changed, truth) in zip(
            records('normal'), records('T'), records('ST')):
        usual, t_changed, st_changed = map(average_beat, (usual, t_changed, st_changed))
        # ST, about 70 ms after the steepest part of the QRS, against the time before the QRS
        level, changed = (np.abs(beat[:, 283:290].mean(axis=1) - beat[:, 210:225].mean(axis=1))
                          for beat in (usual, st_changed))
        told = truth['leads_ST'].split()
        rows = np.isin(LEADS, told)
        assert level.max() < 0.1 and changed[LEADS.index(told[0])] > 0.09 and 2 <= len(told) < 12
        assert changed[rows].mean() > changed[~rows].mean() + 0.05
        assert usual[V6, 320:430].max() > 0.12 > 0.08 > t_changed[V6, 340:430].max()
        assert none['leads_ST'] == none['leads_T'] == ''


def test_noise_and_gain_do_not_give_the_diagnosis_away():
    cases = demo.draw_cases(np.random.default_rng(0), 1, 120)
    ecgs = np.array([demo.make_record(0, i, case)[0] for i, case in enumerate(cases, start=1)])
    normal = np.array([case == ('normal',) for case in cases])
    power = (np.abs(np.fft.rfft(ecgs, axis=2)) ** 2).sum(axis=1)
    for feature in (power[:, 1000:].sum(axis=1), power[:, 1:4].sum(axis=1), ecgs.std(axis=(1, 2))):
        auc = (feature[normal][:, None] > feature[~normal]).mean()
        assert 0.34 < auc < 0.66  # three standard deviations with 60 against 60


def test_task_2_labels(tmp_path, monkeypatch):
    command = ['demo', str(tmp_path), '--task', '2', '--records', '50']
    monkeypatch.setattr('sys.argv', [*command, '--seed', '-1'])
    with pytest.raises(SystemExit, match='2'):
        demo.main()
    monkeypatch.setattr('sys.argv', command)
    demo.main()
    rows = [row.split(',') for row in (tmp_path / 'trainreference.csv').read_text().splitlines()]
    assert {label for row in rows for label in row[1:]} == {str(i) for i in range(1, 13)}
    truth = pd.read_csv(tmp_path / 'truth.csv')
    for (name, *labels), known, case in zip(rows, truth['name'], truth['diagnoses']):
        assert name == known and list(map(int, labels)) == sorted(set(map(int, labels)))
        assert {demo.DIAGNOSES[int(label) - 1] for label in labels} == set(case.split())


@pytest.mark.parametrize('name', ['notes.txt', 'train/TRAIN0001.mat', 'train/download.partial'])
def test_never_touches_what_is_not_its_own(tmp_path, small, name):
    (tmp_path / 'train').mkdir()
    (tmp_path / name).write_bytes(b'mine')
    before = contents(small)
    for out, task, seed in (tmp_path, 1, 7), (small, 2, 7), (small, 1, 8):
        with pytest.raises(UserError, match=str(out)):
            demo.write_demo(str(out), task, 40, seed)
    assert contents(tmp_path) == {name: b'mine'} and contents(small) == before


@pytest.mark.parametrize('survivors', [0, 1, 5])
def test_the_run_after_a_killed_one_ends_it(tmp_path, monkeypatch, small, survivors):
    out, written, write_bytes = str(tmp_path / 'out'), [], files.write_bytes

    def write_some(path, data):
        if len(written) == survivors:
            with open(f'{path}.999999999.partial', 'wb') as file:
                file.write(data[:100])
            raise KeyboardInterrupt
        written.append(path)
        write_bytes(path, data)

    monkeypatch.setattr(files, 'write_bytes', write_some)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(out, 1, 40, 7)
    assert not any(name.endswith('.csv') for name in os.listdir(out))
    monkeypatch.undo()
    for _ in range(2):
        demo.write_demo(out, 1, 40, 7)
        assert contents(out) == contents(small)
