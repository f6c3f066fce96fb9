"""What becomes of a printed sheet: scans and photos of it, and pictures that are no whole ECG."""
from dataclasses import replace

import cv2
import numpy as np

from tests.sheets import GRIDS


def scan(sheet, rng, kinds=('colour', 'colour', 'grey', 'copy')):
    """A scan, grey copy or black-and-white copy of a sheet; its resolution stays.

    Returns: Sheet
    """
    kind = rng.choice(kinds)
    angle = rng.uniform(-5, 5) if rng.random() < 0.5 else rng.uniform(-1, 1)
    picture, moved = _rotate(sheet.picture, angle, rng.uniform(0.995, 1.005),
                             (255, 255, 255) if rng.random() < 0.7 else (60, 60, 60))
    if rng.random() < 0.3:
        _stain(picture, rng)
    if rng.random() < 0.3:
        _write_by_hand(picture, rng)
    dots_per_mm = sheet.style.dpi / 25.4
    picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.2, 0.09 * dots_per_mm))
    picture = add_noise(picture, rng, rng.uniform(0, 10))
    if kind != 'colour':
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        if kind == 'copy':
            picture = np.where(picture < _copier_level(sheet.style, rng), 0, 255).astype(np.uint8)
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    picture = jpeg(picture, int(rng.integers(30, 91)))
    return replace(sheet, picture=picture, to_pixels=moved @ sheet.to_pixels)


def photo(sheet, rng):
    """A photo of a sheet on a table: perspective to 15 degrees, creases, shadow, blur.

    Returns: Sheet
    """
    paper = sheet.picture.astype(np.float32)
    for _ in range(rng.integers(0, 4)):
        _crease(paper, rng)
    height, width = paper.shape[:2]
    size = int(rng.uniform(2400, 4000))
    size = (size, size * 3 // 4)
    moved = _camera(width, height, size, rng)
    seen = cv2.warpPerspective(cv2.GaussianBlur(paper, (0, 0), 0.5), moved, size,
                               flags=cv2.INTER_LINEAR)
    mask = cv2.warpPerspective(np.ones((height, width), np.float32), moved, size)[..., None]
    seen = seen * mask + _table(size, rng) * (1 - mask)
    seen *= _light(size, rng)
    seen = cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.4, 1.3))
    picture = add_noise(np.clip(seen, 0, 255).astype(np.uint8), rng, rng.uniform(1, 7))
    return replace(sheet, picture=jpeg(picture, int(rng.integers(60, 96))),
                   to_pixels=moved @ sheet.to_pixels)


def jpeg(picture, quality):
    """uint8 array (height, width, 3) as it comes back from a JPEG of quality 1 to 100."""
    data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def add_noise(picture, rng, strength):
    """Noise of a sensor; strength: standard deviation, of 255."""
    noise = rng.standard_normal(picture.shape, np.float32) * np.float32(strength)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def _rotate(picture, angle, stretch, background):
    """Turned by degrees, nothing cut off: (picture, float array (3, 3) of the pixels' way)."""
    height, width = picture.shape[:2]
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wide = int(np.ceil(width * stretch * abs(cos) + height * abs(sin)))
    high = int(np.ceil(width * stretch * abs(sin) + height * abs(cos)))
    moved = (np.array([[1, 0, wide / 2], [0, 1, high / 2], [0, 0, 1]])
             @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
             @ np.diag([stretch, 1, 1])
             @ np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]]))
    return cv2.warpAffine(picture, moved[:2], (wide, high), flags=cv2.INTER_CUBIC,
                          borderValue=background), moved


def _copier_level(style, rng):
    """The grey below which a copier prints black: with all the grid, its 5 mm lines, or none of it
    where a pulse still says the scale."""
    if style.grid == 'none':
        return 128
    minor, major = (int(np.dot([int(colour[at:at + 2], 16) for at in (1, 3, 5)],
                               [0.299, 0.587, 0.114])) for colour in GRIDS[style.grid])
    choice = rng.random()
    if choice < 0.2 and style.pulse != 'none':
        return 100
    return major + 0.6 * (minor - major) if choice < 0.7 else minor + 6


def _stain(picture, rng):
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), np.float32)
    centre = (int(rng.uniform(0, width)), int(rng.uniform(0, height)))
    radius = int(rng.uniform(0.05, 0.2) * height)
    ring = -1 if rng.random() < 0.5 else max(2, radius // 8)
    cv2.ellipse(mask, centre, (radius, int(radius * rng.uniform(0.7, 1))), rng.uniform(0, 180), 0,
                360, 1.0, ring)
    mask = cv2.GaussianBlur(mask, (0, 0), max(2, radius / 15))[..., None]
    colour = np.array([0.85, 0.72, 0.5], np.float32)
    picture[:] = picture * (1 - mask * (1 - colour) * np.float32(rng.uniform(0.3, 0.9)))


def _write_by_hand(picture, rng):
    """A few strokes of a pen in the upper or lower margin."""
    height, width = picture.shape[:2]
    colour = [(20, 30, 150), (170, 20, 30), (40, 40, 40)][rng.integers(3)]
    x, y = rng.uniform(0.3, 0.7) * width, (0.07 if rng.random() < 0.5 else 0.94) * height
    steps = rng.normal(0, 0.012, (40, 2)).cumsum(axis=0) * 0.3
    steps[:, 0] += np.linspace(0, 0.12, 40)
    points = np.array([x, y]) + steps * width
    cv2.polylines(picture, [np.round(points * 8).astype(np.int32)], False, colour,
                  max(1, round(width / 900)), cv2.LINE_AA, shift=3)


def _crease(paper, rng):
    """A fold across the paper, dark on one side and light on the other."""
    height, width = paper.shape[:2]
    x, y = np.meshgrid(np.arange(0, width, 4), np.arange(0, height, 4))
    angle = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
    across = (x - rng.uniform(0.2, 0.8) * width) * np.cos(angle) + \
        (y - rng.uniform(0.2, 0.8) * height) * np.sin(angle)
    across /= rng.uniform(0.002, 0.006) * width
    light = (1 - rng.uniform(0.1, 0.35) * np.exp(-across ** 2)
             - rng.uniform(0, 0.12) * np.tanh(across / 8))
    paper *= cv2.resize(light.astype(np.float32), (width, height))[..., None]


def _camera(width, height, size, rng):
    """The way from the paper's pixels to those of a photo of size (width, height)."""
    tilt, turn, roll = np.radians(rng.uniform((-15, -15, -5), (15, 15, 5)))
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)],
                        [0, np.sin(tilt), np.cos(tilt)]])
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0],
                        [-np.sin(turn), 0, np.cos(turn)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0],
                        [0, 0, 1]])
    turned = about_z @ about_y @ about_x
    away = rng.uniform(1.3, 2.2) * width
    # A point (x, y) of the paper lies at turned @ (x, y, 0), `away` before the lens.
    onto = np.column_stack([turned[:, 0], turned[:, 1], [0, 0, away]])
    onto = onto @ np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    corners = onto @ np.array([[0, width, width, 0], [0, 0, height, height], [1, 1, 1, 1]])
    corners = corners[:2] / corners[2]
    low, high = corners.min(axis=1), corners.max(axis=1)
    scale = min(np.array(size) * rng.uniform(0.86, 0.97) / (high - low))
    shift = np.array(size) / 2 - scale * (low + high) / 2
    return np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]]) @ onto


def _table(size, rng):
    """Wood, cloth or stone, more or less: float32 array (height, width, 3)."""
    colour = rng.uniform(30, 190) * np.array([1, rng.uniform(0.7, 1), rng.uniform(0.5, 1)])
    return np.float32(colour) * clouds(size, rng, rng.uniform(0.05, 0.3))[..., None]


def _light(size, rng):
    """Shadow, vignetting and the lamp's colour: float32 array (height, width, 3), factors."""
    width, height = size
    x, y = np.meshgrid(np.linspace(-1, 1, width, dtype=np.float32),
                       np.linspace(-1, 1, height, dtype=np.float32))
    angle = rng.uniform(0, 2 * np.pi)
    light = 1 - rng.uniform(0, 0.3) * (1 + x * np.cos(angle) + y * np.sin(angle)) / 2
    light *= 1 - rng.uniform(0, 0.25) * (x ** 2 + y ** 2)
    if rng.random() < 0.6:  # a hand or the phone
        angle = rng.uniform(0, 2 * np.pi)
        edge = x * np.cos(angle) + y * np.sin(angle) - rng.uniform(-0.3, 0.6)
        light *= 1 - rng.uniform(0.15, 0.45) / (1 + np.exp(-edge * rng.uniform(8, 50)))
    return light[..., None].astype(np.float32) * np.float32(rng.uniform((0.9, 0.9, 0.8), 1.05))


def clouds(size, rng, strength):
    """Noise of all scales around 1: float32 array (height, width)."""
    total = np.zeros(size[::-1], np.float32)
    for octave in range(2, 9):
        small = rng.standard_normal((2 ** octave, 2 ** octave), np.float32)
        total += cv2.resize(small, size, interpolation=cv2.INTER_CUBIC) / 2 ** (octave / 2)
    return np.clip(1 + strength * total, 0, 2)
