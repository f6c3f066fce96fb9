import json
import os
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import predict
from tests.helpers import make_signal, overrides, refused, run_script
from tests.sheets import Style, draw_sheet
from utils.answers import tasks
from utils.pictures.render import decode_png, encode_png, settings_of
from utils.running import errors
from utils.running.errors import UserError
from utils.running.settings import Render

NAMES = [f'TEST{i + 1:04d}' for i in range(6)]
TRUTH = [0, 1, 0, 1, 0, 1]


def command(root, folder, *pairs):
    """Arguments for predict.py: pictures in `root`, all that is written in `folder`."""
    return overrides('device=cpu', f'data.root={root}', f'output={folder}',
                     f'predict.answer={folder}/answer.csv', *pairs)


@pytest.fixture
def run_here(monkeypatch, trained, drawn, tmp_path):
    """predict.py in this process, which has Paddle already; it writes into tmp_path/output."""
    monkeypatch.setattr(errors, 'handle_signals', lambda: None)  # pytest's own stay

    def run(*arguments, root=drawn, model=trained):
        words = ['--model', model, *command(root, tmp_path / 'output'), *arguments]
        monkeypatch.setattr('sys.argv', ['predict.py', *map(str, words)])
        return predict.main()
    return run


def refused_here(run_here, *arguments, **places):
    """The lines of a UserError of predict.py."""
    with pytest.raises(UserError) as caught:
        run_here(*arguments, **places)
    return caught.value.lines


def contents(folder):
    """{path: bytes} of all files in a folder and those below."""
    return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def read_rows(path):
    return [line.split(',') for line in path.read_text().splitlines()]


def probabilities_in(path):
    table = pd.read_csv(path)
    assert list(table.columns) == ['name', 'abnormal', 'unsure'] and table['name'].tolist() == NAMES
    return table['abnormal'].to_numpy()


def write_reference(path, names=NAMES, tags=TRUTH):
    path.write_text('name,tag\n' + ''.join(f'{name},{tag}\n' for name, tag in zip(names, tags)))
    return path


@pytest.fixture(scope='module')
def predicted(trained, drawn, tmp_path_factory):
    """A model by another name, in a read-only folder, and settings that are not the model's."""
    folder = tmp_path_factory.mktemp('predicted')
    model = shutil.copytree(os.path.join(trained, 'best_model'), folder / 'the best, of May')
    before = contents(model)
    os.chmod(model, 0o555)
    result = run_script('predict.py', '--model', model, *command(
        drawn, folder / 'output', 'task=2', 'seed=5', 'render.size=224', 'render.line_width=3',
        'model.name=resnet101', 'model.pretrained=nowhere', 'predict.batch_size=4',
        'predict.views=5'))
    os.chmod(model, 0o755)
    assert result.returncode == 0, result.stderr
    assert contents(model) == before
    return result, folder


def test_answer_is_the_models(predicted, drawn):
    import paddle
    result, folder = predicted
    output = folder / 'output'
    assert sorted(os.listdir(output)) == ['answer.csv', 'answer.zip', 'probabilities.csv']
    data = (output / 'answer.csv').read_bytes()
    assert data.startswith(b'name,tag\n') and b'\r' not in data
    with zipfile.ZipFile(output / 'answer.zip') as archive:
        assert archive.namelist() == ['answer.csv'] and archive.read('answer.csv') == data
    model = folder / 'the best, of May'
    threshold = json.loads((model / 'metrics.json').read_text())['threshold']
    found = probabilities_in(output / 'probabilities.csv')
    tags = (found >= threshold).astype(int)
    assert read_rows(output / 'answer.csv')[1:] == [[*row] for row in zip(NAMES, map(str, tags))]
    assert f'6 records: {6 - sum(tags)} normal, {sum(tags)} abnormal' in result.stdout

    network = paddle.vision.models.resnet18(num_classes=2)
    network.set_state_dict(paddle.load(str(model / 'model.pdparams')))
    network.eval()
    pixels = np.stack([decode_png(f'{drawn}/val/{name}.png', (64, 64)) for name in NAMES])
    logits = 0
    for view in range(5):  # begun at five moments
        inputs = (np.roll(pixels, round(view / 5 * 64), axis=2) / 255 - 0.449) / 0.226
        inputs = np.repeat(inputs[:, None], 3, axis=1).astype(np.float32)
        logits = logits + network(paddle.to_tensor(inputs)) / 5
    expected = paddle.nn.functional.softmax(logits).numpy()[:, 1]
    assert np.allclose(found, expected, atol=1e-4) and np.ptp(expected) > 1e-3


def test_scores(run_here, predicted, tmp_path, capsys):
    probabilities = probabilities_in(predicted[1] / 'output' / 'probabilities.csv')
    threshold = np.sort(probabilities)[2:4].mean()  # three records on each side
    names = [f'{name}.mat' for name in NAMES[::-1]]
    reference = write_reference(tmp_path / 'key.csv', names, TRUTH[::-1])
    assert run_here('--reference', reference, *overrides(
        f'predict.threshold={threshold:.9f}', 'predict.views=5')) == 0
    tags = [int(row[1]) for row in read_rows(tmp_path / 'output' / 'answer.csv')[1:]]
    assert tags == (probabilities >= threshold).astype(int).tolist() and sum(tags) == 3
    wins = [(a > b) + 0.5 * (a == b) for a in probabilities[1::2] for b in probabilities[::2]]
    said = {line.partition(':')[0]: line for line in capsys.readouterr().out.splitlines()}
    for name, value in (('accuracy', np.mean(np.equal(tags, TRUTH))), ('AUC', np.mean(wins)),
                        ('sensitivity', sum(tags[1::2]) / 3), ('F1', sum(tags[1::2]) / 3)):
        assert said[name].startswith(f'{name}: {value:.4f} (')


def test_all_of_one_class_is_suspicious(run_here, tmp_path, capsys):
    for threshold in (0, 1):  # the second answer replaces the first
        assert run_here('-o', f'predict.threshold={threshold}') == 0
        assert f'every record is {("abnormal", "normal")[threshold]}' in capsys.readouterr().out
        tags = {row[1] for row in read_rows(tmp_path / 'output' / 'answer.csv')[1:]}
        assert tags == {str(1 - threshold)}


def test_bf16_gives_the_tags_of_fp32(run_here, predicted, tmp_path):
    assert run_here('-o', 'predict.precision=bf16') == 0
    bf16, fp32 = tmp_path / 'output', predicted[1] / 'output'
    assert read_rows(bf16 / 'answer.csv') == read_rows(fp32 / 'answer.csv')
    assert np.allclose(probabilities_in(bf16 / 'probabilities.csv'),
                       probabilities_in(fp32 / 'probabilities.csv'), atol=0.05)


def test_options_that_do_not_fit(run_here, tmp_path):
    reference = write_reference(tmp_path / 'key.csv', NAMES[:4] + ['TEST0099', 'TEST0001'])
    lines = refused_here(run_here, '--reference', reference)
    assert all(sum(word in line for line in lines) == 1
               for word in ('line 6', 'line 7', 'TEST0005, TEST0006'))
    line, = refused_here(run_here, '--unit', 'mV')
    assert '--input' in line
    assert os.listdir(tmp_path / 'output') == []


def test_a_temperature_divides_the_log_odds(run_here, trained, tmp_path, capsys):
    """The same tags; an older model has none, and a bad one is named."""
    def run(temperature, threshold):
        model = tmp_path / f'model{temperature}'
        shutil.copytree(os.path.join(trained, 'best_model'), model)
        kept = json.loads((model / 'metrics.json').read_text())
        del kept['temperature']
        kept['threshold'] = threshold
        if temperature is not None:
            kept['temperature'] = temperature
        (model / 'metrics.json').write_text(json.dumps(kept))
        assert run_here(model=model) == 0
        output = tmp_path / 'output'
        unsure = pd.read_csv(output / 'probabilities.csv')['unsure']
        assert set(unsure) <= {0, 1} and f'\n{sum(unsure)} unsure; ' in capsys.readouterr().out
        return (output / 'answer.csv').read_text(), probabilities_in(output / 'probabilities.csv')

    answer, before = run(None, 0.45)
    cooler, after = run(2.0, float(tasks.probabilities_of(tasks.log_odds(0.45) / 2)))
    assert cooler == answer
    assert tasks.log_odds(after) == pytest.approx(tasks.log_odds(before) / 2, rel=0.01)
    with pytest.raises(UserError, match='the temperature in metrics.json is hot'):
        run('hot', 0.45)


@pytest.mark.parametrize('name, write, option', [
    ('mine.zip', lambda path: zipfile.ZipFile(path, 'w').close(), None),
    ('mine.csv', write_reference, None),
    ('mine.csv', write_reference, '--reference'),
    ('mine.csv', lambda path: np.savetxt(path, make_signal(1).T, delimiter=','), '--input'),
    ('mine.csv', lambda path: path.symlink_to('nowhere'), None),
])
def test_what_is_not_its_own_is_not_overwritten(run_here, name, write, option, tmp_path):
    write(tmp_path / name)
    before = contents(tmp_path)
    extra = [option, tmp_path / name] if option else []
    for _ in range(2):  # a second try must not find an answer of the first
        line, = refused_here(run_here, '--sampling-rate', 500, '--unit', 'mV', *extra,
                             '-o', f'predict.answer={tmp_path}/mine.csv')
        assert str(tmp_path / name) in line and 'answer' in line
        assert contents(tmp_path) == before


def test_labels_and_probabilities_are_not_overwritten(run_here, trained, drawn, tmp_path):
    labels = shutil.copy(os.path.join(drawn, 'trainreference.csv'), tmp_path)
    before = contents(tmp_path)
    result = run_script('predict.py', '--model', trained, *command(
        drawn, tmp_path / 'output', f'predict.answer={labels}'))
    assert len(refused(result, labels)) == 1
    table = tmp_path / 'output' / 'probabilities.csv'
    line, = refused_here(run_here, '-o', f'predict.answer={table}')
    assert str(table) in line and contents(tmp_path) == before


def test_own_ecgs_have_an_answer_of_their_own(trained, drawn, competition, tmp_path):
    (tmp_path / 'config.yml').write_text(f'device: cpu\ndata:\n  root: {drawn}\n')
    first = run_script('predict.py', '--model', trained, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    before = contents(tmp_path)
    ecgs = tmp_path / 'ecgs'
    ecgs.mkdir()
    for name in NAMES[:2]:
        shutil.copy(os.path.join(competition, 'val', f'{name}.mat'), ecgs)
    (ecgs / 'broken.mat').write_bytes(b'MATLAB 5.0 MAT-file, cut')
    (ecgs / 'bad.csv').write_text('name,tag\nx,1\n')
    (ecgs / 'letter.pdf').write_bytes(b'%PDF')
    write_reference(tmp_path / 'key.csv', ['broken', 'letter', *NAMES[:2]], [1, 1, 0, 1])
    result = run_script('predict.py', '--model', trained, '--input', 'ecgs', '--reference',
                        'key.csv', cwd=tmp_path)
    refused(result, 'broken.mat')
    refused(result, '2 of 4')
    refused(result, 'letter.pdf')
    assert 'bad.csv' in result.stdout  # skipped, and said so
    assert 'scores on 2 records' in result.stdout
    assert before.items() <= contents(tmp_path).items()
    for path in ('answer.csv', 'output/probabilities.csv'):  # through pictures or not: no matter
        own = tmp_path / path.replace('answer', 'input_answer').replace('prob', 'input_prob')
        assert read_rows(own) == read_rows(tmp_path / path)[:3]


def test_several_inputs_and_names_that_are_no_text(run_here, competition, tmp_path):
    paths = [os.path.join(competition, 'val', f'{name}.mat') for name in NAMES[:2]]
    odd = os.fsdecode(os.fsencode(str(tmp_path)) + b'/n\xff.mat')
    shutil.copy(paths[0], odd)
    assert run_here('--input', paths[0], odd, '--input', paths[1], '--report') == 0
    lines = (tmp_path / 'output' / 'input_probabilities.csv').read_bytes().splitlines()[1:]
    found = dict(line.rsplit(b',', 2)[:2] for line in lines)
    assert list(found) == [b'TEST0001', b'TEST0002', b'n\xff']
    assert found[b'n\xff'] == found[b'TEST0001'] != found[b'TEST0002']


def test_a_sheet_is_answered_and_shown(run_here, tmp_path, capsys):
    signal = make_signal(1)
    one, two = signal[:2]
    signal[2:6] = two - one, -(one + two) / 2, one - two / 2, two - one / 2
    sheet = draw_sheet(signal, Style('12x1', spacing=14.0, gain=5.0, dpi=150, footer=''))
    Image.fromarray(sheet.picture).save(tmp_path / 'sheet.png')
    Image.new('RGB', (900, 600), 'white').save(tmp_path / 'letter.png')
    assert run_here('--input', tmp_path / 'sheet.png', tmp_path / 'letter.png', '--report',
                    'en') == 2
    said = capsys.readouterr()
    assert 'read from a picture of a sheet: 12 x 1 leads, 25 mm/s, 5 mm/mV' in said.out
    assert 'warning: 1 of the ECGs are pictures' in said.out  # its model has augment.printed 0
    assert 'letter.png: a picture without the grid' in said.err
    report = (tmp_path / 'output' / 'input_report.html').read_text()
    assert report.count('data:image/jpeg;base64,') == 1


def replace_in(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def draw_otherwise(root):
    stamp = {**settings_of(Render(size=64, line_width=2.0, beats=False)), 'record': 1}
    (root / 'val' / 'TEST0004.png').write_bytes(encode_png(np.zeros((64, 64), np.uint8), stamp))


def damage(path, at=300):
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes(8) + data[at + 8:])


@pytest.mark.parametrize('change, words', [
    (lambda root: os.remove(root / 'val' / 'TEST0003.png'), ('5', 'missing 1 (TEST0003)')),
    (lambda root: shutil.copy(root / 'val' / 'TEST0003.png', root / 'val' / 'left.png'),
     ('7', 'not of these records 1 (left)', 'remove')),
    (lambda root: replace_in(root / 'render.json', 'true', 'false'), ('did not finish',)),
    (lambda root: replace_in(root / 'render.json', '"val": []', '"val": ["TEST0007"]'),
     ('could not draw 1', 'TEST0007')),
    (lambda root: replace_in(root / 'render.json', 'finished', 'done'), ('render.json',)),
    (lambda root: os.remove(root / 'render.json'), ('render.json',)),
    (draw_otherwise, ('TEST0004.png', 'line_width 2.0 (expected 1.0)', 'render.line_width=1.0')),
    (lambda root: damage(root / 'val' / 'TEST0003.png'), ('TEST0003.png', 'damaged')),
])
def test_pictures_that_are_not_what_they_should_be(run_here, change, words, drawn, tmp_path):
    root = shutil.copytree(drawn, tmp_path / 'root')
    change(root)
    line, = refused_here(run_here, root=root)
    assert all(word in line for word in (*words, 'process.py'))
    assert os.listdir(tmp_path / 'output') == []  # no answer rather than one that lacks a record


@pytest.mark.parametrize('change, words', [
    (lambda best: damage(best / 'model.pdparams', 20000), ('model.pdparams', 'copy the whole')),
    (lambda best: os.remove(best / 'model.pdparams'), ('model.pdparams',)),
    (lambda best: os.truncate(best / 'metrics.json', 50), ('metrics.json', 'damaged')),
    (lambda best: os.remove(best / 'metrics.json'), ('no trained model', 'train.py')),
    (lambda best: os.remove(best / 'config.yml'), ('config.yml',)),
    (lambda best: replace_in(best / 'config.yml', 'size: 64', 'size: -64'),
     ('config.yml', 'render.size')),
    (lambda best: replace_in(best / 'config.yml', 'task: 1', 'task: 2'), ('threshold',)),
    (lambda best: replace_in(best / 'config.yml', 'resnet18', 'resnet50'), ('tensor',)),
])
def test_best_model_that_is_not_whole(run_here, change, words, trained, tmp_path):
    best = shutil.copytree(os.path.join(trained, 'best_model'), tmp_path / 'best_model')
    change(best)
    line, = refused_here(run_here, model=tmp_path)
    assert all(word in line for word in (str(tmp_path), *words)), line
