"""Rows of traces that come near each other."""
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


def spikes(x, at, size, first=100):
    """Spikes of 10 pixels width every 200 pixels."""
    away = np.abs((x - first + 100) % 200 - 100 - at)
    return size * np.maximum(1 - away / 5, 0)


def read(rows):
    ink = draw(rows)
    baselines = traces.find_rows(ink, PX)
    return traces.measure(ink, traces.follow(ink, baselines, PX), PX)


def test_spikes_are_followed_to_their_tips():
    rows = [lambda x: 200 - spikes(x, 0, 120), lambda x: 400 + spikes(x, 0, 90)]
    for row, heights in zip(rows, read(rows)):
        true = row(np.arange(1600.0))
        assert np.sqrt(np.mean((heights - true)[20:-20] ** 2)) < 0.12 * true.std()


def test_a_row_that_leaves_its_level_does_not_take_the_next_one():
    rows = [lambda x: 200 + 60 * (x > 700), lambda x: 340 + 0 * x]
    for row, heights in zip(rows, read(rows)):
        assert np.nanmax(np.abs(heights - row(np.arange(1600.0)))[710:-20]) < 2


def test_rows_that_touch_are_named_and_those_that_run_together_refused():
    heights = read([lambda x: 200 + spikes(x, 0, 110), lambda x: 400 - spikes(x, 0, 110)])
    assert traces.meetings(heights, PX) == [(1, 2)]
    apart = read([lambda x: 200 + spikes(x, 0, 50), lambda x: 400 - spikes(x, 0, 50)])
    assert traces.meetings(apart, PX) == []
    with pytest.raises(NotAnECG, match='rows 1 and 2 run into each other for [0-9]+ mm'):
        traces.meetings(np.stack([apart[0], apart[0]]), PX)
