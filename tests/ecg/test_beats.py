"""Beats and average beats, where it is known what was put in."""
import numpy as np
import pytest

from utils.datasets import demo
from utils.ecg.beats import AFTER, BEFORE, average_beat, find_beats
from utils.ecg.records import LEADS


def widths(beat):
    """How long each lead is steep, s."""
    slope = np.abs(np.gradient(beat, axis=1))
    return (slope > 0.15 * slope.max(axis=1, keepdims=True)).sum(axis=1) / 500


@pytest.mark.parametrize('case', ['normal', 'tachycardia', 'bradycardia', 'AF', 'CRBBB', 'T'])
def test_rate_and_places_of_made_up_beats(case):
    for index in range(1, 9):
        signal, truth = demo.make_record(3, index, (case,))
        beats = find_beats(signal)
        assert abs(len(beats) - truth['heart_rate'] / 6) < 1.5
        assert 30000 / np.median(np.diff(beats)) == pytest.approx(
            truth['heart_rate'], rel=0.15 if case == 'AF' else 0.02)


def test_an_ectopic_beat_is_left_out():
    parts = []
    for index in range(1, 9):
        signal, truth = demo.make_record(4, index, ('PVC',))
        beat, _, part = average_beat(signal)
        parts.append(part)
        assert np.median(widths(beat)) < 0.12  # the patient's own QRS, not the wide one
    assert 0.7 < np.mean(parts) < 0.95


def test_gain_and_shift_change_what_they_should():
    signal = demo.make_record(5, 1, ('normal',))[0]
    beat = average_beat(signal)[0]
    assert beat.shape == (12, BEFORE + AFTER)
    assert np.allclose(average_beat(signal * np.float32(2))[0], 2 * beat, atol=0.02)
    later = np.roll(signal, 700, axis=1)
    assert np.abs(average_beat(later)[0] - beat).max() < 0.15
    qrs, t_wave = beat[:, BEFORE - 40:BEFORE + 40], beat[:, BEFORE + 60:]
    assert qrs[1].max() > 0.4 and qrs[LEADS.index('aVR')].min() < -0.4 and t_wave[10].max() > 0.05


@pytest.mark.parametrize('signal', [
    np.zeros((12, 5000)), np.ones((12, 5000)), np.random.default_rng(0).normal(0, 0.1, (12, 5000)),
    np.eye(12, 5000, 2500) * 5], ids=['flat', 'offset', 'noise', 'one spike'])
def test_whatever_a_record_holds_there_is_something_to_draw(signal):
    with np.errstate(all='ignore'):
        assert np.isfinite(average_beat(signal.astype(np.float32))[0]).all()
