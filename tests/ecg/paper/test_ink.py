"""Ink without what is none: a black grid, a crease, the edge of the paper."""
import numpy as np
import pytest

from tests.ecg.paper.test_reading import HEART
from tests.sheets import Style, draw_sheet
from utils.ecg import paper


def copied(picture):
    """A black-and-white copy on which the 5 mm lines are as black as the trace."""
    return np.repeat(np.where(picture.mean(axis=2) < 200, 0, 255)[..., None], 3, 2).astype(np.uint8)


def creased(picture):
    x = np.arange(picture.shape[1])[None, :, None]
    y = np.arange(picture.shape[0])[:, None, None]
    crease = 1 - 0.4 * np.exp(-((y - 0.55 * picture.shape[0] - 0.04 * x) / 12) ** 2)
    return (picture * crease).astype(np.uint8)


def on_a_table(picture):
    return np.pad(picture, [(150, 150), (150, 150), (0, 0)], constant_values=60)


@pytest.mark.parametrize('change', [copied, creased, on_a_table])
def test_what_is_no_ink_leaves_the_traces(change):
    style = Style(layout='3x4', grid='red', fine='none', trace_width=0.4, spacing=27.0)
    read = paper.read_sheet(change(draw_sheet(HEART, style).picture))
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert np.corrcoef(values[there], HEART[lead, there])[0, 1] > 0.93, lead
