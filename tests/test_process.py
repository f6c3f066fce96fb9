import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.ecg.test_records import NAME, members, write_tar, write_zip
from tests.helpers import (
    PROJECT,
    SMALL,
    make_signal,
    overrides,
    refused,
    run_script,
    write_competition,
)
from utils.ecg import records
from utils.pictures.render import Renderer, decode_png, settings_of
from utils.running.settings import Render

CRASHES_SCIPY = os.path.join(PROJECT, 'tests', 'data', 'unknown_number_type.mat')


def process(source, root, *pairs, workers=2):
    return run_script('process.py', *overrides(f'data.source={source}', f'data.root={root}', *SMALL,
                                               f'data.workers={workers}', *pairs))


def pictures(root):
    """{path below root: bytes} of the records' pictures."""
    return {f'{part}/{entry.name}': open(entry.path, 'rb').read() for part in ('train', 'val')
            for entry in os.scandir(os.path.join(root, part))}


def times(root):
    return {f'{part}/{entry.name}': entry.stat().st_mtime_ns for part in ('train', 'val')
            for entry in os.scandir(os.path.join(root, part))}


def manifest(root):
    with open(os.path.join(root, 'render.json'), encoding='utf-8') as file:
        return json.load(file)


def drawn_as(path, values):
    return np.array_equal(decode_png(str(path), (64, 64)), Renderer(64, 2.0, 1.0).draw(values))


# file name without .mat: (what is in it: a variable's value, a dict of variables, or bytes; words)
UNREADABLE = {
    'no_ecgdata': ({'val': make_signal(1), 'fs': 500}, ('no variable ecgdata', 'found fs, val')),
    'shape': (np.ones((8, 5000)), ('the shape (8, 5000)', 'expected (12, 5000)')),
    'three_axes': (np.ones((12, 5000, 2)), ('the shape (12, 5000, 2)',)),
    'turned_short': (np.ones((2500, 12)), ('2500 samples', 'expected 5000')),
    'cell': (np.full((12, 2), 1.0, dtype=object), ('not numeric (found cell)', 'expected real')),
    'char': (np.array(['x' * 5000] * 12), ('not numeric (found char)',)),
    'struct': ({'ecgdata': {'signal': np.ones(3)}}, ('not numeric (found struct)',)),
    'complex': (make_signal(1) * 1j, ('not numeric (found complex',)),
    'nan': (np.where(np.arange(5000) == 77, np.nan, make_signal(9)),
            ('lead I at sample 77', 'expected finite')),
    'microvolts': (make_signal(1) * 1000, ('such as uV', 'divide by 1000')),
    'truncated': (None, ('scipy cannot read it', 'truncated')),
    'crashes': (open(CRASHES_SCIPY, 'rb').read(), ('crashed the process that read it', 'damaged')),
    'v73': (b'MATLAB 7.3 MAT-file'.ljust(512) + b'\x89HDF\r\n\x1a\n' + bytes(600),
            ('HDF5', 'version 7.3', 'scipy.io.savemat')),
    'empty': (b'', ('scipy cannot read it', 'copy or download it again')),
    'text': (b'I,II,III\n0.1,0.2,0.3\n' * 50, ('scipy cannot read it',)),
}


@pytest.fixture(scope='module')
def unreadable(tmp_path_factory):
    """What process.py says of a folder with one record of each unreadable kind, two good ones, a
    turned one and one with an offset."""
    source, root = tmp_path_factory.mktemp('unreadable'), tmp_path_factory.mktemp('pictures')
    write_competition(source, train=2, val=1)
    (source / 'trainreference.csv').write_text('name,tag\nTRAIN0001,0\nTRAIN0002,7\n')
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
    savemat(source / 'val' / 'offset.mat', {'ecgdata': make_signal(5) + 50})
    os.makedirs(root / 'train')
    (root / 'train' / 'empty.png').write_bytes(b'what the record was before')
    return process(source, root), str(source), str(root)


@pytest.mark.parametrize('name', UNREADABLE)
def test_unreadable_record_is_named(unreadable, name):
    result, source, root = unreadable
    path = os.path.join(source, 'train', f'{name}.mat')
    line, = [line for line in refused(result, path) if path in line]
    assert all(word in line for word in UNREADABLE[name][1]), line
    assert not os.path.exists(os.path.join(root, 'train', f'{name}.png'))


def test_the_other_records_are_drawn(unreadable):
    result, source, root = unreadable
    assert sorted(pictures(root)) == ['train/TRAIN0001.png', 'train/TRAIN0002.png',
                                      'val/TEST0001.png', 'val/offset.png', 'val/turned.png']
    assert f'5 drawn, 0 up to date, {len(UNREADABLE) + 1} error' in result.stdout
    refused(result, os.path.join('val', 'folder.mat'), 'Is a directory')
    refused(result, f'{len(UNREADABLE) + 1} records could not be drawn')
    kept = manifest(root)
    assert kept['not_drawn'] == {'train': sorted(UNREADABLE), 'val': ['folder']}
    assert kept['finished']
    assert kept['train'] == sorted([*UNREADABLE, 'TRAIN0001', 'TRAIN0002'])


def test_labels_that_are_not_right_are_told_at_the_end(unreadable):
    result, _, root = unreadable
    refused(result, 'trainreference.csv', 'line 3', "'7'")
    assert 'train.py will refuse them' in result.stderr.splitlines()[-1]
    assert 'next:' not in result.stdout and not os.path.exists(f'{root}/examples.png')


def test_what_was_mended_is_noted(unreadable):
    result, source, root = unreadable
    assert f'note: {source}/val/turned.mat: ecgdata is (5000, 12); turned to' in result.stdout
    assert drawn_as(f'{root}/val/turned.png', make_signal(5))
    assert f'note: {source}/val/offset.mat: the baseline of I, ' in result.stdout
    centred = make_signal(5) - np.median(make_signal(5), axis=1, keepdims=True)
    drawn = decode_png(f'{root}/val/offset.png', (64, 64)).astype(int)
    assert np.abs(drawn - Renderer(64, 2.0, 1.0).draw(centred)).mean() < 1  # of 255


def test_what_is_written(competition, drawn):
    drawn_pictures = pictures(drawn)
    assert len(drawn_pictures) == 46
    for path in drawn_pictures:
        with Image.open(os.path.join(drawn, path)) as image:
            assert (image.size, image.mode) == ((64, 64), 'L')
    values, _ = records.read_record(os.path.join(competition, 'val', 'TEST0003.mat'))
    assert drawn_as(f'{drawn}/val/TEST0003.png', values)
    assert open(f'{drawn}/trainreference.csv', 'rb').read() == \
        open(f'{competition}/trainreference.csv', 'rb').read()
    with Image.open(f'{drawn}/examples.png') as image:
        assert image.width > 1000 and image.height > 700
    kept = manifest(drawn)
    expected = settings_of(Render(size=64, beats=False))
    assert {key: kept[key] for key in expected} == expected
    assert kept['source'] == competition and kept['finished']
    assert kept['not_drawn'] == {'train': [], 'val': []}
    assert kept['val'] == [f'TEST{i:04d}' for i in range(1, 7)] and len(kept['train']) == 40
    assert sorted(name for name in os.listdir(drawn) if not name.startswith('.')) == [
        'examples.png', 'render.json', 'train', 'trainreference.csv', 'val']


def test_draws_only_what_is_not_up_to_date(tmp_path):
    source, root = tmp_path / 'source', tmp_path / 'root'
    write_competition(source, train=6, val=2)
    os.makedirs(root / 'train')
    (root / 'train' / 'mine.png').write_bytes(b'a photo that process.py did not draw')
    result = process(source, root)
    assert result.returncode == 0
    assert f'{source}: 6 labelled records (train), 2 to predict (val), labels: ' in result.stdout
    assert '8 drawn, 0 up to date, 0 error' in result.stdout
    assert '1 pictures that process.py did not draw are left alone: mine.png' in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith(
        'next: python ') and 'train.py -o ' in last and f'-o data.root={root}' in last

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
    refused(result, 'TRAIN0004.mat: scipy cannot read it')
    assert '3 drawn, 3 up to date, 1 error' in result.stdout
    assert 'removed 1 pictures of records that' in result.stdout
    assert sorted(times(root)) == [
        'train/TRAIN0001.png', 'train/TRAIN0002.png', 'train/TRAIN0005.png',
        'train/TRAIN0006.png', 'train/mine.png', 'val/TEST0001.png', 'val/TEST0002.png']
    assert times(root)['train/TRAIN0006.png'] == first['train/TRAIN0006.png']
    assert drawn_as(root / 'train' / 'TRAIN0001.png', make_signal(77))

    # Other settings; the command in the manifest is the one that draws the same again.
    os.remove(source / 'train' / 'TRAIN0004.mat')
    assert '6 drawn, 0 up to date' in process(source, root, 'render.line_width=0.5').stdout
    kept = manifest(root)
    assert kept['line_width'] == 0.5
    labels = 'name,tag\nTRAIN0001,0\nTRAIN0002,1\nTRAIN0005,0\nTRAIN0006,1\n'
    (root / 'trainreference.csv').write_text(labels)
    os.remove(source / 'trainreference.csv')
    command = kept['command'].replace('python', sys.executable, 1)
    again = subprocess.run(command, shell=True, text=True, capture_output=True, cwd=PROJECT)
    assert again.returncode == 0 and '0 drawn, 6 up to date' in again.stdout, again.stderr
    assert 'trainreference.csv: what is there already stays' in again.stdout


def test_another_source_leaves_no_labels_and_patients_of_the_one_before(tmp_path):
    first, second, root = tmp_path / 'first', tmp_path / 'second', tmp_path / 'root'
    for source in (first, second):
        write_competition(source, train=3, val=1)
    os.remove(second / 'trainreference.csv')
    names = [f'TRAIN{i + 1:04d}' for i in range(3)]
    (first / 'source.csv').write_text('Name;Patient\n' + ''.join(f'{name};7\n' for name in names))
    assert process(first, root).returncode == 0
    assert (root / 'source.csv').read_bytes() == (first / 'source.csv').read_bytes()
    result = process(second, root)
    assert result.returncode == 0, result.stderr
    for name in ('trainreference.csv', 'source.csv'):
        assert f'{root}/{name}: removed, it was of another source' in result.stdout
        assert not (root / name).exists()
    # Labels that a person put there stay, and are refused where they are of other records.
    (root / 'trainreference.csv').write_text('name,tag\nOTHER,1\n')
    refused(process(second, root), 'trainreference.csv', 'no label for 3 of 3 records')
    (first / 'source.csv').write_text('who,patient\nTRAIN0001,7\n')
    refused(process(first, root), 'source.csv', 'found the columns who, patient')


@pytest.mark.parametrize('script', ['process.py', 'train.py', 'predict.py'])
def test_environments_of_other_programs_stop_no_script(script):
    result = run_script(script, '--help', env={'PYTHONSAFEPATH': '1', 'MPLBACKEND': 'Qt4Agg'})
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='sends the signals of Unix')
def test_stopped_halfway(competition, tmp_path):
    settings = overrides(f'data.source={competition}', f'data.root={tmp_path}', *SMALL,
                         'render.size=1500')
    running = subprocess.Popen([sys.executable, os.path.join(PROJECT, 'process.py'), *settings],
                               cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    while not os.path.isdir(tmp_path / 'train') or not os.listdir(tmp_path / 'train'):
        assert running.poll() is None
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=60)  # also waits until no process of it is left
    assert running.returncode == 143 and 'Traceback' not in stderr, stderr
    kept = manifest(tmp_path)
    assert not kept['finished'] and len(kept['train']) == 40 and len(kept['val']) == 6
    assert len(pictures(tmp_path)) < 46


def test_the_newest_archive_beside_the_project_is_used(tmp_path):
    project, root = tmp_path / 'project', tmp_path / 'root'
    shutil.copytree(os.path.join(PROJECT, 'utils'), project / 'utils')
    for name in ('process.py', 'config.yml'):
        shutil.copy(os.path.join(PROJECT, name), project)
    archive = write_tar(tmp_path / f'{NAME}.tar.gz', members())
    os.truncate(archive, 5000)
    command = [project / 'process.py', *overrides(f'data.root={root}', 'render.size=64')]
    refused(run_script(*command, cwd=project), archive, 'download')
    archive = write_zip(tmp_path / f'{NAME}.zip', members(), 'gbk')
    result = run_script(*command, cwd=project)
    assert result.returncode == 0, result.stderr
    assert f'data.source is not set; the newest ECGs found: {archive}' in result.stdout
    assert f'unpacked 4 files of {archive}' in result.stdout
    assert sorted(pictures(root)) == ['train/TRAIN0001.png', 'train/TRAIN0002.png',
                                      'val/TEST0001.png']
