"""Probabilities that mean what they say, and which answers are unsure. Learnt from records that the
network was not trained on: of those that it is 80 % sure of, 80 % should be right.

A temperature divides the log-odds (Guo et al., ICML 2017); it changes no order and no tag.
"""
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from utils.tasks import log_odds

FEWEST = 30  # records. With fewer, a temperature did harm as often as good; see fit_temperature()
PARTS = 5  # the records are parted, so that each is judged by a temperature learnt from the others
BINS = 10  # of the reliability curve, equally wide


class Band(NamedTuple):
    """Around the threshold: answers that are less confident are unsure.

    width: float, log-odds; outside, right: of the records that it was learnt from, how many were
    more confident, and of how many of these the answer was right
    promised: bool, new records of the same kind will be right so often, too, on average
    """
    width: float
    outside: int
    right: int
    promised: bool


def fit_temperature(logits, targets, around=1.0):
    """The temperature with the smallest log loss, held back while there are few records.

    Holding back (a normal prior for its logarithm, of standard deviation 0.3) keeps the fit from
    being led astray: on samples of 30 out of 353 real records it lost at most 0.005 where there was
    nothing to mend, and won 0.02 where 1.6 was right, 0.3 where 3.5 was; without it, 0.03 were lost.
    logits: float array (n,) of log-odds; targets: array (n,) of 0 and 1; around: float
    Returns: float, 1 for probabilities that are right as they are, more for those too extreme
    """
    def loss(size):
        return _losses(logits / (around * np.exp(size)), targets).sum() + 5 * size ** 2
    return float(around * np.exp(minimize_scalar(loss, bounds=(-3, 3), method='bounded').x))


def calibrate(probabilities, targets, seed):
    """Find the temperature, one for all classes or one for each, whichever holds for records that
    it was not learnt from; 1 where none does, or where there are too few records.

    probabilities: float array (n,) of "abnormal", or (n, 12); targets: array of the same shape
    Returns: (temperature, calibrated, note); temperature: float, or list of 12, which divides the
        network's logits; calibrated: as `probabilities`, each record's by a temperature that was
        learnt from the others; note: str
    """
    logits, count = log_odds(probabilities), len(targets)
    if count < FEWEST:
        return 1.0, probabilities, (f'probabilities as the network gives them: {count} records are '
                                    f'too few for a temperature, expected {FEWEST}')
    part = np.random.default_rng((seed, 3)).permutation(count) % PARTS
    temperature, best, note = 1.0, logits, 'probabilities as the network gives them: no temperature'
    for fit, what in ((_fit_shared, 'for all classes'), (_fit_each, 'for each class')):
        tried = np.empty_like(logits)
        for each in range(PARTS):
            out = part == each
            tried[out] = logits[out] / fit(logits[~out], targets[~out])
        if _losses(tried, targets).mean() < _losses(best, targets).mean():
            temperature, best = fit(logits, targets), tried
            note = f'temperature {what if logits.ndim > 1 else ""}'.strip()
    losses = [_losses(each, targets).mean() for each in (logits, best)]
    return (np.asarray(temperature).tolist(), _sigmoid(best),
            f'{note} {np.round(temperature, 2).tolist()}: log loss on {count} records '
            f'{losses[0]:.4f}, then {losses[1]:.4f}')


def _fit_shared(logits, targets):
    return fit_temperature(logits.ravel(), targets.ravel())


def _fit_each(logits, targets):
    shared = _fit_shared(logits, targets)
    if logits.ndim == 1:
        return shared
    return np.array([fit_temperature(*both, shared) for both in zip(logits.T, targets.T)])


def _losses(logits, targets):
    return np.logaddexp(0, np.where(targets == 1, -logits, logits))


def _sigmoid(logits):
    return np.exp(-np.logaddexp(0, -logits))


def uncalibrated(probabilities, temperature):
    """What calibrated probabilities, such as thresholds, were before the temperature."""
    return _sigmoid(log_odds(probabilities) * np.asarray(temperature))


def reliability(probabilities, targets):
    """How often what is called so probable is true, in bins of equal width that are not empty.

    probabilities, targets: arrays of the same shape; of task 2 all classes are taken together
    Returns: float array (bins, 5): mean probability, part that is true, low and high end of its
        95 % interval (Wilson 1927), number of answers
    """
    values, truth = np.ravel(probabilities), np.ravel(targets)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    rows = []
    for each in np.unique(bins):
        inside, z = bins == each, 1.96
        count, true = inside.sum(), truth[inside].mean()
        middle, wide = true + z * z / (2 * count), z * np.sqrt(
            true * (1 - true) / count + z * z / (4 * count * count))
        low, high = (middle + np.array([-wide, wide])) / (1 + z * z / count)
        rows.append((values[inside].mean(), true, low, high, count))
    return np.array(rows)


def expected_error(probabilities, targets):
    """Expected calibration error: how far the reliability curve is off, on average over answers."""
    mean, true, _, _, count = reliability(probabilities, targets).T
    return float((count * np.abs(mean - true)).sum() / count.sum())


def confidence_of(probabilities, thresholds):
    """How far from being decided otherwise: log-odds, float array (n,); task 2: its nearest class."""
    margins = np.abs(log_odds(probabilities) - log_odds(thresholds))
    return margins.reshape(len(margins), -1).min(axis=1)


def find_band(confidence, right, sure):
    """The narrowest band outside of which a part `sure` of the answers is right (split conformal).

    To promise that for new records, one more that is wrong is added to those that are known
    (Jin and Candes, JMLR 2023). Where that fails, the band of what was right so far is returned.
    confidence: float array (n,), of confidence_of(); right: bool array (n,); sure: float
    Returns: Band; its width is inf where not even the most confident answers are right so often
    """
    order = np.argsort(-confidence, kind='stable')
    count, wrong = np.arange(1, len(order) + 1), np.cumsum(~right[order])
    for more in (1, 0):
        enough = np.flatnonzero(wrong + more <= (1 - sure) * (count + more) + 1e-9)
        if len(enough):
            last = enough[-1]
            return Band(float(confidence[order[last]]), int(count[last]),
                        int(count[last] - wrong[last]), more == 1)
    return Band(float('inf'), 0, 0, False)
