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
