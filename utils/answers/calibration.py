"""Probabilities that mean what they say, and answers that are unsure: learnt from records that the
network was not trained on. A temperature divides the log-odds (Guo et al., ICML 2017).
"""
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from utils.answers.tasks import log_odds

FEWEST = 30  # records; with fewer, a temperature does harm as often as good (docs/report.md)
HELD_BACK = 10  # the inverse of its logarithm's variance, as expected before anything is known
PARTS = 5  # of the records, so that each is judged by a temperature learnt from the others
BINS, MANY = 10, 200  # bins of the reliability curve, equally wide; half of them for few answers
PROMISE = 12  # records times 1 - sure, at least, before anything is promised of new ones


class Band(NamedTuple):
    """Around the threshold: answers with less confidence than `width`, in log-odds, are unsure.

    count, outside, right: of the records that it was learnt from, how many there were, how many had
    more, and how many of these were right; promised: bool, new ones will be right as often
    """
    width: float
    count: int
    outside: int
    right: int
    promised: bool


def calibrate(margins, targets, seed):
    """Find the temperature: one for all classes or one for each, whichever holds for records that
    it was not learnt from; 1 where none does, or where there are too few records.

    margins: log-odds, float array (n,) or (n, 12); targets: array of 0 and 1 of the same shape
    Returns: (temperature, calibrated, note): float, or array (12,), that margins are divided by;
        the margins, each divided by a temperature that was learnt from other records; str
    """
    count = len(targets)
    if count < FEWEST:
        return 1.0, margins, (f'probabilities are not calibrated: {count} validation records, '
                              f'{FEWEST} are needed')
    part = np.random.default_rng((seed, 3)).permutation(count) % PARTS
    temperature, best = 1.0, margins
    for fit in (_fit_shared, _fit_each)[:margins.ndim]:
        tried = np.empty_like(margins)
        for held_out in (part == each for each in range(PARTS)):
            tried[held_out] = margins[held_out] / fit(margins[~held_out], targets[~held_out])
        if _loss(tried, targets) < _loss(best, targets):
            temperature, best = fit(margins, targets), tried
    return temperature, best, (
        f'temperature {np.round(temperature, 2).tolist()}: log loss {_loss(margins, targets):.4f}, '
        f'with it {_loss(best, targets):.4f}, on {count} records that it was not learnt from')


def _fit_shared(margins, targets):
    return _fit(margins.ravel(), targets.ravel(), 1.0)


def _fit_each(margins, targets):
    shared = _fit_shared(margins, targets)
    return np.array([_fit(*each, shared) for each in zip(margins.T, targets.T)])


def _fit(margins, targets, around):
    """The temperature with the smallest log loss, held back to `around` where records are few."""
    def loss(change):
        held_back = HELD_BACK * change ** 2 / 2 / len(targets)
        return _loss(margins / (around * np.exp(change)), targets) + held_back
    return around * float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method='bounded').x))


def _loss(margins, targets):
    return np.logaddexp(0, np.where(targets == 1, -margins, margins)).mean()


def reliability(probabilities, targets):
    """How often what is called so probable is true, in bins that are not empty.

    probabilities, targets: arrays of the same shape; task 2: all classes are taken together
    Returns: (mean, true, error): float arrays (bins,), the mean probability and the part that is
        true; the expected calibration error: how far they are apart, the mean over all answers
    """
    values, truth = np.ravel(probabilities), np.ravel(targets)
    wanted = BINS if len(values) >= MANY else BINS // 2
    _, bins, count = np.unique(np.minimum((values * wanted).astype(int), wanted - 1),
                               return_inverse=True, return_counts=True)
    mean, true = (np.bincount(bins, each) / count for each in (values, truth))
    return mean, true, float(np.average(np.abs(mean - true), weights=count))


def confidence_of(probabilities, thresholds):
    """How far an answer is from another one: log-odds, (n,); task 2: its nearest class."""
    margins = np.abs(log_odds(probabilities) - log_odds(thresholds))
    return margins.reshape(len(margins), -1).min(axis=1)


def find_band(confidence, right, sure):
    """The narrowest band outside of which a part `sure` of the answers is right.

    A wrong one is added, so that it holds for new records, too, on average (split conformal: Jin
    and Candes, JMLR 2023); where that fails, it is the band that would have done for these records.
    Few records have it by luck, so with few nothing is promised (docs/report.md).
    confidence: float array (n,), of confidence_of(); right: bool array (n,); sure: float
    Returns: Band; its width is inf where not even the most confident answers are right so often
    """
    order = np.argsort(-confidence, kind='stable')
    width, count, wrong = confidence[order], np.arange(1, len(order) + 1), np.cumsum(~right[order])
    ends = np.append(width[1:] < width[:-1], True)  # equally confident ones are on the same side
    for added in (1, 0):
        enough = np.flatnonzero(ends & (wrong + added <= (1 - sure) * (count + added) + 1e-9))
        if len(enough):
            outside, errors = int(count[enough[-1]]), int(wrong[enough[-1]])
            return Band(float(width[enough[-1]]), len(order), outside, outside - errors,
                        added == 1 and len(order) * (1 - sure) >= PROMISE)
    return Band(float('inf'), len(order), 0, 0, False)


def describe(band, sure):
    """One line on what answers that are not unsure are worth; sure: float, predict.sure."""
    if not band.outside:
        return (f'not even the surest answers on {band.count} validation records were {sure:.0%} '
                'right')
    promise = f'about {sure:.0%} of such answers will be right, on average' if band.promised \
        else f'too few to promise {sure:.0%} for new ones'
    return (f'of {band.count} validation records {band.outside} were surer, {band.right} of them '
            f'right: {promise}')
