"""Labels + probabilities -> F1, AUC, accuracy, confusion matrix. Knows nothing of Paddle."""
import numpy as np

from utils.tasks import decide

TRUST_AFTER = 2  # records of a class, after which its own threshold counts as much as the shared one


def score(targets, probabilities, thresholds, task):
    """The scores of an answer.

    targets: int array (n,) of tags for task 1, array (n, 12) of 0 and 1 for task 2
    probabilities: float array (n,) of "abnormal" for task 1, (n, 12) for task 2; thresholds: float or array (12,)
    Returns: dict with accuracy, f1, auc (task 2: accuracy of whole answers, means of the twelve F1 and of the AUCs of
        classes that have both kinds) and, for task 2, class_f1 and class_auc; nan where a score is not defined
    """
    decisions = decide(probabilities, thresholds, task)
    if not task.multi_label:
        return {'accuracy': float((decisions == targets).mean()), 'f1': f1(targets, decisions),
                'auc': auc(targets, probabilities)}
    class_f1 = [f1(truth, answer) for truth, answer in zip(targets.T, decisions.T)]
    class_auc = [auc(truth, values) for truth, values in zip(targets.T, probabilities.T)]
    defined = [value for value in class_auc if not np.isnan(value)]
    return {'accuracy': float((decisions == targets).all(axis=1).mean()), 'f1': float(np.mean(class_f1)),
            'auc': float(np.mean(defined)) if defined else float('nan'), 'class_f1': class_f1, 'class_auc': class_auc}


def f1(targets, decisions):
    """F1 of tag 1: 2 TP / (2 TP + FP + FN); 0 where nothing is 1 in either.

    targets, decisions: arrays (n,) of 0 and 1
    """
    hits = np.sum((targets == 1) & (decisions == 1))
    total = np.sum(targets == 1) + np.sum(decisions == 1)
    return float(2 * hits / total) if total else 0.0


def auc(targets, probabilities):
    """Area under the ROC curve: how often an abnormal record gets more than a normal one, ties count half.

    targets: array (n,) of 0 and 1; probabilities: float array (n,)
    Returns: float, nan where there is only one class
    """
    curve = roc_curve(targets, probabilities)
    if curve is None:
        return float('nan')
    false_alarms, sensitivity = curve
    return float(np.sum(np.diff(false_alarms) * (sensitivity[1:] + sensitivity[:-1]) / 2))


def roc_curve(targets, probabilities):
    """The ROC curve, one point per distinct probability.

    targets: array (n,) of 0 and 1; probabilities: float array (n,)
    Returns: (1 - specificity, sensitivity), float arrays that rise from 0 to 1, or None where there is only one class
    """
    targets, probabilities = np.asarray(targets) == 1, np.asarray(probabilities)
    positives, negatives = targets.sum(), (~targets).sum()
    if not positives or not negatives or not np.isfinite(probabilities).all():
        return None
    order = np.argsort(-probabilities, kind='stable')
    last_of_ties = np.append(np.diff(probabilities[order]) != 0, True)
    hits = np.cumsum(targets[order])[last_of_ties]
    alarms = np.cumsum(~targets[order])[last_of_ties]
    return np.append(0, alarms / negatives), np.append(0, hits / positives)


def confusion(targets, decisions):
    """Counts of task 1: dict with true_normal, false_abnormal, false_normal, true_abnormal."""
    return {'true_normal': int(np.sum((targets == 0) & (decisions == 0))),
            'false_abnormal': int(np.sum((targets == 0) & (decisions == 1))),
            'false_normal': int(np.sum((targets == 1) & (decisions == 0))),
            'true_abnormal': int(np.sum((targets == 1) & (decisions == 1)))}


def sensitivity(targets, decisions):
    """The part of the abnormal records that is called abnormal; nan where there is none."""
    return float(np.mean(decisions[targets == 1] == 1)) if np.any(targets == 1) else float('nan')


def specificity(targets, decisions):
    """The part of the normal records that is called normal; nan where there is none."""
    return float(np.mean(decisions[targets == 0] == 0)) if np.any(targets == 0) else float('nan')


def bootstrap_interval(function, arrays, seed, draws=1000):
    """95 % percentile interval of a score: records are drawn with replacement, `draws` times (Efron 1979).

    function: takes the arrays, returns a float; arrays: tuple of arrays with n rows each; seed: int
    Returns: (low, high), nan where no draw defines the score
    """
    rng = np.random.default_rng(seed)
    count = len(arrays[0])
    values = []
    for _ in range(draws):
        chosen = rng.integers(0, count, count)
        values.append(function(*(array[chosen] for array in arrays)))
    values = np.array(values)
    values = values[np.isfinite(values)]
    return tuple(float(v) for v in np.percentile(values, (2.5, 97.5))) if len(values) else (float('nan'),) * 2


def tune_thresholds(targets, probabilities):
    """For each class of task 2 the threshold with the best F1, pulled towards the best one that all classes share.

    Where a class has a handful of records its own best threshold is a matter of luck: one record that is missed can put
    it next to 0, and every record gets the class.
    targets: array (n, 12) of 0 and 1; probabilities: float array (n, 12)
    Returns: float array (12,), the shared one where a class has no record or every record
    """
    grid = np.linspace(0.02, 0.98, 49)
    scores = np.array([np.mean([f1(truth, values >= t) for truth, values in zip(targets.T, probabilities.T)])
                       for t in grid])
    best = np.flatnonzero(scores == scores.max())
    shared = grid[best[len(best) // 2]]
    thresholds = np.full(targets.shape[1], shared)
    for index, (truth, values) in enumerate(zip(targets.T, probabilities.T)):
        count = truth.sum()
        if 0 < count < len(truth):
            own = _best_threshold(truth, values)
            thresholds[index] = (count * own + TRUST_AFTER * shared) / (count + TRUST_AFTER)
    return thresholds


def _best_threshold(truth, values):
    """The threshold with the best F1 of one class, halfway between two neighbouring probabilities."""
    order = np.argsort(-values, kind='stable')
    hits = np.cumsum(truth[order])
    scores = 2 * hits / (np.arange(1, len(truth) + 1) + truth.sum())
    ordered = np.append(values[order], 0.0)
    scores[ordered[:-1] == ordered[1:]] = -1  # a threshold cannot part equal probabilities
    best = int(scores.argmax())
    return (ordered[best] + ordered[best + 1]) / 2
