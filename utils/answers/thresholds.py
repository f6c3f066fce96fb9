"""How it is decided what an answer is: learnt from records that were not trained on."""
import numpy as np
from sklearn.metrics import precision_recall_curve

from utils.answers import calibration, metrics
from utils.answers.tasks import probabilities_of

# Records of the rarer kind, after which a threshold counts as much as what it is pulled towards.
TRUST_SHARED = 50
TRUST_OWN = 2


def learn(targets, margins, task, seed):
    """Learn the temperature and the thresholds, and how good the answers are with them.

    targets: as tasks.read_reference(); margins: as tasks.margins_of()
    Returns: (learnt, calibrated, note): dict for metrics.json, plain values; the others as
        calibration.calibrate() returns them
    """
    temperature, calibrated, note = calibration.calibrate(margins, targets, seed)
    thresholds = tune_thresholds(targets, margins / temperature)
    scores = metrics.score(targets, probabilities_of(margins / temperature), thresholds, task)
    learnt = {'temperature': np.asarray(temperature).tolist(), 'threshold': thresholds.tolist(),
              'validation': scores}
    return learnt, calibrated, note


def tune_thresholds(targets, margins):
    """The threshold with the best F1 of each class, pulled towards 0.5 where records are few.

    targets: int array (n,), or array (n, 12) of 0 and 1; margins: log-odds, float array (n,) or
    (n, 12), of records that were not trained on
    Returns: float array () or (12,) of probabilities
    """
    if targets.ndim == 1:
        return probabilities_of(_pulled(targets, margins, 0.0, TRUST_SHARED))
    shared = _pulled(targets.ravel(), margins.ravel(), 0.0, TRUST_SHARED)
    return probabilities_of([_pulled(*each, shared, TRUST_OWN)
                             for each in zip(targets.T, margins.T)])


def _pulled(truth, margins, towards, trust_after):
    """The log-odds with the best F1, pulled: as far as `trust_after` records of the rarer kind
    weigh against those that are there."""
    count = min(truth.sum(), len(truth) - truth.sum())
    if count == 0:
        return towards
    precision, recall, at = precision_recall_curve(truth, margins)
    scores = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = int(scores[:-1].argmax())
    below = at[best - 1] if best else at[best]
    return (count * (at[best] + below) / 2 + trust_after * towards) / (count + trust_after)
