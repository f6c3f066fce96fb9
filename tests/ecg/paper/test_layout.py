"""Which lead is where, and in what scale; what pulses, print and names contradict is refused."""
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.ndimage import uniform_filter1d

from tests import sheets
from tests.ecg.paper.test_reading import HEART
from tests.sheets import Style, draw_sheet
from utils.ecg.paper import read_sheet, traces
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
    with pytest.raises(NotAnECG, match='chest leads follow from one another as limb leads do'):
        read_sheet(picture)


@pytest.fixture
def draw_unnamed(monkeypatch):
    monkeypatch.setattr(sheets, '_draw_label', lambda axes, style, place: None)
    return lambda signal, style: draw_sheet(signal, style).picture


@pytest.mark.parametrize('layout, order', [
    ('3x4', [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]), ('12x1', [0, 2, 1, *range(3, 12)])])
def test_limb_leads_with_two_rows_exchanged_are_refused(draw_unnamed, layout, order):
    style = replace(DRAWN, layout=layout, spacing=14.0 if layout == '12x1' else 28.0)
    with pytest.raises(NotAnECG, match='were exchanged|do not follow from one another'):
        read_sheet(draw_unnamed(HEART[order], style))


def assert_read_rightly(read):
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert np.corrcoef(values[there], HEART[lead, there])[0, 1] > 0.93, LEADS[lead]


def test_print_that_is_longer_than_its_grid_says():
    read = read_sheet(draw_sheet(HEART, replace(DRAWN, speed=25.4, pulse='right')).picture)
    assert read.mm_per_s == 25
    assert_read_rightly(read)


def test_rows_that_are_sheared(monkeypatch):
    places_of = sheets.places_of
    monkeypatch.setattr(sheets, 'places_of', lambda style: [
        replace(place, x=place.x + 0.01 * place.y) for place in places_of(style)])
    assert_read_rightly(read_sheet(draw_sheet(HEART, DRAWN).picture))


def test_a_beat_that_is_spoilt_breaks_no_law():
    sheet = draw_sheet(HEART, DRAWN)
    x, y = (int(each / 25.4 * DRAWN.dpi) for each in (DRAWN.left + 30, DRAWN.top + DRAWN.spacing))
    sheet.picture[y - 40:y + 40, x:x + 3] = 0
    assert read_sheet(sheet.picture).layout == '3 x 4'


def test_a_strip_of_another_time_is_not_used():
    style = replace(DRAWN, layout='3x4+1')
    picture, later = (draw_sheet(signal, style).picture
                      for signal in (HEART, np.roll(HEART, 230, axis=1)))
    strip = int((style.top + 2.5 * style.spacing) / 25.4 * style.dpi)
    picture[strip:] = later[strip:]
    read = read_sheet(picture)
    assert read.layout == '3 x 4 + II (of another time, not used)'
    assert np.isfinite(read.raw.values).mean() == pytest.approx(0.25, abs=0.01)


@pytest.fixture
def tangle(monkeypatch):
    """Makes it doubtful which trace is that of a row, between two places, mm behind its begin."""
    def tangle(row, start=0, end=300):
        def read(ink, hidden, inside, px_per_mm):
            heights, unsure = traces_read(ink, hidden, inside, px_per_mm)
            first = np.flatnonzero(np.isfinite(heights[row]))[0]
            part = slice(first + start * px_per_mm, first + end * px_per_mm)
            unsure[row, part] = (heights[row] - np.nanmedian(heights[row]))[part]
            return heights, unsure

        monkeypatch.setattr(traces, 'read', read)

    traces_read = traces.read
    return tangle


def test_a_strip_that_runs_into_others_is_not_used(tangle):
    tangle(3)
    read = read_sheet(draw_sheet(HEART, replace(DRAWN, layout='3x4+1')).picture)
    assert read.layout == '3 x 4 + row 4 (runs into other rows, not used)'
    assert np.isfinite(read.raw.values).mean() == pytest.approx(0.25, abs=0.01)


def test_beats_of_a_strip_that_run_into_others_are_left_out(tangle):
    picture = draw_sheet(HEART, replace(DRAWN, layout='3x4+1', pulse='none')).picture
    whole = read_sheet(picture).raw.values
    tangle(3, 100, 150)
    read = read_sheet(picture)
    values, beats = read.raw.values[1], np.abs(HEART[1]) > 0.3
    there, in_doubt = np.isfinite(values), np.arange(5000) // 1000 == 2
    assert read.layout == '3 x 4 + II'
    assert np.isnan(values[in_doubt & beats]).all() and there[~in_doubt].mean() > 0.95
    assert np.ptp(whole[1, there] - values[there]) < 0.01
    assert any(re.search(r'left out, .*: \d\.\d s of II$', note) for note in read.raw.notes)


def test_leads_that_run_into_others_are_refused(tangle):
    tangle(1)
    with pytest.raises(NotAnECG, match='a sheet on which II, aVL, V2, V5 run into other rows'):
        read_sheet(draw_sheet(HEART, DRAWN).picture)


def test_beats_of_a_lead_that_run_into_others_are_left_out(tangle):
    picture = draw_sheet(HEART, replace(DRAWN, pulse='none')).picture
    whole = read_sheet(picture).raw.values
    tangle(1, 130, 180)
    read = read_sheet(picture)
    values, beats = read.raw.values, np.abs(HEART[7]) > 0.3
    shown = np.isfinite(whole[7])
    assert np.isnan(values[7, shown & beats]).all()
    kept = np.isfinite(values[7])
    assert kept[shown].mean() > 0.4
    assert np.ptp(whole[7, kept] - values[7, kept]) < 0.01
    others = np.arange(12) != 7
    np.testing.assert_array_equal(values[others], whole[others])
    assert any(re.search(r'left out, .*: \d\.\d s of V2$', note) for note in read.raw.notes)


def test_columns_that_nothing_shows_are_refused(draw_unnamed):
    style = replace(DRAWN, layout='12x1', spacing=20.0)
    half = draw_unnamed(HEART[[*range(6)] * 2], style)
    with pytest.raises(NotAnECG):
        read_sheet(half[:int((style.top + 5.5 * style.spacing) / 25.4 * style.dpi)])


def test_columns_that_only_the_laws_show_are_read(draw_unnamed):
    style = replace(DRAWN, layout='3x4+1', separator='none', pulse='none')
    values = read_sheet(draw_unnamed(HEART, style)).raw.values
    for lead, (one, other) in enumerate(zip(values, HEART)):
        shown = np.isfinite(one) & (np.arange(5000) // 1250 == lead // 3)
        assert shown.sum() > 1200 and np.corrcoef(one[shown], other[shown])[0, 1] > 0.97
    with pytest.raises(NotAnECG, match='no line, gap or name shows that other leads begin'):
        read_sheet(draw_unnamed(HEART, replace(style, layout='3x4')))


def test_two_sheets_beside_each_other_are_refused():
    picture = draw_sheet(HEART, replace(DRAWN, pulse='left', dpi=110.0)).picture
    with pytest.raises(NotAnECG, match='traces that go on beside the 250 mm of one ECG'):
        read_sheet(np.hstack([picture, picture]))


@pytest.mark.parametrize('axis', [0, 1])
def test_two_sheets_on_a_table_are_refused(axis):
    picture = draw_sheet(HEART, replace(DRAWN, dpi=110.0)).picture
    table = np.full_like(picture, 90)[:200] if axis == 0 else np.full_like(picture, 90)[:, :200]
    with pytest.raises(NotAnECG, match='several grids of ECG paper'):
        read_sheet(np.concatenate([picture, table, picture], axis))


def test_a_scale_that_cannot_be_read_is_not_taken_for_granted():
    style = replace(DRAWN, pulse='none', footer='25 mm/s  7 mm/mV')
    with pytest.raises(NotAnECG, match='mm/mV is printed, and the number before it cannot be read'):
        read_sheet(draw_sheet(HEART, style).picture)


def test_a_pulse_that_is_cut_still_says_the_gain():
    style = replace(DRAWN, gain=5.0, footer='')
    picture = draw_sheet(HEART, style).picture[:, int(21 / 25.4 * style.dpi):]
    read = read_sheet(picture)
    assert read.mm_per_mv == 5
    assert 'mm/s: no calibration pulse or print found, taken for granted' in read.raw.notes[0]


def test_a_mirrored_sheet_is_refused():
    picture = draw_sheet(HEART, replace(DRAWN, layout='12x1', spacing=20.0)).picture
    with pytest.raises(NotAnECG, match='a mirrored sheet, by the names of its leads'):
        read_sheet(np.ascontiguousarray(picture[:, ::-1]))


def cut_at_the_first_trace(sheet):
    """The picture from where its traces begin, with a frame around it and a line behind them."""
    first, last = (int(each) for each in sheet.to_pixels[0] @ np.array(
        [[sheet.style.left, 0, 1], [sheet.style.left + 250, 0, 1]]).T)
    picture = sheet.picture[:, first:].copy()
    for y in sorted({place.y for place in sheet.places}):
        top, bottom = (int((y + away) * sheet.style.dpi / 25.4) for away in (-4, 4))
        cv2.line(picture, (last - first, top), (last - first, bottom), (0, 0, 0), 2)
    cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, picture.shape[0] - 1), (0, 0, 0), 1)
    return picture


@pytest.mark.parametrize('layout', ['3x4+1', '6x2'])
def test_traces_that_begin_at_the_edge_of_the_picture_are_in_time(layout):
    sheet = draw_sheet(HEART, Style(layout=layout, pulse='right', left=10.0))
    read = read_sheet(cut_at_the_first_trace(sheet))
    for lead, values in enumerate(read.raw.values):
        there = np.flatnonzero(np.isfinite(values) & np.isfinite(sheet.truth[lead]))
        shifts = range(-12, 13)
        alike = [np.corrcoef(values[there], HEART[lead, np.clip(there + shift, 0, 4999)])[0, 1]
                 for shift in shifts]
        assert abs(shifts[int(np.argmax(alike))]) <= 4, LEADS[lead]  # 8 ms, 0.2 mm
        assert max(alike) > 0.97, LEADS[lead]


def filtered():
    """An ECG of which three limb leads are smoothed, each by itself."""
    signal = HEART.copy()
    signal[[0, 4, 5]] = uniform_filter1d(signal[[0, 4, 5]], 40, axis=1)
    return signal


def test_limb_leads_that_are_filtered_by_themselves_are_read_where_names_tell_them():
    signal = filtered()
    read = read_sheet(draw_sheet(signal, replace(DRAWN, layout='3x4+1')).picture)
    assert read.layout == '3 x 4 + II'
    assert re.search(r'; 2\d% of the limb leads do not follow', read.raw.notes[0])
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert np.corrcoef(values[there], signal[lead, there])[0, 1] > 0.93, LEADS[lead]


def test_limb_leads_that_are_filtered_by_themselves_are_refused_without_names(draw_unnamed):
    with pytest.raises(NotAnECG, match='do not follow from one another'):
        read_sheet(draw_unnamed(filtered(), DRAWN))
