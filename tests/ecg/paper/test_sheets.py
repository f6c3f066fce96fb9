"""The sheets that reading is tried with show what they say they do."""
import numpy as np
import pytest

from tests.copies import photo, scan
from tests.helpers import make_signal
from tests.sheets import LAYOUTS, Style, draw_sheet, random_style
from tests.strangers import stranger
from utils.ecg.signals import LEADS, SAMPLING_RATE


def along(sheet, signal):
    """The pixels of all the traces' samples: int array (n, 2) of x, y."""
    points = []
    for place in sheet.places:
        at = np.arange(place.start, place.stop)
        x = place.x + (at - place.start) / SAMPLING_RATE * sheet.style.speed
        y = place.y - place.sign * sheet.style.gain * signal[place.lead, at]
        pixels = sheet.to_pixels @ np.stack([x, y, np.ones(len(at))])
        points.append((pixels[:2] / pixels[2]).T)
    return np.round(np.concatenate(points)).astype(int)


def contrast(sheet, signal):
    """How much darker the pixels of the traces are than those 3 mm above them, of 255."""
    x, y = along(sheet, signal).T
    above = np.maximum(y - round(3 * sheet.style.dpi / 25.4), 0)
    grey = sheet.picture.mean(axis=2)
    return np.median(grey[above, x]) - np.median(grey[y, x])


@pytest.mark.parametrize('cabrera', [False, True])
@pytest.mark.parametrize('layout', LAYOUTS)
def test_traces_are_where_the_truth_says(layout, cabrera):
    signal = make_signal(1)
    sheet = draw_sheet(signal, Style(layout=layout, cabrera=cabrera, dpi=120))
    x, y = along(sheet, signal).T
    assert (sheet.picture[y, x].max(axis=1) < 200).mean() > 0.99
    columns = int(layout.split('x')[1][0])
    shown = np.isfinite(sheet.truth).sum(axis=1)
    assert sorted(set(shown)) == ([5000 // columns, 5000] if '+' in layout else [5000 // columns])
    assert np.isfinite(sheet.truth[:, [0, -1]]).any()
    assert np.array_equal(sheet.truth[np.isfinite(sheet.truth)], signal[np.isfinite(sheet.truth)])


def test_order_of_the_leads():
    def names(style):
        return [LEADS[place.lead] for place in draw_sheet(make_signal(1), style).places]
    assert names(Style('3x4', dpi=50))[:5] == ['I', 'aVR', 'V1', 'V4', 'II']
    assert names(Style('3x4', cabrera=True, dpi=50))[::4] == ['aVL', 'I', 'aVR']
    assert names(Style('6x2+1', dpi=50))[-3:] == ['aVF', 'V6', 'II']
    assert names(Style('3x4+3', dpi=50))[-3:] == ['V1', 'II', 'V5']


@pytest.mark.parametrize('change', [scan, photo])
def test_copies_keep_the_truth(change):
    signal, rng = make_signal(1), np.random.default_rng(0)
    sheet = change(draw_sheet(signal, random_style(rng, '3x4+1', 120)), rng)
    assert contrast(sheet, signal) > 40
    assert sheet.picture.dtype == np.uint8 and sheet.picture.shape[2] == 3


def test_the_same_dice_give_the_same_pictures():
    def pictures():
        rng = np.random.default_rng(3)
        sheet = draw_sheet(make_signal(1), random_style(rng, dpi=110))
        yield scan(sheet, rng).picture
        for kind in ('X-ray', 'chart', 'cut below', 'lead missing'):
            yield stranger(kind, make_signal(1), rng)
    for one, two in zip(pictures(), pictures()):
        assert np.array_equal(one, two) and one.ndim == 3
