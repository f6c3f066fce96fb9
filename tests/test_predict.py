import csv
import io
import json
import os
import shutil
import zipfile

import numpy as np
import pytest
from conftest import overrides, refused, run_script

import predict
from utils import checkpoint
from utils import config as settings
from utils.config import Render
from utils.errors import UserError
from utils.render import encode_png, settings_of

NAMES = [f'TEST{i + 1:04d}' for i in range(6)]
TRUTH = [0, 1, 0, 1, 0, 1]


def own_output(trained, folder):
    """An output folder with the trained model, into which predict.py may write."""
    os.makedirs(folder)
    os.symlink(os.path.join(trained, 'best_model'), os.path.join(folder, 'best_model'))
    return folder


def run_predict(root, output, *pairs, reference=None):
    answer = os.path.join(output, 'answers', 'answer.csv')
    extra = ['--reference', reference] if reference else []
    return run_script('predict.py', *overrides('device=cpu', f'data.root={root}', f'output={output}',
                                               f'predict.answer={answer}', *pairs), *extra)


def read_rows(path):
    with open(path, newline='', encoding='utf-8') as file:
        return list(csv.reader(file))


def write_reference(path, names=NAMES, tags=TRUTH):
    path.write_text('name,tag\n' + ''.join(f'{name},{tag}\n' for name, tag in zip(names, tags)))
    return path


@pytest.fixture(scope='module')
def predicted(trained, drawn, tmp_path_factory):
    """What predict.py leaves when today's settings are not those of the model: (CompletedProcess, output folder)."""
    output = own_output(trained, str(tmp_path_factory.mktemp('predicted') / 'output'))
    result = run_predict(drawn, output, 'task=2', 'seed=5', 'render.size=224', 'render.line_width=3', 'model.name=resnet101',
                         'model.pretrained=nowhere', 'train.batch_size=2', 'predict.batch_size=4')
    assert result.returncode == 0, result.stderr
    return result, output


def probabilities_of(output):
    rows = read_rows(os.path.join(output, 'probabilities.csv'))
    assert rows[0] == ['name', 'abnormal']
    return [row[0] for row in rows[1:]], np.array([float(row[1]) for row in rows[1:]])


def test_answer(predicted):
    _, output = predicted
    with open(os.path.join(output, 'answers', 'answer.csv'), 'rb') as file:
        data = file.read()
    lines = data.decode('ascii').split('\n')
    assert lines[0] == 'name,tag' and lines[-1] == '' and b'\r' not in data
    rows = [line.split(',') for line in lines[1:-1]]
    assert [name for name, _ in rows] == NAMES  # sorted, one row each, nothing twice
    names, probabilities = probabilities_of(output)
    assert names == NAMES and ((probabilities >= 0) & (probabilities <= 1)).all()
    assert [int(tag) for _, tag in rows] == (probabilities >= 0.5).astype(int).tolist()


def test_answer_is_zipped(predicted):
    _, output = predicted
    with open(os.path.join(output, 'answers', 'answer.csv'), 'rb') as file:
        data = file.read()
    with zipfile.ZipFile(os.path.join(output, 'answers', 'answer.zip')) as archive:
        assert archive.namelist() == ['answer.csv'] and archive.read('answer.csv') == data and archive.testzip() is None
    assert sorted(os.listdir(os.path.join(output, 'answers'))) == ['answer.csv', 'answer.zip']


def test_what_it_says(predicted):
    result, output = predicted
    lines = result.stdout.splitlines()
    assert lines[0].startswith('Python ') and 'Paddle' in lines[0] and 'device: cpu was asked for' in lines[0]
    assert lines[1].startswith('settings that differ from the defaults: ')
    with open(os.path.join(output, 'best_model', 'metrics.json')) as file:
        kept = json.load(file)
    assert (f'{output}/best_model: task 1, resnet18, epoch {kept["epoch"]}, iteration {kept["iteration"]}, validation F1 '
            f'{kept["validation"]["f1"]:.4f}, threshold 0.5') in lines
    assert f'Save to {output}/answers/answer.csv' in lines
    tags = [int(row[1]) for row in read_rows(os.path.join(output, 'answers', 'answer.csv'))[1:]]
    assert f'6 records: {tags.count(0)} normal, {tags.count(1)} abnormal' in lines
    assert any(line.startswith('warning: every record is') for line in lines) == (len(set(tags)) == 1)
    assert 'predicting [##############################] 6/6' in result.stderr and 'Traceback' not in result.stderr


def test_answer_is_the_models(predicted, drawn):
    import paddle
    _, output = predicted
    model = paddle.vision.models.resnet18(num_classes=2)
    model.set_state_dict(paddle.load(os.path.join(output, 'best_model', 'model.pdparams')))
    model.eval()
    import cv2
    pixels = np.stack([cv2.imread(os.path.join(drawn, 'val', f'{name}.png'), cv2.IMREAD_GRAYSCALE) for name in NAMES])
    inputs = np.repeat(((pixels / 255 - 0.449) / 0.226)[:, None], 3, axis=1).astype(np.float32)
    expected = paddle.nn.functional.softmax(model(paddle.to_tensor(inputs))).numpy()[:, 1]
    assert np.allclose(probabilities_of(output)[1], expected, atol=1e-4)


def test_scores(predicted, trained, drawn, tmp_path):
    names, probabilities = probabilities_of(predicted[1])
    threshold = np.sort(probabilities)[2:4].mean()  # three records on each side
    output = own_output(trained, str(tmp_path / 'output'))
    reference = write_reference(tmp_path / 'reference.csv', [f'{name}.mat' for name in NAMES[::-1]], TRUTH[::-1])
    result = run_predict(drawn, output, f'predict.threshold={threshold:.9f}', reference=reference)
    assert result.returncode == 0, result.stderr
    assert np.array_equal(probabilities_of(output)[1], probabilities)
    tags = [int(row[1]) for row in read_rows(os.path.join(output, 'answers', 'answer.csv'))[1:]]
    assert tags == (probabilities >= threshold).astype(int).tolist() and sum(tags) == 3

    pairs = list(zip(TRUTH, tags))
    hit, miss, alarm, rest = (pairs.count(pair) for pair in ((1, 1), (1, 0), (0, 1), (0, 0)))
    wins = [(a > b) + 0.5 * (a == b) for a, t in zip(probabilities, TRUTH) if t
            for b, u in zip(probabilities, TRUTH) if not u]
    expected = {'accuracy': (hit + rest) / 6, 'F1': 2 * hit / (2 * hit + alarm + miss), 'AUC': np.mean(wins),
                'sensitivity': hit / (hit + miss), 'specificity': rest / (rest + alarm)}
    said = {line.split(':')[0]: line for line in result.stdout.splitlines() if '95 % interval' in line}
    assert list(said) == list(expected)
    for name, value in expected.items():
        assert said[name].startswith(f'{name}: {value:.4f} (95 % interval ')
        low, high = map(float, said[name].split('interval ')[1].rstrip(')').split(' to '))
        assert 0 <= low <= value <= high <= 1
    assert (f'confusion matrix: truth normal: {rest} called normal, {alarm} abnormal; truth abnormal: {miss} called normal, '
            f'{hit} abnormal') in result.stdout
    assert 'warning' not in result.stdout


def test_warning_where_all_are_one_class(trained, drawn, tmp_path):
    output = own_output(trained, str(tmp_path / 'output'))
    result = run_predict(drawn, output, 'predict.threshold=0')
    assert result.returncode == 0
    assert '6 records: 0 normal, 6 abnormal' in result.stdout
    assert 'warning: every record is abnormal; look at output/validation.png' in result.stdout


def test_reference_that_does_not_match(trained, drawn, tmp_path):
    output = own_output(trained, str(tmp_path / 'output'))
    reference = write_reference(tmp_path / 'reference.csv', NAMES[:4] + ['TEST0099', 'TEST0001'])
    result = run_predict(drawn, output, reference=reference)
    assert len(refused(result)) == 3
    refused(result, 'reference.csv, line 6: ', 'no picture of the record TEST0099')
    refused(result, 'reference.csv, line 7: ', 'TEST0001 stood in line 2 already')
    refused(result, 'reference.csv: no label for 2 of 6 records: TEST0005, TEST0006')
    assert not os.path.exists(os.path.join(output, 'answers'))


def test_pictures_with_other_settings(trained, drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / 'root')
    stamp = {**settings_of(Render(size=64, line_width=2.0)), 'record': 1}
    (root / 'val' / 'TEST0004.png').write_bytes(encode_png(np.full((64, 64), 255, np.uint8), stamp))
    result = run_predict(root, own_output(trained, str(tmp_path / 'output')))
    refused(result, 'TEST0004.png: drawn with other settings: line_width 2.0 (expected 1.0); redraw it with: '
                    f'python process.py -o data.root={root} -o render.size=64 -o render.mv_per_lead=2.0 '
                    '-o render.line_width=1.0')


def test_a_damaged_picture_is_named(trained, drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / 'root')
    with open(root / 'val' / 'TEST0003.png', 'r+b') as file:
        file.seek(300)
        file.write(bytes(8))
    output = own_output(trained, str(tmp_path / 'output'))
    refused(run_predict(root, output), 'TEST0003.png: a damaged PNG; run process.py again')
    assert not os.path.exists(os.path.join(output, 'answers'))  # rather no answer than one that lacks a record


@pytest.mark.parametrize('name, words', [
    ('model.pdparams', ('model.pdparams: not the file that train.py wrote',)),
    ('config.yml', ('config.yml: not the file that train.py wrote',)),
])
def test_a_best_model_that_was_changed(name, words, trained, drawn, tmp_path):
    shutil.copytree(os.path.join(trained, 'best_model'), tmp_path / 'best_model')
    with open(tmp_path / 'best_model' / name, 'r+b') as file:
        file.seek(200)
        file.write(b'7')
    refused(run_predict(drawn, str(tmp_path)), *words, 'copy the whole folder again, or train anew')


def test_no_model_yet(drawn, tmp_path):
    refused(run_predict(drawn, str(tmp_path)), f'{tmp_path}/best_model: no trained model there', 'python train.py')


# Checks without the cost of a script.

def model_config(trained):
    return settings.load(os.path.join(trained, 'best_model', 'config.yml'))


def test_no_pictures(trained, tmp_path):
    with pytest.raises(UserError, match=f'{tmp_path}/val: no pictures; draw them with: python process.py -o data.root='):
        predict.list_test_pictures(str(tmp_path), model_config(trained))


def test_records_that_could_not_be_drawn(trained, drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / 'root')
    assert predict.list_test_pictures(str(root), model_config(trained)) == NAMES
    with open(root / 'render.json') as file:
        drawn_with = json.load(file)
    for not_drawn in ({'train': ['TRAIN0001'], 'val': []}, {'train': [], 'val': ['TEST0007']}):
        (root / 'render.json').write_text(json.dumps({**drawn_with, 'not_drawn': not_drawn}))
        if not_drawn['val']:
            with pytest.raises(UserError, match=r'could not draw 1 test records \(TEST0007\), so the answer would lack'):
                predict.list_test_pictures(str(root), model_config(trained))
        else:
            assert predict.list_test_pictures(str(root), model_config(trained)) == NAMES


def test_files_missing_from_best_model(trained, tmp_path):
    folder = str(shutil.copytree(os.path.join(trained, 'best_model'), tmp_path / 'best_model'))
    for name, words in (('metrics.json', 'metrics.json: missing'), ('sha256.json', 'no sha256.json there')):
        os.remove(os.path.join(folder, name))
        with pytest.raises(UserError, match=words):
            checkpoint.load_best(folder)


def test_thresholds(trained):
    one, two = predict.tasks.TASKS[1], predict.tasks.TASKS[2]
    assert predict.read_thresholds({'threshold': 0.4}, 'auto', 'F', one) == 0.4
    assert predict.read_thresholds({'threshold': 0.4}, 0.7, 'F', one) == 0.7
    assert predict.read_thresholds({'threshold': [0.1] * 12}, 'auto', 'F', two).tolist() == [0.1] * 12
    assert predict.read_thresholds({'threshold': [0.1] * 12}, 0.7, 'F', two).tolist() == [0.7] * 12
    with pytest.raises(UserError, match='expected one number'):
        predict.read_thresholds({'threshold': [0.1] * 12}, 'auto', 'F', one)
    with pytest.raises(UserError, match='expected 12 numbers'):
        predict.read_thresholds({'threshold': 0.4}, 'auto', 'F', two)


def test_the_same_answer_gives_the_same_zip(tmp_path):
    rows = [['name', 'tag'], ['TEST0001', 1]]
    for name in ('a', 'b'):
        predict.write_answer(str(tmp_path / name / 'answer.csv'), rows)
    assert (tmp_path / 'a' / 'answer.zip').read_bytes() == (tmp_path / 'b' / 'answer.zip').read_bytes()
    predict.write_answer(str(tmp_path / '答案.csv'), rows)
    with zipfile.ZipFile(io.BytesIO((tmp_path / '答案.zip').read_bytes())) as archive:
        assert archive.read('答案.csv') == b'name,tag\nTEST0001,1\n'
