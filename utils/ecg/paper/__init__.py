"""A picture of a sheet of ECG paper -> the signal on it: scans, screenshots, photos, PDFs."""
from typing import NamedTuple

import numpy as np

from utils.ecg.paper import grid, ink, layout, pages, traces
from utils.ecg.signals import LEADS, SAMPLING_RATE, NotAnECG, Raw

COARSEST = 3.7  # pixels a mm
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

    Raises: signals.NotAnECG, why there is none
    """
    sheets, problems = [], []
    for number, picture in enumerate(pages.read(path), 1):
        try:
            sheets.append(read_sheet(picture, number))
        except NotAnECG as error:
            problems.append((number, str(error)))
    if not sheets:
        raise NotAnECG('; '.join(problem if len(problems) == 1 else f'page {number}: {problem}'
                                 for number, problem in problems))
    return sheets


def read_sheet(picture, page=1):
    """Read the ECG on one page; picture: uint8 array (height, width, 3)."""
    found = grid.find_grid(picture)
    if found is None:
        raise NotAnECG('a picture without the grid of ECG paper, so nothing says its scale; '
                       'expected a scan, a screenshot or a photo of a whole ECG sheet')
    if found.px_per_mm < COARSEST:
        raise NotAnECG(f'a picture with {found.px_per_mm:.1f} pixels a mm, expected 4 at least; '
                       'scan or photograph the sheet anew, at 150 dpi or more')
    flat, inside, origin = ink.lay_flat(picture, found, FLAT)
    dark = ink.find_ink(flat, inside, FLAT)
    baselines, _ = traces.find_rows(dark, FLAT)
    if not len(baselines):
        raise NotAnECG('a picture with a grid and no trace on it, expected an ECG')
    paths = traces.follow(dark, baselines, FLAT)
    heights = traces.measure(dark, paths, FLAT)
    frame = layout.find_frame(heights, FLAT)
    placed = layout.place(heights, frame, FLAT)
    return Sheet(Raw(placed.values, list(LEADS), SAMPLING_RATE, ['mV'] * len(LEADS), []),
                 placed.name, found.px_per_mm, frame.mm_per_s, frame.mm_per_mv, found.rotation,
                 picture, [], page)
