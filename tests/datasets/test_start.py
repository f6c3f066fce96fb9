"""The start from made-up ECGs: true to its labels, and through the real scripts into a model."""
import numpy as np
import pytest

from models import best_model
from tests.helpers import SMALL, overrides, refused, run_script
from utils.answers.tasks import FINDINGS, TASKS
from utils.datasets import start
from utils.ecg.beats import MEASURES

LABELS = TASKS[3].class_names


@pytest.fixture(scope='module')
def made():
    """make_record() of 60 ECGs."""
    return [start.make_record(1, index) for index in range(60)]


def test_the_same_everywhere_and_varied(made):
    signal, findings, numbers = start.make_record(1, 7)
    assert signal.dtype == np.float32 and signal.shape == (12, 5000)
    for found, expected in zip(made[7], (signal, findings, numbers)):
        assert np.array_equal(found, expected)
    assert len({each[0].tobytes() for each in made}) == 60
    shown = np.array([each[1] for each in made])
    assert np.array_equal(shown[:, 0], shown[:, 1:].any(axis=1)) and 20 < shown[:, 0].sum() < 48
    assert all(np.abs(each[0]).max() < 12 for each in made)


def test_labels_are_findings_and_quarters(made):
    findings, numbers = (np.array([each[at] for each in made]) for at in (1, 2))
    labels = start.labels_of(findings, numbers)
    assert labels.shape == (60, len(LABELS))
    count = len(FINDINGS)
    assert np.array_equal(labels[:, :count], findings)
    rate = [LABELS.index(f'{MEASURES[0]} above {quarter} quarter(s)') for quarter in (1, 2, 3)]
    assert labels[:, rate].sum(axis=0).tolist() == [45, 30, 15]
    assert numbers[labels[:, rate[2]] == 1, 0].min() > numbers[labels[:, rate[2]] == 0, 0].max()


def test_a_network_starts_from_it(tmp_path, drawn):
    ecgs, pictures, output = (tmp_path / name for name in ('ecgs', 'pictures', 'start'))
    run = [*SMALL, 'task=3', f'data.source={ecgs}', f'data.root={pictures}', f'output={output}',
           'train.iters=4', 'train.warmup_iters=1']
    done = run_script('process.py', *overrides(*run))
    refused(done, str(ecgs))  # nothing is there yet
    assert start.write_start(str(ecgs), 40, 0) is None
    for script in ('process.py', 'train.py'):
        done = run_script(script, *overrides(*run))
        assert done.returncode == 0, done.stderr
    refused(run_script('predict.py', *overrides(f'output={output}', f'data.root={pictures}')),
            'made-up', 'model.pretrained')
    learnt = [*SMALL, f'data.root={drawn}', f'output={tmp_path}/output', 'train.iters=2',
              'train.learning_rate=0.0000000001', f'model.pretrained={output}/best_model']
    done = run_script('train.py', *overrides(*learnt))
    assert done.returncode == 0, done.stderr
    assert 'loaded 102 of 102 tensors' in done.stdout
    ((before,), _, _), ((after,), _, _) = (best_model.load_best(str(each))
                                           for each in (output, tmp_path / 'output'))
    for key in ('fc.weight', 'fc.bias'):
        normal, abnormal = after[key].T
        assert np.allclose(abnormal - normal, before[key].T[0], atol=1e-6)
        assert np.allclose(abnormal + normal, 0, atol=1e-6)
