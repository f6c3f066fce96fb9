"""The traces on a flat sheet: where their rows are, and how high each is at every column.

A trace is the cheapest way from left to right. First coarsely: a stretch of every column, where
ink that no other row goes along is a gain, so that the rows share the ink among them. Then finely:
on ink that costs almost nothing, sideways and up and down alike, but for what is another row's. So
it follows the steepest QRS, passes through crossings and over gaps.
"""
import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, median_filter, minimum_filter1d
from scipy.signal import find_peaks

from utils.ecg.paper import crossings, labels
from utils.ecg.signals import NotAnECG

INK = 0.5  # of the ink's darkness, where its edge is
FAINT = 0.55  # what is so dark costs nothing: thin and steep lines are fainter
PIECE_MM = 10  # width of what is connected, and a part of a trace for certain
TIP_MM = 0.8  # height of a tip that is kept, even where two steep lines have become one
CLOSE_MM = 0.7  # holes in a copy, where the trace was on a line of the grid
ENOUGH_MM = 400  # of such pieces, on a sheet of which most is connected
STEEP_MM = 1.3  # a run of ink in a column that is higher is no baseline
REACH_MM = 32  # that a trace may go up and down from its baseline
COVERED = 0.55  # of the columns of the longest row that another row has ink in
CLOSEST_MM = 7  # rows are not nearer
COARSE = 4  # pixels a mm, at which the rows share the ink
REWARD = np.float32(0.2)  # gain of a pixel of ink there, where white costs up to 1
FOREIGN = np.float32(0.05)  # cost of ink that is nearer to another row
TAKEN = np.float32(0.4)  # cost of a pixel that another row goes along
ALONG, UPRIGHT = np.float32(0.01), np.float32(0.003)  # costs of a pixel of ink
AWAY = np.float32(0.002)  # cost of a mm from the baseline
GAP = np.float32(4)  # cost of a pixel without ink, along; 1 upright
NO_GAP, NEAR_MM, BESIDE_MM = np.float32(0.02), 9, 5  # where a row has no ink within these mm
EXCHANGED_MM = 4  # longer than a QRS
TOUCHING_MM, TANGLED_MM = 0.3, 1  # so near, and for longer in all, a trace is seldom right
# Width, with its edges, of what is a row's; width and height of what is no print, if it is none's.
OWN_MM, UNEXPLAINED_MM = 1.4, (25, 4)
BASELINE_MM = 50  # the baseline is the median of so much of a trace


def find_rows(ink, px_per_mm):
    """The baselines of the rows, from above: int array (rows,), y in pixels.

    ink: float32 array (height, width), as ink.find_ink()
    """
    mask = (ink > INK).astype(np.uint8)
    hole = np.ones((1, int(CLOSE_MM * px_per_mm)), np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, hole)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    wide = stats[:, cv2.CC_STAT_WIDTH] >= PIECE_MM * px_per_mm
    wide[0] = False
    if stats[wide, cv2.CC_STAT_WIDTH].sum() > ENOUGH_MM * px_per_mm:  # else all is in pieces
        mask = wide[labels].astype(np.uint8)
    tall = cv2.morphologyEx(mask, cv2.MORPH_OPEN,
                            np.ones((int(STEEP_MM * px_per_mm), 1), np.uint8))
    flat = mask & ~tall
    profile = gaussian_filter1d(flat.sum(axis=1).astype(float), 1.3 * px_per_mm)
    profile = np.maximum(profile - np.median(profile), 0)
    if not profile.any():
        return np.array([], int)
    peaks, _ = find_peaks(profile, height=0.2 * profile.max(), prominence=0.1 * profile.max(),
                          distance=CLOSEST_MM * px_per_mm)
    between = np.median(np.diff(peaks)) if len(peaks) > 2 else 0
    lost = [(one + next_one) // 2 for one, next_one in zip(peaks, peaks[1:])  # it wanders too much
            if 1.75 * between < next_one - one < 2.25 * between]
    if len(peaks) > 2:
        lost += [at for at in (2 * peaks[0] - peaks[1], 2 * peaks[-1] - peaks[-2])
                 if 0 < at < len(profile)]
    peaks = np.array(sorted([*peaks, *lost]), int)
    half = int(min(max(between, CLOSEST_MM * px_per_mm), 20 * px_per_mm) / 2)
    covered = np.array([mask[max(at - half, 0):at + half].any(axis=0).sum() for at in peaks])
    return peaks[covered > COVERED * covered.max()]


def read(ink, px_per_mm):
    """Read the traces.

    ink: float32 array (height, width), as ink.find_ink()
    Returns: (heights, clear): float array (rows, width), as measure(), of no rows where there are
        none; bool array (rows, width), as crossings.part()
    """
    baselines = find_rows(ink, px_per_mm)
    if not len(baselines):
        return np.empty((0, ink.shape[1])), np.empty((0, ink.shape[1]), bool)
    paths = follow(ink, baselines, px_per_mm)
    heights, clear = crossings.part(ink, measure(ink, paths, px_per_mm), paths, px_per_mm)
    moving = [_moves(row, 0.6 * px_per_mm) for row in heights]
    # The first and the last row may be a straight line: the edge of the paper.
    rows = slice(np.argmax(moving), len(moving) - np.argmax(moving[::-1]) if any(moving) else 0)
    return heights[rows], clear[rows]


def _moves(row, least):
    row = row[np.isfinite(row)]
    return len(row) > 0 and np.ptp(np.percentile(row, [3, 97])) > least


def meetings(heights, clear, px_per_mm):
    """Where rows touch: a QRS there may be cut, or be taken for the other row's.

    heights, clear: as read()
    Returns: bool array (rows, width), where each touches another
    Raises: NotAnECG where two run into each other: which trace is whose after that is a guess
    """
    touching = np.zeros(heights.shape, bool)
    for row, (upper, lower) in enumerate(zip(heights, heights[1:]), 1):
        met = (upper >= lower - TOUCHING_MM * px_per_mm) & ~clear[row - 1]
        length = met.sum() / px_per_mm
        if length > TANGLED_MM:
            raise NotAnECG(f'a sheet whose traces of rows {row} and {row + 1} run into each other '
                           f'for {length:.1f} mm in all, so that they cannot be told apart; print '
                           'it with fewer mm for a mV or in another layout')
        touching[row - 1:row + 1] |= met
    return touching


def refuse_unexplained(ink, heights, span, px_per_mm):
    """Refuse a sheet on which there is a trace that no row goes along, between those that do.

    ink, heights: as measure(); span: mm from and to which there are leads
    Raises: NotAnECG
    """
    left = labels.without(ink, heights, px_per_mm, OWN_MM)
    low, high = max(int(np.nanmin(heights)), 0), int(np.nanmax(heights)) + 1
    first, last = (max(int(each * px_per_mm), 0) for each in span)
    mask = (left[low:high, first:last] > INK).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((1, int(CLOSE_MM * px_per_mm))))
    sizes = cv2.connectedComponentsWithStats(mask)[2][1:, 2:4] / px_per_mm
    for width, _ in sizes[(sizes > UNEXPLAINED_MM).all(axis=1)]:
        raise NotAnECG(f'a sheet with a trace of {width:.0f} mm that belongs to none of its '
                       f'{len(heights)} rows; is there more on it than one ECG?')


def follow(ink, baselines, px_per_mm):
    """Follow the trace of each row through all columns.

    baselines: int array (rows,), as find_rows()
    Returns: int array (rows, width, 2): the y from and to which it goes within a column
    """
    spans = np.clip(_explain(ink, baselines, px_per_mm), 2, len(ink) - 3) + [-1, 1]
    _put_in_order(spans, EXCHANGED_MM * px_per_mm)
    # Once more and finely, now that it is known where each baseline wanders and what is others'.
    return _cheapest_ways(ink, baselines, _levels(spans, px_per_mm), spans, px_per_mm)


def _put_in_order(spans, least):
    """Exchange two rows where the lower one is above the upper one for longer than a QRS is."""
    for upper, lower in zip(spans, spans[1:]):
        exchanged = upper.sum(axis=1) > lower.sum(axis=1)
        edges = np.flatnonzero(np.diff(np.r_[0, exchanged, 0]))
        for start, stop in zip(edges[::2], edges[1::2]):
            if stop - start > least:
                upper[start:stop], lower[start:stop] = (lower[start:stop].copy(),
                                                        upper[start:stop].copy())


def _levels(spans, px_per_mm):
    """Where each row's baseline wanders: float32 array (rows, width)."""
    steps = spans.mean(axis=2)[:, ::8]
    return np.stack([cv2.resize(median_filter(row, BASELINE_MM * px_per_mm // 8)[None].astype(
        np.float32), (spans.shape[1], 1))[0] for row in steps])


def _explain(ink, baselines, px_per_mm):
    """The stretch of every column that each row explains best: int array (rows, width, 2).

    White costs, ink that no other row goes along is a gain.
    """
    shrink = px_per_mm // COARSE
    height, width = (side // shrink for side in ink.shape)
    coarse = cv2.resize(ink[:height * shrink, :width * shrink], (width, height),
                        interpolation=cv2.INTER_AREA)
    baselines = baselines // shrink
    levels = np.repeat(baselines[:, None], width, axis=1).astype(np.float32)
    # First what is nearer to a row than to others, then all that it explains and no other does.
    halves = np.r_[-1, (baselines[1:] + baselines[:-1]) / 2, height]
    cells = np.repeat(np.stack([halves[:-1], halves[1:]], axis=1)[:, None], width, axis=1)
    spans = np.clip(_explaining_ways(coarse, baselines, levels, cells), 0, height - 1)
    levels = _levels(spans, COARSE)
    for some in (0, 1):
        rows = np.arange(some, len(baselines), 2)
        if len(rows):
            better = _explaining_ways(coarse, baselines[rows], levels[rows], spans[rows],
                                      _count(spans, coarse.shape))
            spans[rows] = np.clip(better, 0, height - 1)
    fine = np.repeat(spans, shrink, axis=1) * shrink + [0, shrink - 1]
    return np.pad(fine, [(0, 0), (0, ink.shape[1] - fine.shape[1]), (0, 0)], mode='edge')


def _count(spans, shape):
    """How many rows go along each pixel: int8 array of `shape`."""
    change = np.zeros((shape[0] + 1, shape[1]), np.int8)
    x = np.arange(shape[1])
    for low, high in np.moveaxis(spans, 2, 1):
        change[low, x] += 1
        change[high + 1, x] -= 1
    return np.cumsum(change[:-1], axis=0, dtype=np.int8)


def _explaining_ways(ink, baselines, levels, own, count=None):
    """The cheapest way from left to right near each of `levels`: int array (rows, width, 2).

    levels: float array (rows, width); own: array (rows, width, 2), what is nearest to a row, or
        where it went before; count: as _count() gives it, of all rows, then
    """
    reach = REACH_MM * COARSE
    places = np.arange(-reach, reach + 1, dtype=np.float32)
    off = (levels - baselines[:, None]).T[:, :, None].astype(np.float32)
    cost = _bands(np.clip(1 - ink / np.float32(INK), -1, 1), baselines, reach, 1)
    near = (cost < 0) & (np.abs(places - off) < NEAR_MM * COARSE)
    there = maximum_filter1d(near.any(axis=2), BESIDE_MM * COARSE, axis=0)[:, :, None]
    along = np.maximum(cost, 0) * np.where(there, GAP, NO_GAP)
    along += AWAY / COARSE * np.abs(places - off)
    cost *= np.where(there, np.float32(1), NO_GAP)  # print beside a trace is none of it
    own = _within(own, baselines, places)
    if count is None:
        cost = np.maximum(cost, np.where(own, -REWARD, FOREIGN))
    else:
        others = _bands(count, baselines, reach, 0) > own
        along += TAKEN * others
        cost = np.maximum(cost, np.where(others, TAKEN, -REWARD))
    return _best_spans(along, cost) + (baselines - reach)[:, None, None]


def _closed(there, widest):
    """Which columns have ink or are in a hole of it: beyond its ends nothing is missing."""
    return cv2.morphologyEx(there.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((widest, 1))) > 0


def _within(spans, baselines, places):
    """Which of `places`, pixels from its baseline, a row goes along: bool array (width, rows,
    places); spans: array (rows, width, 2)."""
    at = places + baselines[:, None].astype(np.float32)
    return (at >= spans[:, :, :1].swapaxes(0, 1)) & (at <= spans[:, :, 1:].swapaxes(0, 1))


def _best_spans(along, cost):
    """The cheapest way through all columns: int array (rows, width, 2).

    along: float32 array (width, rows, height), of entering a column at a pixel; cost: the same, of
    each pixel that is gone along in a column
    """
    before = np.pad(np.cumsum(cost, axis=2), [(0, 0), (0, 0), (1, 0)])
    # A way from y to another y' may go on as far above and below both as it gains by that.
    top = np.maximum.accumulate(before[:, :, :-1], axis=2)
    bottom = np.minimum.accumulate(before[:, :, :0:-1], axis=2)[:, :, ::-1]
    left = np.zeros(cost.shape[1:], np.float32)
    for x in range(len(along)):
        along[x] += left - left.min(axis=1, keepdims=True)
        down = bottom[x] + np.minimum.accumulate(along[x] - top[x], axis=1)
        up = np.minimum.accumulate((along[x] + bottom[x])[:, ::-1], axis=1)[:, ::-1] - top[x]
        left = np.minimum(up, down)
    ends = _ends_back(along, top, bottom, left)
    y = np.arange(cost.shape[2])
    first = np.maximum.accumulate(np.where(before[:, :, :-1] >= top, y, 0), axis=2)
    last = np.where(before[:, :, 1:] <= bottom, y, y[-1])[:, :, ::-1]
    last = np.minimum.accumulate(last, axis=2)[:, :, ::-1]
    x, rows = np.mgrid[:len(cost), :cost.shape[1]]
    spans = [first[x, rows, ends.min(axis=2)], last[x, rows, ends.max(axis=2)]]
    return np.stack(spans, axis=2).swapaxes(0, 1)


def _ends_back(entered, top, bottom, cost):
    """The way that led to the lowest cost: int array (width, rows, 2), the ends in a column."""
    result = np.zeros((*entered.shape[:2], 2), int)
    at, rows = cost.argmin(axis=1), np.arange(len(cost))
    index = np.arange(entered.shape[2])
    for x in range(len(entered) - 1, -1, -1):
        result[x, :, 1] = at
        way = np.where(index <= at[:, None], bottom[x, rows, at][:, None] - top[x],
                       bottom[x] - top[x, rows, at][:, None])
        at = (entered[x] + way).argmin(axis=1)
        result[x, :, 0] = at
    return result


def _cheapest_ways(ink, baselines, levels, spans, px_per_mm):
    """The cheapest way from left to right near each of `levels`: int array (rows, width, 2).

    levels: float array (rows, width); spans: array (rows, width, 2), as of _explain(), pen and all
    """
    reach = int(REACH_MM * px_per_mm)
    white = _bands(np.maximum(1 - ink / FAINT, 0), baselines, reach, 1)
    climbed = np.cumsum(white + UPRIGHT, axis=2)
    places = np.arange(-reach, reach + 1, dtype=np.float32)
    off = (levels - baselines[:, None]).T[:, :, None].astype(np.float32)
    near = (white < 1 - INK) & (np.abs(places - off) < NEAR_MM * px_per_mm)
    there = _closed(near.any(axis=2), int(BESIDE_MM * px_per_mm))
    white *= np.where(there, GAP, NO_GAP)[:, :, None]  # print beside a trace is none of it
    white += ALONG + AWAY / px_per_mm * np.abs(places - off)
    count = _bands(_count(spans, ink.shape), baselines, reach, 0)
    white += TAKEN * (count > _within(spans, baselines, places))
    entered = np.empty_like(white)
    cost = np.zeros(white.shape[1:], np.float32)
    for x in range(len(white)):
        entered[x] = white[x] + cost - cost.min(axis=1, keepdims=True)
        up = climbed[x] + np.minimum.accumulate(entered[x] - climbed[x], axis=1)
        down = np.minimum.accumulate((entered[x] + climbed[x])[:, ::-1], axis=1)[:, ::-1]
        cost = np.minimum(up, down - climbed[x])
    return _way_back(entered, climbed, cost) + (baselines - reach)[:, None, None]


def _way_back(entered, climbed, cost):
    """The way that led to the lowest cost: int array (rows, width, 2)."""
    result = np.zeros((cost.shape[0], len(entered), 2), int)
    at, rows = cost.argmin(axis=1), np.arange(len(cost))
    for x in range(len(entered) - 1, -1, -1):
        way = np.abs(climbed[x] - climbed[x, rows, at][:, None])
        result[:, x, 1] = at
        at = (entered[x] + way).argmin(axis=1)
        result[:, x, 0] = at
    return result


def _bands(values, baselines, reach, outside):
    """What is `reach` above and below each baseline: array (width, rows, 2 * reach + 1)."""
    padded = np.pad(values, [(reach, reach), (0, 0)], constant_values=outside)
    bands = np.stack([padded[at:at + 2 * reach + 1] for at in baselines])
    return np.ascontiguousarray(np.moveaxis(bands, 2, 0))


def measure(ink, paths, px_per_mm):
    """The height of each trace, to parts of a pixel.

    paths: as follow()
    Returns: float array (rows, width), y in pixels, NaN where there is no ink
    """
    mask = ink > INK
    y = np.arange(len(ink), dtype=np.int32)[:, None]
    ends = np.diff(np.pad(mask, [(1, 1), (0, 0)]).astype(np.int8), axis=0)
    top = np.maximum.accumulate(np.where(ends[:-1] == 1, y, 0), axis=0)
    bottom = np.minimum.accumulate(np.where(ends[1:] == -1, y, len(ink))[::-1], axis=0)[::-1]
    above = np.maximum.accumulate(np.where(mask, y, -len(ink)), axis=0)
    below = np.minimum.accumulate(np.where(mask, y, 2 * len(ink))[::-1], axis=0)[::-1]
    x, result = np.arange(ink.shape[1]), []
    lows, highs = paths.min(axis=2), paths.max(axis=2)
    for row, path in enumerate(np.clip(paths, 0, len(ink) - 1)):
        low, high = lows[row] - 1, highs[row] + 1
        up, down = above[path[:, 1], x], below[path[:, 1], x]
        there = np.where(path[:, 1] - up <= down - path[:, 1], up, down)
        good = (there >= low) & (there <= high)
        there = np.where(good, there, 0)
        first, last = top[there, x], bottom[there, x]
        for other in (row - 1, row + 1):  # a run that is a neighbour's, too, is shared
            if 0 <= other < len(paths):
                below_it, above_it = lows[other] > high, highs[other] < low
                last = np.where(below_it, np.minimum(last, (highs[row] + lows[other]) // 2), last)
                first = np.where(above_it, np.maximum(first, (lows[row] + highs[other]) // 2),
                                 first)
        edges = (first - _part(ink, first, -1, x), last + _part(ink, last, 1, x))
        result.append(_heights(*(np.where(good, edge, np.nan) for edge in edges), px_per_mm))
    return np.stack(result)


def _part(ink, at, step, x):
    """How far beyond the last pixels of ink their edge is, pixels: float array (width,)."""
    at = np.clip(at, 0, len(ink) - 1)
    inside, outside = ink[at, x], ink[np.clip(at + step, 0, len(ink) - 1), x]
    return np.clip((inside - INK) / np.maximum(inside - outside, 1e-6), 0, 1)


def _heights(top, bottom, px_per_mm):
    """The trace's height out of the upper and lower edge of its ink, float arrays (width,)."""
    there = np.isfinite(top)
    if there.sum() < px_per_mm:
        return np.full(len(top), np.nan)
    line = max(np.percentile(bottom[there] - top[there], 20), 1)
    filled = [np.interp(np.arange(len(top)), np.flatnonzero(there), each[there])
              for each in (top, bottom)]
    upper, lower = filled[0] + line / 2, filled[1] - line / 2
    middle = (upper + lower) / 2
    upper, lower = np.minimum(upper, middle), np.maximum(lower, middle)
    tips, valleys = (find_peaks(each, prominence=TIP_MM * px_per_mm)[0]
                     for each in (-upper, lower))
    ends = upper[tips], lower[valleys]
    # A pen that is `line` wide widens what it draws: taken back, from above and from below.
    wide, part = divmod(line / 2 - 0.5, 1)
    upper, lower = (
        (1 - part) * narrow(each, int(2 * wide) + 1) + part * narrow(each, int(2 * wide) + 3)
        for narrow, each in ((maximum_filter1d, upper), (minimum_filter1d, lower)))
    away = int(wide) + 2
    left = middle[np.maximum(np.arange(len(top)) - away, 0)]
    right = middle[np.minimum(np.arange(len(top)) + away, len(top) - 1)]
    up, down = np.minimum(left, right) - upper, lower - np.maximum(left, right)
    heights = np.where((up > 0.5) & (up > down), upper, (upper + lower) / 2)
    heights = np.where((down > 0.5) & (down >= up), lower, heights)
    heights[tips] = np.where(ends[0] < heights[tips] - line, ends[0], heights[tips])
    heights[valleys] = np.where(ends[1] > heights[valleys] + line, ends[1], heights[valleys])
    heights[~there] = np.nan
    return heights
