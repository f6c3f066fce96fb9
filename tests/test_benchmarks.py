"""Benchmarks run to their end and print their figures; what the figures are is not tested."""
import subprocess
import sys
import types

import cv2
import numpy as np
import pandas as pd
import pytest

from benchmarks import overhead, paper, paper_others, reading, teach_parting
from benchmarks.pictures import label_all
from tests.helpers import make_signal, write_competition
from utils.ecg.signals import LEADS, Raw
from utils.running.errors import UserError


def test_reading_prints_its_figures(tmp_path):
    """Other parts start processes, and take longer: make bench."""
    write_competition(tmp_path / 'ecgs', train=4, val=0)
    (tmp_path / 'pictures').mkdir()
    rows = list(reading.compare(str(tmp_path / 'ecgs'), str(tmp_path / 'pictures'), 64, 1))
    assert 'from PNG' in rows[0] and 'pictures/s' in rows[0] and len(rows) >= 4


def test_overhead_watches_the_real_train_script(tmp_path):
    write_competition(tmp_path / 'ecgs', train=6, val=0)
    root = label_all(str(tmp_path / 'ecgs'), str(tmp_path / 'pictures'), overhead.SIZE, 20)
    seconds, told = overhead.trace(root, batch=4, iterations=6, model='resnet18')
    assert len(told['loop']['save']) == 1  # at the end
    assert len(told['beside']['save_best']) == len(told['loop']['keep_best']) >= 1
    assert 0 < overhead.loop_of(told) < seconds
    rows = [*overhead.describe(told, seconds), *overhead.describe_costs(told)]
    assert 'neither step nor evaluation' in rows[1]


def test_overhead_counts_as_often_as_a_card_comes_to_it():
    # 1,440 records at 300 a second are an epoch of 4.8 s: evaluated every 24, drawn every 48 s.
    told = {'loop': {'save': [3.0], 'keep_best': [0.24], 'draw': [0.48]},
            'beside': {'save_last': [[9.0, 6.0]], 'draw_curves': [[9.0, 0.96]]}}
    of_batches = 0.001 * 300 / 32
    assert overhead.rate_of(told, 0.001, 300, False) == pytest.approx(of_batches + 0.03)
    assert overhead.rate_of(told, 0.001, 300, True) == pytest.approx(of_batches + 0.03 + 0.04)
    assert overhead.share(1.78 / 4.8) == pytest.approx(0.27, abs=0.001)


def test_an_iteration_is_compared_with_its_step(tmp_path):
    write_competition(tmp_path / 'ecgs', train=6, val=0)
    root = label_all(str(tmp_path / 'ecgs'), str(tmp_path / 'pictures'), overhead.SMALL, 20)
    told = overhead.trace_iteration(root, iterations=41)
    assert len(told['loop']) == 2 and len(told['bare']) == 3
    assert "the bare step, on the interpreter's scale" in overhead.describe_iteration(told)


def test_paper_scores_what_was_read():
    signal, rng = np.stack([make_signal(seed)[0] for seed in range(12)]), np.random.default_rng(0)
    signal[8] = 0.001  # fell off: nothing to compare
    shown = np.zeros((12, 5000), bool)
    shown[:, 1000:3500] = True
    noisy = signal + rng.normal(0, 0.1, signal.shape) * signal.std(axis=1, keepdims=True)
    late = np.where(shown, np.roll(noisy, 15, axis=1) + 0.5, np.nan)
    late[1, :2000] = np.nan
    late[2] = np.nan
    signal[3] = -signal[0]
    scores = {score.lead: score for score in paper.score(late, signal, shown)}
    assert sorted(scores) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    assert scores[0].decibels == pytest.approx(20, abs=0.5) and scores[0].correlation > 0.99
    assert scores[1].decibels < 5 and scores[1].right  # what there is of it
    assert scores[2].decibels == 0 and not scores[2].right
    assert not scores[3].right and scores[3].correlation < 0.5


def test_paper_tells_refusals_faults_and_wrong_leads(tmp_path, monkeypatch):
    """A reader that knows the answer stands in for the real one, which is slow."""
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.3, (12, 5000)).cumsum(axis=1) / 20

    def read_picture(path):
        at = int(path[-5])
        if at == 0:
            raise UserError(f'{path}: no grid')
        if at == 1:
            raise IndexError('3')
        values = np.where(np.isfinite(made[at].sheet.truth), signal, np.nan)
        if at == 3:
            values[[6, 7]] = values[[7, 6]]
        return [types.SimpleNamespace(raw=Raw(values, list(LEADS), 500, ['mV'] * 12, []))]

    module = types.ModuleType('utils.ecg.paper')
    module.read_picture = read_picture
    monkeypatch.setitem(paper.sys.modules, 'utils.ecg.paper', module)
    made = [paper.make_picture('clean', at, signal, str(tmp_path)) for at in range(4)]
    rows = '\n'.join(paper.describe('clean', [paper.read(each) for each in made]))
    assert '4 sheets' in rows and 'leads right 91.7%  25.0% refused, faults: 1' in rows
    assert 'not read 1:  no grid' in rows and 'fault: IndexError' in rows
    assert 'clean0003.png (6x2 Cabrera): wrong V1, V2' in rows
    assert ' 0.0% not read, 0.0% invented' in rows
    paper.write_pictures(str(tmp_path / 'out'), made)
    assert len(list((tmp_path / 'out').iterdir())) == 5


def test_sheets_that_others_drew_are_compared_with_what_they_read(tmp_path, monkeypatch):
    signals = {name: np.stack([make_signal(seed + at)[0] for seed in range(12)])
               for at, name in enumerate(('001', '002'))}
    for folder in (paper_others.TRUE, paper_others.PICTURES, paper_others.OTHER):
        (tmp_path / folder).mkdir(parents=True)
    shown, noise = paper_others.shown_of_each(), np.random.default_rng(0).normal(size=(12, 5000))
    for name, signal in signals.items():
        (tmp_path / paper_others.PICTURES / f'{name}.png').touch()
        for folder, values in ((paper_others.TRUE, signal), (paper_others.OTHER, noise)):
            pd.DataFrame(values.T, columns=LEADS).to_csv(
                tmp_path / folder / f'{name}.csv', index=False)

    def read_picture(path):
        if '002' in path:
            raise UserError(f'{path}: no grid')
        values = np.where(shown, signals['001'], np.nan)
        return [types.SimpleNamespace(raw=Raw(values, list(LEADS), 500, ['mV'] * 12, []))]

    module = types.ModuleType('utils.ecg.paper')
    module.read_picture = read_picture
    monkeypatch.setitem(paper.sys.modules, 'utils.ecg.paper', module)
    rows = list(paper_others.compare(str(tmp_path), 3))
    assert 'leads right 100.0%, 1 of 2 refused' in rows[1]
    assert rows[2].startswith('theirs') and 'leads right 0.0%' in rows[2]
    assert rows[3:] == ['  002: no grid']
    (tmp_path / paper_others.PICTURES / '001.png').unlink()
    assert list(paper_others.compare(str(tmp_path), 3))[1].startswith('ours   1 of 1 refused')


def test_a_network_is_taught_to_part_rows_and_goes_on_where_it_was(tmp_path):
    """Two sheets and a few iterations: nothing is learnt, but what is written can be used."""
    write_competition(tmp_path / 'ecgs', train=2, val=0)
    sheets, out = str(tmp_path / 'sheets'), str(tmp_path / 'rows')
    teach_parting.draw_all(str(tmp_path / 'ecgs' / 'train'), sheets, 2)
    picture = cv2.imread(f'{sheets}/00000.png', cv2.IMREAD_UNCHANGED)
    ink, traces = picture[..., 0] > 100, (picture[..., 1:] > 127).any(axis=2)
    assert ink[traces].mean() > 0.5  # what is to be learnt lies on the ink
    for iterations in ('1', '2'):
        done = subprocess.run([sys.executable, '-m', 'benchmarks.teach_parting', 'learn', sheets,
                               out, '--iterations', iterations], capture_output=True, text=True)
        assert [line.split()[0] for line in done.stdout.splitlines()] == [iterations], done.stderr
    network = cv2.dnn.readNetFromONNX(f'{out}.onnx')
    network.setInput(np.zeros((1, 7, 32, 48), np.float32))
    assert network.forward().shape == (1, 12, 32, 48)
