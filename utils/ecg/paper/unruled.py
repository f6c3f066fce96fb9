"""Sheets without a grid: calibration pulses beside rows that are 250 mm long say where the mm are.
"""
from typing import NamedTuple

import cv2
import numpy as np

from utils.ecg.paper.grid import LARGEST, Grid
from utils.ecg.paper.layout import GAINS, LENGTH_MM

DARK = 0.6  # of the paper's light
SMALLEST = 15  # pixels of a pulse's height
ALIKE, OFF = 0.06, 0.03  # parts by which pulses may differ, and by which their widths may be off
WIDTHS = 5, 10  # mm of 0.2 s
FRAME = 0.4  # of the width: no trace is straight for so long
NEAR = 1.5  # mV from its zero line that a trace begins and ends


class Pulse(NamedTuple):
    """Where a pulse's first stroke stands, what it measures, and how wide its line is, pixels;
    part: its number among what is connected."""
    x: float
    y: float
    height: float
    width: float
    line: float
    part: int


def find_scale(picture):
    """Where the mm of a sheet are that has no grid.

    picture: uint8 array (height, width, 3)
    Returns: grid.Grid, or None where not two pulses or more and the rows' length agree
    """
    shrunk = max(max(picture.shape) / LARGEST, 1)
    light = cv2.resize(picture.min(axis=2), None, fx=1 / shrunk, fy=1 / shrunk,
                       interpolation=cv2.INTER_AREA)
    pulses = _find_pulses(*_parts_of(light))
    if len(pulses) < 2:
        return None
    slope = np.polyfit([each.y for each in pulses], [each.x for each in pulses], 1)[0]
    turn = cv2.getRotationMatrix2D((0, 0), -np.degrees(np.arctan(slope)), 1)
    turn[:, 2] = -np.minimum(turn[:, :2] * light.shape[::-1], 0).sum(axis=1)
    back = np.linalg.inv(np.r_[turn, [[0, 0, 1]]])
    size = np.ceil(np.abs(turn[:, :2]) @ light.shape[::-1]).astype(int)
    # Thin lines stay whole where no grey is made of them.
    turned = cv2.warpAffine(light, turn, size, flags=cv2.INTER_NEAREST, borderValue=255)
    labels, boxes = _parts_of(turned, FRAME)
    pulses = _find_pulses(labels, boxes)
    if len(pulses) < 2:
        return None
    low, high = _ends(labels, boxes, pulses)
    x, y, height, width, line, _ = np.median(pulses, axis=0)
    px_per_mm = (high - low - line) / LENGTH_MM
    if _off(width / px_per_mm, WIDTHS) > OFF or _off(height / px_per_mm, GAINS) > 2 * OFF:
        return None
    rows = [each.y for each in pulses]
    corners = np.array([[min(low, x), min(rows) - height], [max(high, x + width), max(rows)]])
    # The middle of a pixel is where OpenCV says that it is; a shrunk one's is elsewhere.
    grow = np.array([[shrunk, 0, shrunk / 2 - 0.5], [0, shrunk, shrunk / 2 - 0.5], [0, 0, 1]])
    return Grid(grow @ back @ np.diag([px_per_mm, px_per_mm, 1]), [np.zeros((2, 2))] * 2,
                *(corners / px_per_mm), float(px_per_mm * shrunk), False)


def _parts_of(light, frame=None):
    """What is dark, connected, and no table around: (numbers, boxes) as OpenCV gives them.

    frame: part of the width over which what is level and straight is no trace, or None
    """
    dark = (light < DARK * np.percentile(light, 80)).astype(np.uint8)
    square = np.ones((SMALLEST, SMALLEST), np.uint8)
    dark[cv2.dilate(cv2.morphologyEx(dark, cv2.MORPH_OPEN, square), square) > 0] = 0
    if frame:
        line = np.ones((1, int(frame * light.shape[1])), np.uint8)
        near = cv2.dilate(dark, np.ones((3, 1), np.uint8))
        dark[cv2.morphologyEx(near, cv2.MORPH_OPEN, line) > 0] = 0
    return cv2.connectedComponentsWithStats(dark)[1:3]


def _find_pulses(labels, boxes):
    """The most pulses of one size above each other: list of Pulse."""
    found = []
    for part, (x, y, wide, high, _) in enumerate(boxes):
        if part and SMALLEST < high < 6 * wide and wide < 4 * high:
            pulse = _as_pulse(labels[y:y + high, x:x + wide] == part)
            if pulse:
                found.append(Pulse(x + pulse[0], y + high, *pulse[1:], part))
    if not found:
        return []
    x, y, height, width = np.array(found).T[:4]
    alike = (np.abs(np.log(height[:, None] / height)) < ALIKE) \
        & (np.abs(np.log(width[:, None] / width)) < ALIKE) \
        & (np.abs(x[:, None] - x) < 0.1 * np.abs(y[:, None] - y) + 2)
    return [found[at] for at in np.flatnonzero(alike[alike.sum(axis=1).argmax()])]


def _as_pulse(ink):
    """(x of the first stroke, height, width, its line's width), pixels, or None: two strokes under
    a lid, and nothing between their feet; ink: bool array (height, width), what is connected."""
    high = len(ink)
    strokes = [_runs(ink[int(part * high)]) for part in (0.35, 0.5, 0.65)]
    if any(len(each) != 2 for each in strokes):
        return None
    left, right = np.mean(strokes, axis=(0, 2))
    line = np.mean(np.diff(strokes, axis=2)) + 1
    inner = slice(int(left + line) + 1, max(int(right - line), 0))
    lid, floor = ink[:int(0.2 * high), inner], ink[int(0.75 * high):, inner]
    if not lid.size or line > 0.25 * (right - left) or not lid.any(axis=0).all() or floor.any():
        return None
    return left, high - line, right - left, line


def _runs(row):
    """First and last pixel of each run: int array (runs, 2)."""
    return np.flatnonzero(np.diff(np.r_[0, row, 0].astype(np.int8))).reshape(-1, 2) - [0, 1]


def _ends(labels, boxes, pulses):
    """The columns between which half of the rows or more have a trace: (first, behind the last)."""
    x, _, height, width, _, _ = np.median(pulses, axis=0)
    left, wide = boxes[:, 0], boxes[:, 2]
    is_trace = (wide > width) & ((left > x + width) | (left + wide < x))  # no letter, no frame
    rows = [is_trace[labels[max(int(each.y - NEAR * height), 0):int(each.y + NEAR * height)]]
            for each in pulses]
    columns = np.flatnonzero(np.mean([row.any(axis=0) for row in rows], axis=0) >= 0.5)
    return (columns[0], columns[-1] + 1) if len(columns) else (0, 0)


def _off(value, those):
    """The part by which a value is off the nearest of `those`."""
    return min(abs(value / each - 1) for each in those)
