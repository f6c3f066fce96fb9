"""One record -> one (size, size) picture, always the same for the same settings. Knows nothing of Paddle.

The twelve leads stand one below the other, each 10 s wide, in bands of the same height with 0 mV in their middle. A tall
R wave runs into its neighbour's band: it is neither cut nor rescaled, so amplitudes can be compared across records.
"""
import json
import struct
import zlib

import cv2
import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path
from matplotlib.transforms import IdentityTransform

from utils.errors import UserError
from utils.records import LEADS, SAMPLES

DPI = 100  # pixels per inch; any value draws the same, since all lengths below are pixels
VERSION = 1  # of the drawing; raised when the same settings give other pixels
PNG_LIMIT = 64 * 2**20  # bytes
_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_KEYWORD = b'ecg'  # of the tEXt chunk that says what a picture was drawn from


class Renderer:
    """Draws records with matplotlib's own rasterizer; pixel for pixel what a figure with one line per lead shows.

    There is no figure: twelve paths are made once, and only their heights are replaced, which leaves almost nothing but
    the rasterizer's work.
    size: int, pixels; mv_per_lead: float, mV in the height of one band; line_width: float, pixels
    """

    def __init__(self, size, mv_per_lead, line_width):
        band = size / len(LEADS)
        self.pixels_per_mv = band / mv_per_lead
        self.zero_lines = size - band * (np.arange(len(LEADS)) + 0.5)  # pixels from the bottom, where y starts
        self.agg = RendererAgg(size, size, DPI)
        self.pixels = np.asarray(self.agg.buffer_rgba())
        self.pen = self.agg.new_gc()
        self.pen.set_linewidth(line_width * 72 / DPI)
        self.pen.set_joinstyle('round')  # as Line2D sets them by default
        self.pen.set_capstyle('projecting')
        seconds = np.arange(SAMPLES) * (size / SAMPLES)
        self.paths = [Path(np.column_stack([seconds, np.zeros(SAMPLES)])) for _ in LEADS]

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
    """Encode a picture as a one-channel PNG that carries `stamp` in a tEXt chunk.

    picture: uint8 array (size, size); stamp: dict, JSON values
    Returns: bytes
    """
    height, width = picture.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each begins with its filter; 0, none, is smallest for thin lines
    rows[:, 1:] = picture
    # Run lengths alone: no level is faster, and only the slowest, thirty times as slow, is smaller, by 4 %.
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    text = _KEYWORD + b'\0' + json.dumps(stamp, sort_keys=True).encode('ascii')
    return _SIGNATURE + b''.join((
        _chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)),  # 8 bits of grey
        _chunk(b'tEXt', text), _chunk(b'IDAT', packer.compress(rows) + packer.flush()), _chunk(b'IEND', b'')))


def _chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def read_stamp(path):
    """The stamp that encode_png put into a PNG, or None where there is none or the file is no whole PNG of ours."""
    with open(path, 'rb') as file:
        head = file.read(4096)
        file.seek(0, 2)
        file.seek(max(file.tell() - 12, 0))
        tail = file.read()
    start = len(_SIGNATURE) + 25
    if not head.startswith(_SIGNATURE) or tail[4:8] != b'IEND' or head[start + 4:start + 8] != b'tEXt':
        return None
    length = struct.unpack('>I', head[start:start + 4])[0]
    body = head[start + 4:start + 8 + length]
    crc = head[start + 8 + length:start + 12 + length]
    if crc != struct.pack('>I', zlib.crc32(body)) or not body.startswith(b'tEXt' + _KEYWORD + b'\0'):
        return None
    try:
        return json.loads(body[4 + len(_KEYWORD) + 1:])
    except ValueError:
        return None


def decode_png(path, size):
    """Read a picture.

    path: str, a PNG as encode_png makes them; size: int, the pixels it must have
    Returns: uint8 array (size, size)
    Raises: UserError that names the file, what was found and what was expected
    """
    with open(path, 'rb') as file:
        data = file.read(PNG_LIMIT + 1)
    # The size is read from the header, so that a hostile file cannot make the decoder take gigabytes.
    if len(data) < 33 or not data.startswith(_SIGNATURE) or len(data) > PNG_LIMIT:
        raise UserError(f'{path}: not a PNG ({len(data)} bytes); run process.py again to draw it anew')
    width, height = struct.unpack('>II', data[16:24])
    if (width, height) != (size, size):
        raise UserError(f'{path}: {width} x {height} pixels, expected {size} x {size}; run process.py again to draw it '
                        'anew')
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE) if _is_whole(data) else None
    if picture is None:
        raise UserError(f'{path}: a damaged PNG; run process.py again to draw it anew')
    return picture


def _is_whole(data):
    """Whether every chunk is there and matches its checksum; OpenCV decodes half a picture without complaint."""
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        length, = struct.unpack('>I', data[at:at + 4])
        end = at + 8 + length
        if end + 4 > len(data) or data[end:end + 4] != struct.pack('>I', zlib.crc32(data[at + 4:end])):
            return False
        if data[at + 4:at + 8] == b'IEND':
            return True
        at = end + 4
    return False
