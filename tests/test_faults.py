"""A try or two of faults of tests/faults.py; python -m tests.faults tries them all, many times."""
import os
import random
import shutil

import pytest

from tests import faults

pytestmark = pytest.mark.skipif(
    not os.path.isdir('/proc/self') or not hasattr(os, 'killpg'),
    reason='looks for processes in /proc and sends the signals of Unix')

CHOSEN = [  # which try of each: they differ
    (faults.kill_train, (9,)), (faults.kill_process, (0, 1)), (faults.kill_predict, (1,)),
    (faults.stop_process, (0,)), (faults.crash_reader, (0,)), (faults.damage_picture, (1,))]
ON_MOUNTS = [(faults.full_pictures, (1,)), (faults.full_save, (0,)), (faults.full_answer, (0,))]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    place = faults.Place(tmp_path_factory.mktemp('faults'))
    yield place
    shutil.rmtree(place.folder)  # models and checkpoints, a gigabyte


@pytest.fixture(scope='module')
def mounts():
    if not faults.own_mounts():
        pytest.skip('not permitted here to mount')


def try_it(fault, numbers, place):
    rng = random.Random(7)
    for number in numbers:
        assert fault(place, rng, number) is None


@pytest.mark.parametrize('fault, numbers', CHOSEN)
def test_nothing_is_lost(fault, numbers, place):
    try_it(fault, numbers, place)


@pytest.mark.parametrize('fault, numbers', ON_MOUNTS)
def test_nothing_is_lost_on_a_full_disk(fault, numbers, place, mounts):
    try_it(fault, numbers, place)
