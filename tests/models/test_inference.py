import os
import tempfile

import numpy as np
import pytest

from models import build_model, inference
from utils.answers import tasks

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 64, 64), dtype=np.uint8)


@pytest.fixture(scope='module')
def models():
    """Two networks that are sure of nothing, so that a difference shows."""
    found = [build_model('resnet18', 2, seed) for seed in (1, 2)]
    for model in found:
        model.eval()
        model.fc.weight.set_value(model.fc.weight * 0.01)
    return found


def margins_of(logits):
    return tasks.margins_of(logits, tasks.TASKS[1])


def choose(models, precision='fp32'):
    return inference.fastest_network(models, margins_of, 0.0, 'cpu', precision, PIXELS[:4])


@pytest.mark.parametrize('count', [1, 2])
def test_the_fast_network_answers_as_the_plain_ones_mean(models, count, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    network, notes = choose(models[:count])
    assert notes[-1].startswith('oneDNN in fp32')
    assert os.listdir(tmp_path) == []  # nothing of the program is left on the disk
    plain = np.mean([inference.plain_network(model)(PIXELS) for model in models[:count]], axis=0)
    assert np.abs(network(PIXELS) - plain).max() < 1e-4 * max(1, np.abs(plain).max())
    assert np.ptp(plain) > 0


@pytest.mark.parametrize('fast, why', [('fails', 'no such kernel'), ('answers otherwise', '')])
def test_where_it_is_of_no_use_the_plain_network_predicts(fast, why, models, monkeypatch):
    def load(*_):
        if fast == 'fails':
            raise RuntimeError('(External) no such kernel\nC++ stack')
        return inference.plain_network(models[1])
    monkeypatch.setattr(inference, '_load', load)
    models[1].fc.bias.set_value(np.array([0.0, 1.0], np.float32))
    network, notes = choose(models[:1])
    assert 'plain network' in notes[-1] and why in notes[-1]
    assert np.array_equal(network(PIXELS), inference.plain_network(models[0])(PIXELS))


def test_near_a_threshold_the_exact_network_decides():
    asked = []

    def exact(pixels):
        asked.extend(pixels[:, 0, 0].tolist())
        return np.full((len(pixels), 2), 7.0, np.float32)

    margins = np.array([-3.0, -0.1, 0.2, 3.0])
    fast = lambda pixels: np.stack([np.zeros(4), margins], axis=1).astype(np.float32)  # noqa: E731
    network = inference._ask_again(fast, exact, margins_of, 0.0)
    pixels = np.arange(4, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    found = margins_of(network(pixels))
    assert asked == [1, 2] and np.allclose(found, [-3, 0, 0, 3])


def test_logits_are_compared_where_probabilities_say_nothing():
    sure = np.array([[0.0, 900.0]])
    with pytest.raises(ValueError):
        inference._compare(sure * 1.1, sure, margins_of, 0.001)
    with pytest.raises(ValueError):
        inference._compare(sure * np.nan, sure, margins_of, 0.001)
    assert inference._compare(sure, sure, margins_of, 0.001) == 0
