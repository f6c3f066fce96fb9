import threading

import pytest

from utils.running.background import MOST_WAITING, Background


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


def test_an_error_is_raised_and_what_waits_behind_it_is_not_done():
    release, done = threading.Event(), []
    with pytest.raises(ZeroDivisionError), Background() as background:
        background.submit(lambda: release.wait() and 1 / 0)
        background.submit(done.append, 'a checkpoint that builds on it')
        release.set()
    assert done == []


def test_an_error_of_the_block_goes_first_and_work_is_finished_in_order():
    done = []
    with pytest.raises(KeyError), Background() as background:
        background.submit(done.append, 1)
        background.submit(done.append, 2)
        raise KeyError
    assert done == [1, 2]
