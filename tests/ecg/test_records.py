import gzip
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from scipy.io import savemat

from tests.ecg.test_signals import ECG
from tests.helpers import PROJECT
from utils.ecg import archives, records
from utils.running.errors import UserError

SIGNAL = ECG.astype(np.float32)


def mat_bytes(values=SIGNAL, name='ecgdata', **options):
    data = io.BytesIO()
    savemat(data, {'fs': 500, name: values, 'patient': 'N. N.'}, **options)
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
    paths = [*source.train.values(), *source.val.values(), source.reference]
    assert all(os.path.isfile(path) for path in paths)
    signal, notes = records.read_record(source.val['TEST0001'])
    assert not notes and np.array_equal(signal, SIGNAL)


# Reading one record; what is refused: test_signals.py, test_process.py, test_fuzz.py.

@pytest.mark.parametrize('kind', [np.float32, np.float64, '>f8', np.int16])
@pytest.mark.parametrize('options', [{}, {'do_compression': True}, {'format': '4'}])
def test_read_record(kind, options, tmp_path):
    values = np.round(SIGNAL * 3).astype(kind)
    signal, notes = records.read_record(write(tmp_path / 'a.mat', mat_bytes(values, **options)))
    assert signal.dtype == np.float32 and signal.shape == (12, 5000) and signal.flags.c_contiguous
    assert np.array_equal(signal, values.astype(np.float32))


@pytest.mark.parametrize('beside, words', [
    ({'fs': 1000.0}, 'fs beside ecgdata says 1000'),
    ({'Sampling_Rate': 250}, 'Sampling_Rate beside ecgdata says 250'),
    ({'units': 'uV'}, 'units beside ecgdata says uV'),
    ({'leads': [*records.LEADS[::-1]]}, 'leads beside ecgdata says V6, V5'),
    ({'names': np.array(records.LEADS[::-1], object)}, 'names beside ecgdata says V6')])
def test_what_another_variable_says_of_ecgdata_is_not_passed_over(beside, words, tmp_path):
    savemat(tmp_path / 'a.mat', {'ecgdata': SIGNAL, **beside})
    with pytest.raises(UserError, match=f'a.mat: {words}'):
        records.read_record(str(tmp_path / 'a.mat'))
    savemat(tmp_path / 'a.mat', {'ecgdata': SIGNAL, 'fs': 500, 'unit': 'mV', 'label': 1,
                                 'leads': [*records.LEADS], 'heart_rate': 250,
                                 'n_samples': 5000})
    assert np.array_equal(records.read_record(str(tmp_path / 'a.mat'))[0], SIGNAL)


# Finding the data.

def find(source, tmp_path):
    return records.find_source(source and str(source), str(
        tmp_path / 'root'), str(tmp_path / 'project'))


@pytest.mark.parametrize('names', [
    {}, {'train': 'Train', 'val': 'VAL', 'labels': 'TrainReference.CSV', 'extension': '.MAT'}])
@pytest.mark.parametrize('below', ['', '一层文件夹'])
def test_folder_in_any_letter_case_at_the_top_or_one_down(names, below, tmp_path):
    lay_out(tmp_path / 'data' / below, **names)
    source, notes = find(tmp_path / 'data', tmp_path)
    check(source)
    assert notes == []


def test_what_a_mac_leaves_behind_is_no_record(tmp_path):
    lay_out(tmp_path / 'data')
    write(tmp_path / 'data' / 'train' / '._TRAIN0001.mat', b'junk')
    write(tmp_path / 'data' / 'train' / '.DS_Store', b'junk')
    check(find(tmp_path, tmp_path)[0])


def test_what_is_not_used_is_named_and_one_of_two_is_not_guessed(tmp_path):
    for name in ('val/V2.npy', 'sources.csv', 'train/source.csv'):
        lay_out(tmp_path / 'data' / 'one')
        write(tmp_path / 'data' / 'one' / name, b'x')
    note, = find(tmp_path / 'data', tmp_path)[1]
    assert 'not used: sources.csv, train/source.csv, val/V2.npy' in note.replace(os.sep, '/')
    shutil.make_archive(str(tmp_path / 'packed'), 'zip', tmp_path / 'data')
    assert 'one/val/V2.npy' in find(tmp_path / 'packed.zip', tmp_path)[1][0]
    lay_out(tmp_path / 'data' / 'two')
    with pytest.raises(UserError, match='several data sets: .*one, .*two at its top'):
        find(tmp_path / 'data', tmp_path)


def test_a_part_may_be_missing(tmp_path):
    write(tmp_path / 'data' / 'val' / 'TEST0001.mat', mat_bytes())
    source, _ = find(tmp_path / 'data', tmp_path)
    assert source.train == {} and list(source.val) == ['TEST0001'] and source.reference is None


def test_names_that_can_never_be_labelled_or_are_there_twice(tmp_path):
    lay_out(tmp_path / 'data')
    names = [' A.mat', 'A .mat', 'A.mat.mat', 'A\n.mat']
    for name in [*names, 'TRAIN0001.MAT']:
        write(tmp_path / 'data' / 'train' / name, mat_bytes())
    with pytest.raises(UserError) as caught:
        find(tmp_path / 'data', tmp_path)
    assert len(caught.value.lines) == len(os.listdir(tmp_path / 'data' / 'train')) - 2
    for name in names:
        line, = [line for line in caught.value.lines if f'/{repr(name)[1:]}' in line]
        assert 'never be labelled' in line


@pytest.mark.parametrize('make, words', [
    (lambda path: None, 'does not exist; expected a folder or an archive'),
    (lambda path: path.mkdir(), 'no train/*.mat or val/*.mat at its top or one folder down'),
    (lambda path: lay_out(path / 'one' / 'two'), 'no train/*.mat or val/*.mat'),
    (lambda path: path.write_bytes(b'x'), 'neither a folder nor a .tar.gz, .tgz, .tar or .zip'),
])
def test_source_without_records(make, words, tmp_path):
    make(tmp_path / 'data')
    with pytest.raises(UserError) as caught:
        find(tmp_path / 'data', tmp_path)
    assert 'data' in str(caught.value) and words in str(caught.value)


# Archives.

LABELS = b'name,tag\nTRAIN0001,0\nTRAIN0002,1\n'


def members(folder='数据/'):
    return {f'{folder}train/TRAIN0001.mat': mat_bytes(),
            f'{folder}train/TRAIN0002.mat': mat_bytes(), f'{folder}val/TEST0001.mat': mat_bytes(),
            f'{folder}trainreference.csv': LABELS, f'{folder}说明.txt': b'read me'}


def write_tar(path, contents, encoding='utf-8'):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with tarfile.open(path, 'w:gz' if str(path).endswith('gz') else 'w', format=tarfile.GNU_FORMAT,
                      encoding=encoding) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


class GbkInfo(zipfile.ZipInfo):
    """A member whose name is in GBK without a flag that says so, as Chinese Windows writes it."""

    def _encodeFilenameFlags(self):
        return self.filename.encode('gbk'), self.flag_bits & ~0x800


def write_zip(path, contents, encoding='utf-8'):
    kind = zipfile.ZipInfo if encoding == 'utf-8' else GbkInfo
    with zipfile.ZipFile(path, 'w') as archive:
        for name, data in contents.items():
            archive.writestr(kind(name), data)
    return str(path)


NAME = '2021A_T2_Task1_数据集含训练集_测试集'


@pytest.mark.parametrize('extension', ['.tar.gz', '.tgz', '.tar', '.ZIP'])
@pytest.mark.parametrize('encoding', ['utf-8', 'gbk'])
@pytest.mark.parametrize('folder', ['诊断/', './'])
def test_archives(extension, encoding, folder, tmp_path):
    pack = write_zip if extension == '.ZIP' else write_tar
    contents = members(folder)
    if extension == '.ZIP':
        contents = {name.upper(): data for name, data in contents.items()}
    archive = pack(tmp_path / f'{NAME}{extension}', contents, encoding)
    source, notes = find(archive, tmp_path)
    check(source)
    assert len(notes) == 1 and f'unpacked 4 files of {archive}' in notes[0]
    there = sorted(os.listdir(source.folder))
    assert there == ['origin.json', 'train', 'trainreference.csv', 'val']
    assert os.listdir(tmp_path / 'root') == [f'unpacked-{NAME}{extension}']


def test_an_archive_is_unpacked_again_when_it_is_another(tmp_path):
    archive = write_tar(tmp_path / 'a.tar.gz', members())
    source, _ = find(archive, tmp_path)
    before = os.stat(source.val['TEST0001']).st_mtime_ns
    source, notes = find(archive, tmp_path)
    assert os.stat(source.val['TEST0001']).st_mtime_ns == before and 'is unpacked in' in notes[0]
    write_tar(tmp_path / 'a.tar.gz', {**members(), '数据/val/TEST0002.mat': mat_bytes()})
    source, notes = find(archive, tmp_path)
    assert list(source.val) == ['TEST0001', 'TEST0002'] and 'unpacked 5 files' in notes[0]


def test_what_is_not_ours_is_not_replaced(tmp_path):
    mine = write(tmp_path / 'root' / 'unpacked-a.tar' / 'notes.txt', b'mine')
    with pytest.raises(UserError, match='unpacked-a.tar: in the way .* not made by process.py'):
        find(write_tar(tmp_path / 'a.tar', members()), tmp_path)
    assert open(mine).read() == 'mine'


def damaged(archive, data):
    """What is said of an archive that holds `data` now."""
    with open(archive, 'wb') as file:
        file.write(data)
    with pytest.raises(UserError) as caught:
        archives.unpack(archive, os.path.dirname(archive))
    assert os.listdir(os.path.dirname(archive)) == [os.path.basename(archive)]
    return str(caught.value)


@pytest.mark.parametrize('name', ['a.tar.gz', 'a.zip', 'a.tar'])
def test_damaged_archive(name, tmp_path):
    archive = (write_zip if name.endswith('zip') else write_tar)(tmp_path / name, members())
    data = open(archive, 'rb').read()
    for wrong in (data[:len(data) // 2], data[:-1500], b'<html>not found</html>', b''):
        assert 'a.' in damaged(archive, wrong) and 'download it again' in damaged(archive, wrong)
    if name != 'a.tar':  # which has no checksum of its contents
        changed = bytes([data[50_000] ^ 1])
        assert 'damaged' in damaged(archive, data[:50_000] + changed + data[50_001:])


def test_sound_archives_of_other_ways_to_pack(tmp_path):
    source = tmp_path / 'source'
    lay_out(source)
    write(source / 'source.csv', b'name,patient\nTRAIN0001,7\nTRAIN0002,7\n')
    for kind in ('gztar', 'zip'):
        archive = shutil.make_archive(str(tmp_path / 'packed'), kind, source)  # begins with ./
        found, _ = find(archive, tmp_path)
        check(found)
        with open(found.patients, 'rb') as file:
            assert file.read() == (source / 'source.csv').read_bytes()


@pytest.mark.parametrize('method, flag, words', [(9, 0, 'Deflate64'), (8, 1, 'a password')])
def test_zips_that_python_cannot_unpack_are_not_called_damaged(method, flag, words, tmp_path):
    archive = write_zip(tmp_path / 'a.zip', members())
    data = bytearray((tmp_path / 'a.zip').read_bytes())
    for begin, flags, place in ((b'PK\x03\x04', 6, 8), (b'PK\x01\x02', 8, 10)):
        at = data.find(begin)
        data[at + flags] |= flag
        data[at + place] = method
    (tmp_path / 'a.zip').write_bytes(data)
    with pytest.raises(UserError, match=f'has .*{words}.*, which Python cannot unpack') as caught:
        find(archive, tmp_path)
    assert 'damaged' not in str(caught.value)


@pytest.mark.skipif(sys.platform != 'linux', reason='limits the memory of a process')
def test_a_damaged_archive_that_asks_for_all_memory(tmp_path):
    info = tarfile.TarInfo('a long name')
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**32
    path = write(tmp_path / 'a.tar.gz', gzip.compress(info.tobuf(tarfile.GNU_FORMAT)))
    code = ('import resource, sys; from utils.ecg import archives\n'
            'resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n'
            'archives.unpack(sys.argv[1], sys.argv[2])')
    done = subprocess.run([sys.executable, '-c', code, path, str(tmp_path)], cwd=PROJECT,
                          capture_output=True, text=True)
    assert f'UserError: {path}: damaged or not an archive (MemoryError' in done.stderr


@pytest.mark.parametrize('damage', [
    lambda data, header: data[:header], lambda data, header: data[:header + 300],
    lambda data, header: data[:header] + bytes(512) + data[header + 512:],
    lambda data, header: data[:header] + b'x' * 512 + data[header + 512:]])
def test_a_tar_does_not_end_early(damage, tmp_path):
    archive = write_tar(tmp_path / 'a.tar', members())
    with tarfile.open(archive) as opened:
        header = opened.getmembers()[2].offset
    assert 'download it again' in damaged(archive, damage(open(archive, 'rb').read(), header))


@pytest.mark.parametrize('name', ['../train/A.mat', '/train/A.mat', 'train/../../A.mat',
                                  'C:\\train\\A.mat', 'data\\..\\..\\train\\A.mat'])
def test_members_that_would_land_elsewhere(name, tmp_path):
    for pack, archive in ((write_tar, 'a.tar'), (write_zip, 'a.zip')):
        with pytest.raises(UserError, match='would land outside the target folder'):
            find(pack(tmp_path / archive, {**members(), name: b''}), tmp_path)
    assert os.listdir(tmp_path / 'root') == []
    assert sorted(os.listdir(tmp_path)) == ['a.tar', 'a.zip', 'root']


@pytest.mark.parametrize('kind', [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_are_refused(kind, tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
        link = tarfile.TarInfo('train/A.mat')
        link.type, link.linkname = kind, '/etc/passwd'
        archive.addfile(link)
    with zipfile.ZipFile(tmp_path / 'a.zip', 'w') as archive:
        link = zipfile.ZipInfo('train/A.mat')
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, '/etc/passwd')
    for name in ('a.tar', 'a.zip'):
        with pytest.raises(UserError, match='is a link or no file'):
            find(tmp_path / name, tmp_path)


def test_too_much_and_twice(tmp_path, monkeypatch):
    with pytest.raises(UserError, match='is there twice'):
        find(write_tar(tmp_path / 'a.tar', {**members('a/'), **members('b/')}), tmp_path)
    monkeypatch.setattr(archives, 'LIMIT', 500_000)
    with pytest.raises(UserError, match='more than'):
        find(write_tar(tmp_path / 'b.tar', members()), tmp_path)


# The search where nothing is named.

def make_newer(path, than):
    """Wait until the clock of the file system has moved on, so that the order is certain."""
    while os.stat(path).st_ctime <= os.stat(than).st_ctime:
        os.chmod(path, 0o644)


@pytest.mark.parametrize('place, name', [
    ('root', f'{NAME}.tar.gz'), ('project', f'{NAME}.zip'), ('project/..', NAME),
    ('project/../..', '2021a_t2_task1_data')])
def test_search_without_a_source(place, name, tmp_path):
    root, project = (tmp_path / 'above' / 'beside' / each for each in ('root', 'project'))
    for folder in (root, project):
        folder.mkdir(parents=True)
    target = (root.parent / place).resolve() / name
    if '.' in name:
        (write_zip if name.endswith('zip') else write_tar)(target, members(), 'gbk')
    else:
        lay_out(target)
    source, notes = records.find_source(None, str(root), str(project))
    check(source)
    assert notes[0] == f'data.source is not set; the newest ECGs found: {target}'


def test_what_was_put_there_last_is_used(tmp_path):
    first = write_tar(tmp_path / 'root' / f'{NAME}.tar.gz', members())
    check(find(None, tmp_path)[0])
    # What was named once does not come back by itself.
    trial = write_tar(tmp_path / 'trial.tar', {'val/TRIAL.mat': mat_bytes()})
    assert list(find(trial, tmp_path)[0].val) == ['TRIAL']
    check(find(None, tmp_path)[0])
    # A corrected archive of the same name, then one of another name, then a folder.
    write_tar(tmp_path / 'root' / f'{NAME}.tar.gz',
              {**members(), '数据/val/TEST0002.mat': mat_bytes()})
    assert list(find(None, tmp_path)[0].val) == ['TEST0001', 'TEST0002']
    second = write_tar(tmp_path / 'root' / f'{NAME}_2.tar.gz', {'val/NEW.mat': mat_bytes()})
    make_newer(second, first)
    source, notes = find(None, tmp_path)
    assert list(source.val) == ['NEW'] and f'{second} (also there, not used: {first})' in notes[0]
    lay_out(tmp_path / 'root' / 'mine')
    make_newer(tmp_path / 'root' / 'mine' / 'val' / 'TEST0001.mat', second)
    source, _ = find(None, tmp_path)
    check(source)
    assert source.folder == str(tmp_path / 'root' / 'mine')


def test_what_was_unpacked_is_used_when_its_archive_is_gone(tmp_path):
    archive = write_tar(tmp_path / 'a.tar', members())
    find(archive, tmp_path)
    os.remove(archive)
    check(find(None, tmp_path)[0])


def test_search_finds_nothing(tmp_path):
    lay_out(tmp_path / '2021A_T2_Task2_data')  # another task's
    lay_out(tmp_path / 'root' / 'unpacked-a.tar.4711.partial')  # of a run that was killed
    with pytest.raises(UserError) as caught:
        find(None, tmp_path)
    line, = caught.value.lines
    assert 'no ECGs found' in line and '-o data.source=PATH' in line and 'make demo' in line
