"""Whose ink it is: a small network parts the traces of rows that run into each other.

It sees the ink and where the rows' baselines are, and says of every pixel how likely the trace of a
first, a second or a third row goes along it; the fourth row is a first one again. So print and what
is left of a grid are nobody's. models/parting.py is the network, benchmarks/teach_parting.py
teaches it, OpenCV runs it.
"""
import os

import cv2
import numpy as np

NETWORK = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'rows.onnx')
KINDS = 3  # of rows: those that are further apart do not meet
MARK_MM = 15  # from a baseline, where its mark ends
DARKEST = 1.275  # ink, as the network has learnt it
LEAST = 0.15  # likelihood of what is a trace's
SURELY = 0.8  # share of the ink from which on it is a row's own for certain
STEP = 32  # pixels, of which the sides are multiples


def part(ink, hidden, levels, around, px_per_mm):
    """The ink of each row's trace; where that is hidden, how likely there is some.

    ink, hidden: arrays (height, width), as ink.find_ink(), 8 pixels a mm
    levels: array (rows, width), y of each row's baseline, from above
    around: int, pixels above the first and below the last row that are looked at
    Returns: (parted, surely): float32 array (3, height, width), of row 0, 3, 6 ..., of 1, 4 ... and
        of 2, 5 ..., of each where they cross; bool array of that shape, where it is so for certain
    """
    there = slice(max(int(levels.min() - around), 0), min(int(levels.max() + around), len(ink)))
    dark, unseen = ink[there], hidden[there]
    likely = _likely(dark, levels - there.start, px_per_mm)
    most = likely.max(axis=0)
    parted, surely = (np.zeros((KINDS, *ink.shape), kind) for kind in (np.float32, bool))
    for kind, each in enumerate(likely):
        share = (most > LEAST) * each / np.maximum(most, LEAST)
        surely[kind, there] = share > SURELY
        parted[kind, there] = np.where(unseen, each, np.minimum(dark, DARKEST) * share)
    return parted, surely


def _likely(ink, levels, px_per_mm):
    """How likely the traces of each kind of rows go along: float32 array (3, height, width)."""
    height, width = ink.shape
    sides = [-(-side // STEP) * STEP for side in ink.shape]
    seen = np.zeros(sides, np.float32)
    seen[:height, :width] = np.clip(ink, 0, DARKEST)
    padded = np.pad(levels, [(0, 0), (0, sides[1] - width)], mode='edge')
    marked = marks(padded[:, ::2], sides[0], px_per_mm)
    network = cv2.dnn.readNetFromONNX(np.fromfile(NETWORK, np.uint8))  # any path will do so
    network.setInput(np.concatenate([to_blocks(seen[None]), marked])[None])
    return from_blocks(network.forward()[0])[:, :height, :width]


def marks(levels, height, px_per_mm):
    """Where the baselines are: float32 array (3, height // 2, width), 1 on one and 0 far from all;
    levels: array (rows, width), y."""
    result = np.zeros((KINDS, height // 2, levels.shape[1]), np.float32)
    y = np.arange(0, height, 2, dtype=np.float32)[:, None] + 0.5
    for row, level in enumerate(levels.astype(np.float32)):
        near = 1 - np.abs(y - level) / (MARK_MM * px_per_mm)
        np.maximum(result[row % KINDS], near, out=result[row % KINDS])
    return result


def to_blocks(planes):
    """Arrays (n, height, width) -> (4 n, height / 2, width / 2): each 2 x 2 pixels are one."""
    count, height, width = planes.shape
    blocks = planes.reshape(count, height // 2, 2, width // 2, 2).transpose(0, 2, 4, 1, 3)
    return blocks.reshape(4 * count, height // 2, width // 2)


def from_blocks(blocks):
    """The reverse of to_blocks()."""
    count, height, width = blocks.shape
    planes = blocks.reshape(count // 4, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return planes.reshape(count // 4, 2 * height, 2 * width)
