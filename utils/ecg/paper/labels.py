"""What is printed on a sheet, names of leads and the scale, read by comparing with templates."""
import functools
import os
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.ecg.signals import NotAnECG

FACES = ('DejaVuSans', 'DejaVuSans-Bold', 'DejaVuSansMono', 'DejaVuSerif', 'STIXGeneral',
         'STIXGeneralBol', 'cmr10', 'cmss10', 'cmtt10')
HERSHEY = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
TWELVE = ('aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6')  # I is any upright stroke
OTHERS = ('V7', 'V8', 'V9', 'V3R', 'V4R', 'V5R', 'V6R')
OLD = {'VR': 'aVR', 'VL': 'aVL', 'VF': 'aVF'}  # or an a that a separator touches
NUMBERS = ('5', '10', '20', '25', '50', '5.0', '10.0', '20.0', '25.0', '50.0')
UNITS = {'mm/s': (25, 50), 'mm/mV': (5, 10, 20)}
SPELLED = {'mm/sec': 'mm/s', 'mm/mv': 'mm/mV'}
LETTERS, DIGITS = (3, 4, 5, 6), (1, 2, 3, 4)  # of a unit, some touch, and of a number before it
# What is no name is read, too, so that it is not taken for one.
WORDS = (*TWELVE, *OTHERS, *OLD, *NUMBERS, *UNITS, *SPELLED, 'AVR', 'AVL', 'AVF', '-aVR', '-AVR',
         'II', 'III', 'Hz', 'ms', 'VT', 'QT', 'PR', 'HR')
LEADS_OF = {**{word: {each.upper(): each for each in TWELVE + OTHERS}.get(word.upper().lstrip('-'))
               for word in WORDS}, **OLD}
SHAPE = (24, 40)  # pixels that each word is stretched to
LOWEST, HIGHEST, WIDEST = 1.4, 5.5, 40  # mm of a word
INK, FAINT, TRACE_MM = 0.45, 0.3, 0.6  # a letter's edge; width of what is taken out of a trace
BEFORE_MM, FIRST_MM, AFTER_MM = 6, 28, 15  # how far from where its lead begins a name is
GAP_MM, SAME_MM, SLIM_MM = 0.9, 3, 0.3  # between letters; words are not above or in another
# Correlation with a template, with one that a trace cut, and by how much better than with others;
# what a letter more counts: 25 ends in a 5.
ALIKE, CUT, BETTER, LONGER = 0.72, 0.82, 0.05, 0.05


class Word(NamedTuple):
    """A word, its left and right edge and middle on the flat sheet, mm; lead: str, or None where it
    is the name of none; alike: float, the correlation."""
    text: str
    lead: str
    x: float
    right: float
    y: float
    alike: float


def read_words(ink, heights, px_per_mm):
    """Read the names of leads and what may be a scale: list of Word, those that are certain.

    ink: float32 array (height, width), as ink.find_ink(); heights: as traces.measure()
    """
    templates, texts, aspects = _templates()
    found = []
    letters = without(ink, heights, px_per_mm)
    letters[_is_tall(ink, px_per_mm)] = 0
    for picture, level, least in ((ink, INK, ALIKE), (ink, FAINT, ALIKE), (letters, INK, CUT)):
        for x, y, width, height, part in _with_parts(_boxes(picture, level, px_per_mm),
                                                     picture > level):
            word = _standard(picture[y:y + height, x:x + width])
            alike = np.where(np.abs(np.log(aspects * height / width)) < 0.3, templates @ word, 0)
            best = alike.argmax()
            known = not part or texts[best] in (*UNITS, *NUMBERS)
            if known and alike[best] > max(least, alike[texts != texts[best]].max() + BETTER):
                edges = np.array([x, x + width, y + height / 2]) / px_per_mm
                found.append(Word(texts[best], LEADS_OF[texts[best]], *edges, alike[best]))
    result = []
    for word in sorted(found, key=lambda each: -each.alike - LONGER * len(each.text)):
        if all(abs(word.y - other.y) > SAME_MM or word.x > other.right - SLIM_MM
               or word.right < other.x + SLIM_MM for other in result):
            result.append(word)
    return result


def scale_of(words):
    """The scale that is printed: [mm/s, mm/mV], each None where there is none, NaN where a number
    cannot be read.

    Raises: NotAnECG where there is more than one
    """
    result = []
    numbers = [word for word in words if word.text in NUMBERS]
    for unit, values in UNITS.items():
        before = [{float(word.text) for word in numbers
                   if float(word.text) in values and abs(word.y - other.y) < 1.5
                   and -SLIM_MM < other.x - word.right < 3.5} for other in words
                  if other.text == unit]
        found = sorted(set().union(*before))
        if len(found) > 1:
            raise NotAnECG(f'a sheet on which {found[0]:g} and {found[-1]:g} {unit} are printed; '
                           'expected one scale for all leads')
        result.append((found[0] if all(before) else np.nan) if before else None)
    return result


def match(names, places, spacing):
    """Which names are printed beside which stretches: list of (name's lead, index of the place),
    for the way of placing names, above, below or beside, that agrees best with the leads.

    names: list of Word; places: list of (lead, x, y), where each stretch of a lead begins, mm, a
        rhythm strip's lead being ''; spacing: float, mm between the rows
    """
    leads = np.array([lead.lstrip('-') for lead, _, _ in places])
    x, y = np.array([place[1:] for place in places]).T
    best = ()
    for offset in sorted(np.linspace(-0.7, 0.7, 29) * spacing, key=abs):
        found = []
        for name in names:
            away = np.abs(name.y - y - offset) / spacing
            before = np.where(x > x.min(), BEFORE_MM, FIRST_MM)  # beside only at the left
            away[(name.x < x - before) | (name.x > x + AFTER_MM)] = 1
            if away.min() < 0.3:
                found.append((name.lead, int(away.argmin())))
        score = sum(leads[place] == lead for lead, place in found), len(found)
        if not best or score > best[0]:
            best = score, found
    return best[1]


def without(ink, heights, px_per_mm, width=TRACE_MM):
    """The ink without the traces, `width` mm wide, which run through names."""
    ink = np.ascontiguousarray(ink, np.float32).copy()
    for row in heights:
        columns = np.flatnonzero(np.isfinite(row))
        for some in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
            points = np.round(np.stack([some, row[some]], axis=1)).astype(np.int32)
            cv2.polylines(ink, [points], False, 0, int(width * px_per_mm))
    return ink


def _is_tall(ink, px_per_mm):
    """Where upright lines are, higher than letters, which may touch them: bool array."""
    mask = (ink > FAINT).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((int(HIGHEST * px_per_mm), 1), np.uint8))
    return cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0


def without_words(ink, words, px_per_mm):
    """The ink without words, whose letters have upright lines; II may be lines between leads."""
    ink = np.ascontiguousarray(ink, np.float32).copy()
    for word in words:
        if word.text.strip('I'):
            left, right, top, bottom = (max(int(each * px_per_mm), 0) for each in (
                word.x, word.right, word.y - HIGHEST / 2, word.y + HIGHEST / 2))
            ink[top:bottom + 1, left:right + 1] = 0
    return ink


def _boxes(ink, level, px_per_mm):
    """Boxes around what may be words: int array (words, 4), x, y, width, height."""
    stats = cv2.connectedComponentsWithStats((ink > level).astype(np.uint8))[2][1:]
    letters = np.zeros(ink.shape, np.uint8)
    for x, y, width, height, _ in stats[stats[:, 2:4].max(axis=1) < HIGHEST * px_per_mm]:
        if max(width, height) > 0.5 * px_per_mm:
            letters[y:y + height, x:x + width] = 1
    joined = cv2.morphologyEx(letters, cv2.MORPH_CLOSE,
                              np.ones((1, int(GAP_MM * px_per_mm)), np.uint8))
    boxes = cv2.connectedComponentsWithStats(joined)[2][1:, :4]
    high, wide = boxes[:, 3] / px_per_mm, boxes[:, 2] / px_per_mm
    return boxes[(high > LOWEST) & (high < HIGHEST) & (wide > 0.4 * high) & (wide < WIDEST)]


def _with_parts(boxes, mask):
    """The boxes, and of long ones what may be a unit at the end and a number glued to it: list of
    (x, y, width, height, whether it is a part)."""
    result = [(*box, False) for box in boxes]
    for x, y, width, height in boxes:
        edges = np.flatnonzero(np.diff(np.r_[0, mask[y:y + height, x:x + width].any(axis=0), 0]))
        starts, ends = edges[::2], edges[1::2]
        for unit in LETTERS:
            for number in DIGITS if len(starts) > unit else ():
                first = max(len(starts) - unit - number, 0)
                for one, last in ((first, -unit - 1), (len(starts) - unit, -1)):
                    part = slice(x + starts[one], x + ends[last])
                    lines = np.flatnonzero(mask[y:y + height, part].any(axis=1))
                    high = lines[-1] - lines[0] + 1
                    if high > 0.5 * height:
                        result.append((part.start, y + lines[0], part.stop - part.start, high,
                                       True))
    return list(dict.fromkeys(result))


def _standard(word):
    """A word stretched to SHAPE: float array of mean 0 and length 1."""
    word = cv2.resize(word.astype(np.float32), SHAPE[::-1], interpolation=cv2.INTER_AREA)
    word = cv2.GaussianBlur(word, (0, 0), 1).ravel()
    word -= word.mean()
    return word / max(np.linalg.norm(word), 1e-6)


@functools.cache
def _templates():
    """Each word in each face: (float array (templates, pixels), their names, width by height)."""
    folder = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf')
    found = []
    for word in WORDS:
        pictures = [cv2.putText(np.zeros((100, 300), np.uint8), word, (20, 70), face, 1.5, 255, 4)
                    for face in HERSHEY]
        for face in FACES:
            picture = Image.new('L', (300, 100))
            font = ImageFont.truetype(os.path.join(folder, face + '.ttf'), 50)
            ImageDraw.Draw(picture).text((20, 20), word, fill=255, font=font)
            pictures.append(np.array(picture))
        for picture in pictures:
            ys, xs = np.nonzero(picture > 100)
            part = picture[ys.min():ys.max() + 1, xs.min():xs.max() + 1]
            found.append((_standard(part), SPELLED.get(word, word), part.shape[1] / part.shape[0]))
    return tuple(map(np.array, zip(*found)))
