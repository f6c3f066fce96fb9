import io
import os
import tarfile
import zipfile

import numpy as np
import pytest
from conftest import make_signal
from scipy.io import savemat

from utils import records
from utils.errors import UserError

SIGNAL = make_signal(1)


def mat_bytes(values=SIGNAL, name='ecgdata', **options):
    data = io.BytesIO()
    savemat(data, {name: values}, **options)
    return data.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def lay_out(folder, train='train', val='val', labels='trainreference.csv', extension='.mat'):
    write(folder / train / f'TRAIN0001{extension}', mat_bytes())
    write(folder / train / f'TRAIN0002{extension}', mat_bytes())
    write(folder / val / f'TEST0001{extension}', mat_bytes())
    write(folder / labels, b'name,tag\nTRAIN0001,0\nTRAIN0002,1\n')
    return str(folder)


def check(source):
    assert list(source.train) == ['TRAIN0001', 'TRAIN0002'] and list(source.val) == ['TEST0001']
    assert all(os.path.isfile(path) for path in [*source.train.values(), *source.val.values(), source.reference])
    signal, note = records.read_record(source.val['TEST0001'])
    assert note is None and np.array_equal(signal, SIGNAL)


def refuse(path):
    with pytest.raises(UserError) as caught:
        records.read_record(path)
    line, = caught.value.lines
    assert path in line
    return line


# Reading one record; what cannot be read is also drawn through process.py, in test_process.py.

@pytest.mark.parametrize('kind', [np.float32, np.float64, '>f8', np.int16])
@pytest.mark.parametrize('compressed', [False, True])
def test_read_record(kind, compressed, tmp_path):
    values = np.round(SIGNAL * 3).astype(kind)
    signal, note = records.read_record(write(tmp_path / 'a.mat', mat_bytes(values, do_compression=compressed)))
    assert signal.dtype == np.float32 and signal.shape == (12, 5000) and signal.flags.c_contiguous
    assert np.array_equal(signal, values.astype(np.float32)) and note is None


def test_other_variables_do_no_harm(tmp_path):
    path = str(tmp_path / 'a.mat')
    savemat(path, {'fs': 500, 'ecgdata': SIGNAL, 'patient': 'N. N.'})
    assert np.array_equal(records.read_record(path)[0], SIGNAL)


def test_samples_by_leads_is_turned_with_a_note(tmp_path):
    path = write(tmp_path / 'a.mat', mat_bytes(SIGNAL.T))
    signal, note = records.read_record(path)
    assert np.array_equal(signal, SIGNAL)
    assert note == f'{path}: ecgdata is (5000, 12); turned to (12, 5000)'


@pytest.mark.parametrize('shape, words', [
    ((12, 4999), 'ecgdata is 4999 samples long, expected 5000 (10 s at 500 Hz)'),
    ((12, 5001), 'ecgdata is 5001 samples long'),
    ((2500, 12), 'ecgdata is 2500 samples long'),
    ((12, 0), 'ecgdata is 0 samples long'),
    ((12, 12), 'ecgdata is 12 samples long'),
    ((1, 5000), 'has the shape (1, 5000), expected (12, 5000)'),
    ((8, 5000), 'has the shape (8, 5000), expected (12, 5000)'),
    ((12, 5000, 2), 'has the shape (12, 5000, 2)'),
    ((0, 0), 'has the shape (0, 0)'),
])
def test_wrong_shape(shape, words, tmp_path):
    assert words in refuse(write(tmp_path / 'a.mat', mat_bytes(np.ones(shape))))


def test_one_bad_value_is_placed(tmp_path):
    for value in (np.nan, np.inf, -np.inf):
        values = SIGNAL.copy()
        values[7, 1234] = value
        line = refuse(write(tmp_path / 'a.mat', mat_bytes(values)))
        assert '1 values are NaN or infinite, the first in lead V2 at sample 1234; expected finite mV' in line


def test_too_large_for_float32_is_infinite(tmp_path):
    values = SIGNAL.astype(np.float64)
    values[0, 0] = 1e300
    assert 'lead I at sample 0' in refuse(write(tmp_path / 'a.mat', mat_bytes(values)))


def test_microvolts_are_refused(tmp_path):
    assert 'expected mV, at most 100; divide by 1000' in refuse(write(tmp_path / 'a.mat', mat_bytes(SIGNAL * 1000)))


def test_one_silent_lead_is_an_ecg(tmp_path):
    values = SIGNAL.copy()
    values[3] = 0
    assert not records.read_record(write(tmp_path / 'a.mat', mat_bytes(values)))[0][3].any()


@pytest.mark.parametrize('length', [1, 50, 127, 128, 140, 1000, 100_000, -1])
def test_truncated_anywhere(length, tmp_path):
    for options in ({}, {'do_compression': True}):
        data = mat_bytes(**options)
        line = refuse(write(tmp_path / 'a.mat', data[:min(length, len(data) - 1)]))
        assert 'not a readable MAT file' in line or 'no variable ecgdata' in line


@pytest.mark.parametrize('data', [b'name,tag\nA,0\n' * 100, b'<!DOCTYPE html><html>' * 20, bytes(10_000), b'PK\3\4' * 99])
def test_other_files(data, tmp_path):
    line = refuse(write(tmp_path / 'a.mat', data))
    assert 'expected MAT v5' in line or 'no variable ecgdata' in line


def test_a_huge_file_is_not_read(tmp_path):
    with open(tmp_path / 'a.mat', 'wb') as file:
        file.truncate(records.MAT_LIMIT + 1)
    assert '64 MiB, expected a record of 12 x 5000 numbers' in refuse(str(tmp_path / 'a.mat'))


# Finding the data.

@pytest.mark.parametrize('names', [
    {}, {'train': 'Train', 'val': 'VAL', 'labels': 'TrainReference.CSV', 'extension': '.MAT'},
    {'train': 'TRAIN', 'val': 'Val', 'labels': 'TRAINREFERENCE.csv', 'extension': '.Mat'}])
@pytest.mark.parametrize('below', ['', '一层文件夹'])
def test_folder_in_any_letter_case_at_the_top_or_one_down(names, below, tmp_path):
    lay_out(tmp_path / 'data' / below, **names)
    source, notes = records.find_source(str(tmp_path / 'data'), str(tmp_path / 'root'), str(tmp_path))
    check(source)
    assert notes == []


def test_what_a_mac_leaves_behind_is_no_record(tmp_path):
    lay_out(tmp_path / 'data')
    write(tmp_path / 'data' / 'train' / '._TRAIN0001.mat', b'junk')
    write(tmp_path / 'data' / 'train' / '.DS_Store', b'junk')
    write(tmp_path / '__MACOSX' / 'data' / 'train' / '._TRAIN0001.mat', b'junk')
    check(records.find_source(str(tmp_path), 'root', 'project')[0])


def test_a_part_may_be_missing(tmp_path):
    write(tmp_path / 'val' / 'TEST0001.mat', mat_bytes())
    source, _ = records.find_source(str(tmp_path), 'root', 'project')
    assert source.train == {} and list(source.val) == ['TEST0001'] and source.reference is None


def test_one_record_in_two_spellings(tmp_path):
    write(tmp_path / 'train' / 'A.mat', mat_bytes())
    write(tmp_path / 'train' / 'A.MAT', mat_bytes())
    if len(os.listdir(tmp_path / 'train')) == 1:
        pytest.skip('this file system does not tell A.mat from A.MAT')
    with pytest.raises(UserError, match='the record A is there twice'):
        records.find_source(str(tmp_path), 'root', 'project')


@pytest.mark.parametrize('make, words', [
    (lambda path: None, 'does not exist; expected a folder or an archive'),
    (lambda path: path.mkdir(), 'no train/*.mat or val/*.mat at its top or one folder down'),
    (lambda path: lay_out(path / 'one' / 'two'), 'no train/*.mat or val/*.mat'),
    (lambda path: path.write_bytes(b'x'), 'neither a folder nor a .tar.gz, .tgz, .tar or .zip'),
])
def test_source_without_records(make, words, tmp_path):
    make(tmp_path / 'data')
    with pytest.raises(UserError) as caught:
        records.find_source(str(tmp_path / 'data'), str(tmp_path / 'root'), str(tmp_path))
    assert 'data' in str(caught.value) and words in str(caught.value)


def members(folder='数据/'):
    return {f'{folder}train/TRAIN0001.mat': mat_bytes(), f'{folder}train/TRAIN0002.mat': mat_bytes(),
            f'{folder}val/TEST0001.mat': mat_bytes(), f'{folder}trainreference.csv': b'name,tag\nTRAIN0001,0\nTRAIN0002,1\n',
            f'{folder}说明.txt': 'read me'.encode()}


def write_tar(path, contents, encoding='utf-8'):
    with tarfile.open(path, 'w:gz' if str(path).endswith('gz') else 'w', format=tarfile.GNU_FORMAT,
                      encoding=encoding) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def write_zip(path, contents, encoding='utf-8'):
    """A zip as Python writes it (UTF-8, flagged), or with names in GBK and no flag, as Chinese Windows writes it."""
    stand_ins = {}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in contents.items():
            if encoding != 'utf-8':
                raw = name.encode(encoding)
                name = f'{len(stand_ins):0{len(raw)}d}'
                stand_ins[name.encode()] = raw
            archive.writestr(zipfile.ZipInfo(name), data)
    data = path.read_bytes()
    for stand_in, raw in stand_ins.items():
        assert data.count(stand_in) == 2  # before the member and in the directory at the end
        data = data.replace(stand_in, raw)
    path.write_bytes(data)
    return str(path)


NAME = '2021A_T2_Task1_数据集含训练集_测试集'


@pytest.mark.parametrize('extension', ['.tar.gz', '.tgz', '.tar', '.zip'])
@pytest.mark.parametrize('encoding', ['utf-8', 'gbk'])
@pytest.mark.parametrize('folder', ['', '诊断/', 'T2/'])
def test_archives(extension, encoding, folder, tmp_path):
    pack = write_zip if extension == '.zip' else write_tar
    archive = pack(tmp_path / f'{NAME}{extension}', members(folder), encoding)
    source, notes = records.find_source(archive, str(tmp_path / 'root'), str(tmp_path))
    check(source)
    assert len(notes) == 1 and f'unpacked 4 files of {archive}' in notes[0]
    assert sorted(os.listdir(source.folder)) == ['origin.json', 'train', 'trainreference.csv', 'val']


def test_archive_in_any_letter_case(tmp_path):
    contents = {name.upper(): data for name, data in members('data/').items()}
    check(records.find_source(write_zip(tmp_path / 'A.ZIP', contents), str(tmp_path / 'root'), str(tmp_path))[0])


def test_archive_is_unpacked_once(tmp_path):
    archive = write_tar(tmp_path / 'a.tar.gz', members())
    source, _ = records.find_source(archive, str(tmp_path / 'root'), str(tmp_path))
    before = os.stat(source.val['TEST0001']).st_mtime_ns
    source, notes = records.find_source(archive, str(tmp_path / 'root'), str(tmp_path))
    assert os.stat(source.val['TEST0001']).st_mtime_ns == before and 'is unpacked in' in notes[0]
    other = {**members(), '数据/val/TEST0002.mat': mat_bytes()}
    source, notes = records.find_source(write_tar(tmp_path / 'a.tar.gz', other), str(tmp_path / 'root'), str(tmp_path))
    assert list(source.val) == ['TEST0001', 'TEST0002'] and 'unpacked 5 files' in notes[0]


@pytest.mark.parametrize('name', ['a.tar.gz', 'a.zip', 'a.tar'])
@pytest.mark.parametrize('cut', [lambda data: data[:len(data) // 2], lambda data: b'<html>not found</html>',
                                 lambda data: b''], ids=['truncated', 'web page', 'empty'])
def test_damaged_archive(name, cut, tmp_path):
    pack = write_zip if name.endswith('zip') else write_tar
    archive = pack(tmp_path / name, members())
    with open(archive, 'rb') as file:
        data = file.read()
    write(tmp_path / name, cut(data))
    with pytest.raises(UserError, match=f'{name}: .*(damaged|truncated|no train)'):
        records.find_source(archive, str(tmp_path / 'root'), str(tmp_path))
    assert os.listdir(tmp_path) == [name] or os.listdir(tmp_path / 'root') in ([], ['unpacked'])


@pytest.mark.parametrize('name', ['../train/A.mat', '/train/A.mat', 'train/../../A.mat', 'C:\\train\\A.mat',
                                  'data\\..\\..\\train\\A.mat'])
def test_members_that_would_land_elsewhere(name, tmp_path):
    for pack, archive in ((write_tar, 'a.tar'), (write_zip, 'a.zip')):
        with pytest.raises(UserError, match='would land outside the target folder; nothing was unpacked'):
            records.find_source(pack(tmp_path / archive, {**members(), name: b''}), str(tmp_path / 'root'), str(tmp_path))
    assert not os.path.exists(tmp_path / 'root' / 'unpacked')


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
        link = tarfile.TarInfo('train/A.mat')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
    with pytest.raises(UserError, match='is a link or a device'):
        records.find_source(str(tmp_path / 'a.tar'), str(tmp_path / 'root'), str(tmp_path))


@pytest.mark.parametrize('place', ['root', 'project', 'project/..', 'project/../..'])
@pytest.mark.parametrize('name, encoding', [(f'{NAME}.tar.gz', 'utf-8'), (f'{NAME}.zip', 'gbk'), (NAME, None),
                                            ('2021a_t2_task1_data', None)])
def test_search_without_a_source(place, name, encoding, tmp_path):
    root, project = tmp_path / 'above' / 'beside' / 'root', tmp_path / 'above' / 'beside' / 'project'
    project.mkdir(parents=True)
    folder = os.path.realpath(tmp_path / 'above' / 'beside' / place)
    os.makedirs(folder, exist_ok=True)
    target = type(tmp_path)(folder) / name
    if encoding is None:
        lay_out(target)
    else:
        (write_zip if name.endswith('zip') else write_tar)(target, members(), encoding)
    source, notes = records.find_source(None, str(root), str(project))
    check(source)
    if place == 'root' and encoding is None:
        target = f'the records in {root}'  # one folder down
    assert notes[0] == f'data.source is not set; found {target}'


def test_search_says_what_it_did_not_take(tmp_path):
    lay_out(tmp_path / 'project' / NAME)
    write_tar(tmp_path / f'{NAME}.tar.gz', members())
    source, notes = records.find_source(None, str(tmp_path / 'root'), str(tmp_path / 'project'))
    check(source)
    assert notes == [f'data.source is not set; found {tmp_path / "project" / NAME} (also there, not used: '
                     f'{tmp_path / NAME}.tar.gz)']


def test_search_finds_the_records_in_root_first(tmp_path):
    lay_out(tmp_path / 'project' / 'dataset')
    lay_out(tmp_path / NAME)
    source, notes = records.find_source(None, str(tmp_path / 'project' / 'dataset'), str(tmp_path / 'project'))
    check(source)
    assert notes == [f'data.source is not set; found the records in {tmp_path / "project" / "dataset"}']


def test_search_passes_over_what_a_killed_run_left(tmp_path):
    lay_out(tmp_path / 'root' / 'unpacked.4711.partial')
    archive = write_tar(tmp_path / 'root' / f'{NAME}.tar.gz', members())
    source, notes = records.find_source(None, str(tmp_path / 'root'), str(tmp_path / 'project'))
    check(source)
    assert notes[0] == f'data.source is not set; found {archive}'


def test_search_finds_nothing(tmp_path):
    write(tmp_path / 'above' / '2021A_T2_Task2_data' / 'train' / 'A.mat', mat_bytes())  # another task's
    project = tmp_path / 'above' / 'beside' / 'project'
    project.mkdir(parents=True)
    with pytest.raises(UserError) as caught:
        records.find_source(None, str(project / 'dataset'), str(project))
    line, = caught.value.lines
    for word in ('no ECGs found', '2021A_T2_Task1_*', '-o data.source=PATH', 'README.md', 'make demo'):
        assert word in line
