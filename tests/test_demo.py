import csv
import os

import numpy as np
import pytest
import scipy.io
import scipy.signal

from utils import demo, files
from utils.errors import UserError

I, II, III, AVR, AVL, AVF, V1, V6 = 0, 1, 2, 3, 4, 5, 6, 11  # rows of a record


def qrs_energy(ecg):
    """The slope over all leads, smoothed over 40 ms: high in a QRS, low elsewhere. (5000,)"""
    slope = np.sqrt(np.square(np.gradient(ecg.astype(float), axis=1)).sum(axis=0))
    return np.convolve(slope, np.ones(20) / 20, 'same')


def beat_times(ecg):
    energy = qrs_energy(ecg)
    peaks, _ = scipy.signal.find_peaks(energy, height=0.3 * np.percentile(energy, 99), distance=140)
    return peaks / demo.RATE


def records(*case, count=6):
    return [demo.make_record(5, index, case) for index in range(1, count + 1)]


def mean_rate(ecg):
    return 60 / np.diff(beat_times(ecg)).mean()


def average_beat(ecg):
    """The mean of the beats, from 0.5 s before their QRS energy is highest to 0.5 s after it: (12, 500)."""
    places = np.rint(beat_times(ecg) * demo.RATE).astype(int)
    places = places[(places > 250) & (places < demo.SAMPLES - 250)]
    beat = np.median([ecg[:, place - 250:place + 250] for place in places], axis=0)
    return beat - np.median(beat, axis=1, keepdims=True)


def read_csv(path):
    with open(path, newline='') as file:
        return list(csv.reader(file))


def contents(folder):
    return {os.path.join(base, name): open(os.path.join(base, name), 'rb').read()
            for base, _, names in os.walk(folder) for name in names}


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    out = str(tmp_path_factory.mktemp('demo') / 'out')
    demo.write_demo(out, 1, 40, 7)
    return out


def test_layout(small):
    assert sorted(os.listdir(small)) == ['train', 'trainreference.csv', 'val', 'valreference.csv']
    assert sorted(os.listdir(small + '/train')) == [f'TRAIN{i:04d}.mat' for i in range(1, 33)]
    assert sorted(os.listdir(small + '/val')) == [f'TEST{i:04d}.mat' for i in range(1, 9)]
    train, val = read_csv(small + '/trainreference.csv'), read_csv(small + '/valreference.csv')
    assert train[0] == val[0] == ['name', 'tag']
    assert [row[0] for row in train[1:]] == [f'TRAIN{i:04d}' for i in range(1, 33)]
    assert sorted(row[1] for row in train[1:]) == ['0'] * 16 + ['1'] * 16
    assert sorted(row[1] for row in val[1:]) == ['0'] * 4 + ['1'] * 4


def test_mat_file(small):
    ecg = scipy.io.loadmat(small + '/train/TRAIN0003.mat')['ecgdata']
    assert ecg.shape == (12, 5000) and ecg.dtype == np.float32
    assert np.isfinite(ecg).all() and 0.3 < np.abs(ecg).max() < 8
    rng = np.random.default_rng((7, 0))
    assert np.array_equal(ecg, demo.make_record(7, 3, demo.draw_cases(rng, 1, 32)[2]))


def test_same_arguments_same_files_others_differ(small):
    before = contents(small)
    demo.write_demo(small, 1, 40, 7)
    assert contents(small) == before
    ecg = demo.make_record(7, 3, ('normal',))
    assert np.array_equal(ecg, demo.make_record(7, 3, ('normal',)))
    assert not np.array_equal(ecg, demo.make_record(8, 3, ('normal',)))
    assert not np.array_equal(ecg, demo.make_record(7, 4, ('normal',)))


@pytest.mark.parametrize('case', demo.ABNORMAL)
def test_einthoven_and_goldberger(case):
    ecg = demo.make_record(0, 9, case).astype(float)
    assert np.abs(ecg[I] + ecg[III] - ecg[II]).max() < 1e-6
    assert np.abs(ecg[AVR] + (ecg[I] + ecg[II]) / 2).max() < 1e-6
    assert np.abs(ecg[AVL] - (ecg[I] - ecg[III]) / 2).max() < 1e-6
    assert np.abs(ecg[AVF] - (ecg[II] + ecg[III]) / 2).max() < 1e-6


@pytest.mark.parametrize('case, low, high', [('normal', 60, 100), ('bradycardia', 36, 59), ('tachycardia', 101, 155)])
def test_heart_rate(case, low, high):
    for ecg in records(case):
        assert low <= mean_rate(ecg) <= high


def test_rhythms_differ_in_how_rr_varies():
    for normal, breathing, fibrillating in zip(records('normal'), records('arrhythmia'), records('AF')):
        assert np.ptp(np.diff(beat_times(normal))) < 0.12
        assert np.ptp(np.diff(beat_times(breathing))) > 0.16
        rr = np.diff(beat_times(fibrillating))
        assert rr.std() / rr.mean() > 0.1


def test_af_intervals_follow_no_pattern_and_there_is_no_p():
    rng = np.random.default_rng(0)
    correlations = []
    for _ in range(50):
        rr = demo.rhythm(rng, ('AF',))[1]
        correlations.append(np.corrcoef(rr[:-1], rr[1:])[0, 1])
    assert abs(np.mean(correlations)) < 0.12  # a mean of 50; each has a standard deviation of about 0.2
    assert not demo.sinus_beat(rng, ('AF',))[:demo.SEPTAL, 3:].any()


@pytest.mark.parametrize('case', ['PVC', 'PAC'])
def test_premature_beats_and_their_pause(case):
    for ecg in records(case):
        rr = np.diff(beat_times(ecg))
        usual = np.median(rr)
        early = np.flatnonzero(rr[:-1] < 0.85 * usual)
        assert len(early) >= 1
        both = (rr[early] + rr[early + 1]) / usual
        assert np.all(np.abs(both - 2) < 0.12 if case == 'PVC' else both < 1.92)


def test_pvc_is_wide():
    for ecg in records('PVC'):
        rr = np.diff(beat_times(ecg))
        early = np.flatnonzero(rr[:-1] < 0.85 * np.median(rr))[0] + 1
        places = np.rint(beat_times(ecg) * demo.RATE).astype(int)

        def area_per_height(place):  # s: how wide the deflections of a beat are
            beat = np.abs(ecg[:, place - 60:place + 60] - np.median(ecg, axis=1, keepdims=True))
            return (beat.sum(axis=1) / beat.max(axis=1)).mean() / demo.RATE

        assert area_per_height(places[early]) > 1.3 * area_per_height(places[early - 1])


def test_first_degree_block_has_a_long_pr():
    # Slow hearts, where P stands clear of the T before it.
    for usual, block in zip(records('bradycardia'), records('bradycardia', 'AVB1')):
        lag = [(250 - (20 + np.argmax(average_beat(ecg)[II, 20:218]))) / demo.RATE for ecg in (usual, block)]
        assert lag[0] < 0.19 and 0.20 < lag[1] < 0.36  # s, from the top of P to the QRS


def test_right_bundle_branch_block_is_wide_with_a_late_r_in_v1_and_s_in_v6():
    def qrs_duration(case):  # s, from where the first bump rises to where the last one has ended
        beat = demo.sinus_beat(np.random.default_rng(3), case)[demo.SEPTAL:demo.ST]
        beat = beat[np.any(beat[:, 3:], axis=1)]
        return (beat[:, 0] + 2.2 * beat[:, 2]).max() - (beat[:, 0] - 2.2 * beat[:, 1]).min()

    assert qrs_duration(('normal',)) < 0.115 and qrs_duration(('CRBBB',)) >= 0.12
    for usual, block in zip(records('normal'), records('CRBBB')):
        late = slice(255, 290)  # 10-80 ms after the steepest part
        assert average_beat(usual)[V1, late].max() < 0.3 < average_beat(block)[V1, late].max()
        assert average_beat(block)[V6, late].min() < -0.15


def test_st_and_t_changes_stand_out():
    for usual, t_changed, st_changed in zip(records('normal'), records('T'), records('ST')):
        usual, t_changed, st_changed = map(average_beat, (usual, t_changed, st_changed))
        level = [beat[:, 283:290].mean(axis=1) - beat[:, 210:225].mean(axis=1) for beat in (usual, st_changed)]
        assert np.abs(level[0]).max() < 0.1  # mV, about 70 ms after the steepest part of the QRS
        assert (np.abs(level[1]) > 0.09).sum() >= 2
        assert usual[V6, 320:430].max() > 0.12 > 0.08 > t_changed[V6, 340:430].max()


def test_normals_stay_under_the_voltages_of_hypertrophy():
    rng = np.random.default_rng(1)
    for _ in range(50):
        beat = demo.sinus_beat(rng, ('normal',))
        assert beat[demo.MAIN, 3 + demo.V5] - beat[demo.MAIN, 3 + demo.V1] < 3.5


def test_noise_and_gain_do_not_give_the_diagnosis_away():
    cases = demo.draw_cases(np.random.default_rng(0), 1, 120)
    ecgs = np.array([demo.make_record(0, index, case) for index, case in enumerate(cases, start=1)])
    normal = np.array([case == ('normal',) for case in cases])
    power = np.abs(np.fft.rfft(ecgs, axis=2)) ** 2
    for feature in (power[:, :, 1000:].sum(axis=(1, 2)), power[:, :, 1:4].sum(axis=(1, 2)), ecgs.std(axis=(1, 2))):
        auc = (feature[normal][:, None] > feature[~normal]).mean()
        assert 0.34 < auc < 0.66  # three standard deviations with 60 against 60


def test_task_2_labels():
    rng = np.random.default_rng((0, 0))
    for count in (160, 40):
        cases = demo.draw_cases(rng, 2, count)
        rows = [line.split(',') for line in demo.reference_csv(2, [f'R{i}' for i in range(count)], cases).splitlines()]
        labels = [[int(label) for label in row[1:]] for row in rows]
        assert len(rows) == count and rows[0][0] == 'R0'
        assert {label for row in labels for label in row} == set(range(1, 13))
        assert all(row == sorted(set(row)) and row for row in labels)
        assert all(row == [1] for row in labels if 1 in row)
        assert any(len(row) > 1 for row in labels)


def test_task_1_leaves_out_sinus_arrhythmia_and_other():
    cases = demo.draw_cases(np.random.default_rng(0), 1, 160)
    seen = {name for case in cases for name in case}
    assert seen == set(demo.DIAGNOSES) - {'arrhythmia', 'other'}
    assert sum(case == ('normal',) for case in cases) == 80


@pytest.mark.parametrize('name, content', [
    ('notes.txt', b'mine'), ('train/TRAIN0001.mat', b'MATLAB 5.0 MAT-file, mine'), ('train/TRAIN0500.mat', b'mine'),
    ('trainreference.csv', b'name,tag\nTRAIN0001,0\n'), ('train/download.partial', b'mine')])
def test_never_touches_what_is_not_its_own(tmp_path, name, content):
    (tmp_path / 'train').mkdir()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=os.path.basename(name)):
        demo.write_demo(str(tmp_path), 1, 40, 0)
    assert list(contents(tmp_path).values()) == [content]


def test_refuses_a_demo_of_other_arguments_and_an_edited_reference(small):
    before = contents(small)
    for task, count, seed in ((2, 40, 7), (1, 41, 7), (1, 40, 8)):
        with pytest.raises(UserError):
            demo.write_demo(small, task, count, seed)
    with open(small + '/trainreference.csv', 'a') as file:
        file.write('MINE,1\n')
    with pytest.raises(UserError, match='trainreference.csv'):
        demo.write_demo(small, 1, 40, 7)
    files.write_bytes(small + '/trainreference.csv', before[small + '/trainreference.csv'])
    assert contents(small) == before


def test_refuses_a_file_and_impossible_numbers(tmp_path):
    (tmp_path / 'file').write_text('mine')
    with pytest.raises(UserError, match='is a file'):
        demo.write_demo(str(tmp_path / 'file'), 1, 40, 0)
    for count, seed in ((39, 0), (-1, 0), (40, -1)):
        with pytest.raises(UserError, match='at least 40'):
            demo.write_demo(str(tmp_path / 'new'), 1, count, seed)
    assert not (tmp_path / 'new').exists()


def test_a_killed_run_leaves_no_references_and_the_next_one_finishes(tmp_path, monkeypatch, small):
    out, written = str(tmp_path / 'out'), []

    def die_at_the_fifth(path, data):
        if len(written) == 4:
            with open(f'{path}.999999999.partial', 'wb') as file:
                file.write(data[:100])
            raise KeyboardInterrupt
        written.append(path)
        write_bytes(path, data)

    write_bytes = files.write_bytes
    monkeypatch.setattr(files, 'write_bytes', die_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(out, 1, 40, 7)
    assert os.listdir(out) and not [name for name in os.listdir(out) if name.endswith('.csv')]
    monkeypatch.undo()
    demo.write_demo(out, 1, 40, 7)
    assert sorted(contents(out).values()) == sorted(contents(small).values())


def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['demo', str(tmp_path / 'out'), '--task', '2', '--records', '40', '--seed', '1'])
    demo.main()
    assert '40 made-up records of task 2' in capsys.readouterr().out
    rows = read_csv(tmp_path / 'out' / 'trainreference.csv')
    assert len(rows) == 32 and rows[0][0] == 'TRAIN0001'
