"""Sheets of ECG paper, printed from a signal that is known: what reading a picture is tried with.

All lengths are mm on the sheet, from its upper left corner, x to the right and y downwards.
"""
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from utils.ecg.signals import LEADS, SAMPLES, SAMPLING_RATE, SECONDS

MM = 72 / 25.4  # points
CABRERA = ('aVL', 'I', 'aVR', 'II', 'aVF', 'III', *LEADS[6:])  # aVR is drawn upside down there
LAYOUTS = ('3x4', '3x4+1', '3x4+3', '6x2', '6x2+1', '12x1')
STRIPS = {0: (), 1: ('II',), 3: ('V1', 'II', 'V5')}
GRIDS = {'red': ('#f4a0a0', '#e05050'), 'pink': ('#ffd0dc', '#f8a8bc'),
         'orange': ('#fcd8b0', '#f0a860'), 'green': ('#b8e0b8', '#70b878'),
         'grey': ('#d8d8d8', '#a8a8a8'), 'blue': ('#c4d4f0', '#88a4dc')}
FONTS = ('DejaVu Sans', 'DejaVu Serif', 'DejaVu Sans Mono', 'STIXGeneral', 'cmr10')


@dataclass(frozen=True)
class Style:
    """How a sheet is printed.

    layout: of LAYOUTS; cabrera: its order of limb leads, with -aVR; strips: leads of the rhythm
        strips, or () for those of STRIPS; speed: mm/s; gain: mm/mV; seconds: s of a whole row
    dpi: pixels/inch
    grid: of GRIDS, or 'none'; fine: 'lines', 'dots' or 'none' for the 1 mm grid; grid_width: mm of
        the 5 mm lines; snapped: lines begin at whole pixels; tint, ink: colours of paper and trace
    trace_width: mm; separator: 'none', 'ticks', 'lines', 'gap' or 'joined'
    pulse: 'left', 'right' or 'none'; label: 'above', 'below' or 'left'; capitals: AVR for aVR
    text_mm: height of letters; header: lines above; footer: line below, '' for none
    frame: a line around the grid; bare: grid over the whole sheet; spacing: mm between rows
    left, top: mm before the first trace and above the first row's zero line
    """
    layout: str = '3x4+1'
    cabrera: bool = False
    strips: tuple = ()
    speed: float = 25.0
    gain: float = 10.0
    seconds: float = SECONDS
    dpi: float = 200.0
    grid: str = 'red'
    fine: str = 'lines'
    grid_width: float = 0.2
    snapped: bool = False
    tint: str = '#ffffff'
    ink: str = '#000000'
    trace_width: float = 0.3
    separator: str = 'ticks'
    pulse: str = 'left'
    label: str = 'above'
    capitals: bool = False
    font: str = 'DejaVu Sans'
    text_mm: float = 3.0
    header: tuple = ('ID: 0123456789', 'Sinus rhythm  72 bpm')
    footer: str = '25 mm/s  10 mm/mV  0.05-150 Hz'
    frame: bool = False
    bare: bool = True
    spacing: float = 28.0
    left: float = 26.0
    top: float = 42.0


@dataclass(frozen=True)
class Place:
    """Where a stretch of a lead is drawn: samples [start, stop), x of the first one, y of 0 mV."""
    lead: int
    start: int
    stop: int
    x: float
    y: float
    sign: int = 1


@dataclass(frozen=True)
class Sheet:
    """A picture and what is true of it.

    picture: uint8 array (height, width, 3), RGB
    truth: float32 array (12, 5000), mV, 500 Hz, rows in LEADS order; NaN where a lead is not shown
    places: list of Place; to_pixels: float array (3, 3), from (x mm, y mm, 1) to pixels
    """
    picture: np.ndarray
    truth: np.ndarray
    style: Style
    places: list = field(default_factory=list)
    to_pixels: np.ndarray = None


def draw_sheet(signal, style, pdf=None):
    """Print a signal.

    signal: float32 array (12, 5000), mV, 500 Hz, rows in LEADS order; pdf: str, a file that it is
        written to with its traces as lines, or None
    Returns: Sheet
    """
    places = places_of(style)
    width, height = size_of(style, places)
    pixels = np.round(np.array([width, height]) * style.dpi / 25.4)
    figure = Figure(pixels / style.dpi, dpi=style.dpi, facecolor=style.tint)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, pixels[0] * 25.4 / style.dpi),
                           ylim=(pixels[1] * 25.4 / style.dpi, 0))
    axes.set_axis_off()
    _draw_grid(axes, style, width, height)
    _draw_text(axes, style, height)
    for y in sorted({place.y for place in places}):
        row = [place for place in places if place.y == y]
        _draw_traces(axes, signal, style, row)
        _draw_pulse_and_separators(axes, style, row)
        for place in row:
            _draw_label(axes, style, place)
    if pdf:
        figure.savefig(pdf, format='pdf', facecolor=style.tint)
    canvas.draw()
    truth = np.full((len(LEADS), SAMPLES), np.nan, np.float32)
    for place in places:
        truth[place.lead, place.start:place.stop] = signal[place.lead, place.start:place.stop]
    picture = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    scale = style.dpi / 25.4
    # Pixel 0 reaches from 0 to 1 on the sheet; its middle is where OpenCV says 0.
    to_pixels = np.array([[scale, 0, -0.5], [0, scale, -0.5], [0, 0, 1.0]])
    return Sheet(picture, truth, style, places, to_pixels)


def places_of(style):
    """The Places of a style's layout, row by row."""
    grid, _, strips = style.layout.partition('+')
    rows, columns = map(int, grid.split('x'))
    order = CABRERA if style.cabrera else LEADS
    each = round(style.seconds * SAMPLING_RATE) // columns
    hidden = round(2 / style.speed * SAMPLING_RATE) if style.separator == 'gap' else 0
    places = []
    for row in range(rows):
        for column in range(columns):
            name, start = order[column * rows + row], column * each
            stop = start + each - (hidden if column < columns - 1 else 0)
            places.append(Place(LEADS.index(name), start, stop,
                                style.left + start / SAMPLING_RATE * style.speed,
                                style.top + row * style.spacing,
                                -1 if style.cabrera and name == 'aVR' else 1))
    for row, name in enumerate(style.strips or STRIPS[int(strips or 0)], rows):
        places.append(Place(LEADS.index(name), 0, columns * each, style.left,
                            style.top + row * style.spacing))
    return places


def size_of(style, places):
    """Width and height of the sheet, mm."""
    pulse = 14 if style.pulse == 'right' else 0
    right = style.left + style.seconds * style.speed + pulse + 8
    return right, max(place.y for place in places) + max(style.spacing, 20) * 0.7 + 10


def _draw_grid(axes, style, width, height):
    if style.grid == 'none':
        return
    left, top, right, bottom = ((0, 0, width, height) if style.bare else
                                (3, max(style.top - 20, 3), width - 3, height - 8))
    minor, major = GRIDS[style.grid]
    thin = style.grid_width * 0.5
    for step, colour, thick, kind in ((1, minor, thin, style.fine),
                                      (5, major, style.grid_width, 'lines')):
        if kind == 'none':
            continue
        xs, ys = np.arange(left, right + 1e-6, step), np.arange(top, bottom + 1e-6, step)
        lines = [((x, ys[0]), (x, ys[-1])) for x in xs]
        if kind == 'lines':
            lines += [((xs[0], y), (xs[-1], y)) for y in ys]
        # A dot of 0.25 mm every mm; dashes are counted in widths of the line.
        thick = max(thick, 0.2) if kind == 'dots' else thick
        dashes = (0, (0.25 / thick, 0.75 / thick)) if kind == 'dots' else 'solid'
        axes.add_collection(LineCollection(lines, colors=colour, linewidths=thick * MM,
                                           linestyles=[dashes], snap=style.snapped, zorder=step))
    if style.frame:
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False,
                                 edgecolor=style.ink, linewidth=0.3 * MM, zorder=6))


def traces_of(signal, style, places):
    """The lines of one row, places from left to right: list of float arrays (n, 2), mm."""
    traces = []
    for place in places:
        x = place.x + np.arange(place.stop - place.start) / SAMPLING_RATE * style.speed
        y = place.y - place.sign * style.gain * signal[place.lead, place.start:place.stop]
        traces.append(np.stack([x, y], axis=1))
    return [np.concatenate(traces)] if style.separator == 'joined' else traces


def pulse_of(style, places):
    """The calibration pulse beside one row: float array (6, 2), mm."""
    wide, end = 0.2 * style.speed, places[-1]
    right = end.x + (end.stop - end.start) / SAMPLING_RATE * style.speed + 2
    x = places[0].x - wide - 3 if style.pulse == 'left' else right
    return np.stack([x + np.array([0, 1, 1, 1 + wide, 1 + wide, 2 + wide]),
                     end.y - style.gain * np.array([0, 0, 1, 1, 0, 0])], axis=1)


def _draw_traces(axes, signal, style, places):
    """Of one row, places from left to right."""
    for trace in traces_of(signal, style, places):
        axes.plot(*trace.T, color=style.ink, linewidth=style.trace_width * MM,
                  solid_joinstyle='round', zorder=8)


def _draw_label(axes, style, place):
    name = '-aVR' if place.sign < 0 else LEADS[place.lead]
    name = name.upper() if style.capitals else name
    x, y, align = place.x + 1, place.y - min(0.32 * style.spacing, 9), 'left'
    if style.label == 'below':
        y = place.y + min(0.32 * style.spacing, 9)
    elif style.label == 'left' and place.start == 0:
        beside = 0.2 * style.speed + 5 if style.pulse == 'left' else 2
        x, y, align = place.x - beside, place.y, 'right'
    axes.text(x, y, name, family=style.font, size=style.text_mm * MM * 1.35, color=style.ink,
              ha=align, va='center', zorder=9)


def _draw_pulse_and_separators(axes, style, places):
    """Of one row, places from left to right."""
    y = places[0].y
    line = {'color': style.ink, 'linewidth': style.trace_width * MM, 'zorder': 8,
            'solid_joinstyle': 'miter'}
    if style.pulse != 'none':
        axes.plot(*pulse_of(style, places).T, **line)
    for place in places[1:]:
        if style.separator == 'ticks':
            axes.plot([place.x] * 2, [y - 4, y + 4], **line)
        elif style.separator == 'lines':
            axes.plot([place.x] * 2, [y - style.spacing / 2, y + style.spacing / 2],
                      **{**line, 'linewidth': 0.2 * MM, 'linestyle': '--'})


def _draw_text(axes, style, height):
    kind = {'family': style.font, 'size': style.text_mm * MM * 1.2, 'color': style.ink,
            'va': 'center', 'zorder': 9}
    for row, line in enumerate(style.header):
        axes.text(10, 6 + row * style.text_mm * 1.7, line, **kind)
    axes.text(10, height - 5, style.footer, **kind)


def random_style(rng, layout=None, dpi=None):
    """A style as it may come: what is not 25 mm/s and 10 mm/mV has a pulse and says so below.

    layout: of LAYOUTS, dpi: pixels/inch, or None for any
    """
    layout = layout or str(rng.choice(LAYOUTS))
    rows = sum(map(int, layout.replace('x', '+').split('+')[::2]))
    common = rng.random() < 0.75
    speed = 25 if common or layout.startswith('3x4') else 50
    gain = 10 if common else 20 if rows < 5 else float(rng.choice([5, 10]))
    seconds = SECONDS if speed == 25 else SECONDS / 2
    footer = f'{speed:g} mm/s  {gain:g} mm/mV  0.05-{rng.choice([40, 100, 150])} Hz'
    pulse = str(rng.choice(['left', 'left', 'right', 'none'] if common else ['left', 'right']))
    spacing = min(max(rng.uniform(2.0, 3.0) * gain, 12), 190 / rows)
    looks = _random_looks(rng)
    # What is printed beside and above must find room; many pictures are cut off right there.
    left = 4 + (0.2 * speed + 4 if pulse == 'left' else 0) + (10 if looks.label == 'left' else 0)
    top = rng.uniform(36, 46) if any(looks.header) else max(0.75 * spacing, 14)
    return replace(looks, layout=layout, speed=float(speed), gain=float(gain), seconds=seconds,
                   spacing=spacing, pulse=pulse, left=left + rng.exponential(6),
                   top=top + rng.exponential(4), dpi=dpi or float(rng.uniform(110, 400)),
                   footer=footer if not common or rng.random() < 0.7 else '',
                   strips=_random_strips(rng, layout))


def _random_strips(rng, layout):
    if layout.endswith('+3'):
        return STRIPS[3] if rng.random() < 0.5 else ('II', 'V1', 'V5')
    return (str(rng.choice(['II', 'II', 'II', 'V1', 'V5'])),) if layout.endswith('+1') else ()


def _random_looks(rng):
    """A style with everything random that changes neither layout nor scale."""
    rate, name = rng.integers(45, 140), ''.join(rng.choice(list('ABDEGKLMNORST'), 6))
    headers = [('', ''), (f'ID: {rng.integers(10 ** 9):09d}', f'Name: {name}  Sex: F  Age: 54'),
               (f'{name}   2021-11-15 09:28:20', f'HR {rate} bpm   PR 162 ms   QRS 94 ms',
                'QT/QTc 388/421 ms   P-R-T axes 54 23 41')]
    return Style(
        cabrera=rng.random() < 0.25, grid=str(rng.choice(list(GRIDS))),
        fine=str(rng.choice(['lines', 'lines', 'lines', 'dots', 'none'])),
        grid_width=rng.uniform(0.15, 0.35), snapped=rng.random() < 0.5,
        tint=str(rng.choice(['#ffffff', '#ffffff', '#fff6f4', '#fffdf2'])),
        ink=str(rng.choice(['#000000', '#000000', '#202030', '#101060'])),
        trace_width=rng.uniform(0.2, 0.5), capitals=rng.random() < 0.3,
        separator=str(rng.choice(['none', 'ticks', 'ticks', 'lines', 'gap', 'joined'])),
        label=str(rng.choice(['above', 'above', 'below', 'left'])), font=str(rng.choice(FONTS)),
        text_mm=rng.uniform(2.4, 3.6), header=headers[rng.integers(len(headers))],
        frame=rng.random() < 0.3, bare=rng.random() < 0.6)
