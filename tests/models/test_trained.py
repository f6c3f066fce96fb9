import pytest

from models import trained
from utils.answers import tasks
from utils.running.errors import UserError


def test_thresholds():
    twelve, task_2 = {'threshold': [0.1] * 12}, tasks.TASKS[2]
    assert trained.read_thresholds({'threshold': 0.4}, 'F', tasks.TASKS[1]) == 0.4
    assert trained.read_thresholds(twelve, 'F', task_2).tolist() == [0.1] * 12
    for kept, task in ((twelve, tasks.TASKS[1]), ({'threshold': 0.4}, task_2), ({}, task_2)):
        with pytest.raises(UserError, match='^F: the threshold in metrics.json is'):
            trained.read_thresholds(kept, 'F', task)
