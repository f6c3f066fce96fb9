"""A try or two of most faults of tests/faults.py, through the real scripts; make faults tries them all, many times."""
import os
import shutil
import signal

import pytest

from tests import faults

pytestmark = pytest.mark.skipif(not os.path.isdir('/proc/self') or not hasattr(os, 'killpg'),
                                reason='looks for processes in /proc and sends the signals of Unix')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    place = faults.Place(tmp_path_factory.mktemp('faults'))
    yield place
    shutil.rmtree(place.folder)  # models and checkpoints, a gigabyte


def nothing_lost(answers):
    assert answers and not [answer for answer in answers if answer], answers


def test_killed_training_goes_on_to_the_same_end(place):
    nothing_lost(faults.kill_train(place, 2, 1))


def test_killed_drawing(place):
    nothing_lost(faults.kill_process(place, 2, 1))


def test_killed_prediction(place):
    nothing_lost(faults.kill_predict(place, 1, 2))


def test_ctrl_c_twice(place):  # SIGTERM once: tests/test_resume.py
    nothing_lost(faults.stop_train(place, 1, 3, signal.SIGINT, twice=True))


@pytest.mark.parametrize('script', ['process.py', 'predict.py'])
def test_other_scripts_stopped(script, place):
    nothing_lost(faults.stop_other(place, 1, 4, script))


def test_drawing_process_killed_by_the_system(place):
    nothing_lost(faults.lose_worker(place, 1, 1))


def test_drawing_process_killed_while_others_start(place):
    nothing_lost(faults.lose_worker_early(place, 1, 1))


def test_records_that_crash_the_reader(place):
    nothing_lost(faults.crash_reader(place, 1, 1))


def test_two_trainers(place):
    nothing_lost(faults.two_trainers(place, 1, 1))


def test_damaged_picture(place):
    nothing_lost(faults.damaged_picture(place, 1, 1))


@pytest.mark.parametrize('fault', [faults.full_pictures, faults.full_answer, faults.full_training])
def test_full_disk(fault, place):
    if not faults.own_mounts():
        pytest.skip('this user may not mount a small file system')
    nothing_lost(fault(place, 1, 1))
