import numpy as np
import pytest

from utils.answers import metrics, tasks
from utils.answers.thresholds import tune_thresholds


def test_threshold_of_many_records_is_the_best_and_of_few_near_a_half():
    rng = np.random.default_rng(3)
    truth = (rng.random(4000) < 0.4).astype(int)
    margins = rng.normal(2.0 * truth + 1.0, 1.0)  # parted best near 2, not at 0
    threshold = tune_thresholds(truth, margins)
    best = max(metrics.f1(truth, margins >= at) for at in np.linspace(-2, 5, 141))
    assert metrics.f1(truth, tasks.probabilities_of(margins) >= threshold) > best - 0.005
    few = tune_thresholds(truth[:20], margins[:20])
    assert 0.5 < few < tasks.probabilities_of(0.5) < threshold
    assert tune_thresholds(np.zeros(9, int), margins[:9]) == 0.5


def test_thresholds_of_task_2_follow_their_class_where_it_has_records():
    rng = np.random.default_rng(5)
    truth = (rng.random((2000, 12)) < 0.2).astype(np.float32)
    truth[:, 3] = 0  # a class without records
    margins = rng.normal(2.5 * truth, 1.0) + np.where(np.arange(12) == 0, 3.0, 0.0)
    thresholds = tune_thresholds(truth, margins)
    assert thresholds.shape == (12,) and thresholds[0] > 0.95 > thresholds[1]
    assert tasks.log_odds(thresholds[3]) == pytest.approx(
        np.median(tasks.log_odds(thresholds[1:])), abs=1.0)
