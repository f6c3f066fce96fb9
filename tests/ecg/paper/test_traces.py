"""Rows of traces that come near each other."""
import cv2
import numpy as np
import pytest

from utils.ecg.paper import traces
from utils.ecg.signals import NotAnECG

PX = 8


def draw(rows, width=1600, pen=3):
    """Ink of the traces `rows`, functions of x, all in pixels: float32 array (640, width)."""
    ink = np.zeros((640, width), np.float32)
    x = np.arange(0, width, 0.05)
    for row in rows:
        y = np.round(row(x)).astype(int)
        for up in range(-(pen // 2), pen // 2 + 1):
            for left in range(-(pen // 2), pen // 2 + 1):
                ink[y + up, np.clip(np.round(x).astype(int) + left, 0, width - 1)] = 1
    return ink


def spikes(x, at, size, width=10):
    """Spikes every 200 pixels."""
    away = np.abs(x % 200 - 100 - at)
    return size * np.maximum(1 - 2 * away / width, 0)


def read(rows):
    ink = draw(rows)
    nowhere = np.zeros(ink.shape, bool)
    return traces.read(ink, nowhere, ~nowhere, PX)


def test_spikes_are_followed_to_their_tips():
    rows = [lambda x: 200 - spikes(x, 0, 120), lambda x: 400 + spikes(x, 0, 90)]
    for row, heights in zip(rows, read(rows)[0]):
        true = row(np.arange(1600.0))
        assert np.sqrt(np.mean((heights - true)[20:-20] ** 2)) < 0.12 * true.std()


def test_a_wide_pen_makes_no_spike_wider():
    """Drawn eight times as large and shrunk, as print is: a QRS of 16 pixels by a pen of 4."""
    x = np.arange(0, 1600, 0.125)
    y = 320 - spikes(x, 0, 150, width=16)
    large = np.zeros((640 * 8, 1600 * 8), np.uint8)
    points = np.round(np.stack([x, y], axis=1) * 8 + 3.5).astype(np.int32)
    cv2.polylines(large, [points], False, 255, 32)
    ink = cv2.resize(large, (1600, 640), interpolation=cv2.INTER_AREA) / np.float32(255)
    heights = traces.measure(ink[None], ink[None] > 0.5, PX)[0]
    true = 320 - spikes(np.arange(1600.0), 0, 150, width=16)
    assert np.sqrt(np.mean((heights - true)[20:-20] ** 2)) < 0.028 * true.std()


def test_a_line_below_a_spike_is_no_way_past_it():
    row = draw([lambda x: 320 - spikes(x, 0, 200, width=16)])
    row[318:322] = np.maximum(row[318:322], 0.6)
    heights = traces.measure(row[None], row[None] == 1, PX)[0]
    true = 320 - spikes(np.arange(1600.0), 0, 200, width=16)
    assert np.sqrt(np.mean((heights - true)[20:-20] ** 2)) < 0.12 * true.std()


def test_a_trace_that_goes_out_of_the_picture_is_in_doubt_there():
    ink = draw([lambda x: 200 - spikes(x, 0, 120), lambda x: 400 + spikes(x, 0, 90)])
    inside = np.ones(ink.shape, bool)
    inside[:100] = False
    heights, unsure = traces.read(ink * inside, np.zeros_like(inside), inside, PX)
    beyond = unsure == len(ink)
    assert not beyond[1].any()
    assert (beyond[0].reshape(-1, 200).any(axis=1)).all()
    assert np.abs(np.flatnonzero(beyond[0]) % 200 - 100).max() <= 3
    assert traces.doubt(heights[0], unsure[0], (0, 200), PX) > traces.TANGLED


def test_what_is_read_otherwise_in_the_mirror_is_in_doubt(monkeypatch):
    def own_ink(ink, *others):
        own, sure = real(ink, *others)
        if ink is not first:  # the mirror image: the spike at 300 is another row's there
            own[0, :, 1280:1320] = own[0, :, 1200:1240]
        return own, sure

    rows = [lambda x: 200 - spikes(x, 0, 120), lambda x: 400 + spikes(x, 0, 90)]
    first, real = draw(rows), traces.own_ink
    nowhere = np.zeros(first.shape, bool)
    monkeypatch.setattr(traces, 'own_ink', own_ink)
    assert not traces.read(first, nowhere, ~nowhere, PX)[1].any()  # all sure: read but once
    monkeypatch.setattr(traces, 'LOOK_AGAIN', -1)
    apart = np.abs(traces.read(first, nowhere, ~nowhere, PX)[1]) > traces.DOUBTFUL_MM * PX
    assert not apart[1].any()
    assert apart[0, 297:304].all() and np.abs(np.flatnonzero(apart[0]) - 300).max() < 10


def test_the_end_of_a_lead_is_not_passed_by():
    """A tick, where the next lead begins, is nearer to the tip of an R than to what comes after."""
    ends = draw([lambda x: 320 - spikes(x, 86, 100, width=14)])
    begins = draw([lambda x: 250 + 0 * x])
    ends[:, 1000:] = 0
    begins[:, :1000] = 0
    begins[210:262, 1000:1003] = 1
    row = (ends + begins)[None]
    heights = traces.measure(row, row == 1, PX)[0]
    assert np.abs(heights[993:997] - 320).max() < 4


def test_a_line_beyond_the_end_of_all_rows_is_nobodys():
    """Where somebody signs, above the end of the first row."""
    rows = np.stack([draw([lambda x: 320 - spikes(x, 0, 60)])] * 3)
    rows[:, :, 1400:] = 0
    rows[0, 248:251, 1240:1440] = 1
    heights = traces.measure(rows, rows == 1, PX)
    np.testing.assert_allclose(heights[0, 20:1395], heights[1, 20:1395])


def test_a_row_that_leaves_its_level_does_not_take_the_next_one():
    rows = [lambda x: 200 + 60 * (x > 700), lambda x: 340 - spikes(x, 60, 20)]
    for row, heights in zip(rows, read(rows)[0]):
        assert np.nanmax(np.abs(heights - row(np.arange(1600.0)))[710:-20]) < 3


def test_strokes_that_cross_stay_with_their_rows():
    rows = [lambda x: 200 + spikes(x, 1, 150, width=12),
            lambda x: 400 - spikes(x, -1, 140, width=9)]
    for row, heights in zip(rows, read(rows)[0]):
        true = row(np.arange(1600.0))
        assert np.sqrt(np.mean((heights - true)[20:-20] ** 2)) < 0.3 * true.std()


def test_a_tip_that_may_be_cut_is_in_doubt():
    row = 200 + spikes(np.arange(1600.0), 0, 50)
    unsure = np.zeros(row.shape)
    assert traces.doubt(row, unsure, (0, 100), PX) == 0
    unsure[895:906] = 10
    assert traces.doubt(row, unsure, (0, 100), PX) == 0
    assert traces.UNSURE < traces.doubt(row, unsure, (100, 200), PX) < traces.TANGLED
    assert traces.doubt(row, row - 200, (100, 200), PX) > 0.9


def test_a_trace_that_no_row_goes_along_is_refused():
    x = np.arange(1600.0)
    rows = [lambda x: 200 - spikes(x, 0, 60), lambda x: 340 - spikes(x, 0, 60),
            lambda x: 480 - spikes(x, 0, 60)]
    ink, heights = draw(rows), np.stack([row(x) for row in rows])
    traces.refuse_unexplained(ink, heights, (10, 190), PX)
    with pytest.raises(NotAnECG, match='a trace of 180 mm that belongs to none of its 2 rows'):
        traces.refuse_unexplained(ink, heights[[0, 2]], (10, 190), PX)
