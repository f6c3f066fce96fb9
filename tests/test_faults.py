"""A try or two of faults of tests/faults.py; python -m tests.faults tries them all, many times."""
import os
import random
import shutil
from functools import partial

import pytest

from tests import faults

pytestmark = pytest.mark.skipif(
    not os.path.isdir('/proc/self') or not hasattr(os, 'killpg'),
    reason='looks for processes in /proc and sends the signals of Unix')

CHOSEN = [  # which try of each: they differ
    (faults.kill_train, (9,)), (faults.kill_process, (0, 1)), (faults.kill_predict, (1,)),
    (partial(faults.stop_other, script='process.py'), (0,)), (faults.damage_picture, (1,)),
    pytest.param(faults.full_save, (0,), marks=pytest.mark.skipif(
        not faults.own_mounts(), reason='not permitted here to mount'))]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    place = faults.Place(tmp_path_factory.mktemp('faults'))
    yield place
    shutil.rmtree(place.folder)  # models and checkpoints, a gigabyte


@pytest.mark.parametrize('fault, numbers', CHOSEN)
def test_nothing_is_lost(fault, numbers, place):
    rng = random.Random(7)
    for number in numbers:
        assert fault(place, rng, number) is None
