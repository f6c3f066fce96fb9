"""The same ECG in the tables that people's programs write: its signal, or one line why not."""
import io

import numpy as np
import pandas as pd
import pytest

from tests.ecg.test_formats import ECG, LEADS, OTHER_ORDER, SIGNAL, UV
from utils.ecg import formats
from utils.running.errors import UserError

SECONDS = np.arange(5000) / 500
NAMES = ','.join(LEADS)
IN_UV, IN_MV = (500, 'uV'), (500, 'mV')


def body(rows, mark=','):
    return ''.join(mark.join(map(str, row)) + '\n' for row in rows)


def table(values=UV.T, mark=',', head=NAMES):
    return head.replace(',', mark) + '\n' + body(values, mark)


def with_times(times, name='time', rows=UV.T):
    return table([[time, *row] for time, row in zip(times, rows)], head=f'{name},{NAMES}')


def pandas(values, rows=None, columns=None, **options):
    return pd.DataFrame(values, rows, columns).to_csv(**options)


def savetxt(values, **options):
    target = io.StringIO()
    np.savetxt(target, values, **options)
    return target.getvalue()


def written(form, mark):
    return table([[form(value) for value in row] for row in UV.T], mark)


def numbered(word, count=12):
    return ','.join(f'{word}{number + 1}' for number in range(count))


IN_ORDER = [0, 1, 2, 3, 5, 4, *range(6, 12)]
OTHER_NAMES = ','.join(LEADS[lead] for lead in OTHER_ORDER)
CLOCKS = [f'2021-01-01 00:00:{time:06.3f}' for time in SECONDS]
MICRO = 'time (s),' + ','.join(f'{lead} (\u00b5V)' for lead in LEADS)
RIGHT = {
    # Index and header, as pandas, NumPy, R and MATLAB write them.
    'rows with index and header': (pandas(UV), IN_UV),
    'names after # and a space': (savetxt(UV.T, header=' '.join(LEADS)), IN_UV),
    'rows with index': (pandas(UV, header=False), IN_UV),
    'rows with header': (pandas(UV, index=False), IN_UV),
    'rows with index, mV': (pandas(ECG), IN_MV),
    'named rows with header': (pandas(UV, LEADS), IN_UV),
    'named rows under times': (pandas(UV, LEADS, SECONDS), (None, 'uV')),
    'columns with index and header': (pandas(UV.T), IN_UV),
    'columns with index': (pandas(UV.T, header=False), IN_UV),
    'every tenth is counted': (table(UV.T, head=','.join(map(str, range(0, 120, 10)))), IN_UV),
    'columns put in order': (body([IN_ORDER, *UV.T]), IN_UV),
    'float header': (body([np.arange(12.0), *UV.T]), IN_UV),
    'times without a name': (pandas(UV.T, SECONDS, LEADS), (None, 'uV')),
    'R, names of columns': (f'"",{numbered("V")}\n'
                            + body(np.c_[np.arange(1, 5001), UV.T]), IN_UV),
    'R, names of samples': (f'"",{numbered("V", 5000)}\n' + body(np.c_[np.arange(1, 13), UV]),
                            IN_UV),
    'R, a lead a line': (f'"",{numbered("V", 5000)}\n' + ''.join(
        f'"{lead}",' + body([row]) for lead, row in zip(LEADS, UV)), IN_UV),
    'R, no name above the index': (f'{NAMES}\n' + body(np.c_[np.arange(1, 5001), UV.T]), IN_UV),
    'MATLAB, columns': (f'{numbered("Var")}\n' + body(UV.T), IN_UV),
    'MATLAB, rows': (f'{numbered("Var", 5000)}\n' + body(UV), IN_UV),
    # Lines that begin with a number sign, lines above the table.
    'savetxt': (savetxt(UV[OTHER_ORDER].T, fmt='%d', delimiter=',', header=OTHER_NAMES), IN_UV),
    'savetxt, names otherwise parted': (savetxt(UV[OTHER_ORDER].T, fmt='%d', header=OTHER_NAMES),
                                        IN_UV),
    'number sign': (f'"#",{OTHER_NAMES}\n' + body(np.c_[np.arange(1, 5001), UV[OTHER_ORDER].T]),
                    IN_UV),
    '#time': (with_times(SECONDS, '#time'), (None, 'uV')),
    'what a device says': ('Sampling Rate (Hz): 500\nGain (digit/millivolt): 1000\n' + table(),
                           (None, None)),
    'name and value': ('Patient,123\nSampling rate,500\n' + table(), (None, 'uV')),
    'names with units above a line of nothing': (','.join(f'{lead} [uV]' for lead in LEADS)
                                                 + '\n\n' + body(UV.T), (500, None)),
    'names with a delimiter at their end': (f'{OTHER_NAMES},\n' + body(UV[OTHER_ORDER].T), IN_UV),
    'sep=': ('sep=;\r\n' + table(mark=';'), IN_UV),
    # Numbers and words.
    'thousands, tabs': (written('{:,}'.format, '\t'), IN_UV),
    'thousands, points': (written(lambda value: f'{value:,}'.replace(',', '.'), ';'), IN_UV),
    'thousands, quoted': (written('"{:,}"'.format, ','), IN_UV),
    'thousands, thin spaces': (written(lambda value: f'{value:,}'.replace(',', '\u202f'), ';'),
                               IN_UV),
    'decimal commas and times': (with_times(SECONDS, rows=ECG.T).replace(',', ';').replace(
        '.', ','), (None, 'mV')),
    'unicode minus': (table().replace('-', '\u2212'), IN_UV),
    'Chinese commas': (table(mark='\uff0c'), IN_UV),
    'Chinese names': (table(head=','.join(f'{lead}导联' for lead in LEADS)), IN_UV),
    'Taiwan': (table(head=','.join(f'{lead}\u5c0e\u806f' for lead in LEADS)), IN_UV),
    'empty cells to the right': ('\n'.join(f'{line},,,' for line in table().splitlines()), IN_UV),
    'prefixes': (table(head=','.join(f'Lead-{lead}' for lead in LEADS)), IN_UV),
    'units behind': (table(head=','.join(f'{lead}_uV' for lead in LEADS)), (500, None)),
    'a row of units': (table([['uV'] * 12, *UV.T]), (500, None)),
    'units beside the names': (''.join(f'{lead},uV,' + body([row])
                                       for lead, row in zip(LEADS, UV)), (500, None)),
    'a clock beside the times': (table([[time, *row, clock] for time, row, clock in zip(
        SECONDS, UV.T, CLOCKS)], head=f'time,{NAMES},timestamp'), (None, 'uV')),
    'over midnight': (with_times([f'2021-01-01 23:59:{time:06.3f}' if time < 60 else
                                  f'2021-01-02 00:00:{time - 60:06.3f}' for time in SECONDS + 55],
                                 ''), (None, 'uV')),
    'seconds, Chinese': (with_times(SECONDS, '\u65f6\u95f4(\u79d2)'), (None, 'uV')),
    'German names': (table(head=','.join(f'Ableitung {lead}' for lead in LEADS)), IN_UV),
    'minutes': (with_times(SECONDS / 60, 'Time [min]'), (None, 'uV')),
    'days': (with_times(44990.5 + SECONDS / 86400), (None, 'uV')),
    'quoted times, PhysioBank': ("'Elapsed time','" + NAMES.replace(',', "','") + "'\n"
                                 "'hh:mm:ss.mmm'" + ",'uV'" * 12 + '\n' + body(
        [[f"'0:{time:06.3f}'", *row] for time, row in zip(SECONDS, UV.T)]), (None, None)),
    'what merely rises': (with_times(SECONDS, 'odometer'), IN_UV),
    'what merely falls': (with_times(100 - SECONDS ** 2 / 100, 'battery'), IN_UV),
    'microseconds': (with_times(2000 * np.arange(5000)), (None, 'uV')),
    'nanoseconds': (with_times(1700000000 * 10**9 + 2000000 * np.arange(5000), 'timestamp'),
                    (None, 'uV')),
    'lines of nothing at the end': (table() + ',' * 11 + '\n\n', IN_UV),
    'two ends of lines': (table().replace('\n', '\r\r\n'), IN_UV),
}


@pytest.mark.parametrize('kind', RIGHT)
def test_the_signal_is_that_of_the_plain_layout(kind, tmp_path):
    text, given = RIGHT[kind]
    (tmp_path / 'a.csv').write_text(text, encoding='utf-8', newline='')
    signal, notes = formats.read_input(str(tmp_path / 'a.csv'), *given)
    assert np.array_equal(signal, SIGNAL), notes
    assert list(formats.find_inputs([str(tmp_path)])[0]) == ['a']


@pytest.mark.parametrize('encoding, mu', [('utf-8', '\u00b5'), ('cp1252', '\u00b5'),
                                          ('gbk', '\u03bc'), ('utf-16', '\u00b5'),
                                          ('utf-16-le', '\u03bc')])
def test_units_in_any_encoding(encoding, mu, tmp_path):
    text = with_times(SECONDS).replace(f'time,{NAMES}', MICRO.replace('\u00b5', mu))
    (tmp_path / 'a.csv').write_bytes(text.encode(encoding))
    signal, _ = formats.read_input(str(tmp_path / 'a.csv'), None, None)
    assert np.array_equal(signal, SIGNAL)


def test_an_inverted_lead_is_computed_and_not_believed(tmp_path):
    uv = np.where(np.arange(12) == 3, -1, 1)[:, None] * UV
    (tmp_path / 'a.csv').write_text(table(uv.T, head=NAMES.replace('aVR', '-aVR')))
    signal, notes = formats.read_input(str(tmp_path / 'a.csv'), *IN_UV)
    assert np.abs(signal - SIGNAL).max() < 0.0011  # in whole uV
    assert any("not used: '-aVR'" in note for note in notes)


GAP = pd.DataFrame(UV.T.astype(float), columns=LEADS)
GAP.iloc[1000:1500] = np.nan
SCALED = (ECG - ECG.min()) / (ECG.max() - ECG.min())
DEVIATIONS = (ECG - ECG.mean(axis=1, keepdims=True)) / ECG.std(axis=1, keepdims=True)
LOST = np.r_[SECONDS[:2500], SECONDS[2500:] + 2]
TWICE = np.tile(np.arange(2500), 2)
SHUFFLED = np.random.default_rng(0).permutation(5000)
REFUSED = {
    'empty cells': (GAP.to_csv(index=False), IN_UV, '6000 values .* lead I at sample 1000'),
    'empty cells, tabs': (GAP.to_csv(index=False, sep='\t'), IN_UV, 'lead I at sample 1000'),
    'empty cells at the start': (body([[''] * 12, *UV.T]), IN_UV, 'lead I at sample 0'),
    'rows left out': (GAP.dropna().to_csv(), IN_UV, 'from 999 to 1500 at sample 1000'),
    'an empty line': (table(UV.T[:9]) + '\n' + body(UV.T), IN_UV, '0 cells in line 11'),
    'a sample lost': (with_times(np.delete(SECONDS, 99), rows=np.delete(UV.T, 99, 0)), IN_UV,
                      'from 0.196 to 0.2 at sample 99'),
    'a row lost': (pandas(np.delete(UV.T, 99, 0), np.delete(np.arange(5000), 99), LEADS), IN_UV,
                   'from 98 to 100 at sample 99'),
    'a row twice': (with_times(np.insert(SECONDS, 99, SECONDS[99]), '', np.insert(
        UV.T, 99, UV.T[99], 0)), IN_UV, 'from 0.198 to 0.198 at sample 100'),
    'seconds lost': (with_times(LOST), IN_UV, 'from 4.998 to 7.0 at sample 2500'),
    'twice': (with_times(np.r_[SECONDS[:2500], SECONDS[2400:]], rows=np.r_[UV.T[:2500],
                                                                           UV.T[2400:]]),
              IN_UV, 'from 4.998 to 4.8 at sample 2500'),
    'backwards': (with_times(SECONDS[::-1], rows=UV.T[::-1]), IN_UV, 'equal steps upwards'),
    'an unknown unit of time': (with_times(SECONDS, 'Time [fortnights]'), IN_UV, 'expected times'),
    'milliseconds of another rate': (with_times(np.rint(np.arange(5000) / 0.36).astype(int), ''),
                                     IN_UV, '500 Hz by .*360|360 .*500'),
    'samples that begin again': (with_times(TWICE, 'sample'), IN_UV, 'from 2499 to 0 at sample 25'),
    'samples in no order': (with_times(SHUFFLED, 'sample', UV.T[SHUFFLED]), IN_UV, 'another order'),
    'two patients': (with_times(np.repeat([1, 2], 2500), 'patient_id'), IN_UV, 'another record'),
    'two records': (with_times(np.repeat(['a', 'b'], 2500), 'record'), IN_UV, 'from a to b at sam'),
    'a time is missing': (with_times(['', *SECONDS[1:]]), IN_UV, "'time'.* from  to 0.002 at s"),
    'a row that has lost some': ('# ' + NAMES.replace(',', ' ') + '\n1,2,3\n' + body(UV.T), IN_UV,
                                 "the line '1 2 3' above the table"),
    'a rate in each row': (with_times([500] * 5000, 'fs'), (250, 'uV'),
                            r"500 Hz by column 1 \('fs'\), and 250 by"),
    'a row of gains': (table([[1000] * 12, *UV.T]), IN_UV, 'is 1000 in all leads, as gains'),
    'two rates': (with_times(SECONDS), (250, 'uV'), '500 Hz by column 1 .*, and 250 by'),
    'times in words': (with_times(['noon', 'night'] * 2500), IN_UV, "says 'noon', expected times"),
    'every second row': (pandas(ECG.T[::2], np.arange(0, 5000, 2)), (None, 'mV'),
                         'nothing says its sampling rate'),
    'a gain in words': ('LSB 4.88 uV\n' + table(), IN_UV, "'LSB 4.88 uV' above the table"),
    **{line: (f'{line}\n' + table(), IN_UV, 'above the table is not understood') for line in (
        'Rate: 1000 Hz', 'Abtastrate: 1000', 'Fr\u00e9quence : 1000 Hz', 'Interval=\t1 ms',
        'dt = 0.001', '1bit=5\u00b5V', 'Amplitude: 1000 = 1mV', 'Lead order: V1-V6')},
    'an inverted lead': (table(head='-' + NAMES), IN_UV, "no lead I; found '-I'"),
    'an unknown unit': (table(head=','.join(f'{lead} (?V)' for lead in LEADS)), IN_UV,
                        "the unit '\\?V'"),
    '0 to 1': (table(SCALED.T), IN_MV, 'scaled to 0 to 1'),
    '-1 to 1': (table(2 * SCALED.T - 1), IN_MV, 'scaled to -1 to 1'),
    'deviations': (table(DEVIATIONS.T), IN_MV, 'mean of 0 and a deviation of 1'),
    'a largest value': (table((ECG / np.abs(ECG).max()).T), IN_MV, 'a largest value of 1'),
    'largest values': (table((ECG / np.abs(ECG).max(axis=1, keepdims=True)).T), IN_MV,
                       'scaled to -1 to 1'),  # as the largest of all leads are, too
    'each line in quotes': (''.join(f'"{line}"\n' for line in table().splitlines()), IN_UV,
                            'no row of numbers'),
    'a web page': ('<!DOCTYPE html><html>not found</html>', IN_UV, 'a web page'),
    'a pointer': ('version https://git-lfs.github.com/spec/v1\n', IN_UV, 'Git LFS'),
}


@pytest.mark.parametrize('kind', REFUSED)
def test_what_is_refused_says_why(kind, tmp_path):
    text, given, words = REFUSED[kind]
    (tmp_path / 'a.csv').write_text(text)
    with pytest.raises(UserError, match=f'a.csv: .*{words}') as caught:
        formats.read_input(str(tmp_path / 'a.csv'), *given)
    assert len(caught.value.lines) == 1
    assert list(formats.find_inputs([str(tmp_path)])[0]) == ['a']  # named, not passed over


# What says nothing of time, lead or unit: a line above the table, or a further column.
ROUTINE = ['Heart rate: 72 bpm', 'PR interval: 160 ms', 'QRS duration: 92 ms', 'QT/QTc: 380/410 ms',
           'Duration: 10 s', 'Filter: 0.05-150 Hz', 'Notch filter: 50 Hz', 'Low-pass 150 Hz',
           'Paper speed: 25 mm/s; gain: 10 mm/mV', 'Normal sinus rhythm rate 72',
           'Sinus rhythm with frequent PVCs', 'Order number: 4711', 'Patient: Pascal Dupont',
           'Inverted T waves in V1', 'Study from the 1990s', 'Minimal voltage criteria for LVH']
FURTHER = {'Heart rate (bpm)': [72] * 5000, 'PR interval': [160] * 5000, 'fs': [500] * 5000,
           'segment': ['P', 'QRS', 'T', 'bg'] * 1250, 'beat_id': np.arange(5000) // 400,
           'ECG clean': np.sin(np.arange(5000)).round(3), 'timezone': ['UTC'] * 5000,
           'Sample Index': np.arange(5000) % 256, 'Time (hh:mm:ss.mmm)': CLOCKS}


@pytest.mark.parametrize('line', ROUTINE)
def test_what_any_ecg_has_above_it_is_noted(line, tmp_path):
    path = tmp_path / 'ecg.csv'
    path.write_text(f'{line}\n{table()}')
    signal, notes = formats.read_input(str(path), *IN_UV)
    assert np.abs(signal - SIGNAL).max() < 0.001 and line[:9] in str(notes)


@pytest.mark.parametrize('name', FURTHER)
def test_columns_that_say_nothing_of_the_leads_are_noted(name, tmp_path):
    path = tmp_path / 'ecg.csv'
    path.write_text(table([[*row, more] for row, more in zip(UV.T, FURTHER[name])],
                          head=f'{NAMES},{name}'))
    signal, notes = formats.read_input(str(path), *IN_UV)
    assert np.abs(signal - SIGNAL).max() < 0.001


def test_lines_above_the_table_are_named(tmp_path):
    (tmp_path / 'a.csv').write_text('Recorded by device X\n' + table())
    signal, notes = formats.read_input(str(tmp_path / 'a.csv'), *IN_UV)
    assert np.array_equal(signal, SIGNAL)
    assert any("not used: 'Recorded by device X'" in note for note in notes)
