import struct

import cv2
import matplotlib
import numpy as np
import pytest

from tests.helpers import make_signal
from utils.datasets import demo
from utils.ecg.beats import average_beat
from utils.pictures.render import Renderer, decode_png, encode_png, read_stamp, settings_of
from utils.running.errors import UserError
from utils.running.settings import Render

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.transforms import IdentityTransform  # noqa: E402

STAMP = {**settings_of(Render(size=64)), 'record': 12345}
PICTURE = Renderer(64, 2.0, 1.0).draw(make_signal(1))


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


@pytest.mark.parametrize('size, mv_per_lead, line_width', [
    (640, 2.0, 1.0), (224, 2.0, 1.0), (100, 3.0, 0.5), (64, 1.0, 2.0), (33, 2.0, 1.0)])
def test_the_same_pixels_as_a_fresh_figure(size, mv_per_lead, line_width):
    renderer, kept = Renderer(size, mv_per_lead, line_width), []
    for seed in (1, 2, 1):  # nothing is left of the record before
        kept.append(renderer.draw(make_signal(seed)))
        figure = fresh_figure(make_signal(seed), size, mv_per_lead, line_width)
        assert kept[-1].dtype == np.uint8 and np.array_equal(kept[-1], figure)
    assert np.array_equal(kept[0], kept[2]) and not np.array_equal(kept[0], kept[1])


def test_average_beats_stand_below_and_leave_the_rhythm_alone():
    signal = demo.make_record(0, 1, ('normal',))[0]
    signal[11] -= 3.0  # the lowest lead runs out of its picture, not into the other
    picture = Renderer(240, 2.0, 1.0, beats=True).draw(signal)
    assert np.array_equal(picture[:240], Renderer(240, 2.0, 1.0).draw(signal))
    beat, scale = average_beat(signal)[0][:, :416], 4 * 240 / 12 / 2.0
    figure = plt.figure(figsize=(2.4, 2.4), dpi=100)
    for lead, values in enumerate(beat):
        row, column = divmod(lead, 3)
        figure.add_artist(Line2D(column * 80 + np.arange(416) * (4 * 240 / 5000),
                                 240 - 60 * (row + 0.5) + values * scale, color='black',
                                 linewidth=0.72, transform=IdentityTransform()))
    assert np.array_equal(picture[240:], grey(figure))


def test_what_anyone_would_plot():
    """Leads in order, 10 s wide, on one fixed mV scale; a tall wave runs into other bands."""
    signal = make_signal(1)
    signal[5, 2500:2510] = 3.5
    signal[6] -= 0.4
    picture = Renderer(640, 2.0, 1.0).draw(signal).astype(int)
    assert np.abs(picture - twelve_axes(signal, 640, 2.0, 1.0)).max() <= 1


def test_one_channel_png(tmp_path):
    data, path = encode_png(PICTURE, STAMP), str(tmp_path / 'a.png')
    assert struct.unpack('>IIBB', data[16:26]) == (64, 64, 8, 0)  # width, height, 8 bits, grey
    (tmp_path / 'a.png').write_bytes(data)
    assert read_stamp(path) == STAMP
    assert np.array_equal(decode_png(path, (64, 64)), PICTURE)
    assert np.array_equal(cv2.imread(path, cv2.IMREAD_UNCHANGED), PICTURE)
    assert data == encode_png(PICTURE, STAMP)


def test_no_stamp_where_it_is_not_ours(tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, np.zeros((64, 64), np.uint8))
    assert read_stamp(path) is None
    with pytest.raises(FileNotFoundError):
        read_stamp(str(tmp_path / 'none.png'))


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
    (tmp_path / 'a.png').write_bytes(spoil(encode_png(PICTURE, STAMP)))
    with pytest.raises(UserError) as caught:
        decode_png(path, (64, 64))
    line, = caught.value.lines
    assert path in line and 'process.py' in line


def test_every_damage_of_a_png_is_noticed(tmp_path):
    """What can be read shows what it showed, and what cannot has no stamp."""
    data, rng, path = encode_png(PICTURE, STAMP), np.random.default_rng(0), str(tmp_path / 'a.png')
    for number in range(1200):
        spoilt = bytearray(data)
        at = rng.integers(len(data))
        if number % 3:
            spoilt[at] ^= 1 << rng.integers(8)
        else:
            spoilt[at:at + rng.integers(1, 512)] = b''
        (tmp_path / 'a.png').write_bytes(spoilt)
        try:
            assert np.array_equal(decode_png(path, (64, 64)), PICTURE)
        except UserError:
            assert read_stamp(path) is None


@pytest.mark.parametrize('rows', [3, 6])
def test_what_a_sheet_does_not_show_is_not_drawn(rows):
    signal = demo.make_record(7, 1, ('normal',))[0]
    columns = 12 // rows
    seconds = np.arange(5000) * columns // 5000
    sheet = np.where(np.arange(12)[:, None] // rows == seconds, signal, np.nan).astype(np.float32)
    renderer = Renderer(240, 2.0, 1.0, True)
    whole, cut = renderer.draw(signal), renderer.draw(sheet)
    for lead in range(12):
        band = cut[lead * 20:lead * 20 + 20]
        begin, end = 240 // columns * (lead // rows), 240 // columns * (lead // rows + 1)
        assert (band[:, begin + 1:end - 1] < 255).any(axis=0).all()
    hidden = np.repeat(~np.isfinite(sheet[:, ::5000 // 240][:, :240]), 20, axis=0)
    assert (cut[:240][hidden] < 255).mean() < 0.03  # but for neighbours that run into the band
    # The average beats are those of the stretch, so nearly those of the whole.
    assert (cut[240:] < 255).mean() == pytest.approx((whole[240:] < 255).mean(), rel=0.15)
    beats = [np.nan_to_num(average_beat(each)[0]) for each in (signal, sheet)]
    assert np.corrcoef(beats[0].ravel(), beats[1].ravel())[0, 1] > 0.97
