"""Which lead is where on a sheet, and what its scale is.

The rows, the length of the traces and the calibration pulses say what the sheet may be; the heart's
own law says what it is: of the six limb leads any two give the others (Einthoven, Goldberger).
"""
from typing import NamedTuple

import cv2
import numpy as np

from utils.ecg.paper import labels
from utils.ecg.signals import LEADS, SAMPLES, SAMPLING_RATE, NotAnECG

CABRERA = ('aVL', 'I', '-aVR', 'II', 'aVF', 'III', *LEADS[6:])
# {rows of traces: [(rows of leads, columns)]}; the rows below those are rhythm strips.
LAYOUTS = {3: [(3, 4)], 4: [(3, 4)], 5: [(3, 4)], 6: [(6, 2), (3, 4)], 7: [(6, 2)], 8: [(6, 2)],
           9: [(6, 2)], 12: [(12, 1)]}
# Of a strip: how much more it must be like a lead that is seldom one.
STRIPS = dict.fromkeys(('I', 'III', 'aVR', 'aVL', 'aVF', 'V2', 'V3', 'V4', 'V6'), 1.5)
# What I and II give of each limb lead.
FROM_LIMBS = {'I': (1, 0), 'II': (0, 1), 'III': (-1, 1), 'aVR': (-0.5, -0.5), '-aVR': (0.5, 0.5),
              'aVL': (1, -0.5), 'aVF': (-0.5, 1)}
SELDOM = 1.3  # times as well as the usual order Cabrera's must agree to be taken for it
BROKEN = 0.22  # part of the limb leads that may not follow from one another
# Part by which a strip may differ from its lead; and if it bears the lead's name, or differs from
# all others by so many times as much.
OTHER, CLEARLY = (0.3, 0.4), 1.6
BLOCKS = 8  # parts of a strip that are levelled
SHIFTS = range(-6, 7, 2)  # samples that a row may be shifted by
SPEEDS, GAINS = (25, 50), (5, 10, 20)  # mm/s, mm/mV
USUALLY = 25, 10
PULSE_MM, PULSE_OFF = (3.5, 5, 10), 0.2  # widths, some are narrow; log by which one may be off
FAST_MM = 7  # a wider pulse, of 0.2 s, is one at 50 mm/s
HALF_MM = 12  # from the begin of a row, in which a pulse that is cut is
BESIDE_TRACE_MM = 40  # of the begin or end of a row, in which a pulse is
LENGTH_MM = 250  # of 10 s at 25 mm/s, of 5 s at 50 mm/s
CAPS_MM, BESIDE_MM = 1.2, 30
SHORTEST = 0.9  # of the whole length that must be there
FEW, MISREAD = 3, 0.15  # names, below which they say nothing; part that may be misread
WIDER = 0.018  # part by which columns must be wider than 2.5 s to be so
# mm behind the begin of its stretch that a name may be without a doubt about the begin, and is.
MOST_BEFORE, MOST_AFTER, USUAL = -1.5, 4.5, 1
EDGE_MM = 0.4  # at the ends of a stretch that may be a separator's ink
LEAST_S = 1  # of a lead
HOLE_MM = 2.5  # a hole in a trace that is wider is one in the signal, too


class Pulse(NamedTuple):
    """A calibration pulse of 1 mV and 0.2 s, all in mm."""
    height: float
    width: float
    start: float
    end: float


class Frame(NamedTuple):
    """Where the traces begin and, if nothing is cut off, end, in mm of the flat sheet, and their
    scale; pulse: whether there is one; seen: mm of them that are there; sure: of start and end;
    granted: the units for which neither a pulse nor print says the scale."""
    start: float
    end: float
    mm_per_s: float
    mm_per_mv: float
    pulse: bool
    seen: float
    sure: bool
    granted: str


class Placed(NamedTuple):
    """What a sheet shows.

    values: float64 array (12, 5000), mV, NaN where a lead is not shown; name: str, of the layout
    stretches: list of (lead, row, start, end), mm of the flat sheet
    known: str, what says which lead is which; broken: float, part of the limb leads' laws
    """
    values: np.ndarray
    name: str
    stretches: list
    known: str = ''
    broken: float = 0.0


class Order(NamedTuple):
    """A layout: the stretches of its leads as _cells(), the names beside them as labels.match()."""
    name: str
    cells: list
    lead_rows: int
    beside: list
    frame: Frame


def find_frame(ink, heights, printed, px_per_mm):
    """Find scale, start and end of the traces.

    ink: float32 array (height, width), as ink.find_ink(); heights: float array (rows, width), as
        traces.measure(); printed: [mm/s, mm/mV] as labels.scale_of()
    Raises: NotAnECG where a pulse contradicts what is printed
    """
    rows = [row / px_per_mm for row in heights]
    start, end = np.median([_longest(np.isfinite(row), px_per_mm) for row in rows], axis=0)
    pulse = _find_pulse(ink, len(rows), (start, end), px_per_mm)
    measured = [None, None]
    if pulse:
        measured = [SPEEDS[int(pulse.width > FAST_MM)] if pulse.width else None,
                    min(GAINS, key=lambda each: abs(np.log(each / pulse.height)))]
    for one, other, unit in zip(measured, printed, labels.UNITS):
        if one and other and one != other:
            raise NotAnECG(f'a sheet whose calibration pulse says {one:g} {unit}, and on which '
                           f'{other:g} {unit} is printed')
    speed, gain = (one or other or usual for one, other, usual in zip(measured, printed, USUALLY))
    length = LENGTH_MM if end - start < 1.5 * LENGTH_MM else 2 * LENGTH_MM
    left = pulse and pulse.end < (start + end) / 2
    if left:
        start = _trace_after(rows, pulse.end, px_per_mm)
    elif pulse:
        width = heights.shape[1] / px_per_mm
        end = width - _trace_after([row[::-1] for row in rows], width - pulse.start, px_per_mm)
    over = end - start - length
    sure = abs(over) <= CAPS_MM or bool(pulse) and over > -CAPS_MM
    if abs(over) <= CAPS_MM:  # a pen begins and ends as wide as it is
        start += over / 2
    elif not left and (pulse or over > 0):  # names at the left
        start = end - length
    granted = [unit for one, other, unit in zip(measured, printed, labels.UNITS)
               if not one and not other]
    return Frame(float(start), float(start + length), speed, gain, bool(pulse),
                 float(min(length, length + over)), sure, ' and '.join(granted))


def _longest(there, px_per_mm, close=4):
    """The longest stretch with ink, holes of `close` mm allowed: (start, end), mm."""
    columns = np.flatnonzero(there)
    if not len(columns):
        return 0.0, 0.0
    breaks = np.flatnonzero(np.diff(columns) > close * px_per_mm)
    starts, ends = columns[np.r_[0, breaks + 1]], columns[np.r_[breaks, len(columns) - 1]]
    longest = (ends - starts).argmax()
    return starts[longest] / px_per_mm, (ends[longest] + 1) / px_per_mm


def _find_pulse(ink, rows, span, px_per_mm):
    """What the calibration pulses beside the rows agree on, or None: two upright strokes with a
    straight line from tip to tip, and nothing between their feet; or, where a picture is cut at the
    left, a line that ends in one stroke down: a Pulse of width 0."""
    mask = (ink > 0.4).astype(np.uint8)
    upright = cv2.morphologyEx(cv2.dilate(mask, np.ones((1, 3), np.uint8)), cv2.MORPH_OPEN,
                               np.ones((int(1.2 * px_per_mm), 1), np.uint8))
    upright = cv2.morphologyEx(upright, cv2.MORPH_CLOSE,
                               np.ones((int(0.6 * px_per_mm), 1), np.uint8))
    strokes = cv2.connectedComponentsWithStats(upright)[2][1:, :4] / px_per_mm
    strokes = strokes[(strokes[:, 3] > 4) & (strokes[:, 3] < 24) & (strokes[:, 2] < 2.2)]
    x, top, height = strokes[:, 0] + strokes[:, 2] / 2, strokes[:, 1], strokes[:, 3]

    def open_box(left, right, y, high):
        lid, inside, floor = (mask[int(max(y + above, 0) * px_per_mm):int((y + below) * px_per_mm),
                                   int(max(left, 0) * px_per_mm):int(right * px_per_mm)]
                              for above, below in ((-0.5, 1), (1.3, high - 0.8),
                                                   (high - 0.9, high + 0.5)))
        return lid.size and lid.any(axis=0).mean() > 0.85 and inside.mean() < 0.12 \
            and floor.any(axis=0).mean() < 0.5

    whole, halves = [], []
    for one, other in np.argwhere((np.abs(top[:, None] - top) < 0.8)
                                  & (np.abs(height[:, None] - height) < 1.2)
                                  & (x > x[:, None] + 2.8) & (x < x[:, None] + 12)):
        pulse = Pulse((height[one] + height[other]) / 2, x[other] - x[one], x[one], x[other])
        if not span[0] + BESIDE_TRACE_MM < x[other] < span[1] - BESIDE_TRACE_MM \
                and max(_off(pulse.height, GAINS), _off(pulse.width, PULSE_MM)) < PULSE_OFF \
                and open_box(x[one] + 0.6, x[other] - 0.6, (top[one] + top[other]) / 2,
                             pulse.height):
            whole.append(pulse)
    for at, y, high in zip(x, top, height):
        if at < span[0] + HALF_MM and _off(high, GAINS) < PULSE_OFF / 2 \
                and open_box(at - 1.3, at - 0.3, y, high):
            halves.append(Pulse(high, 0, at, at))
    return _most_alike(whole, rows < 5) or _most_alike(halves)


def _most_alike(pulses, one_is_enough=False):
    """The median of the largest number of pulses that are the same beside different rows."""
    if not pulses:
        return None
    each = np.array(pulses)
    alike = (np.abs(each[:, None] - each) < [1, 0.8, 1, 1]).all(axis=2)
    most = alike.sum(axis=1).argmax()
    alone = one_is_enough and len(pulses) == 1 and _off(each[0, 1], PULSE_MM) < PULSE_OFF / 2
    return Pulse(*np.median(each[alike[most]], axis=0)) if alone or alike[most].sum() > 1 else None


def _off(value, those):
    """The log by which a value is off the nearest of `those`."""
    return min(abs(np.log(value / each)) for each in those)


def _trace_after(rows, edge, px_per_mm):
    """Where the traces begin after a pulse whose last stroke is at `edge`, mm: after a gap, if most
    have one; rows: float arrays (width,)."""
    gaps = [_gap_after(row, edge, px_per_mm) for row in rows]
    gaps = [gap for gap in gaps if gap]
    return np.median(gaps) if len(gaps) > len(rows) / 2 else edge


def _gap_after(row, edge, px_per_mm):
    """Where the trace begins after a gap that follows the pulse, mm, or None."""
    first = int((edge + 0.3) * px_per_mm)
    there = np.isfinite(row[first:first + int(9 * px_per_mm)])
    holes = np.flatnonzero(np.diff(np.r_[0, ~there, 0]))
    wide = [end for start, end in zip(holes[::2], holes[1::2])
            if end - start >= 0.35 * px_per_mm and end < len(there)]
    return (first + wide[-1]) / px_per_mm if wide else None


def place(heights, frame, names, px_per_mm):
    """Find the layout.

    heights: float array (rows, width), y in pixels; frame: Frame; names: list of labels.Word
    Returns: Placed, what agrees best with the laws and with the names
    Raises: NotAnECG
    """
    rows, length = len(heights), frame.end - frame.start
    if rows not in LAYOUTS:
        raise NotAnECG(f'a sheet with {rows} rows of traces, expected 3 x 4, 6 x 2 or 12 x 1 '
                       'leads, with or without rhythm strips; is it no ECG, cut, or are there two?')
    if frame.seen < SHORTEST * length:
        raise NotAnECG(f'traces of {frame.seen:.0f} mm, expected {length:.0f}; is the sheet cut '
                       'off?')
    order, broken, contradicted = min(
        (_try_order(heights, frame, names, shape, cabrera, px_per_mm)
         for shape in LAYOUTS[rows] for cabrera in (False, True)),
        key=lambda each: (each[1] > BROKEN, each[2], each[1]))
    name, cells, lead_rows, beside, frame = order
    if broken > BROKEN:
        raise NotAnECG(f'a sheet whose limb leads do not follow from one another, best as {name} '
                       f'({broken:.0%} of them do not): the leads are in an order that is not '
                       'known here, or the traces cannot be followed')
    read = [(lead, index) for lead, index in beside if index < len(cells)]
    if contradicted:
        cells = _as_named(cells, read)
        name += ' with ' + ', '.join(cell[0] for cell in cells if cell[0] in LEADS[6:])
    right = [index for lead, index in read if lead == cells[index][0].lstrip('-')]
    if not frame.sure and lead_rows < 12:
        raise NotAnECG(f'traces that are not {length:.0f} mm long, without a calibration pulse or '
                       'names of leads that say where each begins; is the sheet cut off?')
    strips = {index - len(cells) + lead_rows: lead for lead, index in beside
              if index >= len(cells)}
    placed = _assemble(heights, frame, (name, cells, lead_rows), px_per_mm, strips)
    wrong = _wrong(cells, read)
    known = f'{len(right)} names of leads read, which agree' if len(right) >= FEW else \
        'the names of the leads could not be read: their usual order is taken for granted'
    return placed._replace(known=known + (f'; but {wrong}' if wrong else ''), broken=broken)


def _try_order(heights, frame, names, shape, cabrera, px_per_mm):
    """A sheet read as one layout: (its Order, the part of the laws that is broken, whether names
    contradict it)."""
    lead_rows, columns = shape
    leads = CABRERA if cabrera else LEADS
    cells = _cells(heights, frame, shape, leads, px_per_mm)
    beside = _names_of(cells, names, heights, frame, px_per_mm)
    there = _as_placed(frame, cells, beside, names) if columns > 1 else frame
    if there != frame:
        cells = _cells(heights, there, shape, leads, px_per_mm)
    name = f'{lead_rows} x {columns}' + ' Cabrera' * cabrera
    broken = (SELDOM if cabrera else 1) * _broken(cells, lead_rows)
    return Order(name, cells, lead_rows, beside, there), broken, _contradict(cells, beside)


def _names_of(cells, names, heights, frame, px_per_mm):
    """The names beside the cells and the strips below: list of (lead, index of its cell)."""
    middles = [np.nanmedian(row) / px_per_mm for row in heights]
    places = []
    for lead, row, start, end, _, _ in cells:
        part = heights[row][max(int(start * px_per_mm), 0):int(end * px_per_mm)] / px_per_mm
        places.append((lead, start, np.nanmedian(part) if np.isfinite(part).any() else
                       middles[row]))
    strips = range(max(cell[1] for cell in cells) + 1, len(heights))
    places += [('', frame.start, middles[row]) for row in strips]
    return labels.match(names, places, np.median(np.diff(middles)))


def _contradict(cells, read):
    """Whether names that were read are clearly those of other leads."""
    wrong = [lead != cells[index][0].lstrip('-') for lead, index in read if index < len(cells)]
    return sum(wrong) >= 2 and sum(wrong) > MISREAD * len(wrong)


def _wrong(cells, read):
    """The names that are not those of the leads beside them, in words."""
    return ', '.join(f'{lead} is read where {cells[index][0]} is expected' for lead, index in read
                     if lead != cells[index][0].lstrip('-'))


def _as_named(cells, read):
    """The cells with the chest leads in the order of the names.

    Raises: NotAnECG where the names do not say so for at least five of them
    """
    wrong = _wrong(cells, read)
    chest = [index for index, cell in enumerate(cells) if cell[0] in LEADS[6:]]
    named = {index: lead for lead, index in read}
    left = [lead for lead in LEADS[6:] if lead not in named.values()]
    for index in chest:
        named.setdefault(index, left[0] if len(left) == 1 else '')
    limbs = [named[index] == cells[index][0].lstrip('-') for index in named if index not in chest]
    if not all(limbs) or sorted(named[index] for index in chest) != list(LEADS[6:]):
        raise NotAnECG(f'a sheet whose names of leads contradict the order of its traces: {wrong}')
    return [(named[index], *cell[1:]) if index in chest else cell
            for index, cell in enumerate(cells)]


def _as_placed(frame, cells, beside, names):
    """The Frame in which names stand where the stretches after the first column begin."""
    found = []
    for lead, index in beside:
        if index < len(cells) and lead == cells[index][0].lstrip('-') and cells[index][4]:
            away = [name.x - cells[index][2] for name in names
                    if name.lead == lead and name.text not in labels.OLD]  # they begin later
            found += [(cells[index][2] - frame.start, min(away, key=abs))] if away else []
    along, away = np.array(found).T if len(found) >= FEW else ([0], [0])
    several = len(set(along)) > 1
    fits = MOST_BEFORE < np.median(away) < MOST_AFTER and frame.seen == frame.end - frame.start
    if not (several or along[0] and (frame.pulse or fits)):
        return frame
    slope, level = np.polyfit(along, away, 1) if several else (0, np.median(away))
    if np.abs(away - level - slope * np.array(along)).max() > 2 or abs(slope) > 0.05:
        return frame
    start, length = frame.start, frame.end - frame.start
    if not MOST_BEFORE < level < MOST_AFTER:
        start += level - USUAL
    if abs(slope) > WIDER:
        length *= 1 + slope
    return frame._replace(start=start, end=start + length, sure=True)


def _cells(heights, frame, shape, names, px_per_mm):
    """The stretches of the leads: list of (name, row, start, end, first sample, values in mV)."""
    lead_rows, columns = shape
    length = frame.end - frame.start
    cells = []
    for column in range(columns):
        start = frame.start + column * length / columns
        for row in range(lead_rows):
            values = _read(heights[row], start, length / columns, frame, px_per_mm)
            first = round(column * length / columns / frame.mm_per_s * SAMPLING_RATE)
            cells.append((names[column * lead_rows + row], row, start, start + length / columns,
                          first, values))
    return cells


def _read(row, start, length, frame, px_per_mm):
    """mV at 500 Hz of a stretch of a row, from its median, NaN where there is none."""
    first, last = (int(each * px_per_mm) for each in (start + EDGE_MM, start + length - EDGE_MM))
    first, last = max(first, 0), min(last, len(row))
    columns = first + np.flatnonzero(np.isfinite(row[first:last]))
    count = min(round(length / frame.mm_per_s * SAMPLING_RATE), SAMPLES)
    if len(columns) < 2 * px_per_mm:
        return np.full(count, np.nan)
    places = (start + np.arange(count) / SAMPLING_RATE * frame.mm_per_s) * px_per_mm - 0.5
    values = np.interp(places, columns, row[columns])
    after = np.clip(np.searchsorted(columns, places), 1, len(columns) - 1)
    hole = columns[after] - columns[after - 1] > HOLE_MM * px_per_mm
    outside = np.maximum(columns[0] - places, places - columns[-1]) > HOLE_MM * px_per_mm
    values[(hole & (places > columns[0]) & (places < columns[-1])) | outside] = np.nan
    return (np.nanmedian(values) - values) / px_per_mm / frame.mm_per_mv


def _broken(cells, lead_rows):
    """The part of the limb leads that does not follow from the others at the same time, 0 to 1,
    when rows that a photo has sheared are shifted by some ms."""
    worst = 0.0
    for column in range(0, len(cells), lead_rows):
        limbs = [cell for cell in cells[column:column + lead_rows] if cell[0] in FROM_LIMBS]
        if len(limbs) < 3:
            continue
        values = np.stack([cell[5] for cell in limbs])
        if np.isfinite(values).all(axis=0).mean() < 0.5:
            return 1.0
        space, _ = np.linalg.qr(np.array([FROM_LIMBS[cell[0]] for cell in limbs], float))
        least = _left(values, space)
        for row in [*range(len(limbs))] * 2 if least > BROKEN / 2 else ():
            shifted = [values.copy() for _ in SHIFTS]
            for each, shift in zip(shifted, SHIFTS):
                each[row] = np.roll(each[row], shift)
            least, values = min(((_left(each, space), each) for each in shifted),
                                key=lambda each: each[0])
        worst = max(worst, least)
    return worst


def _left(values, space):
    """The part of limb leads, float array (leads, samples), that is outside of `space`."""
    values = values[:, np.isfinite(values).all(axis=0)]
    values = values - np.median(values, axis=1, keepdims=True)
    left = values - space @ (space.T @ values)
    return float(np.sqrt((left ** 2).sum() / max((values ** 2).sum(), 1e-9)
                         * len(values) / (len(values) - 2) / 3))


def _assemble(heights, frame, found, px_per_mm, named):
    """Placed out of the cells and the strips below them; named: {row of a strip: lead}."""
    name, cells, lead_rows = found
    values = np.full((len(LEADS), SAMPLES), np.nan)
    stretches = []
    for lead, row, start, end, first, cell in cells:
        sign = -1 if lead.startswith('-') else 1
        part = values[LEADS.index(lead.lstrip('-')), first:first + len(cell)]
        part[:] = sign * cell[:len(part)]
        stretches.append((lead, row, start, end))
    strips = []
    for row in range(lead_rows, len(heights)):
        strip = np.full(SAMPLES, np.nan)
        cell = _read(heights[row], frame.start, frame.end - frame.start, frame, px_per_mm)
        strip[:len(cell)] = cell
        different, shifts = np.array([_difference(lead, strip) for lead in _by_the_law(values)]).T
        likely = [STRIPS.get(lead, 1) * (0.5 if lead == named.get(row) else 1) for lead in LEADS]
        best = int(np.argmin(different * likely))
        clear = named.get(row) == LEADS[best] \
            or np.partition(different, 1)[1] > CLEARLY * different[best]
        if different[best] > OTHER[bool(clear)]:
            raise NotAnECG(f'a sheet as {name} whose row {row + 1}, a rhythm strip, is like none '
                           'of its leads; are there two ECGs on it?')
        strips.append(LEADS[best])
        strip = np.roll(strip, int(shifts[best]))
        level = np.nanmedian(values[best] - strip)
        values[best] = np.where(np.isfinite(values[best]), values[best], strip + level)
        stretches.append((LEADS[best], row, frame.start, frame.end))
    name += f' + {", ".join(strips)}' if strips else ''
    missing = [lead for lead, row in zip(LEADS, values)
               if np.isfinite(row).sum() < LEAST_S * SAMPLING_RATE]
    if missing:
        raise NotAnECG(f'a sheet as {name} without {", ".join(missing)}, expected all twelve leads')
    return Placed(values, name, stretches)


def _by_the_law(values):
    """The limb leads at all times that show any two of them, the chest leads as they are: float
    array (12, 5000). By it a strip is known better than by the lead's own few seconds."""
    limbs = np.stack([FROM_LIMBS[lead] for lead in LEADS[:6]])
    levelled = values[:6] - np.nanmedian(values[:6], axis=1, keepdims=True)
    shown = np.isfinite(levelled)
    result = np.concatenate([np.full((6, SAMPLES), np.nan), values[6:]])
    for pattern in np.unique(shown, axis=1).T:
        if pattern.sum() > 1:
            at = (shown == pattern[:, None]).all(axis=0)
            one_two = np.linalg.lstsq(limbs[pattern], levelled[pattern][:, at], rcond=None)[0]
            result[:6, at] = limbs @ one_two
    return result


def _difference(lead, strip):
    """The part by which a strip differs from a lead where both are there, 0 to 1, without what
    wanders slowly, and the shift, of some ms, with which it does: (float, samples)."""
    found = [(np.inf, 0)]
    for shift in SHIFTS:
        both = np.stack([lead, np.roll(strip, shift)]).reshape(2, BLOCKS, -1)
        both[:, ~np.isfinite(both).all(axis=0)] = np.nan
        both = both[:, np.isfinite(both[0]).sum(axis=1) > SAMPLING_RATE / 2]
        both -= np.nanmedian(both, axis=2, keepdims=True)
        size = max(np.nansum(both ** 2, axis=(1, 2)).max(), 1e-9)
        if both.size:
            found.append((np.sqrt(np.nansum((both[0] - both[1]) ** 2) / size), shift))
    return min(found)
