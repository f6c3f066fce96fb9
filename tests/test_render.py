import struct

import cv2
import matplotlib
import numpy as np
import pytest
from conftest import make_signal

from utils.config import Render
from utils.errors import UserError
from utils.render import Renderer, decode_png, encode_png, read_stamp, settings_of

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.transforms import IdentityTransform  # noqa: E402

STAMP = {**settings_of(Render(size=64)), 'record': 12345}


def fresh_figure(signal, size, mv_per_lead, line_width):
    """One new figure for one record, with one line per lead, drawn in pixels."""
    figure = plt.figure(figsize=(size / 100, size / 100), dpi=100)
    for lead, values in enumerate(signal.astype(np.float64)):
        zero_line = size - size / 12 * (lead + 0.5)
        figure.add_artist(Line2D(np.arange(5000) * (size / 5000),
                                 zero_line + values * (size / 12 / mv_per_lead), color='black',
                                 linewidth=line_width * 0.72, transform=IdentityTransform()))
    return grey(figure)


def twelve_axes(signal, size, mv_per_lead, line_width):
    """The record as anyone would plot it: twelve axes one below the other, x in s, y in mV."""
    figure = plt.figure(figsize=(size / 100, size / 100), dpi=100)
    for lead, values in enumerate(signal):
        axes = figure.add_axes((0, 1 - (lead + 1) / 12, 1, 1 / 12))
        axes.plot(np.arange(5000) / 500, values, color='black', linewidth=line_width * 0.72,
                  clip_on=False)
        axes.set(xlim=(0, 10), ylim=(-mv_per_lead / 2, mv_per_lead / 2))
        axes.axis('off')
    return grey(figure)


def grey(figure):
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba()).copy()
    plt.close(figure)
    assert (pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 0] == pixels[:, :, 2]).all()
    return pixels[:, :, 0]


@pytest.mark.parametrize('size, mv_per_lead, line_width', [(640, 2.0, 1.0), (224, 2.0, 1.0),
                                                           (100, 3.0, 0.5), (64, 1.0, 2.0)])
def test_the_same_pixels_as_a_fresh_figure(size, mv_per_lead, line_width):
    renderer = Renderer(size, mv_per_lead, line_width)
    for seed in (1, 2, 1):
        picture = renderer.draw(make_signal(seed))
        assert picture.shape == (size, size) and picture.dtype == np.uint8
        figure = fresh_figure(make_signal(seed), size, mv_per_lead, line_width)
        assert np.array_equal(picture, figure)


def test_what_anyone_would_plot():
    picture = Renderer(640, 2.0, 1.0).draw(make_signal(1)).astype(int)
    assert np.abs(picture - twelve_axes(make_signal(1), 640, 2.0, 1.0)).max() <= 1


def test_a_renderer_remembers_nothing():
    renderer = Renderer(96, 2.0, 1.0)
    first = renderer.draw(make_signal(1))
    kept = first.copy()
    assert not np.array_equal(renderer.draw(make_signal(2)), first)
    assert np.array_equal(renderer.draw(make_signal(1)), kept) and np.array_equal(first, kept)


def flat(mv):
    signal = np.zeros((12, 5000), np.float32)
    signal[:] = np.asarray(mv, np.float32).reshape(-1, 1)
    return signal


def test_mv_scale_is_fixed():
    for level in (-0.5, 0.0, 0.25, 0.8):
        ink = 255.0 - Renderer(480, 2.0, 1.0).draw(flat(level))[:, 240]  # 20 pixels to the mV
        rows = (ink.reshape(12, 40) * np.arange(40)).sum(axis=1) / ink.reshape(12, 40).sum(axis=1)
        assert np.allclose(rows, 19.5 - level * 20, atol=0.51)
    pictures = (Renderer(480, 2.0, 1.0).draw(make_signal(1) * k) for k in (0.2, 0.4))
    low, high = ((picture[:40] < 255).any(axis=1).sum() for picture in pictures)
    assert high > low  # no record is scaled to fit


def test_time_scale_is_10_s():
    signal = flat(0)
    signal[:, 1250:1260] = 0.9  # 2.5 s
    picture = Renderer(480, 2.0, 1.0).draw(signal)
    columns = np.flatnonzero((picture[:12] < 128).any(axis=0))
    assert len(columns) and np.abs(columns - 120).max() <= 2


def test_leads_stand_in_order_with_their_zero_line_in_the_middle():
    signal = flat(0)
    signal[4, 2400:2600] = 0.5  # aVL
    picture = Renderer(480, 2.0, 1.0).draw(signal)
    changed = np.flatnonzero((picture != Renderer(480, 2.0, 1.0).draw(flat(0))).any(axis=1))
    assert 4 * 40 <= changed.min() and changed.max() < 5 * 40


def test_a_tall_wave_runs_into_its_neighbours_band():
    signal = flat(0)
    signal[5, 2500] = 3.0
    picture = Renderer(480, 2.0, 1.0).draw(signal)
    rows = np.flatnonzero((picture[:, 235:246] < 200).any(axis=1))
    assert rows.min() <= 5 * 40 + 20 - 58  # 60 pixels above its zero line, neither cut nor rescaled


def test_black_on_white_anti_aliased_and_thin():
    picture = Renderer(640, 2.0, 1.0).draw(make_signal(1))
    assert picture.min() == 0 and np.median(picture) == 255 and len(np.unique(picture)) > 50
    assert (picture < 255).mean() < 0.2


@pytest.mark.parametrize('size', [32, 33, 1000])
def test_odd_sizes(size):
    assert Renderer(size, 2.0, 1.0).draw(make_signal(1)).shape == (size, size)


# The PNG.

def test_one_channel_png(tmp_path):
    picture = Renderer(64, 2.0, 1.0).draw(make_signal(1))
    data = encode_png(picture, STAMP)
    assert data[:8] == b'\x89PNG\r\n\x1a\n'
    assert struct.unpack('>IIBB', data[16:26]) == (64, 64, 8, 0)  # width, height, 8 bits, grey
    (tmp_path / 'a.png').write_bytes(data)
    path = str(tmp_path / 'a.png')
    assert read_stamp(path) == STAMP
    assert np.array_equal(decode_png(path, 64), picture)
    other_reader = plt.imread(path)
    assert other_reader.shape == (64, 64) and np.array_equal(np.round(other_reader * 255), picture)
    assert data == encode_png(picture, STAMP)


def test_no_stamp_where_it_is_not_ours(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.zeros((64, 64), np.uint8))
    assert read_stamp(path) is None
    for data in (b'', b'text', encode_png(np.zeros((64, 64), np.uint8), STAMP)[:-20]):
        (tmp_path / 'a.png').write_bytes(data)
        assert read_stamp(path) is None


def png():
    return encode_png(Renderer(64, 2.0, 1.0).draw(make_signal(1)), STAMP)


@pytest.mark.parametrize('spoil', [
    lambda data: b'', lambda data: b'<html>' * 50, lambda data: data[:len(data) // 2],
    lambda data: data[:-20] + bytes(20),
    lambda data: data[:400] + bytes([data[400] ^ 1]) + data[401:],
    lambda data: data[:16] + struct.pack('>II', 2**31 - 1, 2**31 - 1) + data[24:],
    lambda data: encode_png(np.zeros((64, 32), np.uint8), STAMP),
    lambda data: encode_png(np.zeros((64, 64, 3), np.uint8), STAMP),
], ids=['empty', 'web page', 'truncated', 'zeros at the end', 'one bit', 'hostile size',
        'other size', 'colours'])
def test_damaged_png(spoil, tmp_path):
    path = str(tmp_path / 'a.png')
    (tmp_path / 'a.png').write_bytes(spoil(png()))
    with pytest.raises(UserError) as caught:
        decode_png(path, 64)
    line, = caught.value.lines
    assert path in line and 'run process.py again' in line


def test_every_damage_of_a_png_is_noticed(tmp_path):
    """What has a stamp and can be read shows what it showed."""
    data, rng, path = png(), np.random.default_rng(0), str(tmp_path / 'a.png')
    picture = Renderer(64, 2.0, 1.0).draw(make_signal(1))
    for _ in range(300):
        spoilt = bytearray(data)
        at = rng.integers(len(data))
        spoilt[at:at + rng.integers(1, 512)] = b''
        (tmp_path / 'a.png').write_bytes(spoilt)
        stamp = read_stamp(path)
        try:
            assert np.array_equal(decode_png(path, 64), picture)
        except UserError:
            assert stamp is None
