"""Benchmarks run to their end and print their figures; what the figures are is not tested."""
import pytest

from benchmarks import overhead, reading
from benchmarks.pictures import label_all
from tests.helpers import write_competition


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
