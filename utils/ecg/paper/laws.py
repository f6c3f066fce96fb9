"""The heart's own laws: of the six limb leads any two give the others, a rhythm strip is its lead,
and beats are alike. One beat may be spoilt by what crosses it without a law being broken.
"""
import itertools

import numpy as np

from utils.ecg.signals import LEADS, SAMPLES, SAMPLING_RATE, NotAnECG

# Of a strip: how much more it must be like a lead that is seldom one.
STRIPS = dict.fromkeys(('I', 'III', 'aVR', 'aVL', 'aVF', 'V2', 'V3', 'V4', 'V6'), 1.5)
# What I and II give of each limb lead.
FROM_LIMBS = {'I': (1, 0), 'II': (0, 1), 'III': (-1, 1), 'aVR': (-0.5, -0.5), '-aVR': (0.5, 0.5),
              'aVL': (1, -0.5), 'aVF': (-0.5, 1)}
SIX = np.array([FROM_LIMBS[lead] for lead in LEADS[:6]])
LIKE_LIMBS = 0.05, 0.45  # part of three and of six chest leads that does not follow so, at least
# Part of the limb leads that may not follow from one another; and if filters can be the reason.
BROKEN, FILTERED = 0.22, 0.45
# s of 5 that may be spoilt, by a tick, a name or a crossing, if so much of a lead is elsewhere.
SPOILT, ELSEWHERE = 0.3, 0.4
UNLIKE, BETTER = 0.2, 0.9  # what unlike beats count; part that rows exchanged must have less
# Part by which a strip may differ from its lead; and if it bears the lead's name, or differs from
# all others by so many times as much. What is of another time differs from all leads.
OTHER, CLEARLY = (0.3, 0.4), 1.6
SPOILT_STRIP = 0.5  # below which it is of this ECG, though nothing says which lead
ELSEWHEN, ALIKE, BEAT = 0.75, 0.93, 1.2  # then s of it are alike at another time
BLOCKS = 8  # parts of a strip that are levelled
SHIFTS = np.arange(-8, 9, 2)  # samples that each of them may be shifted by
STEPS, NEAR_MV = 8, 0.02  # of fitting limb leads; differences that all count as much
CHANGED = 0.1  # part of a lead, by its square, that is said
SLOWER = 4  # samples of which beats are compared


def broken(cells, lead_rows):
    """The part of the limb leads that does not follow from the others at the same time, 0 to 1."""
    worst = 0.0
    for column in range(0, len(cells), lead_rows):
        limbs = [cell for cell in cells[column:column + lead_rows] if cell[0] in FROM_LIMBS]
        if len(limbs) < 3:
            continue
        values = np.stack([cell[5] for cell in limbs])
        there = np.isfinite(values).all(axis=0)
        if there.mean() < 0.5:
            return 1.0
        space, _ = np.linalg.qr(np.array([FROM_LIMBS[cell[0]] for cell in limbs], float))
        values = values[:, there] - np.median(values[:, there], axis=1, keepdims=True)
        left = values - space @ (space.T @ values)
        size = (values ** 2).sum(axis=0) * 3 * (len(limbs) - 2) / len(limbs)
        worst = max(worst, _differing((left ** 2).sum(axis=0), size, 5))
    return worst


def reconcile(cells, lead_rows):
    """Limb leads as they follow from one another best, where four or more are shown at a time: what
    one of them alone has is another row's, or print.

    Returns: (cells, list of str: the leads that are clearly others by it)
    """
    cells, changed = list(cells), []
    for column in range(0, len(cells), lead_rows):
        limbs = [index for index in range(column, column + lead_rows)
                 if cells[index][0] in FROM_LIMBS]
        if len(limbs) < 4:
            continue
        values = np.stack([cells[index][5] for index in limbs])
        space = np.array([FROM_LIMBS[cells[index][0]] for index in limbs])
        for index, lead in zip(limbs, _following(values, space)):
            name, *_, old = cells[index]
            if np.nanvar(lead - old) > CHANGED * np.nanvar(old):
                changed.append(name.lstrip('-'))
            cells[index] = (*cells[index][:5], lead)
    return cells, changed


def _following(values, space):
    """What two limb leads, times `space`, float array (leads, 2), give nearest to `values`, float
    array (leads, samples), by the sum of absolute differences: one that is far off counts little.
    """
    there = np.isfinite(values)
    levels, weights = np.nanmedian(values, axis=1, keepdims=True), there.astype(float)
    for _ in range(STEPS):
        levelled = np.where(there, values - levels, 0)
        squares = np.einsum('lt,la,lb->tab', weights, space, space) + 1e-9 * np.eye(2)
        products = np.einsum('lt,la,lt->ta', weights, space, levelled)
        fitted = space @ np.linalg.solve(squares, products[..., None])[..., 0].T
        off = np.where(there, levelled - fitted, np.nan)
        levels += np.nanmedian(off, axis=1, keepdims=True)
        weights = there / np.maximum(np.nan_to_num(np.abs(off)), NEAR_MV)
    return np.where(there, fitted, np.nan)


def refuse_limbs_as_chest(order):
    """Refuse a layout.Order whose chest leads keep the laws of limb leads, as I to aVF do."""
    rows, cells = order.lead_rows, order.cells
    chest = [broken([(lead, *cell[1:]) for lead, cell in zip(LEADS, cells[column:])][:rows], rows)
             for column in range(0, len(cells), rows) if cells[column][0] in LEADS[6:]]
    if chest and max(chest) < (LIKE_LIMBS[rows == 6]):
        raise NotAnECG(f'a sheet as {order.name} whose chest leads follow from one another as '
                       'limb leads do; expected twelve leads on a page, are there fewer?')


def refuse_exchanged(order, named):
    """Refuse a layout.Order whose limb leads would agree better with two rows exchanged: no law
    within a column tells I from III, nor aVR, aVL and aVF from one another; named: set of rows that
    names tell."""
    cells, rows = order.cells, order.lead_rows
    own = _strange(cells, rows)
    limbs = [column for column in range(0, len(cells), rows) if cells[column][0] in FROM_LIMBS]
    for pair in itertools.combinations(sorted(set(range(min(rows, 6))) - named), 2):
        other = list(cells)
        for column in limbs:
            one, two = (column + row for row in pair)
            other[one] = (*cells[one][:5], cells[two][5])
            other[two] = (*cells[two][:5], cells[one][5])
        if _strange(other, rows) < BETTER * own:
            raise NotAnECG(f'a sheet as {order.name} whose limb leads would agree better if rows '
                           f'{pair[0] + 1} and {pair[1] + 1} were exchanged, and on which no names '
                           'of leads that could be read say which is which')


def _strange(cells, lead_rows):
    """How much limb leads break the laws, and how unlike beats are in two columns of them."""
    parts = []
    for column in range(0, len(cells), lead_rows):
        limbs = [cell for cell in cells[column:column + lead_rows] if cell[0] in FROM_LIMBS]
        if len(limbs) > 1:
            space = np.array([FROM_LIMBS[cell[0]] for cell in limbs], float)
            values = np.stack([_slower(cell[5]) for cell in limbs])
            parts.append(SIX @ np.linalg.lstsq(space, values, rcond=None)[0])
    unlike = 1 - _likeness(*parts) if len(parts) == 2 else 0
    return broken(cells, lead_rows) + UNLIKE * unlike


def _slower(values):
    """A lead to compare beats by: fewer samples, 0 at its level and where it is not there."""
    values = values[:len(values) // SLOWER * SLOWER].reshape(-1, SLOWER).mean(axis=1)
    return np.nan_to_num(values - np.nanmedian(values))


def _likeness(one, two):
    """The correlation of leads at two times, when beats are laid on beats: float.

    one, two: float arrays (leads, samples), as of _slower()
    """
    def over(some, others):
        every = [np.correlate(lead, other, 'full') for lead, other in zip(some, others)]
        half = min(some.shape[1], others.shape[1]) // 2  # of the shorter lies on the other
        return np.sum(every, axis=0)[half:-half]

    size = over(one ** 2, np.ones_like(two)) * over(np.ones_like(one), two ** 2)
    return float((over(one, two) / np.sqrt(np.maximum(size, 1e-9))).max())


def _differing(off, size, every):
    """The root of the part that squares `off` are of squares `size`, 0 to 1, without the worst
    stretch in `every` seconds."""
    off, size = off.copy(), size.copy()
    least, wide = ELSEWHERE * size.sum(), int(SPOILT * SAMPLING_RATE)
    for _ in range(max(round(len(off) / SAMPLING_RATE / every), 1)):
        at = np.convolve(off, np.ones(wide)).argmax()
        worst = slice(max(at - wide + 1, 0), at + 1)
        if size.sum() - size[worst].sum() > least:
            off[worst] = size[worst] = 0
    return float(np.sqrt(off.sum() / max(size.sum(), 1e-9)))


def lead_of(strip, values, named):
    """Which lead a strip is; named: the lead whose name it bears, or None.

    Returns: (lead, samples it is shifted by, in words why it is of no use or ''), or None where it
        is like no lead at all
    """
    leads = _by_the_law(values)
    different, shifts = np.array([min(_difference(lead, strip), _difference(shown, strip))
                                  for lead, shown in zip(leads, values)]).T
    likely = [STRIPS.get(lead, 1) * (0.5 if lead == named else 1) for lead in LEADS]
    best = int(np.argmin(different * likely))
    clear = named == LEADS[best] or np.partition(different, 1)[1] > CLEARLY * different[best]
    if different[best] < OTHER[bool(clear)]:
        return LEADS[best], int(shifts[best]), ''
    if different.min() < SPOILT_STRIP:
        return named, 0, 'like no lead for certain'
    if different.min() > ELSEWHEN:
        alike = {lead: max((_likeness(_slower(beat)[None], _slower(strip)[None])
                            for beat in _beats(shown)), default=0)
                 for lead, shown in zip(LEADS, leads) if lead not in STRIPS}
        lead = max(alike, key=alike.get)
        if alike[lead] > ALIKE and named in (None, lead):
            return lead, 0, 'of another time'
    return None


def _beats(lead):
    """Pieces of a lead of about a beat: float array (pieces, samples)."""
    shown, long = lead[np.isfinite(lead)], int(BEAT * SAMPLING_RATE)
    return shown[:len(shown) // long * long].reshape(-1, long)


def _by_the_law(values):
    """The limb leads at all times that show any two of them, the chest leads as they are: float
    array (12, 5000). By it a strip is mostly known better than by the lead's own few seconds."""
    limbs = np.stack([FROM_LIMBS[lead] for lead in LEADS[:6]])
    levelled = values[:6] - np.nanmedian(values[:6], axis=1, keepdims=True)
    shown = np.isfinite(levelled)
    result = np.concatenate([np.full((6, SAMPLES), np.nan), values[6:]])
    for pattern in np.unique(shown, axis=1).T:
        if pattern.sum() > 1:
            at = (shown == pattern[:, None]).all(axis=0)
            one_two = np.linalg.lstsq(limbs[pattern], levelled[pattern][:, at], rcond=None)[0]
            result[:6, at] = limbs @ one_two
    return result


def _difference(lead, strip):
    """The part by which a strip differs from a lead where both are there, 0 to 1, without what
    wanders slowly, and the shift, of some ms, with which it does: (float, samples)."""
    both = np.stack([np.stack([lead, np.roll(strip, shift)]) for shift in SHIFTS])
    both = both.reshape(len(SHIFTS), 2, BLOCKS, -1)
    both[:, :, np.isnan(both).any(axis=(0, 1))] = np.nan
    both = both[:, :, np.isfinite(both[0, 0]).sum(axis=1) > SAMPLING_RATE / 2]
    if not both.size:
        return np.inf, 0
    both = np.nan_to_num(both - np.nanmedian(both, axis=3, keepdims=True))
    off = (both[:, 0] - both[:, 1]) ** 2
    best = off.sum(axis=2).argmin(axis=0)  # by itself: print may be stretched here and there
    blocks = np.arange(len(best))
    sizes = both[best, :, blocks] ** 2
    larger = sizes.sum(axis=(0, 2)).argmax()
    shift = int(np.median(SHIFTS[best]))
    return _differing(off[best, blocks].ravel(), sizes[:, larger].ravel(), 2.5), shift
