"""The grid of ECG paper: where each mm of the sheet is in the picture.

A grid is two waves, one along time and one along mV. Their frequency is found in the spectrum. Then
a mesh of nodes grows from where both are clearest: those around say where the next node should be
and how large a mm is there, and the waves' phase says where it is, to parts of a pixel. So the grid
is followed through rotation, perspective and the bending of paper, and over what hides it.
"""
import heapq
from typing import NamedTuple

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.ndimage import map_coordinates, maximum_filter1d
from scipy.spatial import cKDTree

LARGEST = 2000  # pixels, the longer side of the picture in which it is looked for
PATCH = 384  # pixels of the patches whose spectra are averaged
WIDTHS = (700, 200)  # mm that a picture may be wide
FINE = 0.7  # log by which lines every mm stand out where there are some
TURN = 22  # degrees that the sheet may be turned by
THICK = 11  # pixels, more than any line
VISIBLE = 1.1  # mean log of what a grid's harmonics must stand out by
UNEQUAL = 11  # steps of 0.008 log, by which a mm across may be another than one down
NODE_MM, MOST = 5, 150  # between the nodes of the mesh; nodes from the first one
FIRST_MM = 10  # between the places of which the clearest is the first one
PERIODS = {1: 5, 5: 2}  # to each side of a node that are looked at; {mm of a period: number}
HARMONICS = {1: (1,), 5: (1, 2, 4)}  # traces have less of what a line every 5 mm has more of
SAMPLES = 4  # of the shortest of these
CLEAR, AWAY_MM = 0.45, 0.3  # of the first node, that others must be; that one may be off
APART_MM, ANOTHER_MM2 = 25, 3000  # from all nodes, where another grid is, and how large
CARRIED, UNSEEN = 4, 0.1  # nodes over which the mesh is carried on unseen; what such ones count
NEAR = 2  # nodes around, which say where one should be
BESIDE = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
AROUND_Y, AROUND_X = np.mgrid[-NEAR:NEAR + 1, -NEAR:NEAR + 1]
TERMS = np.stack([np.ones(AROUND_X.shape), NODE_MM * AROUND_X, NODE_MM * AROUND_Y], axis=-1)
WEIGHTS = np.exp(-(AROUND_X ** 2 + AROUND_Y ** 2) / 4)
PRIOR = 5.0  # mm^2, what the jacobian of one beside it counts
MIN_NODES = 100
NEAR_MM = 0.6  # from a plane: what says where it is
STRAIGHT = 0.45  # mm off, by which nine in ten nodes are at most on paper that is not bent
BEND_MM, BEYOND_MM = 10, 60  # between the places of a bend; that it goes on beyond the nodes
SMOOTH, MOST_NODES = 1.0, 500  # of the spline, and through how many nodes it goes


class Nodes(NamedTuple):
    """The mesh while it grows, arrays (nodes, nodes): places, pixels (x, y); jacobians, (2, 2),
    pixels a mm; clear: how clear the grid is there, or less than 0, how many nodes away it was seen
    last, or -inf, where nothing is yet."""
    places: np.ndarray
    jacobians: np.ndarray
    clear: np.ndarray


class Patch(NamedTuple):
    """What is looked at around a node: x, y: float arrays (side, side), mm; window: (side,), what
    they count; waves: complex array (harmonics, side), of `periods`, float array, mm."""
    x: np.ndarray
    y: np.ndarray
    window: np.ndarray
    waves: np.ndarray
    periods: np.ndarray


class Grid(NamedTuple):
    """Where the mm are: `homography` (3, 3) from mm to pixels, then a bend.

    bend: two float arrays (rows, columns), pixels to the right and down, every BEND_MM from
        BEYOND_MM before `low`
    low, high: float arrays (2,), mm, between which there is a grid; px_per_mm: float
    ruled: whether it is printed, and not what unruled.find_scale() made up; another: whether there
        is another grid in the picture that does not belong to it
    """
    homography: np.ndarray
    bend: list
    low: np.ndarray
    high: np.ndarray
    px_per_mm: float
    ruled: bool = True
    another: bool = False

    def pixels(self, places):
        """Pixels of places on the sheet; places: float array (n, 2), mm -> (n, 2), x and y."""
        straight = cv2.perspectiveTransform(places[None].astype(np.float64), self.homography)[0]
        cells = ((places - self.low + BEYOND_MM) / BEND_MM).T[::-1]
        return straight + np.stack([map_coordinates(each, cells, order=3, mode='nearest')
                                    for each in self.bend], axis=1)

    @property
    def rotation(self):
        """Degrees that the sheet is turned by, clockwise."""
        left, right = self.pixels((self.low + self.high) / 2 + [[-20, 0], [20, 0]])
        return float(np.degrees(np.arctan2(*(right - left)[::-1])))


def find_grid(picture):
    """Find the grid.

    picture: uint8 array (height, width, 3)
    Returns: Grid, or None where there is none
    """
    shrunk = max(max(picture.shape) / LARGEST, 1)
    small = cv2.resize(picture, None, fx=1 / shrunk, fy=1 / shrunk, interpolation=cv2.INTER_AREA) \
        if shrunk > 1 else picture
    lines = _lines_of(small)
    waves = _find_waves(lines)
    if waves is None:
        return None
    (across, down), period = waves
    patch, jacobian = _patch(period), np.linalg.inv(np.stack([across, down]) * period)
    around = _look_around(lines, jacobian, patch)
    on_sheet, places = _grow(lines, max(around), jacobian, patch)
    found = _fit(on_sheet, (places + 0.5) * shrunk - 0.5)
    return found and found._replace(another=_is_another(around, places, jacobian))


def _lines_of(picture):
    """The grid's lines without shadows and with weak ink: float32 array (height, width)."""
    light = picture.min(axis=2)
    paper = cv2.morphologyEx(light, cv2.MORPH_CLOSE, np.ones((THICK, THICK), np.uint8))
    lines = (paper - light) / (paper + np.float32(20))
    limit = np.percentile(lines[::4, ::4], 92)
    lines[lines > 2 * limit] = lines.mean()
    return np.minimum(lines, limit)


def _find_waves(lines):
    """The two waves: ((across, down), mm of a period), each a frequency (x, y), 1/pixel."""
    spectrum = _spectrum(lines)
    longest, narrowest = (max(lines.shape) / width for width in WIDTHS)
    scales = np.exp(np.arange(np.log(max(longest, 3)), np.log(narrowest), 0.008))
    if not len(scales):  # 600 pixels or less
        return None
    angles = np.radians(np.arange(-TURN, TURN + 0.1, 0.4))
    scores = [_comb(spectrum, 5 * scales, angles, turned, 7)
              + _comb(spectrum, scales, angles, turned, 1) for turned in (False, True)]
    # One alone is text, or a striped shirt. A picture may be as much longer in one direction.
    both = np.minimum(*(maximum_filter1d(score, UNEQUAL, axis=0) for score in scores))
    best = both.max(axis=1)
    if best.max() < VISIBLE:
        return None
    peaks = np.flatnonzero((best == maximum_filter1d(best, 7)) & (best > 0.7 * best.max()))
    row = peaks[-1]  # parts of a mm have the same harmonics, or some of them
    column = both[row].argmax()
    rows = slice(max(row - 14, 0), row + 15)
    columns = slice(max(column - 10, 0), column + 11)
    waves = []
    for score, turned in zip(scores, (False, True)):
        near = score[rows, columns]
        at = np.unravel_index(near.argmax(), near.shape)
        waves.append(_direction(angles[columns][at[1]], turned) / scales[rows][at[0]])
    fine = min(_stands_out(spectrum, wave) for wave in waves) > FINE
    return (waves, 1) if fine else ([wave / 5 for wave in waves], 5)


def _stands_out(spectrum, wave):
    """By how much lines every mm stand out from the harmonics of those every 5 mm, log."""
    found = []
    for part in (0.8, 1, 1.2):
        x, y = np.rint(wave * part * PATCH + PATCH // 2).astype(int)
        near = spectrum[max(y - 1, 0):y + 2, max(x - 1, 0):x + 2]
        found.append(near.max() if near.size else -np.inf)
    return found[1] - max(found[0], found[2])


def _direction(angle, turned):
    return np.array([-np.sin(angle), np.cos(angle)] if turned else [np.cos(angle), np.sin(angle)])


def _spectrum(lines):
    """Mean log power of the patches in the middle: float32 array (PATCH, PATCH), 0 centred."""
    window = np.hanning(PATCH)[:, None] * np.hanning(PATCH)
    lines = np.pad(lines, [(0, max(PATCH - side, 0)) for side in lines.shape])
    top, left = ((side - PATCH) // 5 for side in lines.shape)
    power = np.zeros((PATCH, PATCH))
    for y in range(top, lines.shape[0] - PATCH - top + 1, PATCH // 2):
        for x in range(left, lines.shape[1] - PATCH - left + 1, PATCH // 2):
            patch = lines[y:y + PATCH, x:x + PATCH]
            power += np.abs(np.fft.fft2((patch - patch.mean()) * window)) ** 2
    return np.log(np.fft.fftshift(power) + 1e-3).astype(np.float32)


def _comb(spectrum, periods, angles, turned, harmonics):
    """How far each period's harmonics stand out from what is half-way between them, mean log:
    float array (periods, angles)."""
    total = np.zeros((len(periods), len(angles)), np.float32)
    count = np.zeros((len(periods), 1), np.float32)
    directions = np.stack([_direction(angle, turned) for angle in angles])
    for harmonic in range(1, harmonics + 1):
        found = []
        for part in (harmonic - 0.5, harmonic, harmonic + 0.5):
            places = (part / periods)[:, None, None] * directions * PATCH + PATCH // 2
            places = places.astype(np.float32)
            found.append(cv2.remap(spectrum, places[..., 0], places[..., 1], cv2.INTER_LINEAR))
        inside = harmonic < 0.48 * periods[:, None]
        total += np.where(inside, found[1] - (found[0] + found[2]) / 2, 0)
        count += inside
    return total / np.maximum(count, 1)


def _grow(lines, first, jacobian, patch):
    """Follow the grid from where it is clearest, node by node, always on from the clearest.

    first: one of _look_around(); jacobian: float array (2, 2), pixels a mm, there; patch: Patch
    Returns: (on_sheet, places): float arrays (n, 2), mm and pixels of the nodes that were seen
    """
    clearest, x, y, *off = first
    side, queue = 2 * MOST + 1, []
    nodes = Nodes(np.empty((side, side, 2)), np.empty((side, side, 2, 2)),
                  np.full((side, side), -np.inf))

    def place(node, at, jacobian, clear):
        nodes.places[node], nodes.jacobians[node], nodes.clear[node] = at, jacobian, clear
        for beside in BESIDE:
            there = node[0] + beside[0], node[1] + beside[1]
            if nodes.clear[there] < 0 and min(there) >= NEAR and max(there) < side - NEAR:
                heapq.heappush(queue, (-clear, there, node))

    place((MOST, MOST), np.array([x, y]) + jacobian @ off, jacobian, clearest)
    while queue:
        _, node, origin = heapq.heappop(queue)
        known = nodes.clear[node] > (0 if nodes.clear[origin] > 0 else -np.inf)
        if known:  # what was not seen is looked at once more from beside what was
            continue
        at, jacobian = _expect(nodes, node, nodes.jacobians[origin])
        if (at < 0).any() or (at >= lines.shape[::-1]).any():
            continue
        off, clear = _measure(lines, at, jacobian, patch)
        away = min(nodes.clear[origin], 0) - 1
        if clear > CLEAR * clearest and np.abs(off).max() < AWAY_MM:
            place(node, at + jacobian @ off, jacobian, clear)
        elif away >= -CARRIED and nodes.clear[node] == -np.inf:
            place(node, at, jacobian, away)
    seen = np.argwhere(nodes.clear > 0)
    return (seen[:, ::-1] - MOST) * float(NODE_MM), nodes.places[tuple(seen.T)]


def _is_another(around, places, jacobian):
    """Whether a grid is seen where there are no nodes near; around: as _look_around(); places:
    float array (n, 2), the nodes'"""
    least = CLEAR * max(around)[0]
    clear = np.array([(x, y) for each, x, y, *_ in around if each > least])
    apart = cKDTree(places).query(clear)[0] / np.sqrt(abs(np.linalg.det(jacobian)))
    return (apart > APART_MM).sum() * FIRST_MM ** 2 > ANOTHER_MM2


def _patch(period):
    """The waves that are looked for around a node: Patch."""
    reach = PERIODS[period] * period
    periods = period / np.array(HARMONICS[period])
    mm = np.linspace(-reach, reach, 2 * round(SAMPLES * reach / periods[-1]) + 1)
    window = np.exp(-2 * (mm / reach) ** 2)
    window /= window.sum()
    waves = window * np.exp(-2j * np.pi * mm / periods[:, None])
    return Patch(*np.meshgrid(mm, mm), window, waves, periods)


def _look_around(lines, jacobian, patch):
    """How clear waves of one frequency are every FIRST_MM: list of (how clear, x, y, off by
    x, by y), as _measure()."""
    step = FIRST_MM * np.sqrt(abs(np.linalg.det(jacobian)))
    found = []
    for y in np.arange(step / 2, lines.shape[0], step):
        for x in np.arange(step / 2, lines.shape[1], step):
            off, clear = _measure(lines, (x, y), jacobian, patch)
            found.append((clear, x, y, *off))
    return found


def _expect(nodes, node, jacobian):
    """Where a node should be, by those around: (place (2,), jacobian (2, 2), pixels a mm); a
    jacobian: of one beside it, which is what nodes in one line do not say."""
    around = tuple(slice(at - NEAR, at + NEAR + 1) for at in node)
    there = nodes.clear[around] > -np.inf
    weight = np.where(nodes.clear[around] > 0, WEIGHTS, WEIGHTS * UNSEEN)[there][:, None]
    terms = TERMS[there]
    matrix, target = (weight * terms).T @ terms, (weight * terms).T @ nodes.places[around][there]
    matrix[[1, 2], [1, 2]] += PRIOR
    target[1:] += PRIOR * jacobian.T
    place, *slopes = np.linalg.solve(matrix, target)
    return place, np.stack(slopes, axis=1)


def _measure(lines, place, jacobian, patch):
    """How far a node is off, mm, float array (2,), and how clear both waves are, 0 to 0.7."""
    x, y = (place[axis] + jacobian[axis, 0] * patch.x + jacobian[axis, 1] * patch.y
            for axis in (0, 1))
    seen = cv2.remap(lines, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    window, waves, periods = patch.window, patch.waves, patch.periods
    seen = seen - window @ seen @ window
    size = np.sqrt(window @ seen ** 2 @ window) + 1e-9
    found = np.stack([waves @ (window @ seen), waves @ (seen @ window)], axis=1) / size
    offs, strengths = -np.angle(found) / (2 * np.pi) * periods[:, None], np.abs(found)
    off, clear = offs[0], strengths[0]
    for each, strength, period in zip(offs[1:], strengths[1:], periods[1:]):
        finer = strength > clear / 2
        off = np.where(finer, each + period * np.rint((off - each) / period), off)
        clear = np.maximum(clear, strength)
    return off, clear.min()


def _fit(on_sheet, places):
    """The Grid that maps `on_sheet`, (n, 2) mm, to `places`, (n, 2) pixels, or None."""
    if len(places) < MIN_NODES:
        return None
    px_per_mm = np.sqrt(abs(np.linalg.det(
        np.linalg.lstsq(np.c_[on_sheet, np.ones(len(on_sheet))], places, rcond=None)[0][:2])))
    homography, _ = cv2.findHomography(on_sheet, places, cv2.RANSAC, NEAR_MM * px_per_mm,
                                       maxIters=500)
    if homography is None:
        return None
    low, high = np.percentile(on_sheet, [0.5, 99.5], axis=0)
    away = places - cv2.perspectiveTransform(on_sheet[None], homography)[0]
    size = np.ceil((high - low + 2 * BEYOND_MM) / BEND_MM).astype(int) + 1
    if np.percentile(np.hypot(*away.T), 90) < STRAIGHT * px_per_mm:
        bend = np.zeros((2, *size[::-1]))
    else:
        x, y = np.meshgrid(*(np.arange(each) * BEND_MM for each in size))
        some = slice(None, None, len(places) // MOST_NODES + 1)
        spline = RBFInterpolator(on_sheet[some], away[some], smoothing=SMOOTH)
        bend = spline(np.stack([x.ravel(), y.ravel()], 1) + low - BEYOND_MM)
        bend = bend.T.reshape(2, *size[::-1])
    return Grid(homography, bend, low, high, float(px_per_mm))
