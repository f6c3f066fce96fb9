"""Sheets without a grid, whose calibration pulses and rows say the scale."""
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.copies import scan
from tests.ecg.paper.test_reading import HEART
from tests.sheets import Style, draw_sheet
from utils.ecg import paper
from utils.ecg.paper import unruled
from utils.ecg.signals import NotAnECG

PLAIN = Style(layout='3x4', grid='none', dpi=180.0)


def scale_of(sheet):
    return np.sqrt(np.linalg.det(sheet.to_pixels[:2, :2]))


@pytest.mark.parametrize('style', [{}, {'pulse': 'right', 'gain': 20.0, 'spacing': 40.0},
                                   {'layout': '6x2', 'speed': 50.0, 'seconds': 5.0, 'gain': 5.0}])
def test_the_scale_is_that_of_the_pulses(style):
    sheet = draw_sheet(HEART, replace(PLAIN, **style))
    found = unruled.find_scale(sheet.picture)
    assert found.px_per_mm == pytest.approx(scale_of(sheet), rel=0.003)
    assert found.rotation == pytest.approx(0, abs=0.1)


def test_a_scan_is_read_and_says_where_its_scale_comes_from():
    sheet = scan(draw_sheet(HEART, PLAIN), np.random.default_rng(3))
    read = paper.read_sheet(sheet.picture)
    assert read.px_per_mm == pytest.approx(scale_of(sheet), rel=0.003)
    assert (read.layout, read.mm_per_s, read.mm_per_mv) == ('3 x 4', 25, 10)
    assert 'no grid: by the calibration pulses' in read.raw.notes[0]
    assert np.corrcoef(read.raw.values[1, 20:1180], HEART[1, 20:1180])[0, 1] > 0.93


def test_without_pulses_or_with_rows_of_another_length_there_is_no_scale():
    without = draw_sheet(HEART, replace(PLAIN, pulse='none')).picture
    cut = draw_sheet(HEART, PLAIN).picture
    cut = cut[:, :int(0.9 * cut.shape[1])]
    for picture in (without, cut):
        assert unruled.find_scale(picture) is None
    with pytest.raises(NotAnECG, match='grid'):
        paper.read_sheet(without)


def test_one_pulse_is_not_enough():
    sheet = draw_sheet(HEART, PLAIN)
    scale = PLAIN.dpi / 25.4
    picture = cv2.rectangle(sheet.picture.copy(), (0, int((PLAIN.top + 10) * scale)),
                            (int((PLAIN.left - 1.5) * scale), 9999), (255, 255, 255), -1)
    assert unruled.find_scale(picture) is None
