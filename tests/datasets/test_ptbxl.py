"""PTB-XL: the rules of the labels, what is written, and what a broken download gives."""
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.signal

from tests.helpers import PROJECT
from utils.answers import tasks
from utils.answers.findings import FINDINGS, findings_of
from utils.datasets import ptbxl
from utils.running.errors import UserError

MINI = os.path.join(os.path.dirname(PROJECT), 'shared', 'ptbxl-mini')
FIRST = 'records500/00000/00001_hr'
TOP = 'ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.3/'


def run(*arguments):
    pytest.importorskip('wfdb', reason='PTB-XL is read with wfdb: pip install wfdb')
    return subprocess.run([sys.executable, '-m', 'utils.datasets.ptbxl', *map(str, arguments)],
                          cwd=PROJECT, text=True, capture_output=True, timeout=120)


@pytest.fixture(scope='module')
def whole():
    """PTB-XL's folder with 64 records, which tests must not change."""
    if not os.path.isdir(MINI):
        pytest.skip(f'no {MINI}: real records are needed')
    return MINI


def content(folder):
    """Relative path -> bytes of every file."""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob('*')) if path.is_file()}


def database(folder):
    return pd.read_csv(os.path.join(folder, ptbxl.DATABASE), dtype=str, na_filter=False)


def labels(out):
    """Name -> labels of both parts, as text."""
    lines = [line for part in ('train', 'val')
             for line in (out / f'{part}reference.csv').read_text().splitlines()]
    return dict(line.split(',', 1) for line in lines if line != 'name,tag')


@pytest.fixture
def mini(whole, tmp_path):
    """A copy that a test may break, of eight records."""
    copy = tmp_path / 'mini'
    shutil.copytree(whole, copy, copy_function=shutil.copyfile)  # the original is read-only
    for folder in (copy, *copy.rglob('*/')):
        os.chmod(folder, 0o755)
    database(whole)[:8].to_csv(copy / ptbxl.DATABASE, index=False)
    return copy


@pytest.fixture(scope='module')
def converted(whole, tmp_path_factory):
    """OUT of task 2, made of all 64 records."""
    out = tmp_path_factory.mktemp('ptbxl') / 'out'
    done = run(whole, out, '--task', 2, '--test-fold', 7)
    assert done.returncode == 0, done.stderr
    assert ['12', 'other', '32', '5'] in map(str.split, done.stdout.splitlines())
    return out


@pytest.mark.parametrize('codes, expected', [
    (['NORM', 'SBRAD'], [2]),  # "sinus bradycardia, otherwise normal ECG"
    (['NORM', 'IRBBB', 'NT_'], [10, 12]),
    (['SR'], [12]),  # not called normal
    (['ISCAN', 'INVT', 'SR'], [10, 11]),
    (['BIGU', 'PVC', 'SR'], [6]),  # PVC says what the bigeminy is made of
    (['PRC(S)', 'PAC'], [7]),
])
def test_labels_of_combined_statements(codes, expected):
    classes = ptbxl.read_classes()
    assert ptbxl.labels_of(codes, classes, 2) == expected
    assert ptbxl.labels_of(codes, classes, 1) == [0 if 'NORM' in codes else 1]


@pytest.mark.parametrize('old, new', [
    ('AFIB,5,atrial fibrillation', 'AFIB,6,atrial fibrillation'),  # number and name differ
    ('AFIB,', 'PVC,'),  # twice
])
def test_wrong_correction_of_the_table_is_refused(tmp_path, old, new):
    path = tmp_path / 'statements.csv'
    path.write_text(ptbxl.STATEMENTS.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match='statements.csv: .*mend it'):
        ptbxl.read_classes(path)


def test_records_are_those_of_ptbxl(whole, converted):
    import wfdb
    known = pd.read_csv(os.path.join(whole, 'scp_statements.csv'), index_col=0)
    assert set(known.index) == set(ptbxl.read_classes()) and len(known) == 71
    found = labels(converted)
    assert len(found) == 64 and len(list(converted.glob('*/*.mat'))) == 64
    for row in database(whole)[::7].itertuples():
        name = ('val/TEST' if row.strat_fold == '7' else 'train/TRAIN') + f'{int(row.ecg_id):05d}'
        values = scipy.io.loadmat(converted / f'{name}.mat')['ecgdata']
        record = wfdb.rdrecord(os.path.join(whole, row.filename_hr))
        np.testing.assert_array_equal(values, record.p_signal.T.astype(np.float32))
        assert values.dtype == np.float32 and name.partition('/')[2] in found
    assert found['TRAIN00001'] == '12' and found['TRAIN00002'] == '2'  # NORM LVOLT SR; NORM SBRAD
    source = pd.read_csv(converted / 'source.csv', dtype=str)
    assert source.iloc[0].to_dict() == {'name': 'TRAIN00001', 'ecg_id': '1', 'patient': '15709',
                                        'statements': 'NORM 100.0; LVOLT 0.0; SR 0.0'}
    is_val = source['name'].str.startswith('TEST')
    assert is_val.any() and not set(source['patient'][is_val]) & set(source['patient'][~is_val])
    for name in ('ATTRIBUTION.txt', 'LICENSE.txt'):
        assert 'Attribution 4.0' in (converted / name).read_text()


def test_leads_are_put_in_order(mini, tmp_path):
    pytest.importorskip('wfdb')
    straight = ptbxl.read_signal(mini / FIRST, tmp_path, 500)
    path = mini / f'{FIRST}.hea'
    path.write_text(path.read_text().replace('0 II\n', '0 V9\n').replace('0 I\n', '0 II\n')
                    .replace('0 V9\n', '0 I\n'))
    swapped = ptbxl.read_signal(mini / FIRST, tmp_path, 500)
    np.testing.assert_array_equal(swapped, straight[[1, 0, *range(2, 12)]])


def test_second_run_makes_what_is_missing_or_cut_now_from_a_zip(mini, tmp_path):
    out, options = tmp_path / 'out', ('--test-fold', 2, '--task')
    assert run(mini, out, *options, 2).returncode == 0
    before = content(out)
    missing, cut, *others = sorted(out.glob('*/*.mat'))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:5000])
    (out / 'train' / 'TRAIN00001.mat.999999999.partial').write_bytes(b'half')
    for path in others:
        os.utime(path, (1, 1))
    packed = tmp_path / 'ptb-xl.zip'
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in content(mini).items():
            archive.writestr(TOP + name, data)
        archive.writestr('../evil', 'never written')
    done = run(packed, out, *options, 2)
    assert done.returncode == 0, done.stderr
    assert content(out) == before and all(path.stat().st_mtime == 1 for path in others)
    assert len(others) == 6 and not (tmp_path / 'evil').exists()
    done = run(packed, out, *options, 1)
    assert done.returncode == 2 and "'task': 2" in done.stderr and 'another OUT' in done.stderr


def test_broken_records_are_named_and_the_rest_converted(mini, tmp_path):
    ids = database(mini)['ecg_id'].str.zfill(5)
    damages = [('.dat', lambda data: data[:60000]),
               ('.dat', lambda data: data[:240] + b'\x00\x80' + data[242:]),  # WFDB's "no value"
               ('.hea', lambda data: data.replace(b' 500 5000', b' 100 1000', 1)),
               ('.hea', lambda data: data.replace(b'_hr.dat', b'_lr.dat')),
               ('.hea', lambda data: data.replace(b' V6', b' V5\xff'))]
    for ecg_id, (ending, change) in zip(ids, damages):
        path = mini / f'records500/00000/{ecg_id}_hr{ending}'
        path.write_bytes(change(path.read_bytes()))
    (mini / f'records500/00000/{ids[5]}_hr.dat').unlink()
    out = tmp_path / 'out'
    done = run(mini, out, '--task', 1, '--test-fold', database(mini)['strat_fold'][7])
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(lines) == 7 and '6 broken records' in lines[-1]
    for ecg_id, line in zip(ids[:6], sorted(lines)):
        assert f'{ecg_id}_hr' in line and 'download it again' in line
    assert [path.stem for path in sorted(out.glob('*/*.mat'))] == [*labels(out)]
    assert [name[-5:] for name in labels(out)] == [*ids[6:]]


def fill(mini, column, value, rows=1):
    """Put `value` into the first rows of PTB-XL's table."""
    table = database(mini)
    table.loc[:rows - 1, column] = value
    table.to_csv(mini / ptbxl.DATABASE, index=False)


@pytest.mark.parametrize('column, value', [
    ('scp_codes', '__import__("os").abort()'),
    ('scp_codes', "{'XYZ': 100.0}"),
    ('filename_hr', 'records500/00000/00002_hr'),
])
def test_broken_row_is_named_and_left_out(mini, column, value):
    fill(mini, column, value)
    records, problems = ptbxl.read_records(mini, 1, 2, 500)
    assert len(records) == 7 and len(problems) == 1 and 'row 1 is broken' in problems[0]


@pytest.mark.parametrize('damage, words', [
    (lambda mini: (mini / 'records500').rename(mini / 'records50'), 'and records500 or records100'),
    (lambda mini: (mini / ptbxl.DATABASE).write_text('a,b\n1,2\n'), 'no UTF-8 CSV file with'),
    (lambda mini: (mini / ptbxl.DATABASE).write_bytes(b'\xff\xfe\x00'), 'no UTF-8 CSV file'),
    (lambda mini: fill(mini, 'patient_id', '13243.0'), 'patient 13243 is in 2 folds'),
    (lambda mini: fill(mini, 'strat_fold', '2', rows=8), 'give another --test-fold'),
])
def test_broken_download_is_refused(mini, damage, words):
    damage(mini)
    with pytest.raises(UserError, match=words):
        ptbxl.read_records(ptbxl.open_source(str(mini)), 1, 2, 500)


def test_broken_zips_are_named(tmp_path):
    path = tmp_path / 'ptb-xl.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(f'{TOP}{ptbxl.DATABASE}', 'ecg_id' * 1000)
        archive.writestr(f'{TOP}records500/', '')
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'ecg_idecg', b'ecg_idEcg', 1))
    with pytest.raises(UserError, match='ptbxl_database.csv: cannot be read .*CRC'):
        ptbxl.read_records(ptbxl.open_source(str(path)), 1, 2, 500)
    for data in (whole[:3000], whole.replace(TOP[:6].encode(), b'//evil')):
        path.write_bytes(data)
        with pytest.raises(UserError, match='no folder or whole zip'):
            ptbxl.open_source(str(path))


def test_limit_keeps_the_shares(whole):
    records, _ = ptbxl.read_records(ptbxl.open_source(whole), 1, 7, 500)
    for limit in (2, 5, 32, 64):
        chosen = ptbxl.choose(records, limit)
        assert len(set(chosen['name'])) == limit and set(chosen['part']) == {'train', 'val'}
        expected = records['labels'].map(str).value_counts() * limit / 64
        assert (chosen['labels'].map(str).value_counts() - expected).abs().max() < 2


def test_task_3_is_what_ptbxl_groups(whole, tmp_path):
    table = os.path.join(os.path.dirname(MINI), 'ptbxl', 'labels.csv')
    if not os.path.isfile(table):
        pytest.skip(f'no {table}: the groups of real statements are needed')
    done = run(whole, tmp_path / 'out', '--task', 3, '--test-fold', 7, '--leave-out', 6)
    assert done.returncode == 0, done.stderr
    folds = database(whole).set_index('ecg_id')['strat_fold']
    kept = pd.read_csv(tmp_path / 'out' / 'source.csv', dtype=str)['ecg_id']
    assert set(kept) == set(folds.index[folds != '6']) and '6' in set(folds)
    groups = pd.read_csv(table, index_col='ecg_id')['statements'].str.split(';')
    found = labels(tmp_path / 'out')
    numbers = {name: int(name.removeprefix('TRAIN').removeprefix('TEST')) for name in found}
    known = {name: groups[number] for name, number in numbers.items() if number in groups}
    assert len(known) > 55  # of 64: PTB-XL 1.0.3 has dropped a few
    for name, said in known.items():
        assert found[name] == ','.join(map(str, findings_of(set(said)))), name
    read = tasks.read_reference(str(tmp_path / 'out' / 'trainreference.csv'),
                                [name for name in found if name.startswith('TRAIN')],
                                tasks.TASKS[3])
    assert read.shape[1] == len(FINDINGS) and read[:, 0].mean() < 1


def test_records_of_100_hz(mini, tmp_path):
    wfdb = pytest.importorskip('wfdb', reason='PTB-XL is read with wfdb: pip install wfdb')
    records = database(mini)
    for high, low in zip(records['filename_hr'], records['filename_lr']):
        record = wfdb.rdrecord(str(mini / high))
        folder = mini / os.path.dirname(low)
        folder.mkdir(parents=True, exist_ok=True)
        slow = scipy.signal.resample_poly(record.p_signal, 1, 5, axis=0, padtype='line')
        wfdb.wrsamp(os.path.basename(low), 100, ['mV'] * 12, record.sig_name, slow,
                    fmt=['16'] * 12, write_dir=str(folder))
    outs = tmp_path / 'fast', tmp_path / 'slow'
    for out, rate in zip(outs, (500, 100)):
        done = run(mini, out, '--task', 1, '--test-fold', 2, '--sampling-rate', rate)
        assert done.returncode == 0, done.stderr
        assert f'the records of {rate} Hz' in done.stdout
    assert labels(outs[0]) == labels(outs[1])
    for path in outs[0].rglob('*.mat'):
        fast, slow = (scipy.io.loadmat(out / path.relative_to(outs[0]))['ecgdata'] for out in outs)
        assert slow.shape == (12, 5000) and np.corrcoef(fast[1], slow[1])[0, 1] > 0.99
