"""Labels + probabilities -> F1, AUC, accuracy, intervals."""
import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score

from utils.answers.tasks import decide


def f1(targets, decisions):
    """F1 of tag 1: 2 TP / (2 TP + FP + FN); 0 where nothing is 1 in either."""
    return float(f1_score(targets, decisions, zero_division=0))


def auc(targets, probabilities):
    """Area under the ROC curve; nan where there is only one class.

    targets: array (n,) of 0 and 1; probabilities: float array (n,)
    """
    if len(np.unique(targets)) < 2:
        return float('nan')
    return float(roc_auc_score(targets, probabilities))


def sensitivity(targets, decisions):
    """The part of the abnormal records that is called abnormal; nan where there is none."""
    return float(np.mean(decisions[targets == 1])) if np.any(targets == 1) else float('nan')


def specificity(targets, decisions):
    """The part of the normal records that is called normal; nan where there is none."""
    return float(np.mean(1 - decisions[targets == 0])) if np.any(targets == 0) else float('nan')


def accuracy(targets, decisions):
    """The part of the records whose whole answer is right."""
    return float((targets == decisions).reshape(len(targets), -1).all(axis=1).mean())


def mean_f1(targets, decisions):
    """The mean of the classes' F1: arrays (n, classes) of 0 and 1."""
    return float(f1_score(targets, decisions, average='macro', zero_division=0))


def score(targets, probabilities, thresholds, task):
    """The scores of an answer.

    targets: int array (n,) of tags, or array (n, 12) of 0 and 1
    probabilities: float array (n,) of "abnormal", or (n, 12); thresholds: float or array (12,)
    Returns: dict with accuracy, f1, auc (task 2: accuracy of whole answers, means of the twelve F1
        and of the AUCs of classes that have both kinds) and, for task 2, class_f1 and class_auc;
        nan where a score is not defined
    """
    decisions = decide(probabilities, thresholds, task)
    scores = {'accuracy': accuracy(targets, decisions)}
    if not task.multi_label:
        return {**scores, 'f1': f1(targets, decisions), 'auc': auc(targets, probabilities)}
    class_f1 = f1_score(targets, decisions, average=None, zero_division=0).tolist()
    class_auc = [auc(*both) for both in zip(targets.T, probabilities.T)]
    defined = [value for value in class_auc if not np.isnan(value)]
    return {**scores, 'f1': float(np.mean(class_f1)),
            'auc': float(np.mean(defined)) if defined else float('nan'),
            'class_f1': class_f1, 'class_auc': class_auc}


def in_words(scores):
    """The three scores that both tasks have, of score(), in a few words."""
    return (f'F1 {scores["f1"]:.3f}, AUC {scores["auc"]:.3f}, accuracy '
            f'{scores["accuracy"]:.3f}')


def bootstrap_interval(function, arrays, seed, draws=1000):
    """95 % percentile interval of a score: records are drawn with replacement (Efron 1979).

    function: takes the arrays, returns a float; arrays: tuple of arrays with n rows each
    Returns: (low, high); draws that do not define the score are left out, nan where all are
    """
    rng, values = np.random.default_rng(seed), []
    for _ in range(draws):
        chosen = rng.integers(0, len(arrays[0]), len(arrays[0]))
        values.append(function(*(array[chosen] for array in arrays)))
    if not np.isfinite(values).any():
        return float('nan'), float('nan')
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(low), float(high)


def intervals(targets, probabilities, thresholds, seed, task):
    """Scores with their 95 % bootstrap intervals: yields (name, value, low, high).

    See score() for the arguments; seed: int, of the bootstrap
    """
    decisions = decide(probabilities, thresholds, task)
    scores = [('accuracy', accuracy, decisions)]
    if task.multi_label:
        scores += [('mean F1', mean_f1, decisions)]
    else:
        scores += [('F1', f1, decisions), ('AUC', auc, probabilities),
                   ('sensitivity', sensitivity, decisions), ('specificity', specificity, decisions)]
    for name, function, answer in scores:
        low, high = bootstrap_interval(function, (targets, answer), seed)
        yield name, function(targets, answer), low, high


def describe(targets, probabilities, thresholds, seed, task):
    """Lines, str, that say how good an answer is; the arguments are those of intervals()."""
    decisions = decide(probabilities, thresholds, task)
    for name, value, low, high in intervals(targets, probabilities, thresholds, seed, task):
        yield f'{name}: {value:.4f} (95 % interval {low:.4f} to {high:.4f})'
    if task.multi_label:
        all_scores = score(targets, probabilities, thresholds, task)
        yield f'mean AUC: {all_scores["auc"]:.4f}'
        for name, count, of_f1, of_auc in zip(task.class_names, targets.sum(axis=0),
                                              all_scores['class_f1'], all_scores['class_auc']):
            yield f'  {name}: {int(count)} records, F1 {of_f1:.4f}, AUC {of_auc:.4f}'
    else:
        yield str(pd.crosstab(targets, decisions, rownames=['truth'], colnames=['answer']))
