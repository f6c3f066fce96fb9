"""A picture of a sheet of ECG paper -> the signal on it: scans, screenshots, photos, PDFs."""
from typing import NamedTuple

import numpy as np

from utils.ecg.paper import grid, ink, labels, layout, pages, traces
from utils.ecg.paper.pages import EXTENSIONS
from utils.ecg.signals import LEADS, SAMPLING_RATE, NotAnECG, Raw

COARSEST = 3.7  # pixels a mm
PAGE = '#page='
NO_TRACE = 'a picture with a grid and no trace on it, expected an ECG'
FLAT = 8  # pixels a mm of the sheet laid flat


class Sheet(NamedTuple):
    """An ECG that was read from a picture.

    raw: signals.Raw, 12 leads x 10 s, mV, NaN where a lead is not shown; layout: str
    px_per_mm, mm_per_s, mm_per_mv, rotation (degrees): floats; picture: uint8 array (height, width,
    3); traces: list of (lead, float array (n, 2)), pixels of `picture`; page: int, from 1
    """
    raw: Raw
    layout: str
    px_per_mm: float
    mm_per_s: float
    mm_per_mv: float
    rotation: float
    picture: np.ndarray
    traces: list
    page: int


def read_picture(path):
    """Read the ECGs in a picture or a PDF: list of Sheet, one for each page that is one.

    path: str, the file; with #page=2 at its end only this page of it
    Raises: signals.NotAnECG, why there is none
    """
    file, _, only = path.partition(PAGE)
    sheets, problems = [], []
    for number, picture in enumerate(pages.read(file), 1):
        try:
            if only in ('', str(number)):
                sheets.append(read_sheet(picture, number))
        except NotAnECG as error:
            problems.append((number, str(error)))
    if not sheets:
        raise NotAnECG('; '.join(problem if len(problems) == 1 else f'page {number}: {problem}'
                                 for number, problem in problems))
    others = '; '.join(f'page {number} is {problem}' for number, problem in problems)
    for sheet in sheets if others else ():
        sheet.raw.notes.append(f'not used: {others}')
    return sheets


def read_raw(path, _rate=None, _unit=None):
    """The signals.Raw of the first sheet in a file, as the other readers of formats.py give it."""
    return read_picture(path)[0].raw


def is_picture(path):
    """Whether a path, as paths_of() gives it, is one of a picture or a PDF."""
    return path.partition(PAGE)[0].lower().endswith(EXTENSIONS)


def paths_of(path):
    """What is to be read of a file: [path], or of several pages those that are ECGs, with #page=2
    at their end."""
    if not is_picture(path) or pages.count(path) < 2:
        return [path]
    try:
        return [f'{path}{PAGE}{sheet.page}' for sheet in read_picture(path)]
    except NotAnECG:
        return [path]


def read_sheet(picture, page=1):
    """Read the ECG on one page.

    picture: uint8 array (height, width, 3); page: int, its number
    Returns: Sheet
    Raises: signals.NotAnECG, why it is none or cannot be read
    """
    found = grid.find_grid(picture)
    if found is None or found.px_per_mm < COARSEST:  # what is no grid looks like a coarse one
        raise NotAnECG('a picture without the grid of ECG paper, or with one of less than 4 pixels '
                       'a mm, so nothing says its scale; expected a whole ECG sheet, scanned or '
                       'photographed at 150 dpi or more')
    flat, inside, origin = ink.lay_flat(picture, found, FLAT)
    dark = ink.find_ink(flat, inside, FLAT)
    baselines = traces.find_rows(dark, FLAT)
    if not len(baselines):
        raise NotAnECG(NO_TRACE)
    heights = traces.measure(dark, traces.follow(dark, baselines, FLAT), FLAT)
    heights = traces.drop_edges(heights, FLAT)
    if not len(heights):
        raise NotAnECG(NO_TRACE)
    words = labels.read_words(dark, heights, FLAT)
    frame = layout.find_frame(dark, heights, labels.scale_of(words), FLAT)
    placed = layout.place(heights, frame, [word for word in words if word.lead], FLAT)
    traces.refuse_tangled(heights, FLAT)
    lines = [(lead, _in_picture(heights[row], (start, end), found, origin))
             for lead, row, start, end in placed.stretches]
    values, shown = placed.values, np.isfinite(placed.values)
    raw = Raw(values, list(LEADS), SAMPLING_RATE, ['mV'] * len(LEADS),
              [_describe(placed, frame, found)], shown)
    return Sheet(raw, placed.name, found.px_per_mm, frame.mm_per_s, frame.mm_per_mv,
                 found.rotation, picture, lines, page)


def _in_picture(row, span, found, origin):
    """Pixels of the picture in which a stretch of a row lies: float array (n, 2)."""
    columns = np.arange(max(int(span[0] * FLAT), 0), min(int(span[1] * FLAT), len(row)))
    columns = columns[np.isfinite(row[columns])]
    return found.pixels(np.stack([columns, row[columns]], axis=1) / FLAT + origin)


def _describe(placed, frame, found):
    seconds = np.isfinite(placed.values).sum(axis=1) / SAMPLING_RATE
    shown = f'{seconds.min():.3g} s' if np.ptp(seconds) < 0.1 else \
        ', '.join(f'{lead} {each:.3g} s' for lead, each in zip(LEADS, seconds))
    scale = ' (as printed: no calibration pulse found)'
    if frame.granted:
        scale = f' ({frame.granted}: no calibration pulse or print found, taken for granted)'
    elif frame.pulse:
        scale = ''
    return (f'read from a picture of a sheet: {placed.name} leads, {frame.mm_per_s:g} mm/s, '
            f'{frame.mm_per_mv:g} mm/mV{scale}, {found.px_per_mm:.1f} pixels a mm, turned by '
            f'{found.rotation:.1f} degrees; shown of each lead: {shown}; '
            f'{placed.known}')
