"""Ink without what is none: a black grid, a crease, the edge of the paper."""
from dataclasses import replace

import cv2
import numpy as np
import pytest

from tests.ecg.paper.test_reading import HEART
from tests.sheets import GRIDS, Style, draw_sheet
from utils.ecg import paper
from utils.ecg.paper import grid, ink


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


def negative(picture):
    return 255 - picture


@pytest.mark.parametrize('change', [copied, creased, on_a_table, negative])
def test_what_is_no_ink_leaves_the_traces(change):
    style = Style(layout='3x4', grid='red', fine='none', trace_width=0.4, spacing=27.0)
    read = paper.read_sheet(change(draw_sheet(HEART, style).picture))
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert np.corrcoef(values[there], HEART[lead, there])[0, 1] > 0.93, lead


@pytest.mark.parametrize('turn', [0, 1.3])
def test_what_lines_as_black_as_the_trace_do_not_hide_is_seen(turn):
    style = Style(layout='3x4', trace_width=0.4, top=42.4, header=('', ''), footer='')
    picture, printed = (draw_sheet(HEART, each).picture for each in
                        (style, replace(style, grid='none')))
    size = picture.shape[1::-1]
    moved = cv2.getRotationMatrix2D((0, 0), turn, 1)
    picture, printed = (cv2.warpAffine(each, moved, size, borderValue=(255, 255, 255))
                        for each in (picture, printed))
    black = np.repeat(np.where(picture.mean(axis=2) < 240, 0, 255)[..., None], 3, 2)
    found = grid.find_grid(black.astype(np.uint8))
    flat, inside, _ = ink.lay_flat(black.astype(np.uint8), found, paper.FLAT)
    trace = ink.lay_flat(printed, found, paper.FLAT)[0].min(axis=2) < 50
    found, hidden = ink.find_ink(flat, inside, paper.FLAT)
    seen = found > 0.5
    far = cv2.dilate(trace.astype(np.uint8), np.ones((17, 17), np.uint8)) == 0
    assert seen[trace & inside].mean() > 0.8
    assert (seen | hidden)[trace & inside].mean() > 0.95
    assert 0.2 < hidden[far & inside].mean() < 0.4
    assert seen[far & inside].mean() < 0.005


def test_qrs_that_stand_above_each_other_are_no_frame():
    tall = HEART * 2.2
    sheet = draw_sheet(tall, Style(layout='3x4', spacing=27.0))
    found = grid.find_grid(sheet.picture)
    flat, inside, _ = ink.lay_flat(sheet.picture, found, paper.FLAT)
    black = (flat.max(axis=2) < 60) & inside
    assert (ink.find_ink(flat, inside, paper.FLAT)[0][black] > 0.5).mean() > 0.98


def test_traces_paler_than_the_print_are_read():
    style = Style(layout='3x4', ink='#6060c0', trace_width=0.2, header=('', ''), footer='')
    picture = draw_sheet(HEART, style).picture.copy()
    for y in range(50, 200, 30):
        cv2.putText(picture, 'SINUS RHYTHM, NORMAL ECG, 72 BPM', (150, y), 0, 1, (0, 0, 0), 3)
    read = paper.read_sheet(picture)
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert there.mean() == pytest.approx(0.25, abs=0.01)
        assert np.corrcoef(values[there], HEART[lead, there])[0, 1] > 0.93, lead


def test_what_may_run_either_way_is_tried_both_ways():
    dark = np.zeros((2600, 2200), np.float32)
    for y in range(190, 2600, 200):
        dark[y:y + 3, 70:2130] = 1
        dark[y - 180:y, 500:503] = 1
    assert ink.turns(dark, paper.FLAT) == (0, 2, 1, 3)
    assert ink.turns(np.ascontiguousarray(dark.T), paper.FLAT) == (1, 3, 0, 2)
    assert ink.turns(dark[:1200], paper.FLAT) == (0, 2)


def test_strokes_that_meet_are_no_stain():
    picture = draw_sheet(HEART, Style(layout='3x4', top=42.4, header=('', ''), footer='')).picture
    found = grid.find_grid(picture)
    flat, inside, _ = ink.lay_flat(picture, found, paper.FLAT)
    strokes = np.zeros(inside.shape, bool)
    strokes[40 * paper.FLAT:55 * paper.FLAT, 640:659] = True
    flat[strokes] = 20
    assert (ink.find_ink(flat, inside, paper.FLAT)[0][strokes] > 0.5).mean() > 0.9


def test_traces_go_on_where_a_shadow_hides_the_grid():
    style = Style(layout='3x4', dpi=150.0)
    picture, bare = (draw_sheet(HEART, each).picture for each in
                     (style, replace(style, grid='none')))
    shadow = int((style.left + 210) / 25.4 * style.dpi)
    picture[:, shadow:] = bare[:, shadow:]
    read = paper.read_sheet(picture)
    assert np.isfinite(read.raw.values).mean() == pytest.approx(0.25, abs=0.01)
    assert not any('left out' in note for note in read.raw.notes)


def test_little_ink_is_told_from_much_red(monkeypatch):
    monkeypatch.setitem(GRIDS, 'red', ('#ffb3b3', '#ff0000'))
    sheet = draw_sheet(0.2 * HEART, Style(
        trace_width=0.12, header=('', ''), footer='', pulse='none', separator='none', spacing=30.0,
        grid_width=0.35, snapped=True))
    found = grid.find_grid(sheet.picture)
    flat, inside, _ = ink.lay_flat(sheet.picture, found, paper.FLAT)
    black = (flat.max(axis=2) < 60) & inside
    red = (flat[..., 0] > 200) & (flat[..., 1] < 60) & inside
    dark, _ = ink.find_ink(flat, inside, paper.FLAT)
    assert (dark[black] > 0.5).mean() > 0.98
    assert (dark[red] > 0.5).mean() < 0.02


def test_a_trace_that_a_black_line_hides_lies_on_the_line():
    sheet = draw_sheet(HEART, Style(layout='3x4', top=40.0, spacing=30.0, header=('', ''),
                                    grid='grey', fine='none', footer=''))
    read = paper.read_sheet(copied(sheet.picture))
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert there.mean() == pytest.approx(0.25, abs=0.01), lead
        assert np.corrcoef(values[there], HEART[lead, there])[0, 1] > 0.9, lead


def test_a_frame_around_the_picture_hides_no_trace_and_a_table_beyond_it_is_none():
    flat = np.full((1200, 2000, 3), 255, np.uint8)
    inside = np.zeros(flat.shape[:2], bool)
    inside[200:-200, 200:-200] = True
    flat[600:603, 200:-200] = 0
    edges = flat.copy()
    cv2.rectangle(edges, (0, 0), (201, 1199), (0, 0, 0), -1)  # a line of two pixels, replicated
    wedge = np.array([[200, 0], [200, 200], [1800, 200], [1800, 210], [200, 340]])
    cv2.fillPoly(edges, [wedge], (0, 0, 0))
    dark, _ = ink.find_ink(edges, inside, paper.FLAT)
    assert (dark[600:603, 206:260] > 0.5).all()
    assert (dark[240:300, 220:1000] < 0.5).all()
