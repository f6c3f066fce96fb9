"""The sheet laid flat, and the ink on it: without grid, shadows and the paper's colour."""
import cv2
import numpy as np

MARGINS = 24, 60  # mm around the grid that may hold a part of a trace; where it goes on there
LARGEST = 420  # mm of a sheet
THICK_MM, STAIN_MM = 2.2, 4  # what is so thick, and goes so far both ways, is no trace
BORDER_MM = 0.6  # of a line around a picture, at most
FRAME_MM = 150  # and neither is what is straight over such a length, or half of it upright
EDGE = 0.3  # of the ink's darkness: the edge of the paper is fainter
WIDEST_MM = 1  # of what hides a trace
LEAST, PALE = 0.25, 0.75  # of the print's darkness that traces have, and that pale ones have
RUN_MM = 5  # of traces that run into an edge
STROKE_MM = 4  # of a trace that is straight; letters are smaller
LEVEL_MM, ROW_MM = 2, 225  # of what is straight; of a row, at least
PERIODS = 9  # of 5 mm around, in which a grid is the same
LINE_MM, LINE = 20, 0.1  # along which a line is as dark, and how often it is in all periods
UNSURE, NOISE = 3, 0.01  # what varies tells so much less of its ink; noise of what does not vary
KNOWN, HIDES = 0.5, 0.02  # what tells enough; part of the paper that does not, under a black grid
HIDDEN, SPECK_MM = 0.1, 0.9  # ink of what may be ink; what is smaller is none
PAPER_MM = 2.5  # what is dark over more mm in both directions is a shadow or a crease


def lay_flat(picture, grid, px_per_mm, margin=MARGINS[0]):
    """The sheet with `px_per_mm` in both directions, 0 at its upper left.

    picture: uint8 array (height, width, 3); grid: grid.Grid; margin: mm around it
    Returns: (flat, inside, origin): uint8 array (height, width, 3); bool array (height, width),
        what the picture shows of it; float array (2,), mm, of pixel (0, 0)
    """
    origin = np.floor(grid.low - margin)
    size = np.minimum(np.ceil(grid.high + margin) - origin, LARGEST).astype(int)
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


def find_ink(flat, inside, px_per_mm, margin=MARGINS[0]):
    """How much ink there is at each pixel.

    flat, inside: as lay_flat() gives them, with the same margin
    Returns: (ink, hidden): float32 array (height, width), 0 paper and grid, 1 ink; bool array
        (height, width), where a grid that is as black as the ink hides whether there is some
    """
    dark = _darkness(flat, px_per_mm)
    period = 5 * px_per_mm // 2  # of every other pixel
    height, width = (side // 2 // period * period for side in inside.shape)
    sample, seen = (each[::2, ::2][:height, :width] for each in (dark, inside))
    total = sample.sum(axis=2)
    total, sample = (total - _around(total, period))[seen], sample[seen]
    black = np.percentile(total, 99.7)
    colour, rest = np.median(sample[total > 0.7 * black], axis=0), sample[total < 0.25 * black]
    for _ in range(2):
        found, hidden = _of_colour(dark, colour, rest, inside, px_per_mm)
        found *= ~_is_frame(found, px_per_mm, margin)
        traces = _strokes(found, px_per_mm)
        if not traces.any() or np.median(found[traces]) > PALE:
            break
        colour = np.median(dark[traces], axis=0)  # that was the print's
    return found, hidden


def _of_colour(dark, colour, rest, inside, px_per_mm):
    """How much ink of a colour there is, and where it is hidden, as find_ink(); dark: as
    _darkness(); colour: float array (3,), rest: float array (n, 3), of what is none, as dark."""
    spread = np.cov(rest.T) + 0.0005 * np.eye(3)
    weights = np.linalg.solve(spread, colour)
    found = dark @ (weights / (weights @ colour)).astype(np.float32)
    inside = inside & ~_is_thick(found, inside, px_per_mm)
    found, hidden = _without_lines(found * inside, inside, px_per_mm)
    return found * inside, hidden


def _strokes(found, px_per_mm):
    """Where there is most ink along what is straight for longer than letters are: bool array
    (height, width)."""
    level, upright = _straight(found > LEAST, int(STROKE_MM * px_per_mm))
    return ((level | upright) > 0) & (found > 0.9 * cv2.dilate(found, np.ones((7, 7))))


def goes_on(ink, px_per_mm):
    """Whether three traces or more run into the left or right edge of a flat sheet: a shadow hides
    the grid there; ink: as find_ink()"""
    wide = int(RUN_MM * px_per_mm)
    for edge in (ink[:, :wide], ink[:, -wide:]):
        stats = cv2.connectedComponentsWithStats((edge > 0.5).astype(np.uint8))[2][1:]
        if (stats[:, cv2.CC_STAT_WIDTH] == wide).sum() > 2:
            return True
    return False


def turns(ink, px_per_mm):
    """How often a sheet may have to be turned by 90 degrees, what is likely first: traces go on for
    longer than their QRS stand above each other; ink: float32 array (height, width), as find_ink()
    """
    level, upright = _straight(ink > 0.5, int(LEVEL_MM * px_per_mm))
    level, upright = level.any(axis=0), upright.any(axis=1)
    both = min(level.sum(), upright.sum()) > ROW_MM * px_per_mm
    size = np.mean if both else np.sum
    likely, other = ((0, 2), (1, 3))[::1 if size(level) >= size(upright) else -1]
    return likely + other if both else likely


def _straight(there, long):
    """What of a mask is level, and what is upright, for `long` pixels: two uint8 arrays."""
    near = cv2.dilate(there.astype(np.uint8), np.ones((3, 3), np.uint8))
    return [cv2.morphologyEx(near, cv2.MORPH_OPEN, np.ones(size, np.uint8))
            for size in ((1, long), (long, 1))]


def _is_thick(found, inside, px_per_mm):
    """Where a stain or the table is: bool array (height, width). It may go on beyond the picture,
    which a line around that does not."""
    square, line = (np.ones((int(each * px_per_mm),) * 2, np.uint8)
                    for each in (THICK_MM, BORDER_MM))
    dark = ((found > 0.5) & inside).astype(np.uint8)
    dark |= cv2.dilate(cv2.morphologyEx(dark, cv2.MORPH_OPEN, line), square) & ~inside
    dark = cv2.morphologyEx(dark, cv2.MORPH_OPEN, square)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(dark)
    large = stats[:, 2:4].min(axis=1) > STAIN_MM * px_per_mm
    large[0] = False
    return cv2.dilate(large[labels].astype(np.uint8), square) > 0


def _is_frame(found, px_per_mm, margin):
    """Where the paper's edge or the frame of the grid is: bool array (height, width)."""
    long, margin = int(FRAME_MM * px_per_mm), int((margin + 10) * px_per_mm)
    near = cv2.dilate((found > EDGE).astype(np.uint8), np.ones((3, 3), np.uint8))
    hole = int(WIDEST_MM * px_per_mm)
    level, upright = (
        cv2.morphologyEx(cv2.morphologyEx(near, cv2.MORPH_CLOSE, np.ones(holes, np.uint8)),
                         cv2.MORPH_OPEN, np.ones(size, np.uint8))
        for holes, size in (((1, hole), (1, long)), ((hole, 1), (long // 2, 1))))
    level[margin:-margin] = 0  # further inside it may be a lead that fell off
    upright[:, margin:-margin] = 0  # or the QRS of all rows
    return (level | upright) > 0


def _darkness(flat, px_per_mm):
    """How much darker than the paper: float32 array (height, width, 3), 0 to 1."""
    small = cv2.resize(flat, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    side = int(PAPER_MM * px_per_mm / 4) | 1
    paper = cv2.morphologyEx(small, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    paper = cv2.blur(paper, (3, 3))
    paper = cv2.resize(paper, flat.shape[1::-1]).astype(np.float32)
    return 1 - flat / np.maximum(paper, 20)


def _without_lines(found, inside, px_per_mm):
    """Take away what a grid leaves: what is there every 5 mm around; found: float32 array (height,
    width), inside: bool array of that shape.

    Where that is as dark as ink nobody sees whether there is ink, too: there is where it goes on
    on both sides. Returns: (the ink, where that is not seen)
    """
    height, width = (side // (5 * px_per_mm) * 5 * px_per_mm for side in found.shape)
    seen, weight = found[:height, :width], inside[:height, :width].astype(np.float32)
    ink, known = _beside_grid(seen, weight, False, px_per_mm)
    hides = (known < KNOWN).mean() > HIDES
    weight[known * ink > 0.5] = 0  # that is no grid
    ink, known = _beside_grid(seen, weight, hides, px_per_mm)
    result, hidden = found.copy(), np.zeros(found.shape, bool)
    if hides:
        hidden[:height, :width] = (known < KNOWN) & (seen > 0.5)
    result[:height, :width] = _uncover(seen, ink, known, px_per_mm) if hides else ink
    return result, hidden


def _uncover(seen, ink, known, px_per_mm):
    """The ink where lines hide some of it: `known` as _beside_grid()."""
    reach = int(WIDEST_MM * px_per_mm)
    between = np.maximum(_between(ink, known > KNOWN, reach), _between(
        np.ascontiguousarray(ink.T), np.ascontiguousarray(known.T) > KNOWN, reach).T)
    ink = known * ink + (1 - known) * np.minimum(seen, np.maximum(between, HIDDEN))
    _, labels, stats, _ = cv2.connectedComponentsWithStats((ink > 0.5).astype(np.uint8))
    small = stats[:, 2:4].max(axis=1) < SPECK_MM * px_per_mm
    return np.where(small[labels], np.minimum(ink, HIDDEN), ink)


def _beside_grid(seen, weight, hides, px_per_mm):
    """What is darker than the grid, and how certain it is that this is ink: two float32 arrays of
    the shape of `seen`; weight: the same, 0 where something else is; hides: whether lines do."""
    count, line, square = (_around(each, 5 * px_per_mm)
                           for each in (weight, weight * seen, weight * seen ** 2))
    line = line / np.maximum(count, 1e-3)
    spread = np.maximum(square / np.maximum(count, 1e-3) - line ** 2, 0) + NOISE
    long = int(LINE_MM * px_per_mm) | 1
    for size in ((1, long), (long, 1)) if hides else ():  # each line has a width of its own
        own = cv2.blur(weight * seen, size) / np.maximum(cv2.blur(weight, size), 1e-3)
        line = np.where(line > LINE, np.maximum(line, own), line)
    clear = np.maximum(1 - line, 0.05)
    return np.clip((seen - line) / clear, 0, 1.2), clear ** 2 / (clear ** 2 + UNSURE * spread)


def _around(values, period):
    """The mean of what is at the same place of each period around: float32 array of that shape."""
    height, width = values.shape
    there = cv2.blur(values.reshape(height // period, -1), (1, PERIODS))
    for row in there.reshape(height, width // period, period):
        row[:] = cv2.blur(row, (1, PERIODS))
    return there.reshape(height, width)


def _between(ink, known, reach):
    """The lesser of what is known above and below, where both are within `reach` pixels."""
    y, last = np.arange(len(ink), dtype=np.int32)[:, None], len(ink) - 1
    above = np.maximum.accumulate(np.where(known, y, -reach), axis=0)
    below = np.minimum.accumulate(np.where(known, y, last + reach)[::-1], axis=0)[::-1]
    lesser = np.minimum(np.take_along_axis(ink, np.maximum(above, 0), axis=0),
                        np.take_along_axis(ink, np.minimum(below, last), axis=0))
    return np.where(below - above <= reach + 1, lesser, 0)
