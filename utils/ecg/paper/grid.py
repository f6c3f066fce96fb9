"""The grid of ECG paper: where each mm of the sheet is in the picture.

A grid is two waves, one along time and one along mV. Their frequency is found in the spectrum, and
their phase, followed over the picture, says at any place how many mm it is from any other: to parts
of a pixel, through rotation, perspective and the bending of paper.
"""
from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates, maximum_filter1d

LARGEST = 2000  # pixels, the longer side of the picture in which it is looked for
PATCH = 384  # pixels of the patches whose spectra are averaged
WIDTHS = (700, 200)  # mm that a picture may be wide
FINE = 0.7  # log by which lines every mm stand out where there are some
TURN = 22  # degrees that the sheet may be turned by
THICK = 11  # pixels, more than any line
STEP = 8  # pixels between the places at which a phase is read
FINER = (1.6, 1), (2.5, 1), (4, 1)  # (smoothing, periods; harmonic) in which a wave is followed
COARSE = (1.2, 1), (1.6, 2), (2, 4)  # traces have less of what a line every 5 mm has more of
VISIBLE = 1.1  # mean log of what a grid's harmonics must stand out by
STRAIGHT = 0.05  # mm off, by which half of the places are at most on paper that is not bent
NEAR_MM, FARTHEST_MM = 0.3, 6  # from a plane: what says where it is, and how far paper may bend
BEND_MM = 5
MIN_CELLS = 200  # places with a phase that is worth something


class Grid(NamedTuple):
    """Where the mm are: `homography` (3, 3) from mm to pixels, then a bend.

    bend: two float arrays (rows, columns), pixels to the right and down, every BEND_MM from `low`
    low, high: float arrays (2,), mm, between which there is a grid; px_per_mm: float
    ruled: whether it is printed, and not what unruled.find_scale() made up
    """
    homography: np.ndarray
    bend: list
    low: np.ndarray
    high: np.ndarray
    px_per_mm: float
    ruled: bool = True

    def pixels(self, places):
        """Pixels of places on the sheet; places: float array (n, 2), mm -> (n, 2), x and y."""
        straight = cv2.perspectiveTransform(places[None].astype(np.float64), self.homography)[0]
        cells = ((places - self.low) / BEND_MM).T[::-1]
        return straight + np.stack([map_coordinates(each, cells, order=1, mode='nearest')
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
    (across, down), millimetres = waves
    phases = [_follow(lines, wave) for wave in (across, down)]
    good = phases[0][1] & phases[1][1]
    if good.sum() < MIN_CELLS:
        return None
    places = (np.argwhere(good)[:, ::-1] * STEP + STEP / 2) * shrunk - 0.5
    on_sheet = np.stack([phase[good] for phase, _ in phases], axis=1) * millimetres
    return _fit(on_sheet, places)


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
    both = np.minimum(*scores)  # one alone is text, or a striped shirt
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
    return (waves, 1.0) if fine else ([wave / 5 for wave in waves], 5.0)


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


def _follow(lines, wave):
    """The phase of a wave over the picture: (periods, good), arrays at every STEP pixels.

    First with a wave of one frequency, then with one that bends as the first has found.
    """
    height, width = (side // STEP * STEP for side in lines.shape)
    lines = lines[:height, :width]
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    phase = np.float32(wave[0]) * x + np.float32(wave[1]) * y
    scale = 1 / np.hypot(*wave)
    for smooth, harmonic in COARSE if scale > 20 else FINER:
        turned = 2 * np.pi * harmonic * phase
        wave_there = [cv2.resize(lines * part(turned), (width // STEP, height // STEP),
                                 interpolation=cv2.INTER_AREA) for part in (np.cos, np.sin)]
        sigma = max(smooth * scale / STEP, 1)
        real, imaginary = (cv2.GaussianBlur(each, (0, 0), sigma) for each in wave_there)
        found = real - 1j * imaginary
        strength = np.abs(found)
        good = strength > 0.35 * np.percentile(strength, 90)
        change = _bend(found, np.where(good, strength, 0))
        at_cells = cv2.resize(phase, (width // STEP, height // STEP),
                              interpolation=cv2.INTER_AREA)
        left = np.angle(found * np.exp(-2j * np.pi * change)) / (2 * np.pi)
        result = at_cells + (change + left) / harmonic
        good &= np.abs(left) < 0.3
        phase = phase + cv2.resize(change.astype(np.float32), (width, height)) / harmonic
    return result, good


def _bend(found, strength):
    """What a phase's slopes add up to, a polynomial: float array of the shape of `found`, periods.
    """
    height, width = found.shape
    slopes = [np.angle(found[:, 1:] * found[:, :-1].conj()) / (2 * np.pi),
              np.angle(found[1:] * found[:-1].conj()) / (2 * np.pi)]
    weights = [np.minimum(strength[:, 1:], strength[:, :-1]),
               np.minimum(strength[1:], strength[:-1])]
    y, x = np.mgrid[:height, :width]
    x, y = x / width - 0.5, y / height - 0.5
    powers = [(i, j) for i in range(5) for j in range(5 - i) if i + j]
    terms = [x ** i * y ** j for i, j in powers]
    slopes_of = [np.stack([(each[:, 1:] - each[:, :-1])[weights[0] > 0] for each in terms], 1),
                 np.stack([(each[1:] - each[:-1])[weights[1] > 0] for each in terms], 1)]
    matrix = np.concatenate(slopes_of)
    target = np.concatenate([slope[weight > 0] for slope, weight in zip(slopes, weights)])
    weight = np.concatenate([each[each > 0] for each in weights])
    factors = np.zeros(len(terms))
    for _ in range(5):
        factors = np.linalg.solve((matrix * weight[:, None]).T @ matrix + 1e-9 * np.eye(len(terms)),
                                  (matrix * weight[:, None]).T @ target)
        away = np.abs(matrix @ factors - target)
        weight = np.concatenate([each[each > 0] for each in weights]) \
            * (away < max(3 * np.median(away), 0.002))
    change = sum(factor * term for factor, term in zip(factors, terms))
    level = np.angle((found * np.exp(-2j * np.pi * change) * (strength > 0)).sum()) / (2 * np.pi)
    return change + level


def _fit(on_sheet, places):
    """The Grid that maps `on_sheet`, (n, 2) mm, to `places`, (n, 2) pixels."""
    px_per_mm = np.sqrt(abs(np.linalg.det(
        np.linalg.lstsq(np.c_[on_sheet, np.ones(len(on_sheet))], places, rcond=None)[0][:2])))
    homography, inside = cv2.findHomography(on_sheet, places, cv2.RANSAC, NEAR_MM * px_per_mm,
                                            maxIters=500)
    if homography is None or inside.sum() < MIN_CELLS:
        return None
    low, high = np.percentile(on_sheet, [0.5, 99.5], axis=0)
    away = places - cv2.perspectiveTransform(on_sheet[None], homography)[0]
    size = ((high - low) / BEND_MM).astype(int) + 2
    cells = (on_sheet - low) / BEND_MM
    near = (np.hypot(*away.T) < FARTHEST_MM * px_per_mm) & (cells > 0).all(axis=1) \
        & (cells < size - 1).all(axis=1)
    if np.median(np.hypot(*away[near].T)) < STRAIGHT * px_per_mm:
        away[:] = 0
    cells = tuple(np.rint(cells[near]).astype(int).T[::-1])
    count, *sums = (np.zeros(size[::-1]) for _ in range(3))
    for total, values in zip((count, *sums), (np.ones(near.sum()), *away[near].T)):
        np.add.at(total, cells, values)
    count, *sums = (cv2.GaussianBlur(each, (0, 0), 1) for each in (count, *sums))
    nearest = distance_transform_edt(count == 0, return_distances=False, return_indices=True)
    bend = [(each / np.maximum(count, 1e-9))[tuple(nearest)] for each in sums]
    return Grid(homography, bend, low, high, float(px_per_mm))
