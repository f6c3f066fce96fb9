"""Average beats and what is measured in them, where it is known what was put in."""
import numpy as np
import pytest

from utils.datasets import demo
from utils.ecg.beats import AFTER, BEFORE, MEASURES, average_beat, find_beats, measure
from utils.ecg.records import LEADS


def measured(signal):
    return dict(zip(MEASURES, measure(signal)))


@pytest.mark.parametrize('case', ['normal', 'tachycardia', 'bradycardia', 'AF', 'CRBBB', 'T'])
def test_rate_and_places_of_made_up_beats(case):
    for index in range(1, 9):
        signal, truth = demo.make_record(3, index, (case,))
        beats = find_beats(signal)
        assert abs(len(beats) - truth['heart_rate'] / 6) < 1.5
        assert measured(signal)['heart rate'] == pytest.approx(truth['heart_rate'],
                                                               rel=0.15 if case == 'AF' else 0.02)


def test_an_ectopic_beat_is_left_out():
    parts = []
    for index in range(1, 9):
        signal, truth = demo.make_record(4, index, ('PVC',))
        parts.append(average_beat(signal)[2])
        # The patient's own QRS, not the wide one.
        assert measured(signal)['QRS width'] == pytest.approx(truth['qrs'], abs=0.02)
    assert 0.7 < np.mean(parts) < 0.95


def test_gain_and_shift_change_what_they_should():
    signal = demo.make_record(5, 1, ('normal',))[0]
    beat = average_beat(signal)[0]
    assert beat.shape == (12, BEFORE + AFTER)
    assert np.allclose(average_beat(signal * np.float32(2))[0], 2 * beat, atol=0.02)
    later = np.roll(signal, 700, axis=1)
    assert np.abs(average_beat(later)[0] - beat).max() < 0.15
    sign = measured(signal)
    assert sign['R II'] > 0.4 and sign['S aVR'] < -0.4 and sign[f'T {LEADS[10]}'] > 0


@pytest.mark.parametrize('signal', [
    np.zeros((12, 5000)), np.ones((12, 5000)), np.random.default_rng(0).normal(0, 0.1, (12, 5000)),
    np.eye(12, 5000, 2500) * 5], ids=['flat', 'offset', 'noise', 'one spike'])
def test_whatever_a_record_holds_there_is_something_to_draw(signal):
    with np.errstate(all='ignore'):
        assert np.isfinite(measure(signal.astype(np.float32))).all()
