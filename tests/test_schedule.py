import math

import pytest

from utils.config import Train
from utils.schedule import learning_rate


@pytest.mark.parametrize('decay', ['cosine', 'polynomial'])
def test_warm_up_is_the_originals(decay):
    train = Train(decay=decay)
    shown = {i: f'{learning_rate(i, train):.10f}' for i in (1, 10, 20, 30, 40, 50, 200, 201)}
    assert shown == {1: '0.0000000000', 10: '0.0000450000', 20: '0.0000950000', 30: '0.0001450000', 40: '0.0001950000',
                     50: '0.0002450000', 200: '0.0009950000', 201: '0.0010000000'}


def test_cosine():
    train = Train(iters=1001, warmup_iters=200, learning_rate=0.01, end_learning_rate=0.002)
    assert learning_rate(201, train) == 0.01
    assert learning_rate(601, train) == pytest.approx(0.006)  # halfway
    assert learning_rate(401, train) == pytest.approx(0.002 + 0.008 * (1 + math.cos(math.pi / 4)) / 2)
    assert learning_rate(1001, train) == pytest.approx(0.002)


def test_polynomial_is_a_straight_line():
    train = Train(iters=1001, warmup_iters=200, learning_rate=0.01, end_learning_rate=0.002, decay='polynomial')
    assert [learning_rate(i, train) for i in (201, 401, 601, 1001)] == pytest.approx([0.01, 0.008, 0.006, 0.002])


@pytest.mark.parametrize('decay', ['cosine', 'polynomial'])
@pytest.mark.parametrize('iters, warmup', [(10000, 200), (50, 0), (2, 1), (1, 0), (2, 0), (10, 9)])
def test_from_base_down_to_the_end(decay, iters, warmup):
    train = Train(iters=iters, warmup_iters=warmup, decay=decay, end_learning_rate=1e-5)
    rates = [learning_rate(i, train) for i in range(1, iters + 1)]
    assert all(a < b for a, b in zip(rates[:warmup], rates[1:warmup + 1]))
    assert rates[warmup] == train.learning_rate
    assert all(a > b for a, b in zip(rates[warmup:], rates[warmup + 1:]))
    if iters > warmup + 1:
        assert rates[-1] == pytest.approx(1e-5)
    assert learning_rate(iters + 100, train) == learning_rate(iters + 1, train)  # it does not rise again


def test_a_run_that_ends_within_its_warm_up():
    train = Train(iters=100, warmup_iters=200)
    assert learning_rate(100, train) == 0.001 * 99 / 200
