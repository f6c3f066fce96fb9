import csv
import os
import shutil
import sys

import numpy as np
import pytest
from scipy.io import savemat
from scipy.signal import resample_poly

from conftest import overrides, refused, run_script
from utils import demo, inputs
from utils.errors import UserError
from utils.mat import read_arrays
from utils.records import LEADS

UV = np.rint(1000 * demo.make_record(0, 1, ('PVC',)).astype(float)).astype(int)
ECG = (UV / 1000).astype(np.float32)  # (12, 5000), mV
OTHER_ORDER = [3, 1, 2, 0, 4, 5, 11, 10, 9, 8, 7, 6]


def write_header(path, signal_file, leads=LEADS, form='16', gain='1000/mV', first='{name} 12 500 5000'):
    name = os.path.splitext(os.path.basename(path))[0]
    lines = [first.format(name=name)] + [f'{signal_file} {form} {gain} 16 0 0 0 0 {lead}' for lead in leads]
    with open(path, 'w') as file:
        file.write('\n'.join(lines) + '\n# Age: 50\n')


def write_wfdb(folder, name, uv=UV, **header):
    uv.T.astype('<i2').tofile(os.path.join(folder, f'{name}.dat'))
    write_header(os.path.join(folder, f'{name}.hea'), f'{name}.dat', **header)


def write_val(folder, name, uv=UV, **header):
    # Version 4, as PhysioNet has it: the numbers start at byte 24.
    savemat(os.path.join(folder, f'{name}.mat'), {'val': uv.astype(np.int16)}, format='4')
    write_header(os.path.join(folder, f'{name}.hea'), f'{name}.mat', form='16+24', **header)


def write_table(path, table, delimiter=',', head='', form='%d'):
    np.savetxt(path, table, fmt=form, delimiter=delimiter, header=head, comments='')


def write_everything(folder):
    """The same ECG in every format; those that do not say their unit are in uV."""
    os.makedirs(folder)
    path = os.path.join
    savemat(path(folder, 'mat.mat'), {'ecgdata': ECG})
    savemat(path(folder, 'mat_columns.mat'), {'ecgdata': ECG.T.astype(float)}, do_compression=True)
    write_val(folder, 'physionet')
    backwards = {'leads': [lead.lower() for lead in LEADS[::-1]]}
    write_val(folder, 'physionet_offset', 2 * UV[::-1] + 7, gain='2000(7)/mV', **backwards)
    write_wfdb(folder, 'wfdb')
    write_wfdb(folder, 'wfdb_order', UV[::-1], gain='1.0/uV', **backwards)
    write_table(path(folder, 'columns.csv'), UV.T)
    write_table(path(folder, 'numbered.csv'), UV.T, head=','.join(map(str, range(12))))
    write_table(path(folder, 'rows.CSV'), UV, '\t')
    write_table(path(folder, 'named.csv'), np.c_[np.arange(5000), UV[OTHER_ORDER].T], ';',
                'time;' + ';'.join(f'"Lead {LEADS[i]}"' for i in OTHER_ORDER))
    with open(path(folder, 'named_rows.csv'), 'w') as file:
        file.writelines(','.join([LEADS[i].upper(), *map(str, UV[i])]) + '\n' for i in OTHER_ORDER)
    np.save(path(folder, 'rows.npy'), UV.astype(np.int16))
    np.save(path(folder, 'columns.npy'), np.asfortranarray(UV.T.astype(np.float64)))
    return folder


@pytest.fixture(scope='module')
def everything(tmp_path_factory):
    return write_everything(str(tmp_path_factory.mktemp('inputs') / 'own'))


def of_itself(name):
    """Whether a format says its unit and rate itself."""
    return name.startswith(('mat', 'physionet', 'wfdb'))


def formats():
    return ['columns.csv', 'columns.npy', 'mat.mat', 'mat_columns.mat', 'named.csv', 'named_rows.csv', 'numbered.csv',
            'physionet.mat', 'physionet_offset.mat', 'rows.CSV', 'rows.npy', 'wfdb.hea', 'wfdb_order.hea']


@pytest.mark.parametrize('file', formats())
def test_every_format_gives_the_same_signal(everything, file):
    if file.endswith('.hea'):
        pytest.importorskip('wfdb')
    name, signal, notes = inputs.read_input(os.path.join(everything, file),
                                            *((None, None) if of_itself(file) else (500, 'uV')))
    assert name == os.path.splitext(file)[0]
    assert signal.dtype == np.float32 and np.array_equal(signal, ECG)
    ordered = 'order' in file or 'named' in file or 'offset' in file
    assert any('reordered' in note for note in notes) == ordered
    assert any('no lead names' in note for note in notes) == file.startswith(('columns', 'rows', 'numbered'))
    assert not any('II is not I + III' in note for note in notes)


def test_find_inputs(everything, tmp_path):
    with pytest.raises(UserError, match='the record columns is there twice'):
        inputs.find_inputs(everything)
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'notes.txt').write_text('x')
    (tmp_path / '._A.mat').write_bytes(b'x')
    with pytest.raises(UserError, match='no ECGs directly in it'):
        inputs.find_inputs(str(tmp_path))
    with pytest.raises(UserError, match='no such file'):
        inputs.find_inputs(str(tmp_path / 'none.csv'))
    with pytest.raises(UserError, match='not an ECG file'):
        inputs.find_inputs(str(tmp_path / 'notes.txt'))
    for given in ('wfdb', 'wfdb.hea', 'wfdb.dat'):
        assert inputs.find_inputs(os.path.join(everything, given)) == {'wfdb': os.path.join(everything, 'wfdb.hea')}
    for given in ('physionet.hea', 'physionet.mat'):
        path = os.path.join(everything, given)
        assert inputs.find_inputs(path) == {'physionet': os.path.join(everything, 'physionet.mat')}


@pytest.mark.parametrize('rate, up, down', [(250, 1, 2), (1000, 2, 1), (360, 18, 25)])
def test_other_rates_are_resampled(tmp_path, rate, up, down):
    smooth = resample_poly(resample_poly(ECG, 1, 5, axis=1), 5, 1, axis=1) + 0.8  # up to 40 Hz, baseline at 0.8 mV
    np.save(tmp_path / 'a.npy', resample_poly(smooth, up, down, axis=1, padtype='line'))
    _, signal, notes = inputs.read_input(str(tmp_path / 'a.npy'), rate, 'mV')
    assert any(f'resampled from {rate} to 500 Hz' in note for note in notes)
    assert np.abs(signal - smooth)[:, 50:-50].max() < 0.01 and np.abs(signal - smooth).max() < 0.1


def test_long_and_short_recordings(tmp_path):
    np.save(tmp_path / 'long.npy', np.c_[ECG, ECG])
    _, signal, notes = inputs.read_input(str(tmp_path / 'long.npy'), 500, 'mV')
    assert np.array_equal(signal, ECG) and any('20 s long; the first 10 s are used' in note for note in notes)
    np.save(tmp_path / 'short.npy', ECG[:, :3000])
    _, signal, notes = inputs.read_input(str(tmp_path / 'short.npy'), 500, 'mV')
    assert np.array_equal(signal[:, :3000], ECG[:, :3000]) and not signal[:, 3000:].any()
    assert any('6 s long; padded with 0 mV at its end' in note for note in notes)
    np.save(tmp_path / 'strip.npy', ECG[:, :900])
    with pytest.raises(UserError, match='strip.npy: 900 samples at 500 Hz are 1.80 s'):
        inputs.read_input(str(tmp_path / 'strip.npy'), 500, 'mV')


def test_long_wfdb_recording_is_read_in_part(tmp_path):
    pytest.importorskip('wfdb')
    write_wfdb(tmp_path, 'long', np.c_[UV, UV, UV], first='{name} 12 500 15000')
    _, signal, notes = inputs.read_input(str(tmp_path / 'long.hea'), None, None)
    assert np.array_equal(signal, ECG) and any('30 s long; the first 10 s' in note for note in notes)


def test_what_may_be_wrong_is_noted(tmp_path):
    savemat(tmp_path / 'a.mat', {'ecgdata': ECG[[0, 1, 2, 3, 5, 4, *range(6, 12)]]})
    assert 'aVL, aVF do not follow from I and II' in inputs.read_input(str(tmp_path / 'a.mat'), None, None)[2][0]
    fell_off = ECG.copy()
    fell_off[[7, 9]] = 0
    np.save(tmp_path / 'b.npy', fell_off)
    assert any('V2, V4 flat' in note for note in inputs.read_input(str(tmp_path / 'b.npy'), 500, 'mV')[2])


def test_offsets_of_electrodes_are_taken_off(tmp_path):
    offsets = np.linspace(-30, 30, 12)[:, None]
    np.save(tmp_path / 'a.npy', (ECG + offsets)[:, :4000])
    np.save(tmp_path / 'b.npy', (ECG - np.median(ECG[:, :4000], axis=1, keepdims=True))[:, :4000])
    _, signal, notes = inputs.read_input(str(tmp_path / 'a.npy'), 500, 'mV')
    assert any('30' in note and 'median was taken off' in note for note in notes)
    assert np.abs(signal - inputs.read_input(str(tmp_path / 'b.npy'), 500, 'mV')[1]).max() < 1e-4


@pytest.mark.parametrize('delimiter', [';', '\t'])
@pytest.mark.parametrize('head', ['', ','.join(LEADS)])
def test_decimal_commas(tmp_path, delimiter, head):
    rows = [delimiter.join(f'{value:.3f}'.replace('.', ',') for value in row) for row in ECG.T]
    (tmp_path / 'a.csv').write_text('\n'.join([head.replace(',', delimiter)] * bool(head) + rows))
    assert np.abs(inputs.read_input(str(tmp_path / 'a.csv'), 500, 'mV')[1] - ECG).max() < 1e-6


@pytest.mark.parametrize('name', ['\u5fc3\u7535', 'rec.v1', 'with-dash_1'])
def test_wfdb_records_of_any_name(tmp_path, name):
    pytest.importorskip('wfdb', reason='WFDB files are read with wfdb')
    write_wfdb(str(tmp_path), name)
    assert np.array_equal(inputs.read_input(str(tmp_path / f'{name}.hea'), None, None)[1], ECG)


def test_ten_seconds_of_ecgdata_keep_their_rate(tmp_path):
    savemat(tmp_path / 'a.mat', {'ecgdata': ECG})
    _, signal, notes = inputs.read_input(str(tmp_path / 'a.mat'), None, None)
    assert np.array_equal(signal, ECG) and not notes
    with pytest.raises(UserError, match='10 s at 500 Hz, as in the competition, and --sampling-rate says 250'):
        inputs.read_input(str(tmp_path / 'a.mat'), 250, None)
    savemat(tmp_path / 'b.mat', {'ecgdata': ECG[:, ::2]})
    with pytest.raises(UserError, match='b.mat: nothing says its sampling rate'):
        inputs.read_input(str(tmp_path / 'b.mat'), None, None)
    assert 'resampled' in inputs.read_input(str(tmp_path / 'b.mat'), 250, None)[2][0]


def with_nan():
    broken = ECG.copy()
    broken[1, 42] = np.nan
    return broken


@pytest.mark.parametrize('name, write, options, words', [
    ('a.npy', lambda p: np.save(p, ECG), (None, 'mV'), 'nothing says its sampling rate'),
    ('a.npy', lambda p: np.save(p, ECG), (500, None), 'nothing says its unit'),
    ('a.npy', lambda p: np.save(p, ECG), (0.5, 'mV'), 'a sampling rate of 0.5 Hz'),
    ('a.npy', lambda p: np.save(p, ECG), (float('nan'), 'mV'), 'a sampling rate of nan Hz'),
    ('a.npy', lambda p: np.save(p, ECG), (500, 'uV'), 'is the unit right'),
    ('a.npy', lambda p: np.save(p, UV), (500, 'mV'), 'is the unit right'),
    ('a.npy', lambda p: np.save(p, ECG[:11]), (500, 'mV'), r'the shape \(11, 5000\)'),
    ('a.npy', lambda p: np.save(p, ECG[None]), (500, 'mV'), 'the shape'),
    ('a.npy', lambda p: np.save(p, ECG.astype(complex)), (500, 'mV'), 'complex'),
    ('a.npy', lambda p: np.save(p, np.r_[ECG[6:], ECG[:6]]), (500, 'mV'), 'the first six cannot be I, II'),
    ('a.npy', lambda p: np.save(p, ECG[[0, 1, 2, 3, 5, 4, *range(6, 12)]]), (500, 'mV'), 'aVL, aVF do not follow'),
    ('a.npy', lambda p: np.save(p, np.r_[np.linspace(0, 10, 5000)[None], ECG[:11]]), (500, 'mV'), 'cannot be I, II'),
    ('a.npy', lambda p: np.save(p, ECG * (np.arange(12) < 5)[:, None]), (500, 'mV'), '7 of 12 leads are flat'),
    ('a.npy', lambda p: np.save(p, with_nan()), (500, 'mV'), '1 samples have no value .* lead II at sample 42'),
    ('a.npy', lambda p: p.write_bytes(b''), (500, 'mV'), '0 bytes'),
    ('a.npy', lambda p: p.write_bytes(b'PK\x03\x04' + bytes(99)), (500, 'mV'), 'not a NPY file'),
    ('a.csv', lambda p: write_table(p, UV[:11].T), (500, 'uV'), 'the shape'),
    ('a.csv', lambda p: write_table(p, UV.T, head=','.join(LEADS[:11] + ('MLII',))), (500, 'uV'), 'no lead V6; found'),
    ('a.csv', lambda p: write_table(p, UV.T, head=','.join(LEADS[:11] + ('I',))), (500, 'uV'), 'no lead V6'),
    ('a.csv', lambda p: write_table(p, UV[[*range(12), 0]].T, head=','.join(LEADS + ('i',))), (500, 'uV'),
     'more than one lead I;'),
    ('a.csv', lambda p: write_table(p, UV.T, head=','.join(LEADS + ('x',))), (500, 'uV'), '12 columns of .* 13 names'),
    ('a.csv', lambda p: p.write_text('1,2,3\n4,five,6\n'), (500, 'uV'), r'not a table of numbers .*five.*in row 2'),
    ('a.csv', lambda p: p.write_text('\n\n'), (500, 'uV'), 'no rows'),
    ('a.csv', lambda p: p.write_bytes(np.random.default_rng(0).bytes(3000)), (500, 'uV'), 'a.csv: '),
    ('a.mat', lambda p: savemat(p, {'ecg': ECG}), (None, None), 'no variable ecgdata or val; found ecg'),
    ('a.mat', lambda p: savemat(p, {'val': UV}), (None, None), 'no a.hea beside it'),
    ('a.mat', lambda p: savemat(p, {'ecgdata': 'text'}), (None, None), 'not an array of real numbers'),
    ('a.mat', lambda p: p.write_bytes(b'MATLAB 7.3 MAT-file'.ljust(512) + b'\x89HDF'), (None, None), 'version 7.3'),
    ('a.mat', lambda p: p.write_bytes(bytes(40)), (None, None), 'not a readable MAT file'),
    ('a.hea', lambda p: p.write_bytes(b'\xff\x00garbage'), (None, None), 'not a WFDB header'),
    ('a.hea', lambda p: p.write_text('a 12 500 5000\nb.dat 16 1000/mV\n'), (None, None), '1 lines of signals'),
    ('a.hea', lambda p: p.write_text('a/3 12 500 5000\n'), (None, None), 'several segments'),
    ('a.hea', lambda p: p.write_text('a 1 1.2.3 5000\na.dat 16 200 0 0 0 0 0 I\n'), (None, None),
     'line 1: .* no number'),
    ('a.hea', lambda p: p.write_text('a 1 500 5000\na.dat 16x4 200 0 0 0 0 0 I\n'), (None, None), 'line 2: '),
    ('a.hea', lambda p: write_header(p, 'a.dat', gain='0'), (None, None), "'I' has no gain"),
    ('a.hea', lambda p: write_header(p, '/etc/passwd'), (None, None), "signal file '/etc/passwd'"),
    ('a.hea', lambda p: write_header(p, '../a.dat'), (None, None), 'signal file'),
    ('a.hea', lambda p: write_header(p, 'none.dat'), (None, None), "signal file 'none.dat'"),
    ('a.hea', lambda p: write_wfdb(p.parent, 'a', first='{name} 12 5 5000'), (None, None), 'a sampling rate of 5 Hz'),
])
def test_refusals_name_the_file(tmp_path, name, write, options, words):
    write(tmp_path / name)
    with pytest.raises(UserError, match=words) as caught:
        inputs.read_input(str(tmp_path / name), *options)
    assert str(tmp_path / name) in str(caught.value) and len(caught.value.lines) == 1


@pytest.mark.parametrize('change, words', [
    (dict(leads=LEADS[:11] + ('vx',)), 'no lead V6'),
    (dict(gain='1000/K'), "the unit 'K'"),
    (dict(first='{name} 12 500 6000'), 'a.mat: val has the shape'),
])
def test_a_header_that_does_not_fit_its_mat(tmp_path, change, words):
    write_val(tmp_path, 'a', **change)
    with pytest.raises(UserError, match=words):
        inputs.read_input(str(tmp_path / 'a.mat'), None, None)


def test_broken_wfdb_is_named(tmp_path, monkeypatch):
    pytest.importorskip('wfdb')
    write_wfdb(tmp_path, 'cut')
    os.truncate(tmp_path / 'cut.dat', 60000)
    write_wfdb(tmp_path, 'hole', np.where(np.arange(5000) == 7, -32768, UV))
    write_wfdb(tmp_path, 'form', form='99')
    for name, words in (('cut', 'wfdb cannot read it'), ('hole', 'no value'), ('form', 'wfdb cannot read it')):
        with pytest.raises(UserError, match=f'{name}.hea: .*{words}'):
            inputs.read_input(str(tmp_path / f'{name}.hea'), None, None)
    monkeypatch.setitem(sys.modules, 'wfdb', None)
    with pytest.raises(UserError, match='pip install wfdb'):
        inputs.read_input(str(tmp_path / 'form.hea'), None, None)


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil',)


def test_nothing_in_a_file_runs_or_takes_the_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save('pickled.npy', np.array([Evil()], dtype=object))
    whole = tmp_path / 'huge.npy'
    np.save(whole, ECG)
    whole.write_bytes(whole.read_bytes().replace(b'(12, 5000), }      ', b'(12, 500000000000),}', 1))
    savemat('bomb.mat', {'ecgdata': np.zeros((12, 800000))}, do_compression=True)
    with open('big.csv', 'wb') as file:
        file.truncate(inputs.FILE_LIMIT + 1)
    for name, words in (('pickled.npy', 'not a readable NPY'), ('huge.npy', 'not a readable NPY'),
                        ('bomb.mat', 'unpacks to more than 64 MiB'), ('big.csv', 'expected an ECG file of at most')):
        with pytest.raises(UserError, match=words):
            inputs.read_input(str(tmp_path / name), 500, 'mV')
    assert not os.path.exists('evil')


@pytest.mark.parametrize('options', [{'format': '4'}, {'format': '5'}, {'do_compression': True}])
def test_mat_files_are_read_as_scipy_reads_them(tmp_path, options):
    rng = np.random.default_rng(0)
    arrays = {f'a_{kind}': (100 * rng.random((3, 4))).astype(kind) for kind in ('f8', 'f4', 'i4', 'i2', 'u2', 'u1')}
    if options != {'format': '4'}:
        arrays.update(small=np.array([[7]], np.int16), cube=rng.random((2, 3, 4)), wide=np.array([[2**40]]),
                      cell=np.array([[1, 'x']], object), struct={'a': 1})
    savemat(tmp_path / 'a.mat', {**arrays, 'text': 'word', 'imaginary': np.array([[1j]])}, **options)
    data = (tmp_path / 'a.mat').read_bytes()
    found, names = read_arrays(data, {*arrays, 'text', 'imaginary'}, 2**20)
    assert set(names) == {*arrays, 'text', 'imaginary'}
    others = {name for name, array in found.items() if array is None}
    assert others == {'text', 'imaginary', 'cell', 'struct'} & set(names)
    for name, array in found.items():
        assert array is None or (array.dtype == arrays[name].dtype and np.array_equal(array, arrays[name])), name
    for end in (140, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError):
            read_arrays(data[:end], set(names), 2**20)


def rows_of(path):
    with open(path, newline='') as file:
        return list(csv.reader(file))


def predict(trained, tmp_path, *arguments):
    """Run predict.py with a copy of the model; returns (result, {name: tag}, {name: probability})."""
    output, answer = tmp_path / 'output', tmp_path / 'answer.csv'
    if not output.exists():
        shutil.copytree(os.path.join(trained, 'best_model'), output / 'best_model')
    result = run_script('predict.py', *overrides(f'output={output}', f'predict.answer={answer}', 'device=cpu'),
                        *arguments)
    tables = [dict(rows_of(path)[1:]) if path.exists() else None for path in (answer, output / 'probabilities.csv')]
    return (result, *tables)


def test_same_answer_in_every_format(trained, everything, tmp_path):
    own = tmp_path / 'own'
    shutil.copytree(everything, own)
    for name in ('rows.CSV', 'columns.npy') + (() if has_wfdb() else ('wfdb.hea', 'wfdb_order.hea')):
        (own / name).unlink()
    (own / 'broken.csv').write_text('not,an,ECG\n')
    result, tags, probabilities = predict(trained, tmp_path, '--input', own, '--sampling-rate', '500', '--unit', 'uV')
    # What says its unit itself is not touched by --unit; ecgdata says nothing, so there --unit is wrong.
    for name in ('broken.csv', 'mat.mat', 'mat_columns.mat'):
        refused(result, str(own / name))
    assert '3 of ' in result.stderr and f'not in {tmp_path}/answer.csv' in result.stderr
    assert 'columns.csv: no lead names' in result.stdout
    assert set(tags) == {os.path.splitext(file)[0] for file in os.listdir(own)} - {'broken', 'mat', 'mat_columns'} \
        - (set() if has_wfdb() else {'wfdb', 'wfdb_order'})
    assert len(set(tags.values())) == 1 and len(set(probabilities.values())) == 1
    result, alone, probability = predict(trained, tmp_path, '--input', own / 'mat.mat')
    assert result.returncode == 0, result.stderr
    assert alone == {'mat': tags['rows']}
    assert float(probability['mat']) == pytest.approx(float(probabilities['rows']), abs=2e-6)


def has_wfdb():
    try:
        import wfdb  # noqa: F401
    except ImportError:
        return False
    return True


def test_drawn_in_memory_as_process_draws(trained, drawn, competition, tmp_path):
    _, tags, probabilities = predict(trained, tmp_path, *overrides(f'data.root={drawn}'))
    result, own_tags, own = predict(trained, tmp_path, '--input', os.path.join(competition, 'val'))
    assert result.returncode == 0, result.stderr
    assert own_tags == tags and own == probabilities


def test_options_without_an_ecg_are_refused(trained, drawn, tmp_path):
    result, _, _ = predict(trained, tmp_path, *overrides(f'data.root={drawn}'), '--unit', 'mV')
    refused(result, '--input PATH')
    (tmp_path / 'a.csv').write_text('1,2\n')
    result, tags, _ = predict(trained, tmp_path, '--input', tmp_path / 'a.csv', '--unit', 'mV')
    assert len(refused(result, 'a.csv', 'the shape')) == 1 and tags is None


def test_an_empty_path_is_refused(trained):
    refused(run_script('predict.py', '--input', '', *overrides(f'output={trained}')), 'no such file or folder')


def test_the_others_are_predicted_and_scored(trained, tmp_path):
    os.mkdir(tmp_path / 'own')
    for name in 'ABC':
        np.save(tmp_path / 'own' / f'{name}.npy', ECG)
    (tmp_path / 'own' / 'broken.csv').write_text('I,II\n')
    (tmp_path / 'key.csv').write_text('name,tag\nbroken,1\nC,1\nB,0\nA,1\n')
    done = run_script('predict.py', '--input', str(tmp_path / 'own'), '--sampling-rate', '500', '--unit', 'mV', '--reference',
                      str(tmp_path / 'key.csv'), *overrides(f'output={trained}', f'predict.answer={tmp_path / "answer.csv"}'))
    assert done.returncode == 2 and 'scores on 3 records' in done.stdout, done.stderr
    assert [row[0] for row in csv.reader(open(tmp_path / 'answer.csv'))] == ['name', 'A', 'B', 'C']
    called = int((tmp_path / 'answer.csv').read_text().splitlines()[1][-1])  # the same for all three
    assert f'accuracy: {2 / 3 if called else 1 / 3:.4f}' in done.stdout
