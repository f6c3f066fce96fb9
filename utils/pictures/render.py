"""One record -> one picture, always the same for the same settings.

The twelve leads stand one below the other, each 10 s wide, in bands of the same height with 0 mV
in their middle. A tall R wave runs into its neighbour's band: it is neither cut nor rescaled, so
amplitudes can be compared across records. Below them, each lead's average beat can stand enlarged,
in four rows of three leads: I, II, III; aVR, aVL, aVF; V1, V2, V3; V4, V5, V6.
"""
import functools
import io
import json

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform
from PIL import Image, PngImagePlugin

from utils.ecg.beats import average_beat
from utils.ecg.records import LEADS, SAMPLES
from utils.running.errors import UserError

DPI = 100  # pixels per inch; any value draws the same, since all lengths below are pixels
BEAT_ROWS, BEAT_COLUMNS = 4, 3  # of the average beats
BEAT_SCALE = 4  # times as many pixels for a second and a mV as in the rhythm
VERSION = 1  # of the drawing; raised when the same settings give other pixels
MANIFEST = 'render.json'  # in data.root: how the pictures were drawn, and which there should be
KEYWORD = 'ecg'  # of the PNG's text that says what a picture was drawn from
RUN_LENGTHS = 3  # zlib's Z_RLE: no other is as fast, and for thin lines hardly one is smaller


class Renderer:
    """Draws records as the settings say.

    size: int, pixels; mv_per_lead: float, mV in the height of one band; line_width: float, pixels
    beats: bool, draw the average beats below the rhythm
    """

    def __init__(self, size, mv_per_lead, line_width, beats=False):
        self.rhythm = _Panel(size, mv_per_lead, line_width, (len(LEADS), 1), 1)
        self.beats = beats and _Panel(size, mv_per_lead, line_width, (BEAT_ROWS, BEAT_COLUMNS),
                                      BEAT_SCALE)

    def draw(self, signal):
        """Draw one record.

        signal: float32 array (12, 5000), mV, rows in LEADS order, NaN where a lead is not shown:
            nothing is drawn there
        Returns: uint8 array (size, size), or (2 * size, size) with the average beats, black (0) on
            white (255)
        """
        rhythm = self.rhythm.draw(signal)
        if not self.beats:
            return rhythm
        return np.concatenate([rhythm, self.beats.draw(average_beat(signal)[0])])


@functools.lru_cache(maxsize=1)
def renderer_of(render):
    """The Renderer that some settings name, one for all records; render: settings.Render."""
    return Renderer(render.size, render.mv_per_lead, render.line_width, render.beats)


class _Panel:
    """Draws twelve leads in cells, with matplotlib's own rasterizer; pixel for pixel what a figure
    with one line per lead shows.

    There is no figure: twelve paths are made once, and only their heights are replaced, which
    leaves almost nothing but the rasterizer's work.
    cells: (rows, columns); scale: how many times larger than the rhythm
    """

    def __init__(self, size, mv_per_lead, line_width, cells, scale):
        rows, columns = cells
        row, column = np.divmod(np.arange(len(LEADS)), columns)
        self.pixels_per_mv = scale * size / len(LEADS) / mv_per_lead
        self.zero_lines = size - size / rows * (row + 0.5)  # y starts at the bottom
        self.agg = RendererAgg(size, size, DPI)
        self.pixels = np.asarray(self.agg.buffer_rgba())
        self.pen = self.agg.new_gc()
        self.pen.set_linewidth(line_width * 72 / DPI)
        self.pen.set_joinstyle('round')  # as Line2D sets them by default
        self.pen.set_capstyle('projecting')
        count = SAMPLES // columns // scale
        places = np.arange(count) * (size / SAMPLES) * scale
        self.paths = [Path(np.column_stack([places + at * size / columns, np.zeros(count)]))
                      for at in column]

    def draw(self, signal):
        """Draw a lead in each cell, as much of it as there is room for.

        signal: float array (12, n), mV, rows in LEADS order
        Returns: uint8 array (size, size), black (0) on white (255)
        """
        signal = signal[:, :len(self.paths[0].vertices)]
        heights = signal.astype(np.float64) * self.pixels_per_mv + self.zero_lines[:, None]
        self.pixels[:] = 255
        for path, height in zip(self.paths, heights):
            path.vertices[:, 1] = height
            self.agg.draw_path(self.pen, path, IdentityTransform())
        return self.pixels[:, :, 0].copy()


def settings_of(render):
    """What decides the pixels, as the dict that a picture and render.json carry.

    render: settings.Render
    """
    return {'version': VERSION, 'size': render.size, 'mv_per_lead': render.mv_per_lead,
            'line_width': render.line_width, 'beats': render.beats}


def shape_of(render):
    """(height, width) of a picture, pixels; render: settings.Render."""
    return render.size * (2 if render.beats else 1), render.size


def encode_png(picture, stamp):
    """Encode a picture as a one-channel PNG that carries `stamp` as a text.

    picture: uint8 array (height, size); stamp: dict, JSON values
    Returns: bytes
    """
    text = PngImagePlugin.PngInfo()
    text.add_text(KEYWORD, json.dumps(stamp, sort_keys=True))
    data = io.BytesIO()
    Image.fromarray(picture).save(data, 'png', pnginfo=text, compress_level=1,
                                  compress_type=RUN_LENGTHS)
    return data.getvalue()


def read_stamp(path):
    """The stamp that encode_png() put into a PNG, None where it is no whole PNG of ours."""
    try:
        with Image.open(path, formats=('PNG',)) as image:
            stamp = json.loads(image.info[KEYWORD])
            image.verify()
            return stamp
    except FileNotFoundError:
        raise
    except Exception:  # a damaged PNG can make Pillow raise almost anything
        return None


def decode_png(path, shape):
    """Read a picture.

    path: str, a PNG as encode_png() makes them; shape: (height, width) that it must have, pixels
    Returns: uint8 array of this shape
    Raises: UserError that names the file, what was found and what was expected
    """
    with open(path, 'rb') as file:
        data = file.read()
    redraw = 'run process.py again to draw it anew'
    try:
        with Image.open(io.BytesIO(data), formats=('PNG',)) as image:
            found, kind = image.size, image.mode
            if (found[::-1], kind) == (shape, 'L'):
                image.verify()  # checksums: damaged pixels would decode without complaint
                return np.array(Image.open(io.BytesIO(data), formats=('PNG',)))
    except Exception as error:  # a damaged PNG can make Pillow raise almost anything
        raise UserError(f'{path}: a damaged PNG ({type(error).__name__}); {redraw}') from None
    raise UserError(f'{path}: {found[0]} x {found[1]} pixels of kind {kind}, expected '
                    f'{shape[1]} x {shape[0]} of one channel (L); {redraw}')
