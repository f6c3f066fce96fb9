import hashlib
import json
import os
import pickle
import random
import shutil
import threading

import numpy as np
import pandas as pd
import pytest

from models import best_model
from tests.helpers import Program, same_arrays
from utils.running.errors import UserError
from utils.running.settings import Config

WEIGHTS = {'fc.weight': np.arange(6, dtype=np.float32).reshape(2, 3), 'fc.bias': np.ones(2, 'f4')}
METRICS = {'epoch': 3, 'iteration': 60, 'threshold': 0.5, 'validation': {'f1': 0.8, 'auc': None}}
OUTSIDE = {'../outside.pdparams': hashlib.sha256(pickle.dumps(WEIGHTS)).hexdigest()}
TABLE = pd.DataFrame({'name': ['a'], 'abnormal: truth': [1], 'abnormal: log-odds': [0.25]})


def save(folder, value=0.0, count=1, epoch=3):
    networks = [{key: each + value for key, each in WEIGHTS.items()} for _ in range(count)]
    best_model.save_best(str(folder), networks, Config(seed=7), {**METRICS, 'epoch': epoch}, TABLE)


def test_weights_as_paddle_writes_and_reads_them(tmp_path):
    import paddle
    layer = paddle.nn.Linear(3, 2)
    paddle.save(layer.state_dict(), str(tmp_path / 'w.pdparams'))
    found = best_model.read_weights(str(tmp_path / 'w.pdparams'))
    assert np.array_equal(found['weight'], layer.weight.numpy())
    save(tmp_path / 'best_model')
    back = paddle.load(str(tmp_path / 'best_model' / 'model.pdparams'))
    assert np.array_equal(np.asarray(back['fc.weight']), WEIGHTS['fc.weight'])
    for protocol in (0, 2):  # of Paddles and Pythons long gone
        (tmp_path / 'old').write_bytes(pickle.dumps(WEIGHTS, protocol))
        assert same_arrays(best_model.read_weights(str(tmp_path / 'old')), WEIGHTS)


def test_a_damaged_dtype_does_not_crash_numpy(tmp_path):
    data = pickle.dumps(WEIGHTS, 2)
    assert b'X\1\0\0\0<' in data
    (tmp_path / 'w.pdparams').write_bytes(data.replace(b'X\1\0\0\0<', b'X\1\0\0\0N'))
    assert same_arrays(best_model.read_weights(str(tmp_path / 'w.pdparams')), WEIGHTS)


@pytest.mark.parametrize('wrap', [lambda evil: {**WEIGHTS, 'x': [evil]},
                                  lambda evil: {'a': np.array([evil], dtype=object)}])
def test_weights_that_would_run_code(wrap, tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps(wrap(Program(marker))))
    with pytest.raises(UserError, match='w.pdparams'):
        best_model.read_weights(str(path))
    assert not marker.exists()


@pytest.mark.parametrize('data, words', [
    (b'', 'w.pdparams'), (b'<html>404', 'web page'), (pickle.dumps(5), 'w.pdparams'),
    (pickle.dumps({'a': np.ones(2)}), 'float64, expected a float32'),
    (pickle.dumps({'a': np.array([np.nan], np.float32)}), 'NaN'),
    (pickle.dumps({'model': WEIGHTS}), 'is dict'), (pickle.dumps(WEIGHTS)[:-20], 'w.pdparams')])
def test_files_that_hold_no_weights(data, words, tmp_path):
    (tmp_path / 'w.pdparams').write_bytes(data)
    with pytest.raises(UserError, match=words):
        best_model.read_weights(str(tmp_path / 'w.pdparams'))
    for path in (tmp_path, tmp_path / 'none'):
        with pytest.raises(UserError, match='expected weights'):
            best_model.read_weights(str(path))


@pytest.mark.parametrize('count', [1, 3])
def test_best_model_comes_back(count, tmp_path):
    save(tmp_path / 'best_model', count=count)
    for path in (tmp_path, tmp_path / 'best_model'):
        networks, config, metrics = best_model.load_best(str(path))
        assert len(networks) == count and all(same_arrays(each, WEIGHTS) for each in networks)
        assert config == Config(seed=7) and metrics['validation'] == METRICS['validation']
    os.rename(tmp_path / 'best_model', tmp_path / 'best_model.complete')  # as a kill leaves it
    assert len(best_model.load_best(str(tmp_path / 'best_model'))[0]) == count
    os.rename(tmp_path / 'best_model.complete', tmp_path / 'best_model')
    table = pd.read_csv(tmp_path / 'best_model' / best_model.VALIDATION)
    assert table.to_numpy().tolist() == TABLE.to_numpy().tolist()


def test_best_model_can_be_read_while_it_is_replaced(tmp_path):
    """Whatever moment a reader meets, model, settings and scores are of one and the same."""
    folder, stop, seen = tmp_path / 'best_model', threading.Event(), set()
    save(folder, 0.0, epoch=0)

    def write():
        for epoch in range(1, 60):
            save(folder, float(epoch), epoch=epoch)
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not stop.is_set():
        networks, _, metrics = best_model.load_best(str(tmp_path))
        assert networks[0]['fc.bias'][0] == 1.0 + metrics['epoch']
        seen.add(metrics['epoch'])
    writer.join()
    assert len(seen) > 3


@pytest.mark.parametrize('name', ['model.pdparams', 'metrics.json', 'config.yml'])
def test_a_damaged_best_model_is_refused_or_reads_as_it_was(name, tmp_path):
    save(tmp_path / 'source')
    rng = random.Random(5)
    for _ in range(30):
        folder = shutil.copytree(tmp_path / 'source', tmp_path / 'best_model', dirs_exist_ok=True)
        data = bytearray((folder / name).read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (folder / name).write_bytes(data)
        try:
            networks, _, _ = best_model.load_best(str(folder))
            assert same_arrays(networks[0], WEIGHTS) and name != 'model.pdparams'
        except (UserError, FileNotFoundError):
            pass
    os.remove(folder / name)
    with pytest.raises((UserError, FileNotFoundError)):
        best_model.load_best(str(folder))


@pytest.mark.parametrize('change', [{'sha256': None}, {'sha256': {}}, {'sha256': 'x' * 64},
                                    {'validation': None}, {'epoch': 'x'}, {'sha256': OUTSIDE}])
def test_metrics_of_a_stranger_or_an_earlier_version(change, tmp_path):
    save(tmp_path / 'best_model')
    (tmp_path / 'outside.pdparams').write_bytes(pickle.dumps(WEIGHTS))
    path = tmp_path / 'best_model' / 'metrics.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((UserError, FileNotFoundError)):
        best_model.load_best(str(tmp_path))


def test_nothing_is_there(tmp_path):
    with pytest.raises(UserError, match='no trained model there'):
        best_model.load_best(str(tmp_path / 'output'))
