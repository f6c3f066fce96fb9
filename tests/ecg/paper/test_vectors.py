"""PDFs that hold their traces as lines."""
import pathlib

import matplotlib
import numpy as np
import pytest
from PIL import Image

from benchmarks.paper import score, to_leads
from tests.ecg.paper.test_reading import HEART
from tests.sheets import Style, draw_sheet
from utils.ecg.paper import read_picture, vectors
from utils.ecg.signals import NotAnECG

pdfium = pytest.importorskip('pypdfium2')
OWN = "from the PDF's own lines"


def turn(path):
    document = pdfium.PdfDocument(pathlib.Path(path).read_bytes())
    document[0].set_rotation(90)
    document.save(path)


def nest(path):
    """The page in a form within a form, 0.8 of its size, between two pages without anything."""
    for scale in (0.8, 1):
        source = pdfium.PdfDocument(pathlib.Path(path).read_bytes())
        document = pdfium.PdfDocument.new()
        size = source[0].get_size()
        form = source.page_as_xobject(len(source) // 2, document).as_pageobject()
        form.set_matrix(pdfium.PdfMatrix().scale(scale, scale).translate(5, 20 * (1 - scale)))
        _, page, _ = [document.new_page(*size) for _ in range(3)]
        page.insert_obj(form)
        page.gen_content()
        document.save(path)


@pytest.mark.parametrize('layout, change', [('3x4+1', None), ('12x1', turn), ('6x2', nest)])
def test_lines_are_read_as_they_are(tmp_path, monkeypatch, layout, change):
    monkeypatch.setitem(matplotlib.rcParams, 'path.simplify', False)
    path = str(tmp_path / 'sheet.pdf')
    sheet = draw_sheet(HEART, Style(layout=layout, spacing=16.0), path)
    if change:
        change(path)
    read, = read_picture(path)
    scores = score(to_leads(read.raw), HEART, np.isfinite(sheet.truth))
    assert OWN in read.raw.notes[0] and '12 names of leads read' in read.raw.notes[0]
    assert min(each.decibels for each in scores) > 35
    assert round(read.rotation) == (90 if change == turn else 0)
    ink = np.concatenate([read.picture[tuple(np.rint(line).astype(int).T[::-1])]
                          for _, line in read.traces])
    assert (ink.max(axis=1) < 128).mean() > 0.9  # the report shows them where they are


def test_a_picture_in_a_pdf_is_read_as_one(tmp_path):
    path = str(tmp_path / 'sheet.pdf')
    picture = draw_sheet(HEART, Style(layout='3x4')).picture
    Image.fromarray(picture).save(path, resolution=200)
    read, = read_picture(path)
    assert OWN not in read.raw.notes[0] and np.isfinite(read.raw.values).any(axis=1).all()


def test_lines_that_cannot_be_seen_are_not_read(tmp_path):
    path = str(tmp_path / 'sheet.pdf')
    draw_sheet(HEART, Style(layout='3x4', ink='#ffffff', header=()), path)
    with pytest.raises(NotAnECG):
        read_picture(path)


def test_a_page_of_too_many_lines_is_read_as_a_picture(tmp_path, monkeypatch):
    path = str(tmp_path / 'sheet.pdf')
    draw_sheet(HEART, Style(layout='3x4'), path)
    monkeypatch.setattr(vectors, 'MOST_POINTS', 1000)
    read, = read_picture(path)
    assert OWN not in read.raw.notes[0]


@pytest.mark.parametrize('text, scale', [
    ('25 mm/s  10 mm/mV  0.05-150 Hz', [25, 10]), ('50mm/s 5mm/mv', [50, 5]),
    ('Speed:25.0 mm/sec  Gain:2 cm/mV', [25, 20]), ('QT 400 ms', [None, None])])
def test_the_scale_is_read(text, scale):
    assert vectors.scale_of(text) == scale


@pytest.mark.parametrize('text', ['12.5 mm/s', '10/5 mm/mV', 'limbs 10 mm/mV, chest 5 mm/mV'])
def test_a_scale_that_is_not_known_is_refused(text):
    with pytest.raises(NotAnECG, match='printed, expected one of'):
        vectors.scale_of(text)
