"""Where QRS of two rows have run into each other: which stroke is whose.

Strokes go on straight, and one that leads down and one that leads up again end in a tip. So of each
row the strokes are followed for as far as they stand alone; the two tips, one of each row, are
those with which the strokes explain the ink best. Where they do not explain it, nothing is changed.
"""
from typing import NamedTuple

import cv2
import numpy as np

INK = 0.5  # of the ink's darkness, where its edge is
NEAR_MM, WIDEST_MM = 0.6, 8  # meetings that are nearer are one; wider ones are no two QRS
AROUND_MM, START_MM = 5, 2  # of a meeting, within which strokes are, and their other ends
LEAST = 5  # pixels of a stroke that stands alone
STEEP, WIDER = 2.4, 1.3  # pens that a stroke is wide at most, and times as wide as before
HIDDEN, MERGED = 8, 3  # pixels that may be wide on its way, and the last ones, wide in part
PEN = 1.15  # wider than where the trace is level
SOFT = 1.2  # pixels of an edge of ink
BEND = 0.5  # cost of a pixel that a tip is away from a straight stroke
STRIDE = 2  # of the lines that are compared
TIPS, ASIDE = 9, (1.5, 0.8, 0.4, 0.2)  # first tips on a stroke, and finer and finer ones beside it
EXPLAINED = 0.25  # part of the ink that may be otherwise


class Patch(NamedTuple):
    """A part of the sheet: its ink and where no third row is, float32 arrays (y, x); the pixels
    that those are of, int arrays; pen: float, pixels."""
    ink: np.ndarray
    free: np.ndarray
    y: np.ndarray
    x: np.ndarray
    pen: float


def part(ink, heights, paths, px_per_mm):
    """Part the rows where they meet.

    ink: float32 array (height, width); heights: float array (rows, width), as without crossings;
    paths: int array (rows, width, 2), as traces.follow()
    Returns: (heights, bool array (rows, width), where a row meets the one below it and which stroke
        is whose is clear)
    """
    heights, mask = heights.copy(), ink > INK
    clear = np.zeros(heights.shape, bool)
    pen = _pen(mask, heights)
    around = int(AROUND_MM * px_per_mm)
    for row, first, last in _meetings(mask, paths, px_per_mm):
        start, stop = max(first - around, 0), min(last + 1 + around, ink.shape[1])
        pair = heights[row:row + 2, start:stop]
        ways = [_strokes(mask[:, start:stop], each, (first - start, last - start), down, pen,
                         px_per_mm) for each, down in zip(pair, (True, False))]
        others = heights[[each for each in (row - 1, row + 2) if 0 <= each < len(heights)],
                         start:stop]
        tips = _find_tips(ink[:, start:stop], ways, others, PEN * pen)
        if tips:
            pair[:] = [_lay(*each) for each in zip(pair, *tips)]
            clear[row, first - 1:last + 2] = True
    return heights, clear


def _pen(mask, heights):
    """How wide the pen is, pixels: of the runs of ink in a column those of a level trace."""
    rows, x = np.nonzero(np.isfinite(heights))
    y = np.clip(np.rint(heights[rows, x]).astype(int), 0, len(mask) - 1)
    top, bottom = _runs(mask.T)
    there = mask[y, x]
    return np.percentile((bottom - top)[x, y][there], 20) + 1 if there.any() else 1


def _runs(mask):
    """The first and last place of the run that each pixel of ink is in, along the last axis."""
    at = np.arange(mask.shape[1], dtype=np.int32)
    first = np.maximum.accumulate(np.where(mask, -1, at), axis=1) + 1
    last = np.minimum.accumulate(np.where(mask, mask.shape[1], at)[:, ::-1], axis=1)[:, ::-1] - 1
    return first, last


def _meetings(mask, paths, px_per_mm):
    """Where there is ink all the way from a row to the next: list of (row, first, last column)."""
    white = np.cumsum(~mask, axis=0, dtype=np.int32)
    x, found = np.arange(mask.shape[1]), []
    near = np.ones((1, int(NEAR_MM * px_per_mm)), np.uint8)
    for row, (upper, lower) in enumerate(zip(paths, paths[1:])):
        low, high = (np.clip(each, 0, len(mask) - 1)
                     for each in (upper.max(axis=1), lower.min(axis=1)))
        met = (white[np.maximum(high, low), x] - white[low, x] < 2).astype(np.uint8)
        met = cv2.morphologyEx(met[None], cv2.MORPH_CLOSE, near)[0]
        edges = np.flatnonzero(np.diff(np.r_[0, met, 0]))
        found += [(row, first, stop - 1) for first, stop in zip(edges[::2], edges[1::2])
                  if stop - first <= WIDEST_MM * px_per_mm]
    return found


def _strokes(mask, row, met, down, pen, px_per_mm):
    """The ways to see the strokes of a row to a tip and from it.

    row: float array (width,); met: first and last column of the meeting; down: whether the tip is
    Returns: list of (left, right, span): float arrays (n, 2), x and y to where they stand no longer
        alone; y between which the tip is
    """
    height, width = mask.shape
    if not down:
        mask, row = mask[::-1], height - 1 - row
    ends = [[], []]
    for side, found in enumerate(ends):
        first, last = met if side == 0 else (width - 1 - met[1], width - 1 - met[0])
        ink, level = (mask, row) if side == 0 else (mask[:, ::-1], row[::-1])
        begin, highest = max(first - int(START_MM * px_per_mm), 0), np.inf
        for stop in (first + 2, (first + last) // 2 + 2):  # an R may be within the meeting
            part_of = level[begin:stop][::-1]
            if not np.isfinite(part_of).any() or np.nanmin(part_of) > highest - px_per_mm:
                continue
            highest = np.nanmin(part_of)
            points = _stroke(ink, stop - 1 - int(np.nanargmin(part_of)), round(highest), pen)
            if len(points):
                points[:, 0] = width - 1 - points[:, 0] if side else points[:, 0]
                found.append(points)
    result = []
    for left, right in ((left, right) for left in ends[0] for right in ends[1]):
        (x, y), (other_x, other_y) = left[-1], right[-1]
        if x < other_x + 2:
            begin, between = int(max(y, other_y)), slice(max(int(min(x, other_x)) - 1, 0),
                                                         int(max(x, other_x)) + 3)
            white = ~mask[begin:, between].any(axis=1)
            span = np.array([begin, begin + (white.argmax() if white.any() else len(white))])
            mirror = (lambda each: each) if down else (lambda each: height - 1 - each)
            result.append((*(np.stack([each[:, 0], mirror(each[:, 1])], axis=1)
                             for each in (left, right)), mirror(span)))
    return result


def _stroke(mask, x, y, pen):
    """The rightmost stroke down from a place, where it stands alone: float array (n, 2), x and y,
    none where there is no such stroke."""
    near = np.flatnonzero(mask[y, max(x - 2, 0):x + 3]) if 0 <= y < len(mask) else []
    if not len(near):
        return np.empty((0, 2))
    left = right = max(x - 2, 0) + near[-1]
    found, hidden = [], 0
    for at in range(y, len(mask)):
        there = np.flatnonzero(mask[at, max(left - 1, 0):right + 2])
        if not len(there) or hidden > HIDDEN:
            break
        left = right = max(left - 1, 0) + there[-1]
        while right < mask.shape[1] - 1 and mask[at, right + 1]:
            right += 1
        while left > 0 and mask[at, left - 1]:
            left -= 1
        if right - left + 1 <= (WIDER * np.median([each[2] for each in found[-9:]]) + 0.6
                                if len(found) >= LEAST else STEEP * pen):
            found.append(((left + right) / 2, at, right - left + 1))
            hidden = 0
        elif len(found) < LEAST:
            found = []
        else:
            hidden += 1
    points = np.array(found)[:, :2] if len(found) >= LEAST else np.empty((0, 2))
    holes = np.flatnonzero(np.diff(points[:, 1]) > 1)
    if len(holes) and len(points) - holes[-1] <= LEAST:  # it did not come out again
        points = points[:holes[-1] + 1]
    points = points[:max(len(points) - MERGED, LEAST - 2)]
    if len(points):
        smooth = cv2.blur(points[:, :1].copy(), (1, 5), borderType=cv2.BORDER_REPLICATE)[:, 0]
        points[:, 0] = np.maximum.accumulate(smooth)
    return points


def _find_tips(ink, ways, others, pen):
    """The strokes of both rows and their tips that explain the ink between: ((strokes of the upper,
    of the lower), (tip, tip)), or None.

    ways: of both, as _strokes() gives them; others: float array (rows, width), of other rows
    """
    if not all(ways):
        return None
    ends = np.concatenate([np.stack([each[-1] for each in way[:2]]) for each in ways
                           for way in each])
    spans = np.concatenate([way[2] for each in ways for way in each])
    # Above the begin of the upper's strokes and below those of the lower there is more than them.
    top = max(min(way[side][0, 1] for way in ways[0] for side in (0, 1)) + pen,
              min(ends[:, 1].min(), spans.min()) - 6)
    bottom = min(max(way[side][0, 1] for way in ways[1] for side in (0, 1)) - pen,
                 max(ends[:, 1].max(), spans.max()) + 6)
    y = np.arange(max(int(top), 0), min(int(bottom) + 1, len(ink)), STRIDE)
    x = np.arange(max(int(ends[:, 0].min()) - 5, 0), min(int(ends[:, 0].max()) + 6, ink.shape[1]))
    if not len(y):
        return None
    free = np.ones(ink.shape, np.uint8)
    for row in others:
        columns = np.flatnonzero(np.isfinite(row))
        points = np.stack([columns, row[columns]], axis=1)
        cv2.polylines(free, [np.rint(points).astype(np.int32)], False, 0, int(pen) + 3)
    free, ink = (each[np.ix_(y, x)].astype(np.float32) for each in (free, np.clip(ink, 0, 1)))
    patch = Patch(ink, free, y, x, pen)
    pairs = [(upper, lower) for upper in ways[0] for lower in ways[1]]
    pair = min(pairs, key=lambda each: _fit(each, patch, 1)[0])
    cost, tips = _fit(pair, patch, len(ASIDE))
    return (pair, tips) if cost < EXPLAINED * max((ink * free).sum(), 1) else None


def _fit(pair, patch, rounds):
    """The tips with which two rows' strokes explain the ink best: (what is otherwise, tips)."""
    tips = [[((left[-1, 0] + right[-1, 0]) / 2 + away, at) for at in np.linspace(*span, TIPS)
             for away in (-ASIDE[0], 0, ASIDE[0])] for left, right, span in pair]
    steps = [abs(span[1] - span[0]) / TIPS for _, _, span in pair]
    for aside in ASIDE[:rounds]:
        (upper, bent), (lower, bent_too) = (_cover(strokes, each, patch)
                                            for strokes, each in zip(pair, tips))
        otherwise = np.abs(np.maximum(upper[:, None], lower) - patch.ink) * patch.free
        cost = otherwise.sum(axis=(2, 3)) + bent[:, None] + bent_too
        best = [each[at] for each, at in zip(tips, np.unravel_index(cost.argmin(), cost.shape))]
        steps = [step / 2.5 for step in steps]
        tips = [[(tip[0] + away, tip[1] + along) for along in (-step, 0, step)
                 for away in (-aside, 0, aside)] for tip, step in zip(best, steps)]
    return cost.min(), best


def _cover(strokes, tips, patch):
    """How dark strokes to each of some tips make pixels, and what it costs that they bend: float32
    array (tips, y, x), float array (tips,)."""
    dark = np.zeros((len(tips), *patch.ink.shape), np.float32)
    bent = np.zeros(len(tips))
    for points in strokes[:2]:
        (end_x, end_y), (before_x, before_y) = points[-1], points[-min(len(points), 14)]
        slope = (end_x - before_x) / (end_y - before_y) if len(points) > 1 else 0
        for index, tip in enumerate(tips):
            way = np.concatenate([points, [tip]])
            way = way[np.argsort(way[:, 1], kind='stable')]
            there = np.interp(patch.y, way[:, 1], way[:, 0], left=-99, right=-99)
            edge = (patch.pen / 2 - np.abs(there[:, None] - patch.x)) / SOFT + 0.5
            dark[index] = np.maximum(dark[index], np.clip(edge, 0, 1))
            bent[index] += min(abs(tip[0] - end_x - slope * (tip[1] - end_y)), 8)
    return dark, BEND / STRIDE * bent


def _lay(row, strokes, tip):
    """A row with strokes to a tip and from it."""
    left, right, _ = strokes
    y = np.r_[left[:, 1], tip[1], right[::-1, 1]]
    x = np.r_[np.minimum(left[:, 0], tip[0] - 0.5), tip[0],
              np.maximum(right[::-1, 0], tip[0] + 0.5)]
    x = np.maximum.accumulate(x)
    columns = np.arange(max(int(np.ceil(x[0])), 0), min(int(x[-1]) + 1, len(row)))
    result = row.copy()
    result[columns] = np.interp(columns, x, y)
    result[np.clip(round(tip[0]), 0, len(row) - 1)] = tip[1]
    return result
