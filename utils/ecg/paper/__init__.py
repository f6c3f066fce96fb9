"""A picture of a sheet of ECG paper -> the signal on it: scans, screenshots, photos, PDFs."""
from typing import NamedTuple

import numpy as np

from utils.ecg.paper import grid, ink, labels, layout, pages, traces, unruled, vectors
from utils.ecg.paper.pages import EXTENSIONS
from utils.ecg.signals import LEADS, SAMPLING_RATE, NotAnECG, Raw

COARSEST = 3.7  # pixels a mm
AGREE = 0.1  # part by which a grid's scale may differ from that of the pulses, in photos
PAGE = '#page='
NO_TRACE = 'a picture with a grid and no trace on it, expected an ECG'
MIRRORED = 'a mirrored sheet, by the names of its leads; mirror the picture back'
SIDEWAYS = 'a sheet that lies on its side and cannot be read for certain; turn the picture'
BLACK = 85  # of 255, than which most of a sheet is darker that shows white traces on black
FLAT = 8  # pixels a mm of the sheet laid flat
FINE = 5  # parts of those at which lines of a PDF are read: samples are further apart
WHITE_MM = 3  # of white at an end of a lead, by which its time would be wrong
TRUE = 0.004  # part by which the scale may be off that is exact
EXACT = "; from the PDF's own lines"


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
    for number, picture, drawn in pages.read(file, int(only or 0)):
        try:
            sheets.append(read_sheet(picture, number, drawn))
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
    """What is to be read of a file: [path], or of several pages those with a grid, with #page=2
    at their end."""
    if not is_picture(path) or pages.count(path) < 2:
        return [path]
    try:
        found = [number for number, picture, _ in pages.read(path) if _has_grid(picture)]
    except NotAnECG:
        return [path]
    return [f'{path}{PAGE}{number}' for number in found] or [path]


def read_sheet(picture, page=1, drawn=None):
    """Read the ECG on one page.

    picture: uint8 array (height, width, 3); page: int, its number; drawn: vectors.Drawn, what a PDF
        says of it
    Returns: Sheet
    Raises: signals.NotAnECG, why it is none or cannot be read
    """
    positive = _on_white(picture)
    found = _find_grid(positive)
    if found is None:
        raise NotAnECG('a picture without the grid of ECG paper, and without calibration pulses '
                       'beside rows of 250 mm, so nothing says its scale; expected a whole ECG '
                       'sheet, scanned or photographed at 150 dpi or more')
    if found.px_per_mm < COARSEST:  # what is no grid looks like a coarse one
        raise NotAnECG('a picture without the grid of ECG paper, or with one of about '
                       f'{found.px_per_mm:.1f} pixels a mm, expected 4 or more: a sheet is 1200 '
                       'pixels wide then; scan or photograph it anew')
    if found.another:
        raise NotAnECG('a picture with several grids of ECG paper, as of two sheets or of leads in '
                       'frames of their own, expected one; cut out one sheet')
    for margin in ink.MARGINS:
        flat, inside, origin = ink.lay_flat(positive, found, FLAT, margin)
        dark, hidden = ink.find_ink(flat, inside, FLAT, margin)
        if not ink.goes_on(dark, FLAT):
            break
    exact = drawn and _read_lines(drawn.moved(_to_flat(found, origin, drawn.px_per_mm)), dark)
    turn, (heights, frame, placed) = exact or _read_turned(dark, hidden, inside)
    lines = [(lead, found.pixels(_on_flat(heights[row], (start, end), dark.shape, turn) / FLAT
                                 + origin)) for lead, row, start, end in placed.stretches]
    values, shown = placed.values, np.isfinite(placed.values)
    rotation = (found.rotation + 90 * turn + 180) % 360 - 180
    raw = Raw(values, list(LEADS), SAMPLING_RATE, ['mV'] * len(LEADS),
              [_describe(placed, frame, found, rotation) + EXACT * bool(exact),
               *_warnings(placed, hidden.any() and not exact)], shown)
    return Sheet(raw, placed.name, found.px_per_mm, frame.mm_per_s, frame.mm_per_mv,
                 rotation, picture, lines, page)


def _on_white(picture):
    """A picture, or its negative where that shows dark traces on white."""
    return 255 - picture if np.percentile(picture[::8, ::8], 75) < BLACK else picture


def _find_grid(picture):
    """The grid.Grid, or None. Text and traces can look like a grid; pulses know better then."""
    found, by_pulses = grid.find_grid(picture), unruled.find_scale(picture)
    if by_pulses and not (found and abs(found.px_per_mm / by_pulses.px_per_mm - 1) < AGREE):
        return by_pulses
    return found


def _has_grid(picture):
    found = _find_grid(_on_white(picture))
    return found is not None and found.px_per_mm >= COARSEST


def _read_turned(dark, hidden, inside):
    """(how often it has to be turned by 90 degrees, what _read_traces() then gives).

    What is not upright must keep the laws well, as V4 to V6 nearly keep Cabrera's, and have names
    or a pulse: rows from V6 up to I keep them, too, from left to right and from right to left.
    """
    found, problems = [], []
    for turn in ink.turns(dark, FLAT):
        try:
            found.append((turn, _read_traces(*(
                np.ascontiguousarray(np.rot90(each, turn)) for each in (dark, hidden, inside)))))
            _, frame, placed = found[-1][1]
            upright = not turn and (placed.broken < layout.CERTAIN or placed.named >= layout.FEW)
            if upright or _is_certain(frame, placed):
                return found[-1]
        except NotAnECG as error:
            problems.append(error)
    for turn, read in found:
        if not turn:
            return turn, read
    raise problems[0] if problems else NotAnECG(SIDEWAYS)


def _read_lines(drawn, dark):
    """As _read_turned(), from what a PDF draws, or None where its traces are not clear; drawn:
    vectors.Drawn on the flat sheet."""
    for turn in range(4):
        upright = np.ascontiguousarray(np.rot90(dark, turn))
        lines = drawn.moved(lambda each: _turned(each, dark.shape, -turn))
        fine = vectors.rows_of(lines, upright, FLAT, FINE)
        if fine is None or len(fine) not in layout.LAYOUTS:
            continue
        try:
            found = _place_lines(fine, upright, lines)
        except NotAnECG:
            if not turn:  # a picture of it would be read no better
                raise
            continue
        if not turn or _is_certain(*found[1:]):
            return turn, found
    return None


def _is_certain(frame, placed):
    """Whether what was read of a sheet that is not upright is what it shows."""
    return placed.broken < layout.CERTAIN and (frame.pulse or placed.named >= layout.FEW)


def _place_lines(fine, dark, drawn):
    """What stands on a sheet that is upright, as _read_traces(); fine: as vectors.rows_of()."""
    heights = (fine[:, FINE // 2::FINE] + 0.5) / FINE - 0.5
    names = vectors.names_of(drawn, FLAT)
    if len(names) < layout.FEW:
        names = _names_of(labels.read_words(dark, heights, FLAT))
    frame = layout.find_frame(dark, np.ones(dark.shape, bool), heights,
                              vectors.scale_of(drawn.text), FLAT)
    signs = layout.Signs(*(np.repeat(each, FINE, axis=1) for each in frame.signs))
    frame = frame._replace(signs=signs)
    placed = layout.place(fine, np.zeros(fine.shape), frame, names, FLAT * FINE)
    ends = [(row, at) for _, row, start, end in placed.stretches for at in (start, end - WHITE_MM)]
    white = [np.isnan(heights[row, max(int(at * FLAT), 0):int((at + WHITE_MM) * FLAT)]).all()
             for row, at in ends]
    if sum(white) > 2:
        raise NotAnECG('a sheet with white between its columns of leads, expected one right behind '
                       'the other: their times would be wrong')
    return heights, frame, placed


def _to_flat(found, origin, true):
    """What puts pixels of a picture that is straight on the flat sheet: function of float arrays
    (n, 2); true: pixels a mm, across and down, if the picture is true to size."""
    x, y = np.meshgrid(*(np.linspace(*ends, 9) for ends in zip(found.low, found.high)))
    on_sheet = np.stack([x.ravel(), y.ravel()], axis=1)
    flat, pixels = (on_sheet - origin) * FLAT, found.pixels(on_sheet)
    matrix = np.linalg.lstsq(np.c_[pixels, np.ones(len(flat))], flat, rcond=None)[0]
    exact = np.diag(FLAT / true)
    if np.abs(matrix[:2] - exact).max() < TRUE * exact.max():
        matrix = np.r_[exact, [(flat - pixels @ exact).mean(axis=0)]]
    return lambda places: places @ matrix[:2] + matrix[2]


def _read_traces(dark, hidden, inside):
    """What stands on a sheet that is upright: (heights as traces.read(), Frame, Placed)."""
    heights, unsure = traces.read(dark, hidden, inside, FLAT)
    if not len(heights):
        raise NotAnECG(NO_TRACE)
    words = labels.read_words(dark, heights, FLAT)
    names = _names_of(words)
    if len(names) < layout.FEW <= len(_names_of(labels.read_words(
            dark[:, ::-1], heights[:, ::-1], FLAT))):
        raise NotAnECG(MIRRORED)
    frame = layout.find_frame(labels.without_words(dark, words, FLAT), inside, heights,
                              labels.scale_of(words), FLAT)
    placed = layout.place(heights, unsure, frame, names, FLAT)
    traces.refuse_unexplained(dark, heights, placed.span, FLAT)
    return heights, frame, placed


def _names_of(words):
    return [word for word in words if word.lead]


def _on_flat(row, span, shape, turn):
    """Where on the flat sheet of a shape a stretch of a row is that was read after `turn` times 90
    degrees: float array (n, 2), pixels."""
    columns = np.arange(max(int(span[0] * FLAT), 0), min(int(span[1] * FLAT), len(row)))
    columns = columns[np.isfinite(row[columns])]
    places = np.stack([columns, row[columns]], axis=1)
    return _turned(places, shape[::-1] if turn % 2 else shape, turn)


def _turned(places, shape, turn):
    """Where places on a sheet of a shape, float array (n, 2), pixels, are after it was turned
    clockwise by `turn` times 90 degrees."""
    middle = (np.array(shape[::-1]) - 1) / 2
    places = places - middle
    turned = (places[:, 0] + 1j * places[:, 1]) * 1j ** turn
    return np.stack([turned.real, turned.imag], axis=1) + (middle[::-1] if turn % 2 else middle)


def _warnings(placed, hidden):
    """What of a sheet is left out or may be wrong: list of str; hidden: whether lines hide ink."""
    notes = []
    if hidden:
        notes.append('a grid as black as the traces: what it hides is a guess; compare with the '
                     'picture in the report')
    if placed.missing:
        notes.append('left out, as it is not to be seen or lies on another trace: ' + ', '.join(
            f'{seconds:.1f} s of {lead}' for lead, seconds in placed.missing.items()))
    if placed.unsure:
        notes.append(f'traces touch in {", ".join(sorted(placed.unsure, key=LEADS.index))}: a QRS '
                     "there may be cut, or be another row's; compare with the picture in the "
                     'report')
    return notes


def _describe(placed, frame, found, rotation):
    seconds = np.isfinite(placed.values).sum(axis=1) / SAMPLING_RATE
    shown = f'{seconds.min():.3g} s' if np.ptp(seconds) < 0.1 else \
        ', '.join(f'{lead} {each:.3g} s' for lead, each in zip(LEADS, seconds))
    scale = ' (as printed: no calibration pulse found)'
    if frame.granted:
        scale = f' ({frame.granted}: no calibration pulse or print found, taken for granted)'
    elif frame.pulse:
        scale = ''
    pixels = f'{found.px_per_mm:.1f} pixels a mm'
    if not found.ruled:
        pixels += ' (no grid: by the calibration pulses and the rows\' length)'
    return (f'read from a picture of a sheet: {placed.name} leads, {frame.mm_per_s:g} mm/s, '
            f'{frame.mm_per_mv:g} mm/mV{scale}, {pixels}, turned by '
            f'{round(rotation, 1) + 0.0:.1f} degrees; shown of each lead: {shown}; {placed.known}')
