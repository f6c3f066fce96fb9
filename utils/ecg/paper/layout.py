"""Which lead is where on a sheet, and what its scale is.

The rows, the length of the traces and the calibration pulses say what the sheet may be; the heart's
own law says what it is: of the six limb leads any two give the others (Einthoven, Goldberger).
"""
from typing import NamedTuple

import cv2
import numpy as np
from scipy.interpolate import CubicSpline

from utils.ecg.paper import labels, laws, traces
from utils.ecg.signals import LEADS, SAMPLES, SAMPLING_RATE, NotAnECG

CABRERA = ('aVL', 'I', '-aVR', 'II', 'aVF', 'III', *LEADS[6:])
# {rows of traces: [(rows of leads, columns)]}; the rows below those are rhythm strips.
LAYOUTS = {3: [(3, 4)], 4: [(3, 4)], 5: [(3, 4)], 6: [(6, 2), (3, 4)], 7: [(6, 2)], 8: [(6, 2)],
           9: [(6, 2)], 12: [(12, 1)]}
SELDOM = 1.3  # times as well as the usual order Cabrera's must agree to be taken for it
SHEARS = np.linspace(-1.2, 1.2, 25)  # mm by which the last row of leads may be behind the first
SPEEDS, GAINS = labels.UNITS.values()  # mm/s, mm/mV
USUALLY = 25, 10
PULSE_MM, PULSE_OFF = (3.5, 5, 10), 0.2  # widths, some are narrow; log by which one may be off
FAST_MM = 7  # a wider pulse, of 0.2 s, is one at 50 mm/s
HALF_MM = 12  # from the begin of a row, in which a pulse that is cut is
BESIDE_TRACE_MM = 40  # of the begin or end of a row, in which a pulse is
LENGTH_MM = 250  # of 10 s at 25 mm/s, of 5 s at 50 mm/s
STRETCH, STEPS = 0.025, 81  # part by which print may be longer or shorter than its grid says
CAPS_MM, PEN_MM = 1.2, 0.15  # by which traces seem longer, by the pen at one end
FOOT_MM, STROKE_MM = 3, 0.8  # of a pulse, beside it; of its stroke, to each side
BEYOND_MM = 40  # beside what is read, in which pulses and print may be
SHORTEST = 0.9  # of the whole length that must be there
SHOWN = 0.2  # signs where leads begin within the rows
CERTAIN = 0.1  # part of the laws that is broken, below which they say that as well, or what is up
SURE = 1.5  # ends of the traces and of columns, of which signs are seen
WHITE_MM, NEAR_MM = 0.35, 0.5  # before a trace that begins; that rows may begin beside each other
SEEN_MM = 1  # of the picture, before a trace that begins
UPRIGHT_MM, THICK_MM, DASH_MM = 2.5, 1.2, 0.9  # of lines between columns
# What a name, the end of a pulse and what may be the trace itself count beside other signs; what
# print that is as stretched as can be must have more of them, as letters have upright lines, too.
NAME, PULSE, STEP, UNUSUAL = 0.5, 0.7, 0.5, 1.5
FEW, MISREAD = 3, 0.15  # names, below which they say nothing; part that may be misread
MOST_BEFORE, MOST_AFTER = -1, 4.5  # mm behind the begin of its stretch that a name may be
EDGE_MM = 0.4  # at the ends of a stretch that may be a separator's ink
MOST_TANGLED = 3  # leads of which nobody knows which trace is whose at their QRS
OF_STRIP = 0.6  # that must be no other row's, for the rest of a strip to be used
LEAST_S, MISSING_S = 1, 0.2  # of a lead, at least; of what is not read, said
HOLE_MM = 2.5  # a hole in a trace that is wider is one in the signal, too


class Pulse(NamedTuple):
    """A calibration pulse of 1 mV and 0.2 s, all in mm."""
    height: float
    width: float
    start: float
    end: float


class Signs(NamedTuple):
    """What may show where the columns of leads begin, each float array (rows, width), 0 to 1:
    begins and ends of a trace beside white; ticks: upright lines outside of the traces; steps:
    upright lines that may be the traces' own."""
    begins: np.ndarray
    ends: np.ndarray
    ticks: np.ndarray
    steps: np.ndarray


class Frame(NamedTuple):
    """The scale, and where the traces may begin and end, in mm of the flat sheet.

    length: of 10 s at 25 mm/s; pulse: Pulse or None; granted: str, the units for which neither a
    pulse nor print says the scale; start, end: of the traces, then of what is read of them; sure:
    float, the signs of all ends of columns; inner: float, the mean of those within the rows
    """
    signs: Signs
    length: float
    mm_per_s: float
    mm_per_mv: float
    pulse: Pulse
    granted: str
    start: float = 0.0
    end: float = 0.0
    sure: float = 0.0
    inner: float = 1.0

    @property
    def samples(self):
        """Of the whole length."""
        return round(self.length / self.mm_per_s * SAMPLING_RATE)


class Placed(NamedTuple):
    """What a sheet shows.

    values: float64 array (12, 5000), mV, NaN where a lead is not shown; name: str, of the layout
    stretches: list of (lead, row, start, end), mm of the flat sheet
    unsure: set of str, leads of which a part may be another row's
    missing: {lead: s that were not read of what is shown of it}
    known: str, what says which lead is which; named: int, names that say it; broken: float, part
    of the limb leads' laws
    """
    values: np.ndarray
    name: str
    stretches: list
    unsure: set
    missing: dict
    known: str = ''
    named: int = 0
    broken: float = 0.0

    @property
    def span(self):
        """Between which mm of the flat sheet there are leads: (float, float)."""
        _, _, starts, ends = zip(*self.stretches)
        return min(starts), max(ends)


class Order(NamedTuple):
    """A layout: the stretches of its leads as _cells(), the names beside them as labels.match(),
    shear: mm that each row is behind the one above; broken: part of the laws that is; contradicted:
    whether names are those of other leads."""
    name: str
    cells: list
    lead_rows: int
    beside: list
    frame: Frame
    shear: float
    broken: float
    contradicted: bool


def find_frame(ink, inside, heights, printed, px_per_mm):
    """Find scale, start and end of the traces.

    ink, inside: arrays (height, width), as ink.find_ink() and ink.lay_flat(); heights: float array
        (rows, width), as traces.measure(); printed: [mm/s, mm/mV] as labels.scale_of()
    Raises: NotAnECG where a pulse contradicts what is printed
    """
    span = tuple(np.median([_longest(np.isfinite(row), px_per_mm) for row in heights], axis=0))
    pulse = _find_pulse(ink, len(heights), span, px_per_mm)
    measured = [None, None]
    if pulse:
        measured = [SPEEDS[int(pulse.width > FAST_MM)] if pulse.width else None,
                    min(GAINS, key=lambda each: abs(np.log(each / pulse.height)))]
    for one, other, unit in zip(measured, printed, labels.UNITS):
        if not one and other is not None and np.isnan(other):
            raise NotAnECG(f'a sheet without a calibration pulse on which {unit} is printed, and '
                           'the number before it cannot be read')
        if one and other and one != other and not np.isnan(other):
            raise NotAnECG(f'a sheet whose calibration pulse says {one:g} {unit}, and on which '
                           f'{other:g} {unit} is printed')
    speed, gain = (one or other or usual for one, other, usual in zip(measured, printed, USUALLY))
    length = LENGTH_MM if span[1] - span[0] < 1.5 * LENGTH_MM else 2 * LENGTH_MM
    granted = [unit for one, other, unit in zip(measured, printed, labels.UNITS)
               if not one and not other]
    return Frame(_find_signs(ink, inside, heights, px_per_mm), length, speed, gain, pulse,
                 ' and '.join(granted), *span)


def _longest(there, px_per_mm, close=4):
    """The longest stretch with ink, holes of `close` mm allowed: (start, end), mm."""
    columns = np.flatnonzero(there)
    if not len(columns):
        return 0.0, 0.0
    breaks = np.flatnonzero(np.diff(columns) > close * px_per_mm)
    starts, ends = columns[np.r_[0, breaks + 1]], columns[np.r_[breaks, len(columns) - 1]]
    longest = (ends - starts).argmax()
    return starts[longest] / px_per_mm, (ends[longest] + 1) / px_per_mm


def _find_signs(ink, inside, heights, px_per_mm):
    """The Signs, of all there is but names."""
    middles = np.nanmedian(heights, axis=1)
    half = np.diff(middles).min(initial=40 * px_per_mm) / 2
    lines = [np.stack([_bumps(_middles(upright[max(int(at - half), 0):int(at + half)]), px_per_mm)
                       for at in middles])
             for upright in (_upright(ink, px_per_mm), _upright(
                 labels.without(ink, heights, px_per_mm, THICK_MM), px_per_mm))]
    return Signs(_begins(ink, inside, heights, px_per_mm),
                 _begins(*(each[:, ::-1] for each in (ink, inside, heights)), px_per_mm)[:, ::-1],
                 lines[1], STEP * lines[0])


def _upright(ink, px_per_mm):
    """Where there are thin upright lines, also dotted ones: uint8 array like `ink`."""
    dash, high, thick = (int(each * px_per_mm) for each in (DASH_MM, UPRIGHT_MM, THICK_MM))
    mask = cv2.morphologyEx((ink > 0.4).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((dash, 1)))
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((high, 1)))
    return mask & ~cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((1, thick)))


def _middles(mask):
    """The middles of what is there in any line of a mask, pixels, and its width."""
    edges = np.flatnonzero(np.diff(np.r_[0, mask.any(axis=0), 0]))
    return (edges[::2] + edges[1::2] - 1) / 2, mask.shape[1]


def _bumps(places, px_per_mm):
    """1 at each of some places and 0 away from them: float array; places: (array, width), pixels"""
    places, width = places
    result = np.zeros(width)
    for place in places:
        near = np.arange(max(int(place - 2 * px_per_mm), 0),
                         min(int(place + 2 * px_per_mm), width))
        bump = np.exp(-((near - place) / (NEAR_MM * px_per_mm)) ** 2 / 2)
        result[near] = np.maximum(result[near], bump)
    return result


def _begins(ink, inside, heights, px_per_mm):
    """Where rows begin after white, to parts of a pixel: float array (rows, width). At the edge of
    the picture nobody knows."""
    result = []
    for row in heights:
        columns = np.flatnonzero(np.isfinite(row))
        first = columns[np.diff(columns, prepend=-len(row)) > WHITE_MM * px_per_mm]
        y = np.round(row[first]).astype(int)
        seen = inside[y, np.maximum(first - int(SEEN_MM * px_per_mm), 0)]
        first, y = first[seen], y[seen]
        one, before = ink[y, first], np.where(first, ink[y, first - 1], 0)
        part = np.clip((one - 0.5) / np.maximum(one - before, 1e-6), 0, 1)
        result.append(_bumps((first - part, len(row)), px_per_mm))
    return np.stack(result)


def _find_span(frame, names, shape, weight, px_per_mm):
    """The Frame with start and end of the columns of a layout, where most signs agree.

    weight: float, of signs between columns beside those of the ends
    """
    lead_rows, columns = shape
    begins, ends, lines, steps = frame.signs
    # A strip goes on where the leads change: what it shows, too, is a QRS or a crease.
    steps = np.maximum(begins, steps)
    inner = np.maximum(lines, steps)[:lead_rows].mean(axis=0)
    if lead_rows < len(steps):
        inner = np.maximum(inner - steps[lead_rows:].mean(axis=0), 0)
    named = np.zeros(len(inner))
    for name in names:
        first, last = ((name.x - away) * px_per_mm for away in (MOST_AFTER, MOST_BEFORE))
        named[max(int(first), 0):max(int(last), 0)] += NAME / lead_rows
    inner += np.minimum(named, NAME)
    pad = int(0.1 * frame.length * px_per_mm)  # what is cut off
    first, last = _beside_pulse(frame, px_per_mm)
    last = np.maximum(last, _lines_behind(frame, px_per_mm))
    first, last, inner = (np.pad(each, (pad, 5 * pad)) for each in (first, last, inner))
    found = []
    for stretch in np.linspace(-STRETCH, STRETCH, STEPS):
        wide = frame.length * px_per_mm * (1 + stretch) / columns
        at = np.arange(len(first) - int(columns * wide) - 1)
        places = [at + round(column * wide) for column in range(columns + 1)]
        between = sum((inner[place] for place in places[1:-1]), np.zeros(len(at)))
        signs = first[at] + last[places[-1]] + weight * between
        top = signs.argmax()
        usual = signs[top] - UNUSUAL * abs(stretch) / STRETCH
        found.append((usual, signs[top], top, places[-1][top],
                      between[top] / (columns - 1) if columns > 1 else 1.0))
    _, sure, start, end, between = max(found)
    seen = first[start] > STEP, last[end] > STEP
    start, end = ((_nearest(each, at) - pad + 0.5) / px_per_mm
                  for each, at in ((first, start), (last, end)))
    # A pen begins and ends as wide as it is.
    start, end = start + PEN_MM * seen[0], end - PEN_MM * seen[1]
    over = end - start - frame.length
    if abs(over) < CAPS_MM:  # it is as long as it is meant to be; what is not seen gives way
        at_end = (1 + int(seen[0]) - int(seen[1])) / 2
        start, end = start + over * (1 - at_end), end - over * at_end
    return frame._replace(start=start, end=end, sure=sure, inner=between)


def _beside_pulse(frame, px_per_mm):
    """Signs of where all rows begin and end, not their pulses: float arrays (width,)."""
    first, last = frame.signs.begins.mean(axis=0), frame.signs.ends.mean(axis=0)
    pulse = frame.pulse
    if not pulse:
        return first, last
    left = pulse.end < (frame.start + frame.end) / 2
    at = (pulse.end if left else pulse.start) * px_per_mm - 0.5
    joined = PULSE * _bumps(([at], len(first)), px_per_mm)
    if left:
        first[:max(int(at - WHITE_MM * px_per_mm), 0)] = 0
        return np.maximum(first, joined), last
    last[int(at + WHITE_MM * px_per_mm):] = 0
    return first, np.maximum(last, joined)


def _lines_behind(frame, px_per_mm):
    """Signs of a line behind the last leads, in all rows but one, that is no pulse's: float array
    (width,). Before the first leads letters stand above each other and look the same."""
    lines = PULSE * np.sort(frame.signs.ticks, axis=0)[min(1, len(frame.signs.ticks) - 1)]
    for stroke in (frame.pulse.start, frame.pulse.end) if frame.pulse else ():
        first, last = (max(int((stroke + away) * px_per_mm), 0) for away in (-STROKE_MM, STROKE_MM))
        lines[first:last] = 0
    return np.roll(lines, round(PEN_MM * px_per_mm))


def _nearest(signs, at):
    """Where the peak of signs near a pixel is, to parts of one, if there is one."""
    near = np.arange(max(at - 4, 0), at + 5)
    return (signs[near] * near).sum() / signs[near].sum() if signs[at] > STEP else at


def _find_pulse(ink, rows, span, px_per_mm):
    """What the calibration pulses beside the rows agree on, or None: two upright strokes with a
    straight line from tip to tip, and nothing between their feet; or, where a picture is cut at the
    left, a line that ends in one stroke down: a Pulse of width 0."""
    mask = (ink > 0.3).astype(np.uint8)
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
    outside = [pulse for pulse in whole if pulse.end < span[0] + CAPS_MM
               or pulse.start > span[1] - CAPS_MM]
    edge = [pulse for pulse in whole if pulse.start < span[0] + FOOT_MM
            or pulse.end > span[1] - FOOT_MM]
    return _most_alike(whole) or _most_alike(halves) or _most_alike(outside, True) \
        or _most_alike(edge, rows < 5)


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


def place(heights, unsure, frame, names, px_per_mm):
    """Find the layout.

    heights, unsure: float arrays (rows, width), pixels, as traces.read(), where what is left out of
        a lead becomes NaN; frame: Frame; names: list of labels.Word
    Returns: Placed, what agrees best with the laws and with the names
    Raises: NotAnECG
    """
    rows = len(heights)
    if rows not in LAYOUTS:
        raise NotAnECG(f'a sheet with {rows} rows of traces, expected 3 x 4, 6 x 2 or 12 x 1 '
                       'leads, with or without rhythm strips; is it no ECG, cut, or are there two?')
    order = _choose(heights, unsure, frame, names, px_per_mm)
    laws.refuse_limbs_as_chest(order)
    laws.refuse_exchanged(order, _rows_named(order))
    seen = min(order.frame.end, frame.end) - max(order.frame.start, frame.start)
    if seen < SHORTEST * frame.length:
        raise NotAnECG(f'traces of {seen:.0f} mm, expected {frame.length:.0f}; is the sheet cut '
                       'off?')
    first, last = (max(int(each * px_per_mm), 0) for each in (order.frame.start, order.frame.end))
    beside = (np.isfinite(part).sum(axis=1) for part in (heights[:, :first], heights[:, last:]))
    if max(map(np.median, beside)) > BEYOND_MM * px_per_mm:
        raise NotAnECG(f'traces that go on beside the {frame.length:.0f} mm of one ECG; are there '
                       'two on it?')
    if order.frame.sure < SURE and order.lead_rows < 12:
        raise NotAnECG(f'traces that are not {frame.length:.0f} mm long, and of which neither '
                       'lines, gaps nor names say where each lead begins; is the sheet cut off?')
    known = rows > 3 and order.broken < CERTAIN  # three rows that are alone may be others
    if order.frame.inner < SHOWN and order.lead_rows == 3 and not known:
        raise NotAnECG(f'a sheet as {order.name} on which no line, gap or name shows that '
                       'other leads begin within the rows; is it cut off?')
    return _place_as(order, heights, unsure, px_per_mm)


def _choose(heights, unsure, frame, names, px_per_mm):
    """The Order that agrees best with the laws and with the names; as place()."""
    def is_broken(order):
        return order.broken > _allowed(order, heights, unsure, px_per_mm)

    for inner in (1, 0):  # where QRS look like lines, the ends of the traces alone may be right
        orders = [_try_order(heights, _find_span(frame, names, shape, inner, px_per_mm), names,
                             shape, cabrera, px_per_mm)
                  for shape in LAYOUTS[len(heights)] for cabrera in (False, True)]
        order = min(orders, key=lambda each: (is_broken(each), each.contradicted, each.broken))
        if not is_broken(order):
            return order
    raise NotAnECG(f'a sheet whose limb leads do not follow from one another, best as '
                   f'{order.name} ({order.broken:.0%} of them do not): the leads are in an '
                   'order that is not known here, or the traces cannot be followed')


def _allowed(order, heights, unsure, px_per_mm):
    """The part of the limb leads that need not follow from one another: more, as each of them may
    be filtered by itself, where names tell them and none of them may be another row's."""
    if len(_rows_named(order)) < order.lead_rows - 1:
        return laws.BROKEN
    doubt = [traces.doubt(heights[row], unsure[row], (start, end), px_per_mm)
             for lead, row, start, end, _, _ in order.cells if lead in laws.FROM_LIMBS]
    return laws.BROKEN if max(doubt) > traces.UNSURE else laws.FILTERED


def _rows_named(order):
    """The rows of which names say what they are: set of int, of none if names contradict the order
    or fewer than two are of limb leads."""
    beside = [(lead, order.cells[index]) for lead, index in order.beside
              if index < len(order.cells)]
    right = [(lead, row) for lead, (name, row, *_) in beside if lead == name.lstrip('-')]
    if order.contradicted or sum(lead in laws.FROM_LIMBS for lead, _ in right) < 2:
        return set()
    return {row for _, row in right}


def _place_as(order, heights, unsure, px_per_mm):
    """What a sheet shows, and what its names say of that: Placed."""
    cells, name = order.cells, order.name
    read = [(lead, index) for lead, index in order.beside if index < len(cells)]
    if order.contradicted:
        cells = _as_named(cells, read)
        name += ' with ' + ', '.join(cell[0] for cell in cells if cell[0] in LEADS[6:])
    right = [index for lead, index in read if lead == cells[index][0].lstrip('-')]
    strips = {index - len(cells) + order.lead_rows: lead for lead, index in order.beside
              if index >= len(cells)}
    cells, changed = laws.reconcile(cells, order.lead_rows)
    placed = _assemble((heights, unsure), order._replace(name=name, cells=cells), px_per_mm,
                       strips)
    wrong = _wrong(cells, read)
    known = f'{len(right)} names of leads read, which agree' if len(right) >= FEW else \
        'the names of the leads could not be read: their usual order is taken for granted'
    if changed:
        known += f'; {", ".join(changed)} as the other limb leads say'
    if order.broken > laws.BROKEN:
        known += f'; {order.broken:.0%} of the limb leads do not follow from one another, as ' \
                 'where each is filtered by itself'
    return placed._replace(known=known + (f'; but {wrong}' if wrong else ''), named=len(right),
                           broken=order.broken)


def _try_order(heights, frame, names, shape, cabrera, px_per_mm):
    """A sheet read as one layout, rows shifted so that the laws are kept best: Order."""
    leads = CABRERA if cabrera else LEADS
    broken, shear = np.inf, 0.0
    for each in sorted(SHEARS / max(shape[0] - 1, 1), key=abs):
        if abs(each) / 100 >= broken:
            break
        sheared = _cells(heights, frame, shape, leads[:6], px_per_mm, each)
        broken, shear = min((broken, shear),
                            (laws.broken(sheared, shape[0]) + abs(each) / 100, each))
    cells = _cells(heights, frame, shape, leads, px_per_mm, shear)
    beside = _names_of(cells, names, heights, frame, px_per_mm)
    return Order(f'{shape[0]} x {shape[1]}' + ' Cabrera' * cabrera, cells, shape[0], beside, frame,
                 shear, (SELDOM if cabrera else 1) * broken, _contradict(cells, beside))


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


def _cells(heights, frame, shape, names, px_per_mm, shear=0.0):
    """The stretches of leads, `names` in the order of columns: list of (name, row, start, end,
    first sample, values in mV)."""
    lead_rows, columns = shape
    length = (frame.end - frame.start) / columns
    count = round(frame.length / columns / frame.mm_per_s * SAMPLING_RATE)
    cells = []
    for index, name in enumerate(names):
        column, row = divmod(index, lead_rows)
        start = frame.start + column * length + shear * (row - (len(heights) - 1) / 2)
        values = _read(heights[row], (start, start + length), count, frame, px_per_mm)
        cells.append((name, row, start, start + length, column * count, values))
    return cells


def _read(row, span, count, frame, px_per_mm):
    """mV at `count` times of a stretch of a row, from its median, NaN where there is none."""
    first, last = max(int((span[0] + EDGE_MM) * px_per_mm), 0), int((span[1] - EDGE_MM) * px_per_mm)
    columns = first + np.flatnonzero(np.isfinite(row[first:last]))
    if len(columns) < 2 * px_per_mm:
        return np.full(count, np.nan)
    places = np.linspace(*span, count, endpoint=False) * px_per_mm - 0.5
    values = CubicSpline(columns, row[columns])(np.clip(places, columns[0], columns[-1]))
    after = np.clip(np.searchsorted(columns, places), 1, len(columns) - 1)
    hole = columns[after] - columns[after - 1] > HOLE_MM * px_per_mm
    outside = np.maximum(columns[0] - places, places - columns[-1]) > 2 * EDGE_MM * px_per_mm
    values[(hole & (places > columns[0]) & (places < columns[-1])) | outside] = np.nan
    return (np.nanmedian(values) - values) / px_per_mm / frame.mm_per_mv


def _assemble(traced, order, px_per_mm, named):
    """Placed out of the cells and the strips below them; traced: (heights, unsure); named: {row of
    a strip: lead}."""
    heights, unsure = traced
    values = np.full((len(LEADS), SAMPLES), np.nan)
    placed = Placed(values, order.name, [], set(), {})
    spans, tangled = {}, []
    for name, row, start, end, first, cell in order.cells:
        sign, lead = (-1, name[1:]) if name.startswith('-') else (1, name)
        doubt = traces.doubt(heights[row], unsure[row], (start, end), px_per_mm)
        if lead in LEADS[:6] and order.lead_rows >= 6:  # laws.reconcile() knows better
            doubt = 0.0
        if doubt > traces.UNSURE:
            placed.unsure.add(lead)
        if doubt > traces.TANGLED:
            tangled.append(lead)
            traces.leave_out_doubt(heights[row], unsure[row], (start, end), px_per_mm)
            cell = _read(heights[row], (start, end), len(cell), order.frame, px_per_mm)
        spans[lead] = LEADS.index(lead), slice(first, first + len(cell))
        values[spans[lead]] = sign * cell
        placed.stretches.append((name, row, start, end))
    if len(tangled) > MOST_TANGLED:
        raise NotAnECG(f'a sheet on which {", ".join(tangled)} run into other rows or out of the '
                       'picture, so that nobody knows which trace is whose; print it with fewer mm '
                       'for a mV or in another layout')
    strips = [_use_strip(row, traced, order, placed, named.get(row), px_per_mm)
              for row in range(order.lead_rows, len(heights))]
    name = order.name + (f' + {", ".join(strips)}' if strips else '')
    absent = [lead for lead, row in zip(LEADS, values)
              if np.isfinite(row).sum() < LEAST_S * SAMPLING_RATE]
    if absent:
        raise NotAnECG(f'a sheet as {name} without {", ".join(absent)}, expected all twelve leads')
    spans.update((lead, (LEADS.index(lead), slice(0, order.frame.samples))) for lead in strips
                 if lead in spans)
    missing = {lead: np.isnan(values[span]).sum() / SAMPLING_RATE for lead, span in spans.items()}
    return placed._replace(name=name, missing={
        lead: seconds for lead, seconds in missing.items() if seconds > MISSING_S})


def _use_strip(row, traced, order, placed, named, px_per_mm):
    """Complete a lead with a rhythm strip, and say which: str; what is `placed` changes."""
    heights, unsure = (each[row] for each in traced)
    frame, later = order.frame, order.shear * (row - (len(traced[0]) - 1) / 2)
    span = frame.start + later, frame.end + later
    strip, count = np.full(SAMPLES, np.nan), frame.samples
    strip[:count] = _read(heights, span, count, frame, px_per_mm)
    found = laws.lead_of(strip, placed.values, named)
    doubt = traces.doubt(heights, unsure, span, px_per_mm)
    if doubt > traces.UNSURE:
        shown = np.isfinite(strip).sum()
        traces.leave_out_doubt(heights, unsure, span, px_per_mm)
        strip[:count] = _read(heights, span, count, frame, px_per_mm)
        if found is None or np.isfinite(strip).sum() < OF_STRIP * shown:
            found = named, 0, 'runs into other rows'
    if found is None:
        raise NotAnECG(f'a sheet as {order.name} whose row {row + 1}, a rhythm strip, is like none '
                       'of its leads; are there two ECGs on it?')
    lead, shift, useless = found
    if useless:
        return f'{lead or f"row {row + 1}"} ({useless}, not used)'
    strip = np.roll(strip, shift)
    shown = placed.values[LEADS.index(lead)]
    level = np.nanmedian(shown - strip)
    shown[:] = np.where(np.isfinite(shown), shown, strip + level)
    placed.stretches.append((lead, row, *span))
    return lead
