"""One record -> one (size, size) picture, always the same for the same settings. Knows nothing of Paddle.

The twelve leads stand one below the other, each 10 s wide, in bands of the same height with 0 mV in their middle. A tall
R wave runs into its neighbour's band: it is neither cut nor rescaled, so amplitudes can be compared across records.
"""
import json
import struct
import zlib

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import IdentityTransform

from utils.errors import UserError
from utils.records import LEADS, SAMPLES

DPI = 100  # pixels per inch; any value draws the same, since all lengths below are pixels
VERSION = 1  # of the drawing; raised when the same settings give other pixels
PNG_LIMIT = 64 * 2**20  # bytes
_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_KEYWORD = b'ecg'  # of the tEXt chunk that says what a picture was drawn from


class Renderer:
    """Draws records with matplotlib; the figure and its twelve lines are made once, only their data is replaced.

    size: int, pixels; mv_per_lead: float, mV in the height of one band; line_width: float, pixels
    """

    def __init__(self, size, mv_per_lead, line_width):
        band = size / len(LEADS)
        self.pixels_per_mv = band / mv_per_lead
        self.zero_lines = size - band * (np.arange(len(LEADS)) + 0.5)  # pixels from the bottom, where y starts
        self.canvas = FigureCanvasAgg(Figure((size / DPI, size / DPI), dpi=DPI))
        seconds = np.arange(SAMPLES) * (size / SAMPLES)
        self.lines = [Line2D(seconds, np.zeros(SAMPLES), color='black', linewidth=line_width * 72 / DPI,
                             transform=IdentityTransform()) for _ in LEADS]
        for line in self.lines:
            self.canvas.figure.add_artist(line)

    def draw(self, signal):
        """Draw one record.

        signal: float32 array (12, 5000), mV, rows in LEADS order
        Returns: uint8 array (size, size), black (0) on white (255)
        """
        heights = signal.astype(np.float64) * self.pixels_per_mv + self.zero_lines[:, None]
        for line, height in zip(self.lines, heights):
            line.set_ydata(height)
        self.canvas.draw()
        return np.asarray(self.canvas.buffer_rgba())[:, :, 0].copy()


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
    done, data = cv2.imencode('.png', picture)
    if not done:
        raise RuntimeError('OpenCV could not encode a picture')
    data = data.tobytes()
    head = len(_SIGNATURE) + 25  # IHDR: length, type, 13 bytes, CRC
    body = b'tEXt' + _KEYWORD + b'\0' + json.dumps(stamp, sort_keys=True).encode('ascii')
    return data[:head] + struct.pack('>I', len(body) - 4) + body + struct.pack('>I', zlib.crc32(body)) + data[head:]


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
