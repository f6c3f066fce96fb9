"""Names of leads and scales in print."""
import os

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from utils.ecg.paper import labels
from utils.ecg.signals import NotAnECG

PX_PER_MM = 8


def print_words(words):
    """Ink with words 30 mm apart in a row, in a face that there is no template of."""
    path = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSerif-Bold.ttf')
    ink = Image.new('L', (240 * len(words), 200))
    for place, word in enumerate(words):
        ImageDraw.Draw(ink).text((20 + 240 * place, 80), word, 255, ImageFont.truetype(path, 30))
    return np.array(ink, np.float32) / 255


def read(ink):
    return sorted(labels.read_words(ink, np.zeros((0, ink.shape[1])), PX_PER_MM),
                  key=lambda word: word.x)


def test_names_are_read():
    words = read(print_words([*labels.TWELVE, 'AVL']))
    assert [word.lead for word in words] == [*labels.TWELVE, 'aVL']
    assert abs(words[1].x - 32.5) < 1


def test_other_words_are_none():
    ink = print_words(['HR', 'Name', '72', 'ms', 'VT', 'ST', 'BPM'])
    assert not [word for word in read(ink) if word.lead]


def test_scale():
    ink = np.hstack([print_words(['25 mm/s'])[:, :210], print_words(['10 mm/mV'])])
    assert labels.scale_of(read(ink)) == [25, 10]
    both = np.hstack([ink, print_words(['50 mm/s'])])
    with pytest.raises(NotAnECG, match='25 and 50 mm/s are printed'):
        labels.scale_of(read(both))


@pytest.mark.parametrize('text, scale', [
    ('25mm/s', [25, None]), ('*5mm/mV', [None, 5]), ('50mm/sec', [50, None]),
    ('Gain:20mm/mV', [None, 20]), ('mm/mV', [None, np.nan])])
def test_scale_that_is_glued_to_its_unit(text, scale):
    ink = np.pad(print_words([text]), [(0, 0), (0, 300)])
    np.testing.assert_equal(labels.scale_of(read(ink)), scale)


def test_names_are_matched_with_the_nearest_way_of_placing_them():
    places = [('V1', 50, 40), ('V2', 50, 60), ('V3', 50, 80)]
    words = [labels.Word(name, name, 51, 55, y, 0.9) for name, y in
             (('V1', 33), ('V2', 53), ('V3', 73), ('V4', 200))]
    assert labels.match(words, places, 20) == [('V1', 0), ('V2', 1), ('V3', 2)]
