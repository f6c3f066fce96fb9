import numpy as np
import pytest

from tests.helpers import make_signal
from utils.pictures.augment import augment, shift_in_time
from utils.pictures.render import Renderer
from utils.running.settings import Augment

OFF = {'time_shift': 0.0, 'gain': 0.0, 'missing_lead': 0.0, 'noise': 0.0, 'wander': 0.0}
SIZE = 240
BAND = SIZE // 12
PIXELS_PER_MV = BAND / 2.0
RENDERER = Renderer(SIZE, 2.0, 1.0)
ECG = RENDERER.draw(make_signal(3))


def change(picture=ECG, seed=0, **settings):
    rng = np.random.default_rng(seed)
    return augment(picture, rng, Augment(**{**OFF, **settings}), PIXELS_PER_MV)


def heights(picture):
    """Where the trace runs: mV above the zero line of each lead; float (12, SIZE)."""
    ink = 255.0 - picture.reshape(12, BAND, SIZE)
    rows = np.arange(BAND)[:, None]
    return ((BAND - 1) / 2 - (ink * rows).sum(axis=1) / ink.sum(axis=1)) / PIXELS_PER_MV


def band(picture, lead):
    return picture[lead * BAND:(lead + 1) * BAND]


def flat(*levels):
    """Twelve straight lines, at the given mV in turn."""
    return RENDERER.draw(np.repeat(np.resize(levels, 12)[:, None], 5000, axis=1).astype(np.float32))


def test_off_changes_nothing():
    for seed in range(3):
        changed = change(seed=seed)
        assert np.array_equal(changed, ECG) and changed is not ECG


def test_time_shift_is_a_roll_limited_and_varied():
    for seed in range(5):
        changed = change(seed=seed, time_shift=1.0)
        assert sum(np.array_equal(changed, np.roll(ECG, s, axis=1)) for s in range(SIZE)) == 1
    marked = np.full((SIZE, SIZE), 255, np.uint8)
    marked[:, 0] = 0
    shifts = [int(change(marked, seed, time_shift=0.25)[0].argmin()) for seed in range(200)]
    assert 0 <= min(shifts) < 5 and 50 < max(shifts) < 60 and len(set(shifts)) > 30


def test_gain_scales_heights_about_the_zero_line():
    levels, gains = np.resize([0.6, 0.3, 0.0, -0.3], 12)[:, None], []
    for seed in range(100):
        changed = heights(change(flat(*levels[:4, 0]), seed, gain=0.2))
        gains.append(changed[0].mean() / 0.6)
        assert np.allclose(changed, levels * gains[-1], atol=0.02)
    assert 0.79 < min(gains) < 0.83 and 1.17 < max(gains) < 1.21 and abs(np.mean(gains) - 1) < 0.03


def test_missing_lead_blanks_one_band_in_part_of_the_pictures():
    blanked = []
    for seed in range(400):
        changed = change(seed=seed, missing_lead=0.3)
        differs = [lead for lead in range(12) if (band(changed, lead) != band(ECG, lead)).any()]
        assert all((band(changed, lead) == 255).all() for lead in differs) and len(differs) < 2
        blanked += differs
    assert 90 < len(blanked) < 150 and len(set(blanked)) == 12


def test_wander_is_slow_and_small():
    moved = np.stack([heights(change(flat(0.0), seed, wander=0.2)) for seed in range(10)])
    assert 0.15 < np.abs(moved).max() < 0.22
    per_column = 0.2 * 2 * np.pi * 0.5 * 10 / SIZE  # mV, at 0.5 Hz
    assert np.abs(np.diff(moved, axis=2)).max() < per_column + 0.02
    assert not np.allclose(moved[:, 0], moved[:, 1], atol=0.02)  # each lead on its own


def test_noise_has_its_standard_deviation():
    moved = np.stack([heights(change(flat(0.0), seed, noise=0.05)) for seed in range(5)])
    assert moved.std() == pytest.approx(0.05, rel=0.1)


def test_one_setting_does_not_change_anothers_dice():
    alone, both = change(seed=4, time_shift=1.0), change(seed=4, time_shift=1.0, missing_lead=1.0)
    assert sum(np.array_equal(band(alone, lead), band(both, lead)) for lead in range(12)) == 11


@pytest.mark.parametrize('size', [32, 65, 320])
def test_any_size_and_the_seed_decides(size):
    picture = Renderer(size, 2.0, 1.0).draw(make_signal(1))
    before = picture.copy()
    first, again, other = (augment(picture, np.random.default_rng(seed), Augment(), size / 24)
                           for seed in (1, 1, 2))
    assert first.dtype == np.uint8 and first.shape == (size, size)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(picture, before)


def test_what_comes_in_from_outside_is_white():
    # A drop of 2 mV moves the uppermost lead down; there is nothing above it to copy.
    assert (change(np.zeros((SIZE, SIZE), np.uint8), 3, wander=2.0)[0] == 255).any()


BOTH = Renderer(SIZE, 2.0, 1.0, beats=True).draw(make_signal(3))


def test_average_beats_have_the_same_gain_and_missing_lead():
    assert np.array_equal(change(BOTH, gain=0.2)[:SIZE], change(ECG, gain=0.2))
    for seed in range(12):
        changed = change(BOTH, seed, missing_lead=1.0)
        lead, = np.flatnonzero((changed[:SIZE].reshape(12, -1) == 255).all(axis=1))
        cells = changed[SIZE:].reshape(4, SIZE // 4, 3, SIZE // 3).transpose(0, 2, 1, 3)
        blank, = np.flatnonzero((cells.reshape(12, -1) == 255).all(axis=1))
        assert blank == lead
    tall = np.flatnonzero((BOTH[SIZE:] < 128).any(axis=1)).max()
    for seed in range(5):  # a larger gain reaches farther, by as much
        more = np.random.default_rng(seed)
        more.uniform(0, 1)
        gain = 1 + more.uniform(-0.2, 0.2)
        reached = np.flatnonzero((change(BOTH, seed, gain=0.2)[SIZE:] < 128).any(axis=1)).max()
        zero = SIZE - SIZE / 8
        assert reached - zero == pytest.approx((tall - zero) * gain, abs=3)


def test_average_beats_stay_where_they_are_in_time():
    assert np.array_equal(change(BOTH), BOTH)
    for seed in range(5):
        moved = change(BOTH, seed, time_shift=1.0)[SIZE:].astype(int)
        reach = round(0.05 * 4 * SIZE / 10)
        apart = [np.abs(np.roll(BOTH[SIZE:].astype(int), by, axis=1) - moved)[:, 20:-20].mean()
                 for by in range(-20, 21)]
        assert abs(np.argmin(apart) - 20) <= reach and min(apart) < max(apart) / 2
    pictures = np.stack([BOTH, BOTH[::-1]])
    shifted = shift_in_time(pictures, 0.25)
    assert np.array_equal(shifted[:, SIZE:], pictures[:, SIZE:])
    assert np.array_equal(shifted[:, :SIZE], np.roll(pictures[:, :SIZE], SIZE // 4, axis=2))
    assert np.array_equal(shift_in_time(pictures[:, :SIZE], 0), pictures[:, :SIZE])
