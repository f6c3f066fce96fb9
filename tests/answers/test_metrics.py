import numpy as np
import pytest

from utils.answers import metrics, tasks

ONE, TWO = tasks.TASKS[1], tasks.TASKS[2]


def test_scores_by_hand():
    truth = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([0.1, 0.6, 0.4, 0.7, 0.3])
    scores = metrics.score(truth, probabilities, 0.5, ONE)
    assert scores == {'accuracy': 0.6, 'f1': 0.5, 'auc': pytest.approx(4 / 6)}
    decisions = tasks.decide(probabilities, 0.5, ONE)
    assert metrics.sensitivity(truth, decisions) == 0.5
    assert metrics.specificity(truth, decisions) == pytest.approx(2 / 3)


def test_where_a_score_is_not_defined():
    zeros = np.zeros(4, int)
    assert np.isnan(metrics.auc(zeros, np.linspace(0, 1, 4)))
    assert np.isnan(metrics.sensitivity(zeros, zeros))
    assert np.isnan(metrics.specificity(zeros + 1, zeros))
    assert metrics.f1(zeros, zeros) == 0


def test_task_2_scores_by_hand():
    truth = np.zeros((4, 12), np.float32)
    truth[[0, 1, 2, 3], [0, 0, 1, 2]] = 1
    probabilities = np.where(truth == 1, 0.9, 0.1)
    probabilities[3, [2, 1]] = 0.2, 0.8
    scores = metrics.score(truth, probabilities, np.full(12, 0.5), TWO)
    assert scores['accuracy'] == 0.75
    assert scores['class_f1'][:3] == [1.0, pytest.approx(2 / 3), 0.0]
    assert scores['f1'] == pytest.approx((1 + 2 / 3) / 12)
    assert scores['class_auc'][:3] == [1.0, 1.0, 1.0] and np.isnan(scores['class_auc'][3])
    assert scores['auc'] == 1.0


def test_bootstrap_interval_covers_and_leaves_out_what_is_undefined():
    rng = np.random.default_rng(0)
    truth = (rng.random(400) < 0.5).astype(int)
    answer = np.where(rng.random(400) < 0.8, truth, 1 - truth)
    low, high = metrics.bootstrap_interval(metrics.accuracy, (truth, answer), 1)
    assert low < (truth == answer).mean() < high
    assert high - low == pytest.approx(2 * 1.96 * 0.02, rel=0.2)  # sqrt(0.8 * 0.2 / 400) = 0.02
    one = np.array([0] * 9 + [1])
    low, high = metrics.bootstrap_interval(metrics.auc, (one, np.linspace(0, 1, 10)), 1)
    assert (low, high) == (1.0, 1.0)


def test_threshold_of_many_records_is_the_best_and_of_few_near_a_half():
    rng = np.random.default_rng(3)
    truth = (rng.random(4000) < 0.4).astype(int)
    margins = rng.normal(2.0 * truth + 1.0, 1.0)  # parted best near 2, not at 0
    threshold = metrics.tune_thresholds(truth, margins)
    best = max(metrics.f1(truth, margins >= at) for at in np.linspace(-2, 5, 141))
    assert metrics.f1(truth, tasks.probabilities_of(margins) >= threshold) > best - 0.005
    few = metrics.tune_thresholds(truth[:20], margins[:20])
    assert 0.5 < few < tasks.probabilities_of(0.5) < threshold
    assert metrics.tune_thresholds(np.zeros(9, int), margins[:9]) == 0.5


def test_thresholds_of_task_2_follow_their_class_where_it_has_records():
    rng = np.random.default_rng(5)
    truth = (rng.random((2000, 12)) < 0.2).astype(np.float32)
    truth[:, 3] = 0  # a class without records
    margins = rng.normal(2.5 * truth, 1.0) + np.where(np.arange(12) == 0, 3.0, 0.0)
    thresholds = metrics.tune_thresholds(truth, margins)
    assert thresholds.shape == (12,) and thresholds[0] > 0.95 > thresholds[1]
    assert tasks.log_odds(thresholds[3]) == pytest.approx(
        np.median(tasks.log_odds(thresholds[1:])), abs=1.0)
