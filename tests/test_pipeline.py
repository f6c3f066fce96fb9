"""The three scripts in sequence, as a user runs them."""
import csv
import os
import re

import pytest
from conftest import PROJECT, SMALL, overrides, run_script, write_competition

REAL = os.path.join(os.path.dirname(PROJECT), 'shared', 'ecg-real')


def run_all(source, folder, *pairs, reference):
    """process.py, train.py and predict.py with the same settings.

    Returns: what each printed
    """
    settings = overrides(*SMALL, f'data.source={source}', f'data.root={folder}/pictures', f'output={folder}/output',
                         f'predict.answer={folder}/answer.csv', *pairs)
    said = []
    for script, extra in (('process.py', []), ('train.py', []), ('predict.py', ['--reference', reference])):
        result = run_script(script, *settings, *extra, timeout=600)
        assert result.returncode == 0, result.stderr
        assert 'Traceback' not in result.stderr
        said.append(result.stdout)
    return said


def read_answer(folder):
    with open(os.path.join(folder, 'answer.csv'), newline='') as file:
        return list(csv.reader(file))


def score(text, name):
    return float(re.search(rf'^{name}: (\d\.\d+) \(95 %', text, re.MULTILINE)[1])


def test_it_learns(tmp_path):
    """Slow hearts from fast ones: what the network has not seen it calls right."""
    source = write_competition(tmp_path / 'ecgs', train=120, val=20)
    rows = ''.join(f'TEST{i + 1:04d},{i % 2}\n' for i in range(20))
    (tmp_path / 'valreference.csv').write_text(f'name,tag\n{rows}')
    _, trained, predicted = run_all(source, str(tmp_path), 'train.iters=60', 'train.warmup_iters=10',
                                    reference=tmp_path / 'valreference.csv')
    assert [row[0] for row in read_answer(tmp_path)[1:]] == [f'TEST{i + 1:04d}' for i in range(20)]
    assert score(predicted, 'F1') > 0.8 and score(predicted, 'AUC') > 0.9
    losses = [float(loss) for loss in re.findall(r'\[TRAIN\].*loss: (\d\.\d+)', trained)]
    assert losses[-1] < losses[0] / 2


@pytest.mark.skipif(not os.path.isdir(REAL), reason='the real ECGs are not on this machine')
def test_real_ecgs(tmp_path):
    drawn, trained, predicted = run_all(REAL, str(tmp_path), 'train.iters=6', 'train.log_interval=2',
                                        reference=os.path.join(REAL, 'valreference.csv'))
    assert '353 drawn, 0 up to date, 0 with an error' in drawn
    with open(os.path.join(REAL, 'valreference.csv')) as file:
        names = sorted(line.split(',')[0] for line in file.read().splitlines()[1:])
    assert [row[0] for row in read_answer(tmp_path)] == ['name', *names]
    assert f'scores on {len(names)} records:' in predicted and f'{len(names)} records: ' in predicted
    assert len(re.findall(r'\[TRAIN\] epoch: 1, iter: \d/6', trained)) == 3 and '[EVAL] epoch: 1 ' in trained
    for name in ('pictures/examples.png', 'output/curves.png', 'output/validation.png', 'output/history.csv',
                 'output/train.log', 'output/probabilities.csv', 'answer.zip'):
        assert os.path.getsize(tmp_path / name) > 100
