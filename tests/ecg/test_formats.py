import io
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.io import savemat

from tests.ecg.test_signals import ECG
from tests.helpers import PROJECT
from utils.ecg import formats
from utils.ecg.signals import LEADS
from utils.pictures import drawn
from utils.pictures.render import Renderer
from utils.running.errors import UserError
from utils.running.settings import Render

UV = np.rint(1000 * ECG).astype(int)
SIGNAL = ECG.astype(np.float32)
OTHER_ORDER = [3, 1, 2, 0, 4, 5, 11, 10, 9, 8, 7, 6]
BAD_MAT = os.path.join(PROJECT, 'tests', 'data', 'unknown_number_type.mat')


def write_header(path, signal_file, leads=LEADS, form='16', gain='1000/mV',
                 first='{name} 12 500 5000'):
    name = os.path.splitext(os.path.basename(path))[0]
    lines = [first.format(name=name)]
    lines += [f'{signal_file} {form} {gain} 16 0 0 0 0 {lead}' for lead in leads]
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
    savemat(path(folder, 'mat_turned.mat'), {'ecgdata': ECG.T}, do_compression=True)
    write_val(folder, 'physionet')
    backwards = {'leads': [lead.lower() for lead in LEADS[::-1]]}
    write_val(folder, 'physionet_order', 2 * UV[::-1] + 7, gain='2000(7)/mV', **backwards)
    write_wfdb(folder, 'wfdb')
    write_wfdb(folder, 'wfdb_order', UV[::-1], gain='1.0/uV', **backwards)
    write_table(path(folder, 'columns.csv'), UV.T)
    write_table(path(folder, 'rows.CSV'), UV, '\t')
    write_table(path(folder, 'named_order.csv'), np.c_[np.arange(5000), UV[OTHER_ORDER].T], ';',
                'time;' + ';'.join(f'"Lead {LEADS[i]}"' for i in OTHER_ORDER))
    np.save(path(folder, 'array.npy'), UV.astype(np.int16))
    np.save(path(folder, 'array_turned.npy'), np.asfortranarray(UV.T.astype(np.float64)))
    return folder


@pytest.fixture(scope='module')
def everything(tmp_path_factory):
    pytest.importorskip('wfdb', reason='PhysioNet\'s files are read with wfdb')
    return write_everything(str(tmp_path_factory.mktemp('inputs') / 'own'))


def of_itself(name):
    """Whether a format says its unit and rate itself."""
    return name.startswith(('mat', 'physionet', 'wfdb'))


@pytest.mark.parametrize('file', [
    'columns.csv', 'rows.CSV', 'named_order.csv', 'mat.mat', 'mat_turned.mat', 'physionet.mat',
    'physionet_order.mat', 'array.npy', 'array_turned.npy', 'wfdb.hea', 'wfdb_order.hea'])
def test_every_format_gives_the_same_signal(everything, file):
    given = (None, None) if of_itself(file) else (500, 'uV')
    signal, notes = formats.read_input(os.path.join(everything, file), *given)
    assert signal.dtype == np.float32 and np.array_equal(signal, SIGNAL)
    assert any('reordered' in note for note in notes) == ('order' in file)
    assert any('no lead names' in note for note in notes) == file.startswith(('col', 'rows', 'arr'))
    assert any('turned to (12, 5000)' in note for note in notes) == (file == 'mat_turned.mat')


# CSV.

def with_head(*lines, table=UV.T, delimiter=',', form='%d'):
    data = io.StringIO()
    np.savetxt(data, table, fmt=form, delimiter=delimiter)
    return '\n'.join([*lines, data.getvalue()])


def a_line(lead):
    return ','.join([LEADS[lead], *map(str, UV[lead])])


NAMES = ','.join(LEADS)
SECONDS = np.arange(5000) / 500
CSVS = {
    'index and numbered columns': (with_head(',' + ','.join(map(str, range(12))),
                                             table=np.c_[np.arange(5000), UV.T]), 500, 'uV'),
    'index and names': (with_head(f',{NAMES}', table=np.c_[np.arange(5000), UV.T]), 500, 'uV'),
    'units in parentheses': (with_head(','.join(f'{lead} (mV)' for lead in LEADS), table=ECG.T,
                                       form='%.3f'), 500, None),
    'greek mu': (with_head(','.join(f'{lead} [\u00b5V]' for lead in LEADS)), 500, None),
    'quoted row of units': (with_head("'Elapsed time','" + NAMES.replace(',', "','") + "'",
                                      "'seconds'" + ",'uV'" * 12, table=np.c_[SECONDS, UV.T],
                                      form='%g'), None, None),
    'comments': ('# exported\n# by a cart\n\n' + with_head(NAMES), 500, 'uV'),
    'spaces': (with_head(NAMES.replace(',', ' '), delimiter='  '), 500, 'uV'),
    'spaces alone': (with_head(delimiter=' ', table=ECG.T, form='%.3f'), 500, 'mV'),
    'milliseconds': (with_head(f't [ms],{NAMES}', table=np.c_[1000 * SECONDS, UV.T]), None, 'uV'),
    'milliseconds without a unit': (with_head(f'Time;{NAMES}'.replace(',', ';'), delimiter=';',
                                              table=np.c_[1000 * SECONDS, UV.T]), None, 'uV'),
    'rounded seconds': (with_head(f'time (s),{NAMES}', table=np.c_[SECONDS.round(2) + 1e6, UV.T],
                                  form='%.3f'), 500, 'uV'),
    'times alone in front': (with_head(table=np.c_[SECONDS, UV.T], form='%g'), None, 'uV'),
    'delimiter at the end': (with_head(NAMES).replace('\n', ',\n'), 500, 'uV'),
    'a lead a line': ('\n'.join(a_line(i) for i in OTHER_ORDER), 500, 'uV'),
    'a lead a line, numbered': ('\n'.join([','.join(['lead', *map(str, range(5000))]),
                                           *map(a_line, range(12))]), 500, 'uV'),
    'decimal commas and tabs': (with_head(table=ECG.T, form='%.3f', delimiter='\t')
                                .replace('.', ','), 500, 'mV'),
    'a patient': (with_head(f'{NAMES},who', table=np.c_[UV.T.astype(str), ['A'] * 5000],
                            form='%s'), 500, 'uV'),
    'clock': (with_head(f'time,{NAMES}', table=np.c_[['12:00:00'] * 5000, UV.T.astype(str)],
                        form='%s'), 500, 'uV'),
}


@pytest.mark.parametrize('kind', CSVS)
def test_csv_as_people_have_it(kind, tmp_path):
    text, rate, unit = CSVS[kind]
    for encoding in ('utf-8-sig', 'utf-16'):
        (tmp_path / 'a.csv').write_text(text, encoding=encoding)
        signal, notes = formats.read_input(str(tmp_path / 'a.csv'), rate, unit)
        assert np.array_equal(signal, SIGNAL), notes
        assert not any('do not follow' in note or 'resampled' in note for note in notes), notes
    found, skipped, problems = formats.find_inputs([str(tmp_path)])
    assert list(found) == ['a'] and not skipped and not problems


def an_empty_cell(path):
    lines = with_head(NAMES).splitlines()
    lines[43] = lines[43].replace(f',{UV[1, 42]},', ',,', 1)
    path.write_text('\n'.join(lines))


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil',)


IN_MV, IN_UV, NONE = (500, 'mV'), (500, 'uV'), (None, None)  # what is given for a file


@pytest.mark.parametrize('name, write, options, words', [
    ('a.npy', lambda p: np.save(p, ECG), NONE, 'rate or its unit; give --samp'),
    ('a.npy', lambda p: p.write_bytes(b''), IN_MV, '0 bytes'),
    ('a.npy', lambda p: np.savez(open(p, 'wb'), ECG), IN_MV, "not what its name says, but a zip"),
    ('a.npy', lambda p: np.save(p, np.array([Evil()], object)), IN_MV, 'numpy cannot read it'),
    ('a.csv', lambda p: open(p, 'wb').truncate(2**26 + 1), IN_UV, 'at most 64 MiB'),
    ('a.csv', an_empty_cell, IN_UV, 'missing .NaN, an empty cell.* lead II at sample 42'),
    ('a.csv', lambda p: p.write_text(with_head(f'{NAMES},x')), IN_UV, '12 columns of .* 13 names'),
    ('a.csv', lambda p: p.write_text(f'{"1," * 11}2\n4,five{",6" * 10}'), IN_UV,
     "'five' in row 2 of the numbers"),
    ('a.csv', lambda p: p.write_text(with_head(NAMES, NAMES.lower())), IN_UV, 'named twice'),
    ('a.csv', lambda p: p.write_text('\n\n'), IN_UV, 'no rows'),
    ('a.csv', lambda p: p.write_text(CSVS['times alone in front'][0]), (250, 'uV'),
     "500 Hz by column 1 .*, and 250 by --sampling-rate"),
    ('a.mat', lambda p: savemat(p, {'val': UV}), NONE, 'no a.hea beside it'),
    ('a.mat', lambda p: savemat(p, {'ecgdata': ECG[:, ::2]}), NONE, 'says its sampling rate'),
    ('a.mat', lambda p: savemat(p, {'ecgdata': ECG}), (250, None), '10 s at 500 Hz, as in'),
    ('a.hea', lambda p: p.write_bytes(b'\xff\x00garbage'), NONE, 'not a WFDB header'),
    ('a.hea', lambda p: p.write_text('a/3 12 500 5000\n'), NONE, 'header of one segment'),
    ('a.hea', lambda p: p.write_text('a 1 500 5000\na.dat 16x4 200\n'), NONE, 'per frame'),
    ('a.hea', lambda p: write_header(p, 'a.dat', gain='0'), NONE, 'and a gain, such as'),
    ('a.hea', lambda p: write_header(p, '/etc/passwd'), NONE, "signal file '/etc/passwd'"),
    ('a.hea', lambda p: write_header(p, 'none.dat'), NONE, "signal file 'none.dat'"),
    ('a.hea', lambda p: write_wfdb(p.parent, 'a', first='a 12 5 5000'), NONE, 'rate of 5 Hz'),
])
def test_refusals_name_the_file(tmp_path, monkeypatch, name, write, options, words):
    if name.endswith('.hea'):
        pytest.importorskip('wfdb')
    monkeypatch.chdir(tmp_path)
    write(tmp_path / name)
    with pytest.raises(UserError, match=words) as caught:
        formats.read_input(str(tmp_path / name), *options)
    assert str(tmp_path / name) in str(caught.value) and len(caught.value.lines) == 1
    assert not os.path.exists('evil')


# WFDB and PhysioNet's MAT.

@pytest.mark.parametrize('change, words', [
    (dict(gain='1000/K'), "the unit 'K'"),
    (dict(first='{name} 12 500 6000'), r'a.mat: val has the shape \(12, 5000\), .* \(12, 6000\)'),
])
def test_a_header_that_does_not_fit_its_mat(tmp_path, change, words):
    pytest.importorskip('wfdb')
    write_val(tmp_path, 'a', **change)
    with pytest.raises(UserError, match=words):
        formats.read_input(str(tmp_path / 'a.mat'), None, None)


def test_broken_wfdb_is_named(tmp_path, monkeypatch):
    pytest.importorskip('wfdb')
    write_wfdb(tmp_path, 'cut')
    os.truncate(tmp_path / 'cut.dat', 60000)
    write_wfdb(tmp_path, 'hole', np.where(np.arange(5000) == 7, -32768, UV))
    write_wfdb(tmp_path, 'form', form='99')
    write_wfdb(tmp_path, 'lfs')
    (tmp_path / 'lfs.dat').write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\n')
    for name, words in (('cut', 'wfdb cannot'), ('hole', 'missing'), ('form', 'wfdb cannot'),
                        ('lfs', 'lfs.dat is .* a pointer of Git LFS')):
        with pytest.raises(UserError, match=f'{name}.hea: .*{words}'):
            formats.read_input(str(tmp_path / f'{name}.hea'), None, None)
    monkeypatch.setitem(sys.modules, 'wfdb', None)
    with pytest.raises(UserError, match='pip install wfdb'):
        formats.read_input(str(tmp_path / 'form.hea'), None, None)


def test_a_long_recording_of_any_name_is_read_in_part(tmp_path):
    pytest.importorskip('wfdb')
    write_wfdb(tmp_path, '\u5fc3\u7535.v1', np.c_[UV, UV, UV], first='name 12 500 15000')
    signal, notes = formats.read_input(str(tmp_path / '\u5fc3\u7535.v1.hea'), None, None)
    assert np.array_equal(signal, SIGNAL) and '30 s long; the first 10 s' in notes[0]


@pytest.mark.parametrize('change', [
    dict(first='{name} 12 500 5000 2014-05-08 05:05:15'), dict(first='{name} 12 500 5000 2006'),
    dict(first='{name} 12 500 5000 09:49:17 05-May-2020'), dict(first='{name} 12 500 0'),
    dict(first='{name} 12 500 5000 10:00:00 1/2/89'), dict(first='{name} 12 500'),
    dict(gain='1/\u00b5V'), dict(leads=[f'Lead-{lead}' for lead in LEADS])])
def test_what_does_not_matter_in_a_header_stops_nothing(change, tmp_path):
    pytest.importorskip('wfdb')
    write_wfdb(tmp_path, 'a', **change)
    signal, notes = formats.read_input(str(tmp_path / 'a.hea'), None, None)
    assert np.array_equal(signal, SIGNAL) and not notes


def test_records_in_two_files_and_without_an_optional_one(tmp_path):
    pytest.importorskip('wfdb')
    for half in (0, 6):
        UV[half:half + 6].T.astype('<i2').tofile(tmp_path / f'a_{half}.dat')
    lines = [f'a_{at // 6 * 6}.dat 16 1000/mV 16 0 0 0 0 {lead}' for at, lead in enumerate(LEADS)]
    lines += [f'a.xyz 16 1000/mV 16 0 0 0 0 {name}' for name in ('vx', 'vy', 'vz')]
    (tmp_path / 'a.hea').write_text('\n'.join(['a 15 500 5000', *lines]))
    found, notes, problems = formats.find_inputs([str(tmp_path)])
    assert list(found) == ['a'] and not notes and not problems
    signal, notes = formats.read_input(found['a'], None, None)
    assert np.array_equal(signal, SIGNAL) and 'vx, vy, vz not used: the file a.xyz is' in notes[0]


# Philips' XML, as the package sierraecg gives it.

def test_xml_of_a_cart(tmp_path, monkeypatch):
    text = '<restingecgdata><signalresolution>5</signalresolution></restingecgdata>'
    (tmp_path / 'a.xml').write_text(text, encoding='utf-16')
    monkeypatch.setitem(sys.modules, 'sierraecg', None)
    with pytest.raises(UserError, match='a.xml: .*pip install sierraecg'):
        formats.read_input(str(tmp_path / 'a.xml'), None, None)
    leads = [SimpleNamespace(label=lead, samples=(row // 5).astype(np.int16), sampling_freq=500)
             for lead, row in zip(LEADS, UV)]
    monkeypatch.setitem(sys.modules, 'sierraecg',
                        SimpleNamespace(read_file=lambda path: SimpleNamespace(leads=leads)))
    assert list(formats.find_inputs([str(tmp_path)])[0]) == ['a']
    signal, notes = formats.read_input(str(tmp_path / 'a.xml'), None, None)
    assert np.abs(signal - ECG).max() < 0.0051 and not notes
    (tmp_path / 'b.xml').write_text('<a/>')
    with pytest.raises(UserError, match="b.xml: XML, but not of Philips' carts"):
        formats.read_input(str(tmp_path / 'b.xml'), None, None)


# Folders.

def test_find_one(everything, tmp_path):
    (tmp_path / 'notes.doc').write_text('x')
    with pytest.raises(UserError, match='no such file'):
        formats.find_inputs([str(tmp_path / 'none.csv')])
    with pytest.raises(UserError, match='not an ECG file'):
        formats.find_inputs([str(tmp_path / 'notes.doc')])
    for given, name, path in (('wfdb', 'wfdb', 'wfdb.hea'), ('wfdb.dat', 'wfdb', 'wfdb.hea'),
                              ('wfdb.hea', 'wfdb', 'wfdb.hea'), ('rows.CSV', 'rows', 'rows.CSV'),
                              ('physionet.hea', 'physionet', 'physionet.mat'),
                              ('physionet.mat', 'physionet', 'physionet.mat')):
        found, _, _ = formats.find_inputs([os.path.join(everything, given)])
        assert found == {name: os.path.join(everything, path)}


def test_find_in_a_folder(everything, tmp_path):
    own = str(tmp_path / 'own')
    shutil.copytree(everything, own)
    others = {'labels.csv': 'name,tag\nA,1\n', 'answer.csv': 'name,tag\nA,1\n',
              'report.doc': 'x', 'onehot.csv': 'A' + ',0' * 11 + ',1\n',
              'probabilities.csv': 'name,abnormal\nA,0.5\n', 'empty.csv': ''}
    for name, text in others.items():
        (tmp_path / 'own' / name).write_text(text)
    (tmp_path / 'own' / '._A.mat').write_bytes(b'x')
    (tmp_path / 'own' / 'sub').mkdir()
    np.save(tmp_path / 'own' / 'columns.npy', ECG)
    found, notes, problems = formats.find_inputs([own])
    assert list(found) == ['array', 'array_turned', 'empty', 'mat', 'mat_turned', 'named_order',
                           'physionet', 'physionet_order', 'rows', 'wfdb', 'wfdb_order']
    others.pop('empty.csv')  # it may be an ECG that was not copied: reading it says so
    note, = notes
    assert all(name in note for name in [*others, 'sub']) and 'dat' not in note
    (name, line), = problems
    assert name == 'columns' and 'columns.csv' in line and 'columns.npy' in line
    for file in ('report.doc', 'labels.csv'):
        shutil.copy(os.path.join(own, file), tmp_path)
    with pytest.raises(UserError, match='no ECGs directly in it') as caught:
        formats.find_inputs([str(tmp_path)])
    assert 'labels.csv' in caught.value.lines[1]


def test_several_paths_and_what_may_be_an_ecg(everything, tmp_path):
    for name in ('a.dat', 'b.edf', 'c.xlsx', 'notes.txt', 'labels.csv'):
        (tmp_path / name).write_text('name,tag\nx,1\n')
    mat = os.path.join(everything, 'mat.mat')
    found, notes, problems = formats.find_inputs([mat, mat, str(tmp_path), 'none.mat',
                                                 os.path.join(everything, 'wfdb.hea')])
    assert list(found) == ['mat', 'wfdb'] and 'labels.csv, notes.txt' in notes[0]
    assert [name for name, _ in problems] == ['a', 'b', 'c', 'none']
    assert 'a.dat' in problems[0][1] and '.hea beside it' in problems[0][1]


@pytest.mark.parametrize('name, data, words', [
    ('a.mat', b'# Created by Octave 6.4\n# name: ecgdata\n', "Octave's text; save it there"),
    ('a.npy', b'version https://git-lfs.github.com/spec/v1\n', 'a pointer of Git LFS'),
    ('a.mat', b'<!doctype html><html>', 'a web page'), ('a.npy', b'\x80\x04x', 'a Python pickle'),
    ('a.mat', b'\x93NUMPY\x01', 'an NPY file')])
def test_what_another_thing_is_is_said(name, data, words, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=f'{name}: not what its name says, but {words}'):
        formats.read_input(str(tmp_path / name), *IN_MV)


def test_draw_inputs(everything, tmp_path):
    found = {name: os.path.join(everything, f'{name}.mat')
             for name in ('mat_turned', 'physionet', 'mat')}
    found['crashes'] = BAD_MAT
    found['gone'] = str(tmp_path / 'gone.npy')
    render = Render(size=64)
    names, pictures, notes, problems = drawn.draw_inputs(found, render, None, None, 2)
    assert names == ['mat_turned', 'physionet', 'mat'] and len(pictures) == 3
    picture = Renderer(64, render.mv_per_lead, render.line_width, True).draw(SIGNAL)
    for index in range(3):
        assert np.array_equal(pictures.read(index, 0), picture)
    assert len(notes) == 1 and 'mat_turned.mat: ecgdata is (5000, 12)' in notes[0]
    assert [name for name, _ in problems] == ['crashes', 'gone']
    # What scipy does with that file is not defined: mostly it crashes, now and then it raises.
    assert any(words in problems[0][1] for words in ('crashed the process', 'scipy cannot read it'))
    assert 'No such file' in problems[1][1]


@pytest.mark.parametrize('file, text, words', [
    ('a.csv', 'I,II,' + '[' * 300_000 + '\n1,2,3\n' * 9, 'larger than field limit'),
    ('a.csv', f'a{" " * 97}((,I,II,aVR\n' * 9000, 'no row of numbers'),
    ('a.csv', f'a{" " * 97}((,I,II\n' * 9000 + 'V3\n' * 9000 + '1,2\n', 'in each line below'),
    ('a.hea', 'a 12 ' + '5' * 300_000 + '\n', '0 lines of signals')])
def test_an_endless_word_is_refused_and_not_pondered(file, text, words, tmp_path):
    (tmp_path / file).write_text(text)
    code = ('import sys; from utils.ecg import formats\n'
            'for path in formats.find_inputs([sys.argv[1]])[0].values():\n'
            '    formats.read_input(path, 500, "mV")')
    done = subprocess.run([sys.executable, '-c', code, str(tmp_path)], cwd=PROJECT,
                          capture_output=True, text=True, timeout=100)  # that once went by
    assert words in done.stderr, done.stderr[-500:]
