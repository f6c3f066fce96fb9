"""The export in best_model: made at the end of training, checked before it is used, never needed."""
import hashlib
import json
import os
import shutil

import numpy as np
import pytest

from conftest import SMALL, overrides, run_script
from utils import checkpoint, export, files, tasks

TASK = tasks.TASKS[1]
RUNS = 'Paddle Inference with oneDNN in fp32'


@pytest.fixture
def output(trained, tmp_path):
    """An output folder of one's own with the best model in it, after a training that ended."""
    shutil.copytree(os.path.join(trained, 'best_model'), tmp_path / 'output' / 'best_model')
    return str(tmp_path / 'output')


def predict(output, drawn, *more):
    result = run_script('predict.py', *overrides(f'data.root={drawn}', f'output={output}',
                                                 f'predict.answer={output}/answer.csv', *SMALL, *more))
    assert result.returncode == 0, result.stderr
    with open(os.path.join(output, 'answer.csv')) as file:
        return result.stdout, file.read()


def test_same_answer_with_and_without_an_export(output, drawn):
    said, answer = predict(output, drawn)
    assert RUNS in said
    os.remove(os.path.join(output, 'best_model', export._program_name()))
    said, plain = predict(output, drawn)
    assert 'holds no export' in said and 'plain network' in said
    assert answer == plain


def test_bf16_gives_the_same_tags(output, drawn):
    assert predict(output, drawn, 'predict.precision=bf16')[1] == predict(output, drawn)[1]


def test_an_export_of_another_paddle_is_not_loaded(output, drawn):
    folder, name = os.path.join(output, 'best_model'), export._program_name()
    other = next(program for program in export.PROGRAMS.values() if program != name)
    os.rename(os.path.join(folder, name), os.path.join(folder, other))
    said, _ = predict(output, drawn)
    assert f'{other}, which another Paddle wrote' in said and 'plain network' in said


def test_a_changed_export_is_not_loaded(output, drawn):
    path = os.path.join(output, 'best_model', export.PARAMETERS)
    with open(path, 'r+b') as file:
        file.seek(100_000)
        file.write(b'\x00\x11\x22\x33')
    said, _ = predict(output, drawn)
    assert 'checksum differs' in said and RUNS not in said


def add_writing_operation(path, marker):
    """Make a program write one of its tensors to the file `marker`: operations that Paddle Inference runs."""
    with open(path, 'rb') as file:
        data = file.read()
    if path.endswith('.pdmodel'):
        import paddle
        program = paddle.base.core.ProgramDesc(data)
        block = program.block(0)
        operation = block.append_op()
        operation.set_type('save')
        operation.set_input('X', [next(each.name() for each in block.all_vars() if each.name().startswith('conv2d')
                                       and each.persistable())])
        operation._set_attr('file_path', marker)
        operation._set_attr('overwrite', True)
        return program.serialize_to_string()
    program = json.loads(data)
    operations = program['program']['regions'][0]['blocks'][0]['ops']
    weight = next(operation for operation in operations if operation['#'] == 'p')['O']
    settings = [('file_path', 'str', marker), ('overwrite', 'bool', True), ('save_as_fp16', 'bool', False),
                ('save_to_memory', 'bool', False)]
    operations[-1:-1] = [
        {'#': '0.combine', 'A': [], 'I': [{'%': weight['%']}],
         'O': [{'%': 9001, 'TT': {'#': '0.t_vec', 'D': [weight['TT']]}}],
         'OA': [{'AT': {'#': '0.a_array', 'D': [{'#': '0.a_bool', 'D': True}]}, 'N': 'stop_gradient'}]},
        {'#': '1.save_combine', 'I': [{'%': 9001}], 'O': [{'%': 9002, 'TT': {'#': 'NULL'}}],
         'A': [{'AT': {'#': f'0.a_{kind}', 'D': value}, 'N': name} for name, kind, value in settings]}]
    return json.dumps(program).encode()


def test_a_program_that_would_write_a_file_is_not_run(output, drawn, tmp_path):
    folder, name, marker = os.path.join(output, 'best_model'), export._program_name(), str(tmp_path / 'marker')
    data = add_writing_operation(os.path.join(folder, name), marker)
    files.write_bytes(os.path.join(folder, name), data)
    with open(os.path.join(folder, checkpoint.CHECKSUMS)) as file:
        sums = json.load(file)
    files.write_json(os.path.join(folder, checkpoint.CHECKSUMS), {**sums, name: hashlib.sha256(data).hexdigest()})
    said, _ = predict(output, drawn)
    assert 'does more than a ResNet' in said and 'save' in said and RUNS not in said
    assert not os.path.exists(marker)


def test_an_export_of_other_weights_is_found_by_the_first_batch(output, drawn):
    folder = os.path.join(output, 'best_model')
    path = os.path.join(folder, checkpoint.WEIGHTS)
    weights = {key: value * (0.5 if key == 'fc.weight' else 1) for key, value in checkpoint.read_weights(path).items()}
    with open(os.path.join(folder, checkpoint.CHECKSUMS)) as file:
        sums = json.load(file)
    copies = {name: open(os.path.join(folder, name), 'rb').read() for name in sums if name.startswith(export.NAME)}
    with open(os.path.join(folder, 'config.yml')) as file, open(os.path.join(folder, 'metrics.json')) as metrics:
        checkpoint.save_best(folder, weights, file.read(), json.load(metrics))
    assert not export.has_export(folder)  # a new best model takes the old one's export away
    with open(os.path.join(folder, checkpoint.CHECKSUMS)) as file:
        kept = json.load(file)
    for name, data in copies.items():
        files.write_bytes(os.path.join(folder, name), data)
    files.write_json(os.path.join(folder, checkpoint.CHECKSUMS), {**sums, **kept})
    said, _ = predict(output, drawn)
    assert "from the plain network's by up to" in said and RUNS not in said


def test_training_that_is_finished_adds_a_missing_export(trained, drawn, tmp_path):
    output = str(tmp_path / 'output')
    shutil.copytree(trained, output)
    os.remove(os.path.join(output, 'best_model', export._program_name()))
    result = run_script('train.py', *overrides(f'data.root={drawn}', f'output={output}', 'train.iters=10',
                                               'train.log_interval=2', *SMALL))
    assert result.returncode == 0 and 'this run is finished' in result.stdout, result.stderr
    assert RUNS in predict(output, drawn)[0]


def test_near_the_threshold_the_exact_network_decides():
    fast = np.array([[0, -3.0], [0, 0.1], [0, 3.0]], dtype=np.float32)
    asked = []

    def exact(pixels):
        asked.extend(pixels.ravel())
        return np.array([[0, -0.2]], dtype=np.float32)

    network = export._ask_again(lambda _: fast.copy(), exact, TASK, 0.5)
    assert network(np.array([[[1]], [[2]], [[3]]]))[:, 1].tolist() == pytest.approx([-3.0, -0.2, 3.0])
    assert asked == [2]


def test_logits_are_compared_where_probabilities_say_nothing():
    sure = np.array([[0, 50.0], [60.0, 0]], dtype=np.float32)
    assert export._compare(sure, sure, TASK, 0.001) == 0
    with pytest.raises(export._Unusable):
        export._compare(sure * 2, sure, TASK, 0.001)
    with pytest.raises(export._Unusable):
        export._compare(sure * np.float32('nan'), sure, TASK, 0.001)
