"""One record -> one (size, size) picture, always the same for the same settings.

The twelve leads stand one below the other, each 10 s wide, in bands of the same height with 0 mV
in their middle. A tall R wave runs into its neighbour's band: it is neither cut nor rescaled, so
amplitudes can be compared across records.
"""
import io
import json

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform
from PIL import Image, PngImagePlugin

from utils.errors import UserError
from utils.records import LEADS, SAMPLES

DPI = 100  # pixels per inch; any value draws the same, since all lengths below are pixels
VERSION = 1  # of the drawing; raised when the same settings give other pixels
MANIFEST = 'render.json'  # in data.root: how the pictures were drawn, and which there should be
KEYWORD = 'ecg'  # of the PNG's text that says what a picture was drawn from
RUN_LENGTHS = 3  # zlib's Z_RLE: no other is as fast, and for thin lines hardly one is smaller


class Renderer:
    """Draws records with matplotlib's own rasterizer; pixel for pixel what a figure with one line
    per lead shows.

    There is no figure: twelve paths are made once, and only their heights are replaced, which
    leaves almost nothing but the rasterizer's work.
    size: int, pixels; mv_per_lead: float, mV in the height of one band; line_width: float, pixels
    """

    def __init__(self, size, mv_per_lead, line_width):
        band = size / len(LEADS)
        self.pixels_per_mv = band / mv_per_lead
        self.zero_lines = size - band * (np.arange(len(LEADS)) + 0.5)  # y starts at the bottom
        self.agg = RendererAgg(size, size, DPI)
        self.pixels = np.asarray(self.agg.buffer_rgba())
        self.pen = self.agg.new_gc()
        self.pen.set_linewidth(line_width * 72 / DPI)
        self.pen.set_joinstyle('round')  # as Line2D sets them by default
        self.pen.set_capstyle('projecting')
        columns = np.arange(SAMPLES) * (size / SAMPLES)
        self.paths = [Path(np.column_stack([columns, np.zeros(SAMPLES)])) for _ in LEADS]

    def draw(self, signal):
        """Draw one record.

        signal: float32 array (12, 5000), mV, rows in LEADS order
        Returns: uint8 array (size, size), black (0) on white (255)
        """
        heights = signal.astype(np.float64) * self.pixels_per_mv + self.zero_lines[:, None]
        self.pixels[:] = 255
        for path, height in zip(self.paths, heights):
            path.vertices[:, 1] = height
            self.agg.draw_path(self.pen, path, IdentityTransform())
        return self.pixels[:, :, 0].copy()


def settings_of(render):
    """What decides the pixels, as the dict that a picture and render.json carry.

    render: config.Render
    """
    return {'version': VERSION, 'size': render.size, 'mv_per_lead': render.mv_per_lead,
            'line_width': render.line_width}


def encode_png(picture, stamp):
    """Encode a picture as a one-channel PNG that carries `stamp` as a text.

    picture: uint8 array (size, size); stamp: dict, JSON values
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


def decode_png(path, size):
    """Read a picture.

    path: str, a PNG as encode_png() makes them; size: int, the pixels it must have
    Returns: uint8 array (size, size)
    Raises: UserError that names the file, what was found and what was expected
    """
    with open(path, 'rb') as file:
        data = file.read()
    redraw = 'run process.py again to draw it anew'
    try:
        with Image.open(io.BytesIO(data), formats=('PNG',)) as image:
            found, kind = image.size, image.mode
            if (found, kind) == ((size, size), 'L'):
                image.verify()  # checksums: damaged pixels would decode without complaint
                return np.array(Image.open(io.BytesIO(data), formats=('PNG',)))
    except Exception as error:  # a damaged PNG can make Pillow raise almost anything
        raise UserError(f'{path}: a damaged PNG ({type(error).__name__}); {redraw}') from None
    raise UserError(f'{path}: {found[0]} x {found[1]} pixels of kind {kind}, expected {size} x '
                    f'{size} of one channel (L); {redraw}')
