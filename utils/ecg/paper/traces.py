"""The traces on a flat sheet: where their rows are, and how high each is at every column.

A trace is the cheapest way from left to right, along the ink that parting.py says is its own: that
costs almost nothing, sideways and up and down alike. So it follows the steepest QRS, and passes
over gaps.
"""
import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, median_filter, minimum_filter1d
from scipy.signal import find_peaks

from utils.ecg.paper import labels, parting
from utils.ecg.signals import NotAnECG

INK = 0.5  # of the ink's darkness, where its edge is
FAINT = 0.55  # what is so dark costs nothing: thin and steep lines are fainter
PIECE_MM = 10  # width of what is connected, and a part of a trace for certain
TIP_MM = 0.8  # height of a tip that is kept, even where two steep lines have become one
PARTS = 8  # of a pixel, in which the pen's width is taken back
# Of the width of level lines, that of steep ones, which are fainter; pixels beside a tip.
STEEP_PEN, BESIDE_PEN = 0.85, 1.5
CLOSE_MM = 0.7  # holes in a copy, where the trace was on a line of the grid
ENOUGH_MM = 400  # of such pieces, on a sheet of which most is connected
STEEP_MM = 1.3  # a run of ink in a column that is higher is no baseline
REACH_MM, APART = 32, 1.6  # that a trace may go up and down from its baseline; of rows' distance
COVERED = 0.55  # of the columns of the longest row that another row has ink in
CLOSEST_MM, SAME = 7, 0.4  # rows are not nearer; of rows' distance, peaks are the same row's
ALONG, UPRIGHT = np.float32(0.01), np.float32(0.003)  # costs of a pixel of ink
EXPLAINED = np.float32(0.006)  # gain of one that surely is the row's, upright: no QRS is passed by
AWAY = np.float32(0.002)  # cost of a mm from the baseline
PASSED = np.float32(8)  # cost of a pixel without ink, along, where some surely is the row's
GAP = np.float32(4)  # cost of a pixel without ink, along; 1 upright
NO_GAP, BESIDE_MM, MOST = np.float32(0.02), 5, 0.5  # where a row, or most, has none in these mm
LOOK_AGAIN = 0.005  # doubt of a row, from which on a sheet is read in the mirror, too
UNSURE, TANGLED = 0.02, 0.07  # doubt of what may be wrong, and of what often is
DOUBTFUL_MM, NEAR_MM = 0.3, 2  # of a trace that is left out, with so much around
FEW = 10  # pixels in doubt, which do not change a row
CUT_MM = 0.4  # from the picture's edge, where a trace is cut off
ENDS_MM = 2  # of a lead, where a line between leads may stand
# Width, with its edges, of what is a row's; width and height of what is no print, if it is none's.
OWN_MM, UNEXPLAINED_MM = 1.4, (25, 4)
LONG = 1.5  # times as wide as high
WANDER_MM, MOST_MM = 8, 18  # of a baseline, by which rows are parted once more; and at most
BASELINE_MM = 50  # the baseline is the median of so much of a trace


def find_rows(ink, px_per_mm):
    """The baselines of the rows, from above: int array (rows,), y in pixels.

    ink: float32 array (height, width), as ink.find_ink()
    """
    mask = (ink > INK).astype(np.uint8)
    hole = np.ones((1, int(CLOSE_MM * px_per_mm)), np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, hole)
    profile = gaussian_filter1d(_flat(mask, px_per_mm).sum(axis=1).astype(float), 1.3 * px_per_mm)
    profile = np.maximum(profile - np.median(profile), 0)
    if not profile.any():
        return np.array([], int)
    peaks, _ = find_peaks(profile, height=0.2 * profile.max(), prominence=0.1 * profile.max(),
                          distance=CLOSEST_MM * px_per_mm)
    peaks = _one_each(peaks)
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


def _flat(mask, px_per_mm):
    """What may be a baseline: level, and wide where all is not in pieces."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    wide = stats[:, cv2.CC_STAT_WIDTH] >= PIECE_MM * px_per_mm
    wide[0] = False
    if stats[wide, cv2.CC_STAT_WIDTH].sum() > ENOUGH_MM * px_per_mm:
        mask = wide[labels].astype(np.uint8)
    tall = cv2.morphologyEx(mask, cv2.MORPH_OPEN,
                            np.ones((int(STEEP_MM * px_per_mm), 1), np.uint8))
    return mask & ~tall


def _one_each(peaks):
    """Peaks of rows, from above, without those that are one row, as it is not level."""
    peaks = list(peaks)
    while len(peaks) > 2:
        apart = np.diff(peaks)
        at = apart.argmin()
        if apart[at] > SAME * np.median(apart):
            break
        peaks[at:at + 2] = [(peaks[at] + peaks[at + 1]) // 2]
    return peaks


def read(ink, hidden, inside, px_per_mm):
    """Read the traces.

    ink, hidden: arrays (height, width), as ink.find_ink(); inside: as ink.lay_flat()
    Returns: (heights, unsure): two float arrays (rows, width), of no rows where there are none: as
        measure(), and how much higher it is than with only what surely is a row's ink, or than in
        the mirror, where that is more, or all of the picture's height where it goes on beyond that
    """
    baselines = find_rows(ink, px_per_mm)
    if not len(baselines):
        return np.empty((0, ink.shape[1])), np.empty((0, ink.shape[1]))
    levels = np.repeat(baselines[:, None], ink.shape[1], axis=1)
    own, sure = own_ink(ink, hidden, baselines, levels, px_per_mm)
    wander, seen = _wander(own, px_per_mm), (own > INK).any(axis=1).sum(axis=1)
    rows = seen > COVERED * seen.max()
    if not rows.all() or np.abs(wander).max() > WANDER_MM * px_per_mm:
        del own, sure  # 100 MB of 12 rows
        baselines, levels = baselines[rows], (levels + wander)[rows]
        own, sure = own_ink(ink, hidden, baselines, levels, px_per_mm)
    heights = measure(own, sure, px_per_mm)
    doubtful = ((own > INK) & ~sure).sum(axis=(1, 2)) > FEW
    own, sure = own[doubtful] * sure[doubtful], sure[doubtful]
    unsure = np.zeros(heights.shape)
    if doubtful.any():
        unsure[doubtful] = heights[doubtful] - measure(own, sure, px_per_mm)
    middle, whole = own.shape[1] // 2, (0, ink.shape[1] / px_per_mm)
    del own, sure
    if max(doubt(*row, whole, px_per_mm) for row in zip(heights, unsure)) > LOOK_AGAIN:
        again = _measure_mirrored(ink, hidden, baselines, levels, px_per_mm)
        apart = np.nan_to_num(heights - again)
        unsure = np.where(np.abs(apart) > np.abs(np.nan_to_num(unsure)), apart, unsure)
    heights += (baselines - middle)[:, None]
    if hidden.any():
        _lay_on_lines(heights, hidden)
    unsure[_is_cut(heights, inside, px_per_mm)] = len(ink)
    moving = [_moves(row, 0.6 * px_per_mm) for row in heights]
    # The first and the last row may be a straight line: the edge of the paper.
    rows = slice(np.argmax(moving), len(moving) - np.argmax(moving[::-1]) if any(moving) else 0)
    return heights[rows], unsure[rows]


def _measure_mirrored(ink, hidden, baselines, levels, px_per_mm):
    """As measure(), read from right to left, which the network that parts rows sees otherwise."""
    own, sure = own_ink(ink[:, ::-1], hidden[:, ::-1], baselines, levels[:, ::-1], px_per_mm)
    return measure(own, sure, px_per_mm)[:, ::-1]


def _wander(own, px_per_mm):
    """How far each row's baseline is below the middle of `own`: float array (rows, width)."""
    dark = own.sum(axis=1)
    middles = np.einsum('rhw,h->rw', own, np.arange(own.shape[1], dtype=np.float32))
    middles = middles / np.maximum(dark, 1e-3) - own.shape[1] // 2
    x, result = np.arange(own.shape[2]), []
    for row, there in zip(middles, (dark > 1) & (np.abs(middles) < MOST_MM * px_per_mm)):
        steps = np.zeros(len(x[::8]))
        if there.any():
            steps = np.interp(x[::8], x[there], row[there])
        steps = median_filter(steps, BASELINE_MM * px_per_mm // 8, mode='nearest')
        result.append(np.interp(x, x[::8], steps))
    return np.stack(result)


def _lay_on_lines(heights, hidden):
    """Where no ink is seen, and a line would hide it between what is, the trace is on the line:
    `heights` change."""
    for row in heights:
        seen = np.flatnonzero(np.isfinite(row))
        if not len(seen):
            continue
        columns = seen[0] + np.flatnonzero(np.isnan(row[seen[0]:seen[-1]]))
        y = np.interp(columns, seen, row[seen])
        on_line = hidden[np.clip(np.round(y).astype(int), 0, len(hidden) - 1), columns]
        row[columns[on_line]] = y[on_line]


def _is_cut(heights, inside, px_per_mm):
    """Where traces go out of the picture at its upper or lower edge: bool array (rows, width)."""
    reach = int(CUT_MM * px_per_mm)
    inner = cv2.erode(np.pad(inside.astype(np.uint8), [(reach, reach), (0, 0)]),
                      np.ones((2 * reach + 1, 1), np.uint8))[reach:-reach] > 0
    there = np.isfinite(heights)
    y = np.clip(np.where(there, heights, 0).astype(int), 0, len(inside) - 1)
    return there & ~inner[y, np.arange(inside.shape[1])]


def _moves(row, least):
    row = row[np.isfinite(row)]
    return len(row) > 0 and np.ptp(np.percentile(row, [3, 97])) > least


def doubt(row, unsure, span, px_per_mm):
    """The part of a trace, by its square, that may be another row's.

    row, unsure: float arrays (width,), one of read(); span: mm from and to which it goes
    """
    part = slice(max(int((span[0] + ENDS_MM) * px_per_mm), 0),
                 int((span[1] - ENDS_MM) * px_per_mm))
    if not np.isfinite(unsure[part]).any():
        return 0.0
    size, apart = (np.nansum((each[part] - np.nanmedian(each[part])) ** 2)
                   for each in (row, unsure))
    return apart / max(size, 1e-9)


def leave_out_doubt(row, unsure, span, px_per_mm):
    """Take out of a trace what may be another row's, and what is near that: as doubt(); `row`
    changes."""
    part = slice(max(int(span[0] * px_per_mm), 0), int(span[1] * px_per_mm))
    away = np.nan_to_num(np.abs(unsure[part])) > DOUBTFUL_MM * px_per_mm
    row[part][maximum_filter1d(away, int(2 * NEAR_MM * px_per_mm))] = np.nan


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
    long = sizes[:, 0] > LONG * sizes[:, 1]  # the ring of a cup is not
    for width, _ in sizes[(sizes > UNEXPLAINED_MM).all(axis=1) & long]:
        raise NotAnECG(f'a sheet with a trace of {width:.0f} mm that belongs to none of its '
                       f'{len(heights)} rows; is there more on it than one ECG?')


def follow(own, sure, px_per_mm):
    """Follow the trace of each row through all columns.

    own, sure: arrays (rows, height, width), as own_ink()
    Returns: int array (rows, width, 2): the y from and to which it goes within a column
    """
    white = np.moveaxis(np.maximum(1 - own / FAINT, 0), 2, 0).copy()
    explained = np.moveaxis(sure & (own > INK), 2, 0)
    climbed = np.cumsum(white + UPRIGHT - EXPLAINED * explained, axis=2)
    there = _closed((white < 1 - INK).any(axis=2), int(BESIDE_MM * px_per_mm))
    there &= there.mean(axis=1, keepdims=True) >= MOST  # beside most rows there is print
    gap = np.where(explained.any(axis=2), PASSED, GAP)
    white *= np.where(there, gap, NO_GAP)[:, :, None]
    off = np.arange(white.shape[2], dtype=np.float32) - white.shape[2] // 2
    white += ALONG + AWAY / px_per_mm * np.abs(off)
    entered = np.empty_like(white)
    cost = np.zeros(white.shape[1:], np.float32)
    for x in range(len(white)):
        entered[x] = white[x] + cost - cost.min(axis=1, keepdims=True)
        up = climbed[x] + np.minimum.accumulate(entered[x] - climbed[x], axis=1)
        down = np.minimum.accumulate((entered[x] + climbed[x])[:, ::-1], axis=1)[:, ::-1]
        cost = np.minimum(up, down - climbed[x])
    return _way_back(entered, climbed, cost)


def _closed(there, widest):
    """Which columns have ink or are in a hole of it: beyond its ends nothing is missing."""
    return cv2.morphologyEx(there.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((widest, 1))) > 0


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


def own_ink(ink, hidden, baselines, levels, px_per_mm):
    """The ink of each row, its baseline in the middle: float32 array (rows, height, width), and
    where it is surely its own: bool array; levels: array (rows, width), y, where baselines wander.
    """
    apart = np.median(np.diff(baselines)) if len(baselines) > 1 else 0
    reach, kinds = int(max(REACH_MM * px_per_mm, APART * apart)), parting.KINDS
    parted, surely = parting.part(ink, hidden, levels, reach, px_per_mm)
    own = np.zeros((len(baselines), 2 * reach + 1, ink.shape[1]), np.float32)
    sure = np.zeros(own.shape, bool)
    for row, at in enumerate(baselines):
        low, high = max(at - reach, 0), min(at + reach + 1, len(ink))
        if row >= kinds:  # beyond the middle it is another row's of the same kind
            low = max(low, (at + baselines[row - kinds]) // 2)
        if row + kinds < len(baselines):
            high = min(high, (at + baselines[row + kinds]) // 2)
        there = slice(low - at + reach, high - at + reach)
        own[row, there] = parted[row % kinds, low:high]
        sure[row, there] = surely[row % kinds, low:high]
    return own, sure


def measure(own, sure, px_per_mm):
    """The height of each trace, to parts of a pixel.

    own, sure: as own_ink()
    Returns: float array (rows, width), y in pixels of `own`, NaN where there is no ink
    """
    return np.stack([_measure(ink, path, px_per_mm)
                     for ink, path in zip(own, follow(own, sure, px_per_mm))])


def _measure(ink, path, px_per_mm):
    mask, x = ink > INK, np.arange(ink.shape[1])
    y = np.arange(len(ink), dtype=np.int32)[:, None]
    ends = np.diff(np.pad(mask, [(1, 1), (0, 0)]).astype(np.int8), axis=0)
    top = np.maximum.accumulate(np.where(ends[:-1] == 1, y, 0), axis=0)
    bottom = np.minimum.accumulate(np.where(ends[1:] == -1, y, len(ink))[::-1], axis=0)[::-1]
    above = np.maximum.accumulate(np.where(mask, y, -len(ink)), axis=0)
    below = np.minimum.accumulate(np.where(mask, y, 2 * len(ink))[::-1], axis=0)[::-1]
    low, high = path.min(axis=1) - 1, path.max(axis=1) + 1
    up, down = above[path[:, 1], x], below[path[:, 1], x]
    there = np.where(path[:, 1] - up <= down - path[:, 1], up, down)
    good = (there >= low) & (there <= high)
    there = np.where(good, there, 0)
    first, last = top[there, x], bottom[there, x]
    edges = (first - _part(ink, first, -1, x), last + _part(ink, last, 1, x))
    return _heights(*(np.where(good, edge, np.nan) for edge in edges), px_per_mm)


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
    fine = np.arange((len(top) - 1) * PARTS + 1)
    above, below = (np.interp(fine / PARTS, np.flatnonzero(there), each[there])
                    for each in (top + line / 2, bottom - line / 2))
    middle = (above + below) / 2
    above, below = np.minimum(above, middle), np.maximum(below, middle)
    # A pen that is `line` wide widens what it draws: taken back, from above and from below.
    half = round(STEEP_PEN * line / 2 * PARTS)
    upper, lower = maximum_filter1d(above, 2 * half + 1), minimum_filter1d(below, 2 * half + 1)
    away = half + int(BESIDE_PEN * PARTS)
    left, right = middle[np.maximum(fine - away, 0)], middle[np.minimum(fine + away, fine[-1])]
    up, down = np.minimum(left, right) - upper, lower - np.maximum(left, right)
    exact = np.where((up > 0.5) & (up > down), upper, (upper + lower) / 2)
    exact = np.where((down > 0.5) & (down >= up), lower, exact)
    heights = exact[::PARTS].copy()
    # A tip that is narrower than the pen is as high as its ink.
    for sign, edge in ((-1, above), (1, below)):
        tips = find_peaks(sign * exact, prominence=TIP_MM * px_per_mm)[0]
        lost = maximum_filter1d(sign * edge, 2 * half + 1)[tips] - sign * exact[tips]
        heights[(tips + PARTS // 2) // PARTS] += sign * np.clip(lost, 0, line)
    heights[~there] = np.nan
    return heights
