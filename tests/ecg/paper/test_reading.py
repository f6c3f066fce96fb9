"""Sheets that are drawn here, read again."""
import re

import numpy as np
import pytest
from PIL import Image

from tests.sheets import Style, draw_sheet
from utils.ecg import formats, paper
from utils.ecg.signals import LEADS, NotAnECG
from utils.running.errors import UserError


def make_heart():
    """A made-up ECG that keeps Einthoven's and Goldberger's law: float32 array (12, 5000), mV."""
    seconds = np.arange(5000) / 500
    beats = np.arange(0.4, 10, 0.83)

    def wave(at, width, size):
        return size * np.exp(-0.5 * ((seconds[:, None] - beats - at) / width) ** 2).sum(axis=1)

    one = wave(0, 0.012, 0.8) + wave(0.25, 0.04, 0.2) + wave(0.03, 0.01, -0.2)
    two = wave(0.005, 0.014, 1.1) + wave(0.26, 0.04, 0.3) + wave(-0.16, 0.02, 0.12)
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    chest = [wave(0, 0.01, 0.2 + 0.25 * lead) + wave(0.03, 0.012, 0.2 * lead - 1.1)
             + wave(0.25, 0.04, 0.3) for lead in range(6)]
    return np.stack(limbs + chest).astype(np.float32)


HEART = make_heart()


def write(path, signal, **style):
    sheet = draw_sheet(signal, Style(**style))
    Image.fromarray(sheet.picture).save(path)
    return sheet


@pytest.mark.parametrize('style', [
    {'layout': '3x4+1'}, {'layout': '3x4', 'grid': 'grey', 'pulse': 'right', 'dpi': 150.0},
    {'layout': '6x2', 'cabrera': True, 'fine': 'none', 'pulse': 'none'},
    {'layout': '12x1', 'spacing': 14.0, 'gain': 5.0, 'footer': '25 mm/s  5 mm/mV'}],
    ids=lambda style: style['layout'])
def test_a_sheet_is_read(tmp_path, style):
    path = str(tmp_path / 'sheet.png')
    sheet = write(path, HEART, **style)
    read, = paper.read_picture(path)
    shown = np.isfinite(sheet.truth)
    assert (np.isfinite(read.raw.values) == shown).mean() > 0.99
    assert (read.mm_per_s, read.mm_per_mv) == (25, style.get('gain', 10))
    assert read.px_per_mm == pytest.approx(style.get('dpi', 200) / 25.4, rel=0.002)
    for lead, values in enumerate(read.raw.values):
        both = shown[lead] & np.isfinite(values)
        assert np.corrcoef(values[both], HEART[lead, both])[0, 1] > 0.93, LEADS[lead]
    assert len(read.traces) == len(sheet.places)


def test_qrs_that_cross_stay_with_their_leads(tmp_path):
    """V1's S goes down through V2's R, and V2's through V3's."""
    path = str(tmp_path / 'sheet.png')
    signal = HEART * np.float32(1.5)
    signal[9:] /= 3
    sheet = write(path, signal, layout='3x4', spacing=16.0)
    read, = paper.read_picture(path)
    shown = np.isfinite(sheet.truth)
    for lead, values in enumerate(read.raw.values):
        both = shown[lead] & np.isfinite(values)
        assert np.corrcoef(values[both], HEART[lead, both])[0, 1] > 0.95, LEADS[lead]


def test_what_is_not_shown_stays_not_there(tmp_path):
    path = str(tmp_path / 'sheet.png')
    write(path, HEART, layout='3x4')
    signal, notes = formats.read_input(path, None, None)
    assert np.isnan(signal).mean() == pytest.approx(0.75, abs=0.01)
    assert 'read from a picture of a sheet: 3 x 4 leads, 25 mm/s, 10 mm/mV' in notes[0]


def test_pages_that_are_ecgs_are_read_and_named(tmp_path):
    path = str(tmp_path / 'two.tiff')
    picture = Image.fromarray(draw_sheet(HEART, Style(layout='3x4')).picture)
    blank = Image.new('RGB', picture.size, 'white')
    picture.save(path, save_all=True, append_images=[blank, picture])
    found, _, problems = formats.find_inputs([path])
    assert list(found) == ['two-1', 'two-3'] and not problems
    assert np.isfinite(formats.read_input(found['two-3'], None, None)[0]).any()


def test_a_broken_law_is_refused(tmp_path):
    path = str(tmp_path / 'sheet.png')
    write(path, HEART[[3, 1, 6, 0, 4, 5, 2, 7, 8, 9, 10, 11]], layout='3x4')
    with pytest.raises(NotAnECG, match='do not follow from one another'):
        paper.read_picture(path)


def test_what_lies_on_another_row_is_left_out(tmp_path):
    path = str(tmp_path / 'sheet.png')
    signal = HEART.copy()
    signal[9, 2000:3000] -= 1.4  # V4 goes down to where V5 is, for 2 s
    write(path, signal, layout='12x1', spacing=14.0)
    read, = paper.read_picture(path)
    there = np.isfinite(read.raw.values)
    assert there[10].all() and there[9, 2100:2900].mean() < 0.3 and there[9, :1900].all()
    # Its beats stand out of V5 there: what is read of them is V4's own.
    off = read.raw.values[9] - signal[9]
    assert np.nanstd(off[2100:2900]) < 0.05
    assert np.abs(np.nanmedian(off[2100:2900]) - np.nanmedian(off[:1900])) < 0.05
    assert re.search(r'left out, .* on another trace: 1\.\d s of V4$', read.raw.notes[1])


@pytest.mark.parametrize('make, words', [
    (lambda: np.full((600, 900, 3), 255, np.uint8), 'without the grid'),
    (lambda: np.full((100, 200, 3), 255, np.uint8), '200 x 100 pixels'),
    (lambda: np.random.default_rng(1).integers(0, 255, (700, 900, 3), np.uint8), 'a picture')])
def test_what_is_no_sheet_is_refused(tmp_path, make, words):
    path = str(tmp_path / 'other.png')
    Image.fromarray(make()).save(path)
    with pytest.raises(UserError, match=words) as error:
        formats.read_input(path, None, None)
    assert str(error.value).startswith(path)


@pytest.mark.parametrize('name', ['cut.png', 'cut.pdf', 'cut.jpg'])
def test_a_damaged_file_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(500))
    with pytest.raises(UserError, match='damaged picture or PDF|pypdfium2'):
        formats.read_input(str(path), None, None)
