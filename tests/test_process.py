import json
import os
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from conftest import PROJECT, SMALL, make_signal, overrides, refused, run_script, write_competition
from scipy.io import savemat
from test_records import NAME, members, write_tar, write_zip

from utils import records, runtime
from utils.config import Render
from utils.render import Renderer, decode_png, settings_of


def process(source, root, *pairs, workers=2):
    return run_script('process.py', *overrides(f'data.source={source}', f'data.root={root}', *SMALL, *pairs),
                      '--workers', workers)


def pictures(root):
    """{path below root: bytes} of the records' pictures."""
    return {f'{part}/{entry.name}': open(entry.path, 'rb').read() for part in ('train', 'val')
            for entry in os.scandir(os.path.join(root, part))}


def times(root):
    return {f'{part}/{entry.name}': entry.stat().st_mtime_ns for part in ('train', 'val')
            for entry in os.scandir(os.path.join(root, part))}


def a_cell(rows, columns):
    cell = np.empty((rows, columns), dtype=object)
    cell[:] = 1.0
    return cell


def spoiled(value):
    signal = make_signal(9)
    signal[3, 77] = value
    return signal


# file name without .mat: (what is in it: a variable's value, a dict of variables, or bytes; what the message must say)
UNREADABLE = {
    'no_ecgdata': ({'val': make_signal(1), 'fs': 500}, ('no variable ecgdata', 'found fs, val')),
    'shape': (np.ones((8, 5000)), ('has the shape (8, 5000)', 'expected (12, 5000)')),
    'row': (np.ones((1, 60000)), ('has the shape (1, 60000)', 'expected (12, 5000)')),
    'short': (make_signal(1)[:, :4999], ('4999 samples', 'expected 5000')),
    'long': (np.ones((12, 10000)), ('10000 samples', 'expected 5000')),
    'turned_short': (np.ones((2500, 12)), ('2500 samples', 'expected 5000')),
    'cell': (a_cell(12, 2), ('not numeric (found cell)', 'expected real numbers')),
    'char': (np.array(['x' * 5000] * 12), ('not numeric (found char)', 'expected real numbers')),
    'struct': ({'ecgdata': {'signal': np.ones(3)}}, ('not numeric (found struct)', 'expected real numbers')),
    'complex': (make_signal(1) * 1j, ('not numeric (found complex', 'expected real numbers')),
    'nan': (spoiled(np.nan), ('NaN or infinite', 'lead aVR at sample 77', 'expected finite')),
    'infinite': (spoiled(-np.inf), ('NaN or infinite', 'lead aVR at sample 77', 'expected finite')),
    'zero': (np.zeros((12, 5000)), ('all values are zero', 'expected an ECG')),
    'microvolts': (make_signal(1) * 1000, ('expected mV, at most 100',)),
    'truncated': (None, ('not a readable MAT file', 'expected MAT v5', 'truncated')),
    'v73': (b'MATLAB 7.3 MAT-file, Platform: GLNXA64'.ljust(512) + b'\x89HDF\r\n\x1a\n' + bytes(600),
            ('version 7.3 (HDF5)', 'expected version 5')),
    'hdf5': (b'\x89HDF\r\n\x1a\n' + bytes(600), ('HDF5', 'expected version 5')),
    'empty': (b'', ('the file is empty', 'copy or download it again')),
    'text': (b'I,II,III\n0.1,0.2,0.3\n' * 50, ('not a readable MAT file', 'expected MAT v5')),
}


@pytest.fixture(scope='module')
def unreadable(tmp_path_factory):
    """What process.py says of a folder with one record of each unreadable kind, two good ones and a turned one."""
    source, root = tmp_path_factory.mktemp('unreadable'), tmp_path_factory.mktemp('pictures')
    write_competition(source, train=2, val=1)
    for name, (content, _) in UNREADABLE.items():
        path = source / 'train' / f'{name}.mat'
        if content is None:
            path.write_bytes((source / 'train' / 'TRAIN0001.mat').read_bytes()[:100_000])
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            savemat(path, content if isinstance(content, dict) else {'ecgdata': content})
    os.makedirs(source / 'val' / 'folder.mat')
    savemat(source / 'val' / 'turned.mat', {'ecgdata': make_signal(5).T})
    return process(source, root), str(source), str(root)


@pytest.mark.parametrize('name', UNREADABLE)
def test_unreadable_record_is_named(unreadable, name):
    result, source, root = unreadable
    path = os.path.join(source, 'train', f'{name}.mat')
    line, = [line for line in refused(result, path) if path in line]
    assert all(word in line for word in UNREADABLE[name][1]), line
    assert not os.path.exists(os.path.join(root, 'train', f'{name}.png'))


def test_a_folder_called_mat_is_named(unreadable):
    refused(unreadable[0], os.path.join('val', 'folder.mat'), 'not a file, expected a MAT record')


def test_the_other_records_are_drawn(unreadable):
    result, source, root = unreadable
    assert sorted(pictures(root)) == ['train/TRAIN0001.png', 'train/TRAIN0002.png', 'val/TEST0001.png', 'val/turned.png']
    assert f'4 drawn, 0 up to date, {len(UNREADABLE) + 1} with an error' in result.stdout
    refused(result, f'{len(UNREADABLE) + 1} of {len(UNREADABLE) + 5} records could not be drawn')
    with open(os.path.join(root, 'render.json')) as file:
        drawn_with = json.load(file)
    assert drawn_with == {**settings_of(Render(size=64)), 'not_drawn': {'train': sorted(UNREADABLE), 'val': ['folder']}}
    assert len([line for line in result.stderr.splitlines() if line.startswith('error: ')]) == len(UNREADABLE) + 2


def test_a_turned_record_is_drawn_with_a_note(unreadable):
    result, source, root = unreadable
    assert f'note: {source}/val/turned.mat: ecgdata is (5000, 12); turned to (12, 5000)' in result.stdout
    picture = decode_png(os.path.join(root, 'val', 'turned.png'), 64)
    assert np.array_equal(picture, Renderer(64, 2.0, 1.0).draw(make_signal(5)))


def test_what_is_written(competition, drawn):
    drawn_pictures = pictures(drawn)
    assert len(drawn_pictures) == 46
    for path, data in drawn_pictures.items():
        assert struct.unpack('>IIBB', data[16:26]) == (64, 64, 8, 0)  # width, height, 8 bits, one channel of grey
    signal, _ = records.read_record(os.path.join(competition, 'val', 'TEST0003.mat'))
    assert np.array_equal(decode_png(os.path.join(drawn, 'val', 'TEST0003.png'), 64), Renderer(64, 2.0, 1.0).draw(signal))
    for name in ('trainreference.csv',):
        assert open(os.path.join(drawn, name), 'rb').read() == open(os.path.join(competition, name), 'rb').read()
    with open(os.path.join(drawn, 'examples.png'), 'rb') as file:
        width, height = struct.unpack('>II', file.read(24)[16:])
    assert width > 1000 and height > 700
    assert sorted(os.listdir(drawn)) == ['examples.png', 'render.json', 'train', 'trainreference.csv', 'val']


def test_any_number_of_workers_draws_the_same_pixels(competition, drawn, tmp_path):
    result = process(competition, tmp_path, workers=1 if runtime.usable_cores() > 1 else 2)  # `drawn`: one per core
    assert result.returncode == 0, result.stderr
    assert pictures(tmp_path) == pictures(drawn)


def test_draws_only_what_is_not_up_to_date(tmp_path):
    source, root = tmp_path / 'source', tmp_path / 'root'
    write_competition(source, train=6, val=2)
    os.makedirs(root / 'train')
    (root / 'train' / 'mine.png').write_bytes(b'a photo that process.py did not draw')
    result = process(source, root)
    lines = result.stdout.splitlines()
    assert re.match(r'Python 3\.\d+\.\d+, \d+ core\(s\), ', lines[0])
    assert lines[1].startswith('settings that differ from the defaults: device=cpu, data.source=')
    assert f'{source}: 6 labelled records (train), 2 to predict (val), labels: ' in result.stdout
    assert '8 drawn, 0 up to date, 0 with an error' in result.stdout
    assert 'drawing [##############################] 8/8' in result.stderr
    assert lines[-1].startswith('next: python train.py ') and f'-o data.root={root}' in lines[-1]

    first = times(root)
    assert '0 drawn, 8 up to date' in process(source, root).stdout
    assert times(root) == first

    # A changed record, a lost picture, a record that is gone and one that can no longer be read.
    savemat(source / 'train' / 'TRAIN0001.mat', {'ecgdata': make_signal(77)})
    os.remove(root / 'train' / 'TRAIN0002.png')
    os.remove(source / 'train' / 'TRAIN0003.mat')
    (source / 'train' / 'TRAIN0004.mat').write_bytes(b'')
    (root / 'train' / 'TRAIN0005.png').write_bytes(b'half a picture')
    result = process(source, root)
    refused(result, 'TRAIN0004.mat: the file is empty')
    assert '3 drawn, 3 up to date, 1 with an error' in result.stdout
    assert 'removed 1 pictures of records that' in result.stdout
    assert sorted(times(root)) == ['train/TRAIN0001.png', 'train/TRAIN0002.png', 'train/TRAIN0005.png',
                                   'train/TRAIN0006.png', 'train/mine.png', 'val/TEST0001.png', 'val/TEST0002.png']
    assert times(root)['train/TRAIN0006.png'] == first['train/TRAIN0006.png']
    assert np.array_equal(decode_png(str(root / 'train' / 'TRAIN0001.png'), 64),
                          Renderer(64, 2.0, 1.0).draw(make_signal(77)))

    # Other settings.
    os.remove(source / 'train' / 'TRAIN0004.mat')
    result = process(source, root, 'render.line_width=0.5')
    assert '6 drawn, 0 up to date' in result.stdout
    with open(root / 'render.json') as file:
        assert json.load(file)['line_width'] == 0.5


def test_labels_that_are_not_right_are_told_early(tmp_path):
    write_competition(tmp_path / 'source', train=2, val=1)
    (tmp_path / 'source' / 'trainreference.csv').write_text('name,tag\nTRAIN0001,0\nTRAIN0002,7\n')
    result = process(tmp_path / 'source', tmp_path / 'root')
    assert result.returncode == 0
    assert "trainreference.csv, line 3: found the tag '7', expected 0 (normal) or 1 (abnormal)" in result.stdout
    assert not os.path.exists(tmp_path / 'root' / 'examples.png')


def test_archive_through_the_script(tmp_path):
    archive = write_tar(tmp_path / f'{NAME}.tar.gz', members(), 'gbk')
    result = process(archive, tmp_path / 'root')
    assert result.returncode == 0, result.stderr
    assert f'unpacked 4 files of {archive}' in result.stdout
    assert sorted(pictures(tmp_path / 'root')) == ['train/TRAIN0001.png', 'train/TRAIN0002.png', 'val/TEST0001.png']


def test_damaged_archive_through_the_script(tmp_path):
    archive = write_tar(tmp_path / f'{NAME}.tar.gz', members())
    with open(archive, 'r+b') as file:
        file.truncate(5000)
    refused(process(archive, tmp_path / 'root'), archive, 'download')


def run_copy(project, *arguments):
    """Run process.py out of a copy of the project that lies in `project`, from its folder, as after an unpacking."""
    os.makedirs(project)
    for name in ('process.py', 'config.yml'):
        shutil.copy(os.path.join(PROJECT, name), project)
    shutil.copytree(os.path.join(PROJECT, 'utils'), os.path.join(project, 'utils'),
                    ignore=shutil.ignore_patterns('__pycache__'))
    return subprocess.run([sys.executable, 'process.py', *arguments], cwd=project, text=True, capture_output=True,
                          timeout=300)


def test_the_archive_beside_the_project_is_found(tmp_path):
    archive = write_zip(tmp_path / f'{NAME}.zip', members(), 'gbk')
    result = run_copy(tmp_path / 'project', '-o', 'render.size=64')
    assert result.returncode == 0, result.stderr
    assert f'data.source is not set; found {archive}' in result.stdout
    assert sorted(os.listdir(tmp_path / 'project' / 'dataset')) == ['examples.png', 'render.json', 'train',
                                                                    'trainreference.csv', 'unpacked', 'val']


def test_nothing_is_found(tmp_path):
    result = run_copy(tmp_path / 'a' / 'b' / 'project')
    lines = refused(result, 'no ECGs found', '2021A_T2_Task1_*', 'data.source=PATH', 'README.md', 'make demo')
    assert len(lines) == 1


@pytest.mark.parametrize('make, words', [
    (lambda path: None, ('does not exist', 'expected a folder or an archive')),
    (lambda path: path.mkdir(), ('no train/*.mat or val/*.mat',)),
])
def test_source_without_records_through_the_script(make, words, tmp_path):
    make(tmp_path / 'data')
    refused(process(tmp_path / 'data', tmp_path / 'root'), str(tmp_path / 'data'), *words)


@pytest.mark.parametrize('workers', ['0', 'many', '1000'])
def test_impossible_number_of_workers(competition, tmp_path, workers):
    result = process(competition, tmp_path, workers=workers)
    assert result.returncode == 2 and '--workers' in result.stderr and 'Traceback' not in result.stderr
