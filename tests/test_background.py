import threading

import pytest

from utils.background import MOST_WAITING, Background


def test_work_is_done_in_order_and_before_the_block_ends():
    done = []
    with Background() as background:
        for number in range(10):
            background.submit(done.append, number)
    assert done == list(range(10))


def test_giving_work_waits_only_where_too_much_waits():
    release, given = threading.Event(), []

    def give(background):
        for number in range(MOST_WAITING + 1):
            background.submit(release.wait)
            given.append(number)

    with Background() as background:
        giver = threading.Thread(target=give, args=(background,))
        giver.start()
        giver.join(0.5)
        assert len(given) == MOST_WAITING and giver.is_alive()
        release.set()
        giver.join(10)
        assert len(given) == MOST_WAITING + 1


def test_an_error_is_raised_where_work_is_given():
    with Background() as background:
        background.submit(int, 'x')
        with pytest.raises(ValueError):
            background.wait()


def test_what_waits_behind_an_error_is_not_done():
    release, done = threading.Event(), []
    with pytest.raises(ZeroDivisionError), Background() as background:
        background.submit(lambda: release.wait() and 1 / 0)
        background.submit(done.append, 'a checkpoint that builds on it')
        release.set()
    assert done == []


def test_an_error_is_raised_at_the_end_of_the_block():
    with pytest.raises(ValueError), Background() as background:
        background.submit(int, 'x')


def test_an_error_of_the_block_goes_first_and_work_is_finished():
    done = []
    with pytest.raises(KeyError), Background() as background:
        background.submit(done.append, 1)
        raise KeyError
    assert done == [1]
