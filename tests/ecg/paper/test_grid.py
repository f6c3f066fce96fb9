"""Where the mm are on sheets that are turned, bent or weakly printed."""
import cv2
import numpy as np
import pytest

from tests.copies import photo
from tests.ecg.paper.test_reading import HEART
from tests.sheets import Style, draw_sheet
from utils.ecg import paper
from utils.ecg.paper import grid


def draw(**style):
    return draw_sheet(HEART, Style(**{'layout': '3x4', **style}))


def away(found, picture, on_sheet):
    """How far a Grid is off: mm, 95 of 100 places; on_sheet: pixels (n, 2) -> mm (n, 2)."""
    x, y = np.linspace(found.low, found.high, 20).T
    places = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    pixels = found.pixels(places)
    shown = ((pixels >= 0) & (pixels < picture.shape[1::-1])).all(axis=1)
    off = on_sheet(pixels[shown]) - places[shown]
    return np.percentile(np.abs(off - np.median(off, axis=0)), 95)


@pytest.mark.parametrize('style', [{'fine': 'none', 'grid': 'grey'}, {'fine': 'dots'}, {}],
                         ids=['5 mm', 'dots', '1 mm'])
def test_a_photo_on_a_table_has_its_mm_in_place(style):
    sheet = draw(dpi=250.0, **style)
    seen = photo(sheet, np.random.default_rng(5))
    back = np.linalg.inv(seen.to_pixels)
    assert away(grid.find_grid(seen.picture), seen.picture,
                lambda places: cv2.perspectiveTransform(places[None], back)[0]) < 0.05


def arched(x, y, width, height):
    return x, y + 12 * np.sin(np.pi * x / width)


def corner_up(x, y, width, height):
    """30 degrees at the corner."""
    far = np.maximum((0.35 * width - x + 0.35 * height - y) / width, 0)
    return x + 0.2 * width * far ** 2, y + 0.4 * width * far ** 2


@pytest.mark.parametrize('fine', ['lines', 'none'])
@pytest.mark.parametrize('bend', [arched, corner_up])
def test_bent_paper_has_its_mm_in_place(bend, fine):
    sheet = draw(dpi=150.0, fine=fine)
    size = sheet.picture.shape[1::-1]
    x, y = np.meshgrid(*(np.arange(side, dtype=np.float32) for side in size))
    bent = cv2.remap(sheet.picture, *bend(x, y, *size), cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)
    back = np.linalg.inv(sheet.to_pixels)
    assert away(grid.find_grid(bent), bent, lambda places: cv2.perspectiveTransform(
        np.stack(bend(*places.T, *size), axis=1)[None], back)[0]) < 0.1


@pytest.mark.parametrize('turns', [1, 2, 3])
def test_a_turned_sheet_is_read(turns):
    picture = np.ascontiguousarray(np.rot90(draw(dpi=150.0).picture, -turns))
    read = paper.read_sheet(picture)
    assert read.layout == '3 x 4'
    assert abs(read.rotation) == pytest.approx([90, 180, 90][turns - 1], abs=0.1)
    assert f'turned by {read.rotation:.1f} degrees' in read.raw.notes[0]
    values = read.raw.values[1, :1200]
    assert np.corrcoef(values[20:1180], HEART[1, 20:1180])[0, 1] > 0.93
    lead, places = read.traces[0]
    columns, rows = np.rint(places).astype(int).T
    assert lead == 'I' and np.median(picture[rows, columns]) < 100  # on its ink


def test_a_picture_that_is_longer_in_one_direction_is_read():
    sheet = draw()
    width, height = sheet.picture.shape[1::-1]
    squeezed = cv2.resize(sheet.picture, (width, int(0.91 * height)), interpolation=cv2.INTER_AREA)
    read = paper.read_sheet(squeezed)
    for lead, values in enumerate(read.raw.values):
        there = np.isfinite(values)
        assert np.corrcoef(values[there], HEART[lead, there])[0, 1] > 0.93, lead
        assert np.ptp(values[there]) == pytest.approx(np.ptp(HEART[lead, there]), rel=0.1), lead
