"""The sheet laid flat, and the ink on it: without grid, shadows and the paper's colour."""
import cv2
import numpy as np

MARGIN = 24  # mm around the grid that may hold a part of a trace
LARGEST = 420  # mm of a sheet
THICK_MM = 2.2  # what is as thick in both directions is no trace
FRAME_MM = 150  # and neither is what is straight over such a length, or half of it upright
EDGE = 0.3  # of the ink's darkness: the edge of the paper is fainter
WIDEST_MM = 1  # of a line of the grid
LEVEL_MM = 2
PAPER_MM = 2.5  # what is dark over more mm in both directions is a shadow or a crease


def lay_flat(picture, grid, px_per_mm):
    """The sheet with `px_per_mm` in both directions, 0 at its upper left.

    picture: uint8 array (height, width, 3); grid: grid.Grid
    Returns: (flat, inside, origin): uint8 array (height, width, 3); bool array (height, width),
        what the picture shows of it; float array (2,), mm, of pixel (0, 0)
    """
    origin = np.floor(grid.low - MARGIN)
    size = np.minimum(np.ceil(grid.high + MARGIN) - origin, LARGEST).astype(int)
    x, y = np.meshgrid(np.arange(size[0] + 1), np.arange(size[1] + 1))
    places = grid.pixels(np.stack([x.ravel(), y.ravel()], axis=1) + origin)
    shrunk = 1.0
    if grid.px_per_mm > 1.25 * px_per_mm:
        shrunk = px_per_mm / grid.px_per_mm
        picture = cv2.resize(picture, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA)
    places = ((places + 0.5) * shrunk - 0.5).astype(np.float32).reshape(*x.shape, 2)
    flat_size = size * px_per_mm
    # A mesh of mm becomes one of pixels: linear in between.
    mesh_x, mesh_y = np.meshgrid(np.arange(flat_size[0], dtype=np.float32) / px_per_mm,
                                 np.arange(flat_size[1], dtype=np.float32) / px_per_mm)
    maps = cv2.remap(places, mesh_x, mesh_y, cv2.INTER_LINEAR)
    flat = cv2.remap(picture, maps[..., 0], maps[..., 1], cv2.INTER_CUBIC,
                     borderMode=cv2.BORDER_REPLICATE)
    inside = (maps >= 1).all(axis=2) & (maps < np.array(picture.shape[1::-1]) - 2).all(axis=2)
    return flat, inside, origin


def find_ink(flat, inside, px_per_mm):
    """How much ink there is at each pixel: float32 array (height, width), 0 paper and grid, 1 ink.

    flat, inside: as lay_flat() gives them
    """
    dark = _darkness(flat, px_per_mm)
    grey = dark.sum(axis=2)
    shown = inside[::3, ::3]
    sample, total = dark[::3, ::3][shown], grey[::3, ::3][shown]
    black = np.percentile(total, 99.7)
    ink = np.median(sample[total > 0.7 * black], axis=0)
    spread = np.cov(sample[total < 0.45 * black].T) + 0.0005 * np.eye(3)
    weights = np.linalg.solve(spread, ink)
    found = dark @ (weights / (weights @ ink)).astype(np.float32)
    found = _without_lines(found, px_per_mm) * inside
    return found * ~_no_trace(found, px_per_mm)


def is_level(ink, px_per_mm):
    """Whether the traces run from left to right: they go on longer than their QRS stand above each
    other; ink: float32 array (height, width), as find_ink()"""
    near = cv2.dilate((ink > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8))
    long = int(LEVEL_MM * px_per_mm)
    level = cv2.morphologyEx(near, cv2.MORPH_OPEN, np.ones((1, long), np.uint8))
    upright = cv2.morphologyEx(near, cv2.MORPH_OPEN, np.ones((long, 1), np.uint8))
    return level.any(axis=0).sum() >= upright.any(axis=1).sum()


def _no_trace(found, px_per_mm):
    """Where a stain, the paper's edge or the frame of the grid is: bool array (height, width)."""
    side = int(THICK_MM * px_per_mm)
    thick = cv2.dilate(cv2.morphologyEx((found > 0.5).astype(np.uint8), cv2.MORPH_OPEN,
                                        np.ones((side, side), np.uint8)),
                       np.ones((side, side), np.uint8))
    long = int(FRAME_MM * px_per_mm)
    near = cv2.dilate((found > EDGE).astype(np.uint8), np.ones((3, 3), np.uint8))
    level = cv2.morphologyEx(near, cv2.MORPH_OPEN, np.ones((1, long), np.uint8))
    margin = int((MARGIN + 10) * px_per_mm)  # further inside it may be a lead that fell off
    level[margin:-margin] = 0
    upright = cv2.morphologyEx(near, cv2.MORPH_OPEN, np.ones((long // 2, 1), np.uint8))
    upright[:, margin:-margin] = 0  # QRS of several rows
    return (thick | level | upright) > 0


def _darkness(flat, px_per_mm):
    """How much darker than the paper: float32 array (height, width, 3), 0 to 1."""
    small = cv2.resize(flat, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    side = int(PAPER_MM * px_per_mm / 4) | 1
    paper = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    paper = cv2.blur(paper, (3, 3))
    paper = cv2.resize(paper, flat.shape[1::-1]).astype(np.float32)
    return 1 - flat / np.maximum(paper, 20)


def _without_lines(found, px_per_mm):
    """Take away what a grid leaves: the same at every 5 mm; found: float32 array (height, width).

    Where that is as dark as the ink, a trace across it is what has ink on both sides.
    """
    period = 5 * px_per_mm
    lines = []
    for axis in (0, 1):
        profile = np.median(found[::2] if axis == 0 else found[:, ::2], axis=axis)
        line = np.median(profile[:len(profile) // period * period].reshape(-1, period), axis=0)
        line = np.clip(line - line.min(), 0, 1)
        beside = np.maximum(np.roll(line, 1), np.roll(line, -1))
        line = np.maximum(line, beside ** 2)  # black and white has jagged edges
        line = np.tile(line, found.shape[1 - axis] // period + 1)[:found.shape[1 - axis]]
        lines.append(np.expand_dims(line.astype(np.float32), axis))
    both = np.maximum(*lines)
    found = np.clip((found - both) / np.maximum(1 - both, 0.2), 0, 1.2)
    side = int(WIDEST_MM * px_per_mm)
    for line, size in zip(lines, ((1, side), (side, 1))):
        closed = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones(size, np.uint8))
        found += line ** 2 * (closed - found)
    return found
