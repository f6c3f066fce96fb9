"""Which lead is where, and in what scale; what pulses, print and names contradict is refused."""
from dataclasses import replace

import numpy as np
import pytest

from tests import sheets
from tests.ecg.paper.test_reading import HEART
from tests.sheets import Style, draw_sheet
from utils.ecg.paper import read_sheet
from utils.ecg.signals import LEADS, NotAnECG

DRAWN = Style(layout='3x4', dpi=150.0, label='below')


@pytest.fixture
def draw_named(monkeypatch):
    """Draws a sheet on which the lead of each row of LEADS bears another's name."""
    def draw(signal, style, named):
        label = sheets._draw_label
        monkeypatch.setattr(sheets, '_draw_label', lambda axes, style, place: label(
            axes, style, replace(place, lead=named[place.lead])))
        return draw_sheet(signal, style).picture
    return draw


def test_chest_leads_in_another_order_are_read_as_named(draw_named):
    order = [*range(6), *range(11, 5, -1)]
    read = read_sheet(draw_named(HEART[order], DRAWN, order))
    assert read.layout == '3 x 4 with V6, V5, V4, V3, V2, V1'
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert np.corrcoef(values[there], HEART[lead, there])[0, 1] > 0.9, LEADS[lead]


def test_names_that_contradict_the_traces_are_refused(draw_named):
    picture = draw_named(HEART, DRAWN, [*range(6), 11, 11, 11, 9, 10, 11])
    with pytest.raises(NotAnECG, match='V6 is read where V1 is expected'):
        read_sheet(picture)


def test_what_names_say_is_noted():
    assert 'names of leads read, which agree' in read_sheet(
        draw_sheet(HEART, DRAWN).picture).raw.notes[0]


def test_print_says_the_scale_where_there_is_no_pulse():
    style = replace(DRAWN, gain=5.0, pulse='none', footer='25 mm/s  5 mm/mV')
    read = read_sheet(draw_sheet(HEART, style).picture)
    assert (read.mm_per_s, read.mm_per_mv) == (25, 5)
    assert 'as printed' in read.raw.notes[0]


def test_a_pulse_that_contradicts_print_is_refused():
    style = replace(DRAWN, footer='25 mm/s  20 mm/mV')
    with pytest.raises(NotAnECG, match='says 10 mm/mV, and on which 20 mm/mV is printed'):
        read_sheet(draw_sheet(HEART, style).picture)


def test_six_leads_over_a_whole_sheet_are_not_taken_for_twelve():
    picture = draw_sheet(HEART[[*range(6)] * 2], replace(DRAWN, layout='6x2')).picture
    with pytest.raises(NotAnECG, match='six rows of limb leads alone'):
        read_sheet(picture)


def test_a_pulse_that_is_cut_still_says_the_gain():
    style = replace(DRAWN, gain=5.0, footer='')
    picture = draw_sheet(HEART, style).picture[:, int(21 / 25.4 * style.dpi):]
    read = read_sheet(picture)
    assert read.mm_per_mv == 5
    assert 'mm/s: no calibration pulse or print found, taken for granted' in read.raw.notes[0]
