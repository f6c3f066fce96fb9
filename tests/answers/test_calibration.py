"""Temperature, calibration error, and the band of unsure answers."""

import numpy as np
import pytest

from utils.answers import calibration, tasks
from utils.answers.tasks import probabilities_of
from utils.answers.thresholds import tune_thresholds


def sample(count, seed, classes=None, temperature=1.0):
    """Log-odds that are `temperature` times too extreme, and what came true."""
    rng = np.random.default_rng(seed)
    margins = rng.normal(0, 2, count if classes is None else (count, classes))
    true = rng.random(margins.shape) < probabilities_of(margins)
    return margins * temperature, true.astype(int)


def loss(margins, targets):
    return np.logaddexp(0, np.where(targets == 1, -margins, margins)).mean()


@pytest.mark.parametrize('too_extreme', [0.6, 3.0])
def test_finds_the_temperature_and_less_error(too_extreme):
    margins, targets = sample(4000, 1, temperature=too_extreme)
    temperature, calibrated, _ = calibration.calibrate(margins, targets, 0)
    assert temperature == pytest.approx(too_extreme, rel=0.1)
    before, after = (calibration.reliability(probabilities_of(each), targets)[2]
                     for each in (margins, calibrated))
    assert after < 0.02 < before


@pytest.mark.parametrize('margins, targets', [
    (np.full(40, 9.0), np.ones(40, int)), (np.zeros(40), np.tile([0, 1], 20)),
    (np.tile([-700.0, 700.0], 20), np.tile([0, 1], 20)),
    (np.tile([-700.0, 700.0], 20), np.tile([1, 0], 20))])
def test_stays_finite_where_the_records_say_nothing(margins, targets):
    temperature, calibrated, _ = calibration.calibrate(margins, targets, 0)
    assert 0 < temperature < 1000 and np.isfinite(calibrated).all()


def test_few_records_are_left_alone_or_little_harmed():
    margins, targets = sample(calibration.FEWEST - 1, 2, temperature=5.0)
    temperature, calibrated, note = calibration.calibrate(margins, targets, 0)
    assert temperature == 1.0 and (calibrated == margins).all()
    assert 'not calibrated: 29' in note and '30 are needed' in note

    def change(too_extreme):
        """Judged by very many others."""
        others, truth = sample(20000, 99, temperature=too_extreme)
        values = [calibration.calibrate(*sample(40, seed, temperature=too_extreme), seed)[0]
                  for seed in range(40)]
        return np.mean([loss(others / value, truth) for value in values]) - loss(others, truth)
    assert change(1.0) < 0.01 and change(3.0) < -0.1


def test_task_2_takes_a_temperature_for_each_class_where_they_differ():
    margins, targets = sample(400, 3, classes=12)
    each = np.linspace(0.5, 4, 12)
    temperature, calibrated, _ = calibration.calibrate(margins * each, targets, 0)
    assert np.shape(temperature) == (12,) and np.corrcoef(temperature, each)[0, 1] > 0.9
    assert calibrated.shape == (400, 12)


def test_calibrated_for_a_record_does_not_depend_on_its_own_label():
    margins, targets = sample(300, 4, temperature=2.0)
    before = calibration.calibrate(margins, targets, 0)[1]
    changed = targets.copy()
    changed[7] = 1 - changed[7]
    after = calibration.calibrate(margins, changed, 0)[1]
    assert before[7] == after[7] and (before != after).any()


def test_a_temperature_changes_no_tag_of_task_1():
    margins, targets = sample(200, 8, temperature=3.0)
    task, plain = tasks.TASKS[1], tune_thresholds(targets, margins)
    temperature = calibration.calibrate(margins, targets, 0)[0]
    threshold = tune_thresholds(targets, margins / temperature)
    new, _ = sample(5000, 9, temperature=3.0)
    assert temperature > 2 and abs(threshold - plain) > 1e-3
    assert (tasks.decide(probabilities_of(new), plain, task)
            == tasks.decide(probabilities_of(new / temperature), threshold, task)).all()


@pytest.mark.parametrize('probabilities, targets, error', [
    (np.full(1000, 0.7), np.arange(1000) < 700, 0.0),
    (np.full(1000, 0.9), np.arange(1000) < 600, 0.3),
    (np.array([0.0, 1.0]), np.array([0, 1]), 0.0),
    (np.array([[0.25, 0.25], [0.75, 0.75]]), np.array([[1, 0], [1, 1]]), 0.25)])
def test_calibration_error_by_hand(probabilities, targets, error):
    assert calibration.reliability(probabilities, targets)[2] == pytest.approx(error)


def test_confidence_is_the_distance_to_the_threshold_and_of_task_2_the_nearest_class():
    one = calibration.confidence_of(np.array([0.2, 0.5, 0.8]), 0.2)
    assert one == pytest.approx([0, np.log(4), np.log(16)])
    both = calibration.confidence_of(np.array([[0.5, 0.9], [0.99, 0.2]]), np.array([0.1, 0.5]))
    assert both == pytest.approx([np.log(9), np.log(4)])


def test_band_is_the_narrowest_that_keeps_what_it_promises():
    confidence = np.arange(300.0)
    right = np.ones(300, bool)
    right[:100] = np.arange(100) % 2  # the 100 least confident are right every second time
    band = calibration.find_band(confidence, right, 0.95)
    assert band.promised and band.outside == (confidence >= band.width).sum()
    assert band.right == right[confidence >= band.width].sum()
    assert (band.outside - band.right + 1) / (band.outside + 1) <= 0.05
    narrower = confidence >= band.width - 1
    assert ((~right[narrower]).sum() + 1) / (narrower.sum() + 1) > 0.05


def test_bands_where_there_is_little_to_go_by():
    few = calibration.find_band(np.arange(10.0), np.arange(10) > 4, 0.95)
    assert few == calibration.Band(5.0, 10, 5, 5, False)
    assert 'too few' in calibration.describe(few, 0.95)
    none = calibration.find_band(np.arange(40.0), np.arange(40) < 30, 0.95)
    assert none.width == float('inf') and 'not even' in calibration.describe(none, 0.95)
    alike = np.ones(60, bool)
    alike[30:33] = False  # equally confident answers are on the same side
    assert calibration.find_band(np.full(60, 20.7), alike, 0.95).outside in (0, 60)


def test_the_promise_is_kept_for_new_records():
    """Over many draws of 300 known records, of the sure answers among new ones 95 % are right."""
    rng = np.random.default_rng(7)
    parts = []
    for _ in range(200):
        margins = rng.normal(0, 3, 600)
        right = rng.random(600) < probabilities_of(np.abs(margins))
        band = calibration.find_band(np.abs(margins[:300]), right[:300], 0.95)
        sure = np.abs(margins[300:]) >= band.width
        if band.promised and sure.any():
            parts.append(right[300:][sure].mean())
    assert len(parts) > 180 and np.mean(parts) > 0.945
