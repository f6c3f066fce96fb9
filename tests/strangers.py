"""Pictures that must be refused: no ECG, or none that can be read whole and with its scale."""
from dataclasses import replace

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tests.copies import add_noise, clouds
from tests.sheets import draw_sheet, random_style
from utils.ecg.signals import LEADS, SAMPLING_RATE

SIZE = (1800, 1300)  # pixels, of those that are no sheets
KINDS = ('text', 'photo', 'X-ray', 'chart', 'empty grid', 'cut at the side', 'cut below', 'one row',
         'two ECGs', 'too coarse', 'without scale', 'lead missing', 'order of no heart')


def stranger(kind, signal, rng):
    """A picture to be refused.

    kind: of KINDS; signal: float32 array (12, 5000), mV, for those that hold an ECG
    Returns: uint8 array (height, width, 3), RGB
    """
    if kind in ('text', 'chart'):
        return _text(rng) if kind == 'text' else _chart(rng)
    if kind == 'photo':
        colour = rng.uniform(80, 200, 3)
        parts = [clouds(SIZE, rng, 0.25) * clouds(SIZE, rng, 0.1) * each for each in colour]
        return np.clip(np.stack(parts, axis=2), 0, 255).astype(np.uint8)
    if kind == 'X-ray':
        return _x_ray(rng)
    return _sheet(kind, signal, rng)


def _sheet(kind, signal, rng):
    # Of twelve rows half the seconds are an ECG as well.
    layout = '3x4' if kind in ('cut at the side', 'order of no heart') else None
    style = replace(random_style(rng, layout, 200.0), cabrera=False)
    if kind == 'too coarse':
        style = replace(style, dpi=rng.uniform(45, 90))
    if kind == 'without scale':
        style = replace(style, grid='none', pulse='none', footer='')
    if kind == 'order of no heart':
        signal = signal[[4, 2, 0, 1, 5, 3, *range(6, 12)]]
    sheet = draw_sheet(signal, style)
    if kind in ('too coarse', 'without scale', 'order of no heart'):
        return sheet.picture
    if kind == 'two ECGs':
        return np.concatenate([sheet.picture, draw_sheet(signal[:, ::-1], style).picture])
    if kind.startswith('cut') or kind == 'one row':
        return _cut(kind, sheet, rng)
    empty = draw_sheet(signal, replace(style, ink='none')).picture
    if kind == 'empty grid':
        return empty
    return _without_lead(sheet, empty)


def _cut(kind, sheet, rng):
    if kind == 'cut at the side':
        return sheet.picture[:, :int(sheet.picture.shape[1] * rng.uniform(0.4, 0.7))]
    rows = 1.3 if kind == 'cut below' else 0.5
    height = sheet.places[0].y + rows * sheet.style.spacing
    return sheet.picture[:int(height * sheet.style.dpi / 25.4)]


def _without_lead(sheet, empty):
    """The sheet with V3 taken from the picture `empty`, which has the grid alone."""
    gone = next(place for place in sheet.places if LEADS[place.lead] == 'V3')
    scale, style = sheet.style.dpi / 25.4, sheet.style
    wide = (gone.stop - gone.start) / SAMPLING_RATE * style.speed
    top, bottom, left, right = (int(mm * scale) for mm in (
        gone.y - style.spacing / 2, gone.y + style.spacing / 2, gone.x - 1, gone.x + wide))
    picture = sheet.picture.copy()
    picture[top:bottom, left:right] = empty[top:bottom, left:right]
    return picture


def _page(rng):
    figure = Figure(np.array(SIZE) / 150, dpi=150)
    return figure, FigureCanvasAgg(figure)


def _text(rng):
    figure, canvas = _page(rng)
    letters = list('aaabcdeeefghiiklmnnooprsttuvw    ')
    for row in range(30):
        figure.text(0.08, 0.95 - row * 0.03, ''.join(rng.choice(letters, 85)), size=10,
                    family='DejaVu Serif')
    canvas.draw()
    return add_noise(np.asarray(canvas.buffer_rgba())[..., :3], rng, 4)


def _chart(rng):
    figure, canvas = _page(rng)
    for at in range(4):
        axes = figure.add_subplot(2, 2, at + 1)
        axes.plot(rng.normal(0, 1, (200, 3)).cumsum(axis=0))
        axes.grid(True)
        axes.set(title=f'Run {at + 1}', xlabel='days', ylabel='price')
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _x_ray(rng):
    width, height = SIZE
    picture = np.zeros((height, width), np.float32)
    cv2.ellipse(picture, (width // 2, height // 2), (700, 620), 0, 0, 360, 150.0, -1)
    for side in (-1, 1):
        cv2.ellipse(picture, (width // 2 + side * 300, height // 2), (220, 430), side * 8, 0, 360,
                    50.0, -1)
        for rib in range(9):
            cv2.ellipse(picture, (width // 2 + side * 260, 200 + rib * 110), (330, 90),
                        side * 15, 180, 360, 110.0, 16)
    picture = cv2.GaussianBlur(picture, (0, 0), 12) * clouds(SIZE, rng, 0.1)
    return add_noise(cv2.cvtColor(np.clip(picture, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2RGB),
                     rng, 5)
