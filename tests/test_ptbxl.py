import ast
import csv
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import scipy.io

from utils import ptbxl
from utils.errors import UserError

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MINI = os.path.join(os.path.dirname(ROOT), 'shared', 'ptbxl-mini')
FIRST = 'records500/00000/00001_hr'
TOP = 'ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.3/'

pytest.importorskip('wfdb', reason='PTB-XL is read with wfdb: pip install wfdb')
pytestmark = pytest.mark.skipif(not os.path.isdir(MINI), reason=f'no {MINI}: real records are needed')


def run(*arguments):
    return subprocess.run([sys.executable, '-m', 'utils.ptbxl', *map(str, arguments)], cwd=ROOT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)


def error_lines(done):
    return [line for line in done.stderr.splitlines() if line.startswith('error: ')]


def read(path):
    with open(path, encoding='utf-8', newline='') as file:
        return list(csv.reader(file))


def content(folder):
    """Relative path -> bytes of every file."""
    found = {}
    for here, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(here, name), 'rb') as file:
                found[os.path.relpath(os.path.join(here, name), folder)] = file.read()
    return found


def database():
    with open(os.path.join(MINI, 'ptbxl_database.csv'), encoding='utf-8', newline='') as file:
        return {int(row['ecg_id']): row for row in csv.DictReader(file)}


def expected_classes(codes):
    """Task 2's rules for the statements of the mini, written anew: not from the module's table."""
    labels = []
    for number, own in ((2, 'SBRAD'), (3, 'STACH'), (4, 'SARRH'), (5, 'AFIB'), (6, 'PVC'), (7, 'PAC'), (9, 'CRBBB')):
        if own in codes:
            labels.append(number)
    if '1AVB' in codes or 'LPR' in codes:
        labels.append(8)
    if any('T' in code for code in codes & {'NDT', 'NT_', 'LOWT', 'INVT', 'TAB_'}):
        labels.append(10)
    if any(code.startswith(('ISC', 'INJ', 'ST')) for code in codes - {'STACH'}) or codes & {'NST_', 'DIG', 'ANEUR'}:
        labels.append(11)
    if any(code.endswith(('MI', 'LVH', 'VOLT', 'HYP', 'AFB', 'PFB', 'LBBB')) or code in
           ('IRBBB', 'IVCD', 'ABQRS', 'QWAVE', 'EL') for code in codes):
        labels.append(12)
    return sorted(labels) or ([1] if 'NORM' in codes else [12])


@pytest.fixture(scope='module')
def task1(tmp_path_factory):
    out = tmp_path_factory.mktemp('task1') / 'out'
    return out, run(MINI, out, '--task', 1, '--test-fold', 7)


@pytest.fixture(scope='module')
def task2(tmp_path_factory):
    out = tmp_path_factory.mktemp('task2') / 'out'
    return out, run(MINI, out, '--task', 2, '--test-fold', 7)


@pytest.fixture
def mini(tmp_path):
    """A copy that a test may break."""
    copy = tmp_path / 'mini'
    for here, _, names in os.walk(MINI):
        os.makedirs(copy / os.path.relpath(here, MINI))
        for name in names:  # by content: the original is read-only
            shutil.copyfile(os.path.join(here, name), copy / os.path.relpath(here, MINI) / name)
    return copy


def small(mini, keep):
    """Cut the copy's table to the first `keep` rows of the folds 1 and 2 so that a run is quick; returns their ids."""
    table = read(mini / 'ptbxl_database.csv')
    fold = table[0].index('strat_fold')
    rows = [row for row in table[1:] if row[fold] in ('1', '2')][:keep]
    with open(mini / 'ptbxl_database.csv', 'w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows([table[0], *rows])
    return [int(row[0]) for row in rows]


def write_sums(folder):
    lines = [f'{hashlib.sha256(data).hexdigest()} {name}\n' for name, data in sorted(content(folder).items())]
    (folder / 'SHA256SUMS.txt').write_text(''.join(lines))


def make_zip(folder, path, top=TOP):
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in content(folder).items():
            archive.writestr(top + name, data)


def test_task1_labels_and_layout(task1):
    out, done = task1
    assert done.returncode == 0, done.stderr
    assert 'normal' in done.stdout and 'val is fold 7' in done.stdout
    rows = {part: read(out / f'{part}reference.csv') for part in ('train', 'val')}
    for part, prefix in (('train', 'TRAIN'), ('val', 'TEST')):
        assert rows[part][0] == ['name', 'tag']
        expected = [[f'{prefix}{ecg_id:05d}', '0' if "'NORM'" in row['scp_codes'] else '1']
                    for ecg_id, row in sorted(database().items()) if (row['strat_fold'] == '7') == (part == 'val')]
        assert rows[part][1:] == expected
        assert sorted(os.listdir(out / part)) == [name + '.mat' for name, _ in expected]


def test_task1_agrees_with_labels_made_elsewhere(task1):
    """ecg-real was cut from PTB-XL by other code."""
    elsewhere = os.path.join(os.path.dirname(MINI), 'ecg-real', 'train_source.csv')
    if not os.path.exists(elsewhere):
        pytest.skip(f'no {elsewhere}')
    tags = {row[2]: row[1] for row in read(elsewhere)[1:]}
    both = 0
    for name, tag in read(task1[0] / 'trainreference.csv')[1:] + read(task1[0] / 'valreference.csv')[1:]:
        ecg_id = str(int(name[-5:]))
        if ecg_id in tags:
            both += 1
            assert tags[ecg_id] == tag, ecg_id
    assert both > 50


def test_task2_labels_record_by_record(task2):
    out, done = task2
    assert done.returncode == 0, done.stderr
    found = {row[0]: row[1:] for part in ('train', 'val') for row in read(out / f'{part}reference.csv')}
    assert len(found) == 64
    for ecg_id, row in database().items():
        name = ('TEST' if row['strat_fold'] == '7' else 'TRAIN') + f'{ecg_id:05d}'
        expected = expected_classes(set(ast.literal_eval(row['scp_codes'])))
        assert found[name] == [str(label) for label in expected], (ecg_id, row['scp_codes'])


def test_summary_counts_each_part(task2):
    out, done = task2
    for label, name in ptbxl.CLASSES[2].items():
        line = next(line for line in done.stdout.splitlines() if line.startswith(f'{label:2d} {name} '))
        counts = [sum(str(label) in row[1:] for row in read(out / f'{part}reference.csv')) for part in ('train', 'val')]
        assert [int(word) for word in line.split()[-2:]] == counts


def test_table_has_the_71_statements():
    codes = [row[0] for row in read(os.path.join(MINI, 'scp_statements.csv'))[1:]]
    assert len(codes) == 71 and set(codes) == set(ptbxl.STATEMENTS)
    assert {label for label, _ in ptbxl.STATEMENTS.values()} == set(range(13))
    assert all(reason for _, reason in ptbxl.STATEMENTS.values())


def test_signals_are_wfdbs(task2):
    import wfdb
    for ecg_id, row in list(database().items())[::7]:
        part, prefix = ('val', 'TEST') if row['strat_fold'] == '7' else ('train', 'TRAIN')
        values = scipy.io.loadmat(task2[0] / part / f'{prefix}{ecg_id:05d}.mat')['ecgdata']
        record = wfdb.rdrecord(os.path.join(MINI, row['filename_hr']))
        assert values.shape == (12, 5000) and values.dtype == np.float32
        assert record.sig_name == ['I', 'II', 'III', 'AVR', 'AVL', 'AVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6']
        np.testing.assert_array_equal(values, record.p_signal.T.astype(np.float32))
        np.testing.assert_allclose(values[0] + values[2], values[1], atol=0.0025)  # I + III = II, in mV


def test_leads_are_put_in_order(mini, tmp_path):
    head, *lines = (mini / (FIRST + '.hea')).read_text().splitlines()
    names = [line.split()[-1] for line in lines[:12]]
    moved = [line.rsplit(' ', 1)[0] + ' ' + name for line, name in zip(lines[:12], names[::-1])]
    source = ptbxl.Source(str(mini))
    straight = ptbxl.read_signal(source, FIRST, str(tmp_path))
    (mini / (FIRST + '.hea')).write_text('\n'.join([head, *moved]) + '\n')
    np.testing.assert_array_equal(ptbxl.read_signal(source, FIRST, str(tmp_path)), straight[::-1])


def test_no_patient_is_in_both_parts(task2):
    rows = read(task2[0] / 'source.csv')
    assert rows[0] == ['name', 'ecg_id', 'patient', 'statements'] and len(rows) == 65
    train = {row[2] for row in rows[1:] if row[0].startswith('TRAIN')}
    val = {row[2] for row in rows[1:] if row[0].startswith('TEST')}
    assert train and val and not train & val
    assert rows[1] == ['TRAIN00001', '1', '15709', 'NORM 100.0; LVOLT 0.0; SR 0.0']


def test_patient_in_two_folds_is_refused(mini):
    path = mini / 'ptbxl_database.csv'
    path.write_text(path.read_text().replace('2,13243.0', '2,15709.0', 1))
    with pytest.raises(UserError, match='patient 15709 is in the folds 3 and 2'):
        ptbxl.read_records(ptbxl.Source(str(mini)))


def test_licence_and_attribution_stand_beside(task1):
    text = (task1[0] / 'ATTRIBUTION.txt').read_text()
    assert all(word in text for word in ('PTB-XL', 'Wagner', 'Scientific Data', '2020', 'PhysioNet', 'Attribution 4.0'))
    assert 'Attribution 4.0' in (task1[0] / 'LICENSE.txt').read_text()


def test_second_run_redoes_only_what_is_missing_or_broken(mini, tmp_path):
    ids = small(mini, 10)
    out = tmp_path / 'out'
    command = (mini, out, '--task', 2, '--test-fold', 2)
    assert run(*command).returncode == 0
    before = content(out)
    paths = sorted(out.glob('*/*.mat'))
    assert len(paths) == len(ids)
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:5000])
    (out / 'train' / 'TRAIN00001.mat.999999999.partial').write_bytes(b'half')
    for path in paths[2:]:
        os.utime(path, (1, 1))
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert content(out) == before
    assert all(os.stat(path).st_mtime == 1 for path in paths[2:])
    done = run(mini, out, '--task', 1, '--test-fold', 2)
    assert done.returncode == 2 and 'task = 2, this run has task = 1' in done.stderr
    assert content(out) == before


def process_state(pid):
    """State letter and parent's id, from /proc; ('Z', 0), as of one that has ended, where it is gone."""
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
            state, parent = file.read().rpartition(')')[2].split()[:2]
    except OSError:
        return 'Z', 0
    return state, int(parent)


def workers_of(parent):
    return [int(pid) for pid in os.listdir('/proc') if pid.isdigit() and process_state(pid)[1] == parent]


def deaf_to_interrupts(pid):
    with open(f'/proc/{pid}/status', encoding='utf-8') as file:
        ignored = next(line for line in file if line.startswith('SigIgn:')).split()[1]
    return int(ignored, 16) >> (signal.SIGINT - 1) & 1


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='looks for processes in /proc')
def test_stopped_run_leaves_no_workers_and_goes_on(task2, tmp_path):
    out = tmp_path / 'out'
    arguments = [MINI, str(out), '--task', '2', '--test-fold', '7']
    for signum, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        before = len(list(out.glob('*/*.mat')))
        process = subprocess.Popen([sys.executable, '-m', 'utils.ptbxl', *arguments], cwd=ROOT, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        while len(list(out.glob('*/*.mat'))) <= before and process.poll() is None:
            time.sleep(0.005)
        workers = workers_of(process.pid)
        if signum == signal.SIGINT:  # Ctrl-C reaches the workers as well, which are to leave it to the main process
            deadline = time.time() + 5
            while time.time() < deadline and not all(deaf_to_interrupts(pid) for pid in workers):
                time.sleep(0.005)
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        _, stderr = process.communicate(timeout=60)
        if process.returncode == 0:
            pytest.skip('the run was over before the signal came')
        assert process.returncode == code and b'Traceback' not in stderr, stderr
        assert not (out / 'trainreference.csv').exists()
        deadline = time.time() + 5
        while time.time() < deadline and any(process_state(pid)[0] != 'Z' for pid in workers):
            time.sleep(0.005)
        assert all(process_state(pid)[0] == 'Z' for pid in workers)
    assert run(*arguments).returncode == 0
    # A killed worker's partial files stay while the system lists it, as a zombie; a later run clears them.
    whole = {name: data for name, data in content(out).items() if '.partial' not in name}
    assert whole == content(task2[0])


def test_folder_and_zip_give_the_same(mini, tmp_path):
    small(mini, 8)
    make_zip(mini, tmp_path / 'ptb-xl.zip')
    for source, out in ((mini, 'a'), (tmp_path / 'ptb-xl.zip', 'b')):
        done = run(source, tmp_path / out, '--task', 2, '--test-fold', 2)
        assert done.returncode == 0, done.stderr
    first = content(tmp_path / 'a')
    assert first == content(tmp_path / 'b') and len([name for name in first if name.endswith('.mat')]) == 8


def test_folder_above_and_zip_without_top_folder_are_found(mini, tmp_path):
    assert ptbxl.Source(str(tmp_path)).has(FIRST + '.dat')
    make_zip(mini, tmp_path / 'flat.zip', top='')
    source = ptbxl.Source(str(tmp_path / 'flat.zip'))
    assert source.read(FIRST + '.dat') == (mini / (FIRST + '.dat')).read_bytes()


def test_broken_records_are_named_and_the_rest_converted(mini, tmp_path):
    def edit(ecg_id, ending, change):
        path = mini / f'records500/00000/{ecg_id:05d}_hr{ending}'
        path.write_bytes(change(path.read_bytes()))

    ids = small(mini, 13)
    edit(ids[0], '.dat', lambda data: data[:60000])
    (mini / f'records500/00000/{ids[1]:05d}_hr.dat').unlink()
    edit(ids[2], '.dat', lambda data: data[:240] + b'\x00\x80' + data[242:])  # -32768: WFDB's "no value"
    edit(ids[3], '.hea', lambda data: b'\xff\x00garbage')
    edit(ids[4], '.hea', lambda data: data.replace(b' 500 5000', b' 100 1000', 1))
    edit(ids[5], '.hea', lambda data: data.replace(f'{ids[5]:05d}_hr.dat'.encode(), b'00001_hr.dat'))
    edit(ids[6], '.hea', lambda data: data.replace(b' V6', b' V9'))
    edit(ids[7], '.hea', lambda data: b'')
    edit(ids[8], '.hea', lambda data: data[:300])
    expected = ['_hr.dat: has 60000 bytes, expected 120000', '_hr.dat: there is no such file',
                'NaN), the first in lead I,', '_hr.hea: wfdb cannot read it',
                'sampling rate in Hz: found 100, expected 500',
                "the signal files: found ['00001_hr.dat']", 'V9', '_hr.hea', '_hr.hea']
    done = run(mini, tmp_path / 'out', '--task', 1, '--test-fold', 2)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    lines = error_lines(done)
    assert len(lines) == 10 and '9 broken records' in lines[-1]
    for ecg_id, words in zip(ids, expected):
        line, = [line for line in lines if f'{ecg_id:05d}_hr' in line]
        assert words in line and 'expected' in line and 'download it again' in line, line
    names = {row[0] for part in ('train', 'val') for row in read(tmp_path / 'out' / f'{part}reference.csv')[1:]}
    assert {int(name[-5:]) for name in names} == set(ids[9:])
    assert sorted(path.stem for path in (tmp_path / 'out').glob('*/*.mat')) == sorted(names)


@pytest.mark.parametrize('column, value, words', [
    ('scp_codes', '__import__("os").abort()', 'scp_codes is'),
    ('scp_codes', '{}', 'scp_codes is'),
    ('scp_codes', "{'XYZ': 100.0}", "scp_codes has 'XYZ'"),
    ('filename_hr', '../../etc/passwd', 'filename_hr is'),
    ('filename_hr', 'records500/00000/00002_hr', 'filename_hr is'),
    ('strat_fold', '11', 'strat_fold is 11'),
    ('patient_id', '', 'patient_id is'),
])
def test_broken_row_is_named_and_left_out(mini, column, value, words):
    table = read(mini / 'ptbxl_database.csv')
    table[1][table[0].index(column)] = value
    with open(mini / 'ptbxl_database.csv', 'w', encoding='utf-8', newline='') as file:
        csv.writer(file).writerows(table)
    records, problems = ptbxl.read_records(ptbxl.Source(str(mini)))
    assert len(records) == 63 and len(problems) == 1
    assert words in problems[0] and 'expected' in problems[0]


def only_100_hz(mini):
    (mini / 'records500').rename(mini / 'records100')


@pytest.mark.parametrize('damage, words', [
    (lambda mini: (mini / 'ptbxl_database.csv').unlink(), 'found no ptbxl_database.csv'),
    (lambda mini: (mini / 'ptbxl_database.csv').write_text('a,b\n1,2\n'), 'found no column ecg_id'),
    (lambda mini: (mini / 'ptbxl_database.csv').write_bytes(b'\xff\xfe\x00'), 'is no UTF-8 CSV file'),
    (lambda mini: (mini / 'scp_statements.csv').unlink(), 'scp_statements.csv: there is no such file'),
    (lambda mini: (mini / 'scp_statements.csv').write_text(',description\nXYZ,new\n'), "found the statement 'XYZ'"),
    (only_100_hz, 'found only records100, the 100 Hz records'),
])
def test_broken_download_is_refused(mini, tmp_path, monkeypatch, damage, words):
    damage(mini)
    monkeypatch.setattr(sys, 'argv', ['ptbxl', str(mini), str(tmp_path / 'out'), '--task', '1', '--test-fold', '7'])
    with pytest.raises(UserError, match=words):
        ptbxl.main()
    assert not (tmp_path / 'out').exists()


def test_broken_zips_are_named(mini, tmp_path):
    path = tmp_path / 'ptb-xl.zip'
    make_zip(mini, path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(TOP + FIRST + '.dat').header_offset
    path.write_bytes(whole[:start + 500] + bytes(2000) + whole[start + 2500:])
    with pytest.raises(ptbxl.BadFile, match=r'00001_hr.dat: cannot be unpacked'):
        ptbxl.Source(str(path)).read(FIRST + '.dat')
    path.write_bytes(whole[:len(whole) // 2])
    with pytest.raises(UserError, match='neither a folder nor a whole zip'):
        ptbxl.Source(str(path))
    with pytest.raises(UserError, match='no such folder or file'):
        ptbxl.Source(str(tmp_path / 'none.zip'))


def test_limit_takes_a_spread_of_records(mini, tmp_path):
    records, _ = ptbxl.read_records(ptbxl.Source(str(mini)))
    for limit in (2, 5, 20, 63, 64, 100):
        parts = ptbxl.split(records, 7, limit)
        assert len(parts['train']) + len(parts['val']) == min(limit, 64)
        assert parts == ptbxl.split(records, 7, limit)
        assert len({record.ecg_id for records in parts.values() for record in records}) == min(limit, 64)
        assert parts['val'] and {record.fold for record in parts['val']} == {7}
    parts = ptbxl.split(records, 7, 20)
    assert {record.fold for record in parts['train']} == {1, 2, 3, 4, 5, 6}
    assert len({label for record in parts['train'] for label in ptbxl.labels_of(record.statements, 2)}) >= 8
    done = run(mini, tmp_path / 'out', '--task', 1, '--test-fold', 7, '--limit', 6)
    assert done.returncode == 0 and len(list((tmp_path / 'out').glob('*/*.mat'))) == 6


def test_fold_without_records_is_refused(tmp_path):
    done = run(MINI, tmp_path / 'out', '--task', 1)
    assert done.returncode == 2 and '--test-fold 10' in done.stderr and '1, 2, 3, 4, 5, 6, 7' in done.stderr


def test_out_with_other_files_is_refused(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    done = run(MINI, tmp_path, '--task', 1, '--test-fold', 7)
    assert done.returncode == 2 and 'choose another OUT' in done.stderr
    assert os.listdir(tmp_path) == ['thesis.txt']


def test_verify(mini, tmp_path):
    ids = small(mini, 6)
    command = (mini, tmp_path / 'out', '--task', 1, '--test-fold', 2)
    done = run(*command, '--verify')
    assert done.returncode == 2 and 'SHA256SUMS.txt: there is no such file' in done.stderr
    write_sums(mini)
    assert run(*command, '--verify').returncode == 0
    path = mini / f'records500/00000/{ids[0]:05d}_hr.dat'
    path.write_bytes(b'\x01' + path.read_bytes()[1:])
    assert run(*command).returncode == 0  # nothing but its SHA-256 tells
    done = run(*command, '--verify')
    lines = error_lines(done)
    assert done.returncode == 2 and len(lines) == 2
    assert f'{ids[0]:05d}_hr.dat: its SHA-256 is' in lines[0]
    assert len(list((tmp_path / 'out').glob('*/*.mat'))) == 5  # the record that was there is taken out again


def test_verify_holds_the_tables_too(mini):
    write_sums(mini)
    source = ptbxl.Source(str(mini))
    sums = ptbxl.read_sums(source)
    ptbxl.check_source(source, sums)
    with open(mini / 'ptbxl_database.csv', 'a') as file:
        file.write('\n')
    with pytest.raises(UserError, match='ptbxl_database.csv: its SHA-256'):
        ptbxl.check_source(source, sums)
    del sums['ptbxl_database.csv']
    with pytest.raises(UserError, match='not listed'):
        ptbxl.check_source(source, sums)


def test_missing_wfdb_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'wfdb', None)
    with pytest.raises(UserError, match='pip install wfdb'):
        ptbxl.read_signal(ptbxl.Source(MINI), FIRST, str(tmp_path))
