import math

import numpy as np
import pytest

from utils import metrics, tasks

ONE, TWO = tasks.TASKS[1], tasks.TASKS[2]
#                                                       true   false  true    false
#                                                       normal alarm  abnorm. normal
TRUTH = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1])  # 3      2      4       3
PROBABILITIES = np.array([.1, .2, .3, .6, .7, .9, .8, .7, .5, .4, .2, .1])


def brute_force_auc(targets, probabilities):
    pairs = [(a > b) + 0.5 * (a == b) for a in probabilities[targets == 1] for b in probabilities[targets == 0]]
    return sum(pairs) / len(pairs)


def test_scores_by_hand():
    decisions = tasks.decide(PROBABILITIES, 0.5, ONE)
    assert metrics.confusion(TRUTH, decisions) == {'true_normal': 3, 'false_abnormal': 2, 'false_normal': 3,
                                                   'true_abnormal': 4}
    assert metrics.f1(TRUTH, decisions) == pytest.approx(2 * 4 / (2 * 4 + 2 + 3))
    assert metrics.sensitivity(TRUTH, decisions) == pytest.approx(4 / 7)
    assert metrics.specificity(TRUTH, decisions) == pytest.approx(3 / 5)
    scores = metrics.score(TRUTH, PROBABILITIES, 0.5, ONE)
    # Of the 35 pairs: .9 and .8 win 5 each, .7 wins 4 and ties 1, .5 and .4 win 3 each, .2 wins 1 and ties 1, .1 ties 1.
    assert scores == {'accuracy': pytest.approx(7 / 12), 'f1': pytest.approx(8 / 13), 'auc': pytest.approx(22.5 / 35)}


@pytest.mark.parametrize('seed', range(20))
def test_auc_against_all_pairs(seed):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, 40)
    targets[:2] = 0, 1
    probabilities = np.round(rng.random(40), 1 + seed % 3)  # many ties, some, few
    assert metrics.auc(targets, probabilities) == pytest.approx(brute_force_auc(targets, probabilities), abs=1e-12)


@pytest.mark.parametrize('probabilities, expected', [([0, 0, 1, 1], 1), ([1, 1, 0, 0], 0), ([.5] * 4, .5)])
def test_auc_at_its_ends(probabilities, expected):
    assert metrics.auc(np.array([0, 0, 1, 1]), np.array(probabilities)) == expected


def test_auc_sees_the_order_alone():
    rng = np.random.default_rng(0)
    targets, probabilities = np.arange(50) % 2, rng.random(50)
    assert metrics.auc(targets, probabilities) == metrics.auc(targets, probabilities ** 3 / 10)
    assert metrics.auc(1 - targets, 1 - probabilities) == pytest.approx(metrics.auc(targets, probabilities))


def test_roc_curve():
    false_alarms, sensitivity = metrics.roc_curve(np.array([0, 1, 0, 1]), np.array([.1, .4, .4, .8]))
    assert false_alarms.tolist() == [0, 0, .5, 1] and sensitivity.tolist() == [0, .5, 1, 1]


def test_where_a_score_is_not_defined():
    ones = np.ones(3, dtype=int)
    assert math.isnan(metrics.auc(ones, np.arange(3) / 3)) and math.isnan(metrics.specificity(ones, ones))
    assert math.isnan(metrics.sensitivity(1 - ones, ones))
    assert metrics.f1(1 - ones, 1 - ones) == 0.0
    assert metrics.f1(ones, ones) == 1.0
    assert math.isnan(metrics.auc(np.array([0, 1]), np.array([np.nan, .5])))


def test_bootstrap_interval():
    rng = np.random.default_rng(5)
    targets = rng.integers(0, 2, 200)
    decisions = np.where(rng.random(200) < 0.8, targets, 1 - targets)

    def accuracy(t, d):
        return float(np.mean(t == d))

    low, high = metrics.bootstrap_interval(accuracy, (targets, decisions), 1)
    p = accuracy(targets, decisions)
    half = 1.96 * math.sqrt(p * (1 - p) / 200)  # the normal approximation
    assert low == pytest.approx(p - half, abs=0.02) and high == pytest.approx(p + half, abs=0.02)
    assert (low, high) == metrics.bootstrap_interval(accuracy, (targets, decisions), 1)
    assert (low, high) != metrics.bootstrap_interval(accuracy, (targets, decisions), 2)
    assert all(math.isnan(v) for v in metrics.bootstrap_interval(metrics.auc, (np.ones(5), np.ones(5)), 1))


def test_bootstrap_leaves_out_draws_without_a_score():
    # With one abnormal record among four, a third of the draws has none and no AUC.
    low, high = metrics.bootstrap_interval(metrics.auc, (np.array([0, 0, 0, 1]), np.array([.1, .2, .3, .9])), 0)
    assert (low, high) == (1.0, 1.0)


def test_task_2_scores_by_hand():
    targets = np.zeros((4, 12))
    targets[0, 0] = targets[1, 0] = targets[2, 4] = targets[3, 4] = targets[3, 9] = 1
    probabilities = np.full((4, 12), 0.1)
    probabilities[0, 0], probabilities[1, 4], probabilities[2, 4], probabilities[3, [4, 9]] = .9, .8, .9, .7
    scores = metrics.score(targets, probabilities, np.full(12, 0.5), TWO)
    class_f1 = [0.0] * 12
    class_f1[0], class_f1[4], class_f1[9] = 2 / 3, 4 / 5, 1.0
    assert scores['class_f1'] == pytest.approx(class_f1)
    assert scores['f1'] == pytest.approx(sum(class_f1) / 12)
    assert scores['accuracy'] == 3 / 4
    # Normal: .9 beats both others, .1 ties with both; AF: .9 wins twice, .7 beats .1 and loses to .8.
    assert [scores['class_auc'][i] for i in (0, 4, 9)] == pytest.approx([3 / 4, 3 / 4, 1])
    assert scores['auc'] == pytest.approx(2.5 / 3) and math.isnan(scores['class_auc'][1])


@pytest.mark.parametrize('seed', range(10))
def test_tuned_thresholds_are_the_best(seed):
    rng = np.random.default_rng(seed)
    targets = (rng.random((30, 12)) < 0.3).astype(int)
    targets[:, 0], targets[:, 1] = 0, 1
    probabilities = np.round(np.clip(targets * 0.3 + rng.random((30, 12)) * 0.7, 0, 1), 1)
    thresholds = metrics.tune_thresholds(targets, probabilities)
    shared = thresholds[0]
    assert thresholds[1] == shared
    for truth, values, threshold in list(zip(targets.T, probabilities.T, thresholds))[2:]:
        count = truth.sum()
        tuned = (threshold * (count + metrics.TRUST_AFTER) - shared * metrics.TRUST_AFTER) / count  # before the pull
        best = max(metrics.f1(truth, values >= t) for t in np.unique(values))
        assert metrics.f1(truth, values >= tuned) == pytest.approx(best)
