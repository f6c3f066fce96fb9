"""The traces of a PDF that holds them as lines: their coordinates are better than pixels."""
import ctypes
import re
import sys
from typing import NamedTuple

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from utils.ecg.paper import labels
from utils.ecg.signals import LEADS, NotAnECG

MOST_POINTS, MOST_LETTERS, DEEPEST = 300_000, 20_000, 8  # of a page; forms within forms
PARTS, FAR = 100, 10_000  # of a pixel, which PDFium gives whole; points between two places
SHORTEST_MM, POINTS_A_MM, MOVES_MM = 20, 0.3, 0.3  # of a trace
NEXT_MM, JUMP_MM, BACK_MM = 0.15, 8, 0.02  # from one piece to the next; that a trace may go back
EVEN = 0.2  # part by which steps that are even may differ, as numbers are rounded
BEFORE_MM = 0.4  # of white before a lead
OVERLAP_MM = 1  # of two leads in a row
SEEN, NEAR, SEEN_OF = 0.3, 2, 0.9  # ink, within pixels of so much of a row
APART = 1.6  # letters of a word are not, in heights of a letter
NAMES = {lead.upper(): lead for lead in LEADS}
NUMBER = re.compile(r'\d+(?:[.,]\d+)?')
SCALE = re.compile(r'(\d[\d.,/]*)\s*([cm])m/(s|mV)(?:ec)?(?!\w)', re.I)


class Drawn(NamedTuple):
    """What a page draws and prints, in pixels, 0 in the middle of the first one.

    points: float array (n, 2), the corners of its lines; begins: bool array (n,), where one begins
    text: str; letters: float array (letters of the text, 2, 2), opposite corners of each
    px_per_mm: float array (2,), across and down, if it is true to size
    """
    points: np.ndarray
    begins: np.ndarray
    text: str
    letters: np.ndarray
    px_per_mm: np.ndarray

    def moved(self, move):
        """The same where `move`, a function of float arrays (n, 2), puts it."""
        return self._replace(points=move(self.points),
                             letters=move(self.letters.reshape(-1, 2)).reshape(-1, 2, 2))


def find_lines(page, size):
    """The stroked lines and the text of a page: Drawn, or None where there are none or too many.

    page: pypdfium2.PdfPage; size: (width, height), pixels that it is rendered with
    """
    from pypdfium2 import raw
    points, begins = [], []
    for index, (found, matrix) in enumerate(_objects(raw, page.raw, raw.FPDFPage_CountObjects,
                                                     raw.FPDFPage_GetObject)):
        count = _is_stroked(raw, found) and raw.FPDFPath_CountSegments(found)
        if index + len(begins) + count > MOST_POINTS:
            return None
        corners, starts = _corners(raw, found, count)
        points.append(_apply(corners, matrix))
        begins += starts
    if not begins:
        return None
    ends = np.array([_to_pixels(raw, page, size, at) for at in ((0, 0), (FAR, 0), (0, FAR))])
    to_pixels = np.stack([(ends[1] - ends[0]) / FAR, (ends[2] - ends[0]) / FAR, ends[0] - 0.5])
    points, (text, letters) = _apply(np.concatenate(points), to_pixels), _letters(raw, page)
    inside = ((points > 0) & (points < size)).all(axis=1)  # NaN is not
    if not inside.any():
        return None
    begins = (np.array(begins) | ~np.roll(inside, 1))[inside]
    letters = _apply(letters.reshape(-1, 2), to_pixels).reshape(-1, 2, 2)
    return Drawn(points[inside], begins, text, letters,
                 np.array(size) / page.get_size() * 72 / 25.4)


def rows_of(drawn, ink, px_per_mm, fine):
    """The heights of the traces, which are lines that go steadily to the right.

    drawn: Drawn on the flat sheet; ink: float32 array (height, width), as ink.find_ink(), of what
        can be seen; fine: int, values per pixel
    Returns: float array (rows, width * fine) as traces.measure(), in parts of a pixel, or None
        where the rows are not clear
    """
    pieces = _traces(drawn, px_per_mm)
    middles, levels = np.array([((piece[0, 0] + piece[-1, 0]) / 2, np.median(piece[:, 1]))
                                for piece in pieces]).reshape(-1, 2).T
    ends = np.array([piece[[0, -1], 0] for piece in pieces]).reshape(-1, 2)
    covers = (ends[:, :1] <= middles) & (middles <= ends[:, 1:])  # [each, where another's is]
    count = covers.sum(axis=0)
    if not len(pieces) or len(set((covers * count).max(axis=1))) > 1:  # a row has a hole
        return None
    heights = np.full((count.max(), ink.shape[1] * fine), np.nan)
    places = np.arange(heights.shape[1]) / fine + ends.min() % (1 / fine)  # a value at its samples
    rows = [(covers[:, beside] & (levels < level)).sum()
            for beside, level in zip((covers * count).argmax(axis=1), levels)]
    for piece, row in zip(pieces, rows):
        row = heights[row]
        at = np.flatnonzero((places >= piece[0, 0]) & (places <= piece[-1, 0]))
        if np.isfinite(row[at]).sum() > OVERLAP_MM * px_per_mm * fine:
            return None
        row[at] = (_between(piece, places[at]) + 0.5) * fine - 0.5
    for index, begin in enumerate(ends[:, 0]):  # white says where a lead begins
        heights[rows[index], (places < begin) & (places > begin - BEFORE_MM * px_per_mm)] = np.nan
    seen = cv2.dilate(ink, np.ones((2 * NEAR + 1,) * 2)) > SEEN
    for row in heights:
        at = np.flatnonzero(np.isfinite(row))
        x, y = at // fine, np.rint(row[at] / fine).astype(int)
        if not (seen[np.clip(y, 0, len(ink) - 1), x] & (y >= 0) & (y < len(ink))).mean() > SEEN_OF:
            return None
    return heights


def _between(piece, places):
    """The heights of a line at places between its corners: float array (n,)."""
    step = np.diff(piece[:, 0])
    if np.ptp(step) < EVEN * step.mean():  # samples, and none left out
        return CubicSpline(*piece.T)(places)
    return np.interp(places, *piece.T)


def _traces(drawn, px_per_mm):
    """The lines that are traces: list of float arrays (n, 2), pixels."""
    step = np.diff(drawn.points, axis=0) / px_per_mm
    goes_on = (step[:, 0] > -BACK_MM) & (step[:, 0] < NEXT_MM) & (np.abs(step[:, 1]) < JUMP_MM)
    cuts = np.flatnonzero(drawn.begins[1:] & ~goes_on) + 1
    found = []
    for piece in np.split(drawn.points, cuts):
        width = (piece[-1, 0] - piece[0, 0]) / px_per_mm
        if width > SHORTEST_MM and len(piece) > POINTS_A_MM * width \
                and np.diff(piece[:, 0]).min() > -BACK_MM * px_per_mm \
                and np.ptp(piece[:, 1]) > MOVES_MM * px_per_mm:
            found.append(piece)
    return found


def scale_of(text):
    """The scale that is printed: [mm/s, mm/mV], each None where there is none.

    Raises: NotAnECG where there are two, or one that is not known
    """
    result = []
    for unit, known in labels.UNITS.items():
        values = {float(value.replace(',', '.')) * (1 if part.lower() == 'm' else 10)
                  for several, part, of in SCALE.findall(text) if unit.lower() == f'mm/{of.lower()}'
                  for value in NUMBER.findall(several)}
        if len(values) > 1 or values - set(known):
            raise NotAnECG(f'a sheet on which {" and ".join(map("{:g}".format, sorted(values)))} '
                           f'{unit} is printed, expected one of {", ".join(map(str, known))}')
        result.append(values.pop() if values else None)
    return result


def names_of(drawn, px_per_mm):
    """The names of leads that are printed: list of labels.Word."""
    low, high = (ends(drawn.letters, axis=1) / px_per_mm for ends in (np.min, np.max))
    size, middle = (high - low).max(axis=1, initial=0), (low + high) / 2
    apart = np.hypot(*np.diff(middle, axis=0).T) > APART * np.maximum(size[1:], size[:-1])
    text = drawn.text
    breaks = [at + 1 for at in range(len(text) - 1)
              if apart[at] or text[at].isspace() or text[at + 1].isspace()]
    found = []
    for start, end in zip([0, *breaks], [*breaks, len(text)]):
        lead = NAMES.get(text[start:end].strip('-:').upper())
        if lead:
            found.append(labels.Word(text[start:end], lead, low[start:end, 0].min(),
                                     high[start:end, 0].max(), middle[start:end, 1].mean(), 1.0))
    return found


def _apply(places, matrix):
    """places: float array (n, 2); matrix: float array (3, 2)."""
    return places @ matrix[:2] + matrix[2]


def _objects(raw, parent, count_objects, get_object, depth=0):
    """The objects of a page or a form and, after each, those within: (object, float array (3, 2),
    that puts its coordinates on the page)."""
    for index in range(count_objects(parent)):
        found, values = get_object(parent, index), raw.FS_MATRIX()
        raw.FPDFPageObj_GetMatrix(found, values)
        matrix = np.array([[values.a, values.b], [values.c, values.d], [values.e, values.f]])
        yield found, matrix
        if raw.FPDFPageObj_GetType(found) == raw.FPDF_PAGEOBJ_FORM and depth < DEEPEST:
            for inner, within in _objects(raw, found, raw.FPDFFormObj_CountObjects,
                                          raw.FPDFFormObj_GetObject, depth + 1):
                yield inner, np.r_[within[:2] @ matrix[:2], _apply(within[2:], matrix)]


def _is_stroked(raw, found):
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    return raw.FPDFPageObj_GetType(found) == raw.FPDF_PAGEOBJ_PATH \
        and raw.FPDFPath_GetDrawMode(found, fill, stroke) and bool(stroke.value)


def _corners(raw, path, count):
    """The corners of a path, of curves their ends: (float array (n, 2), list of n bools)."""
    corners, begins, curve = [], [], 0
    x, y = ctypes.c_float(), ctypes.c_float()
    for index in range(count):
        segment = raw.FPDFPath_GetPathSegment(path, index)
        kind = raw.FPDFPathSegment_GetType(segment)
        curve = curve + 1 if kind == raw.FPDF_SEGMENT_BEZIERTO else 0
        if curve % 3 == 0 and raw.FPDFPathSegment_GetPoint(segment, x, y):
            corners.append((x.value, y.value))
            begins.append(kind == raw.FPDF_SEGMENT_MOVETO)
    return np.array(corners).reshape(-1, 2), begins


def _letters(raw, page):
    textpage = page.get_textpage()
    count = min(raw.FPDFText_CountChars(textpage.raw), MOST_LETTERS)
    text, letters = '', np.zeros((max(count, 0), 2, 2))
    left, right, bottom, top = (ctypes.c_double() for _ in range(4))
    for index in range(len(letters)):
        text += chr(min(raw.FPDFText_GetUnicode(textpage.raw, index), sys.maxunicode))
        if raw.FPDFText_GetCharBox(textpage.raw, index, left, right, bottom, top):
            letters[index] = (left.value, bottom.value), (right.value, top.value)
    return text, letters


def _to_pixels(raw, page, size, place):
    x, y = ctypes.c_int(), ctypes.c_int()
    raw.FPDF_PageToDevice(page.raw, 0, 0, size[0] * PARTS, size[1] * PARTS, 0, *place, x, y)
    return x.value / PARTS, y.value / PARTS
