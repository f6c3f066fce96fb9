"""ECGs that never were in the competition's layout -> signals and pictures as the network knows them.

Formats: MAT (`ecgdata`, or PhysioNet's `val` with its .hea), WFDB (.hea and .dat), CSV and NPY. What a file says of its
sampling rate, unit and leads counts; what it leaves open must be given, or it is refused: a wrong unit or lead gives a
wrong answer that looks like any other. Knows nothing of Paddle.
"""
import math
import os
import re
import shutil
import tempfile
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np

from utils.errors import UserError
from utils.mat import read_arrays
from utils.records import CREDIBLE_MV, LEADS, SAMPLES, SAMPLING_RATE

EXTENSIONS = ('.mat', '.hea', '.csv', '.npy')
SECONDS = SAMPLES / SAMPLING_RATE
MIN_SECONDS = 2  # a shorter strip may not hold two beats
RATES = (50, 20000)  # Hz
PER_MV = {'mv': 1, 'uv': 1000, '\u00b5v': 1000, '\u03bcv': 1000, 'v': 0.001}  # micro sign and Greek mu
BASELINE_MV = 1.0  # a lead's median is nearer to 0 in what a model was trained on; an electrode's offset says nothing
FLAT_LEADS = 6  # more of the twelve without a wave are no recording
TINY_MV = 0.05  # the largest wave of a heart is above it; less means another unit
FILE_LIMIT = 64 * 2**20  # bytes, also of what a MAT file unpacks to
HEADER_LIMIT = 2**20  # bytes
GIVE_RATE = 'give it with --sampling-rate HZ'
GIVE_UNIT = 'give it with --unit mV or --unit uV'


class Raw(NamedTuple):
    """What a file holds.

    values: array (n, samples), one row per lead; leads: list of n str, or None where the file names none
    rate: float, Hz, or None; units: list of n str, or None; notes: list of str
    """
    values: np.ndarray
    leads: list
    rate: float
    units: list
    notes: list


class Channel(NamedTuple):
    """One signal of a WFDB header; gain is in steps per unit, 0 where the header gives none."""
    file: str
    gain: float
    baseline: float
    unit: str
    lead: str


class Header(NamedTuple):
    """A WFDB header of one segment: rate in Hz, samples per signal, and the signals."""
    rate: float
    samples: int
    channels: list


class DrawnPictures:
    """Pictures in memory, read as images.Pictures are; kept as PNG, which takes a tenth of the room."""

    def __init__(self):
        self.encoded = []

    def add(self, picture):
        """Keep one picture, uint8 array (size, size)."""
        self.encoded.append(cv2.imencode('.png', picture)[1])

    def __len__(self):
        return len(self.encoded)

    def read(self, index, epoch):
        """One picture, uint8 array (size, size); the epoch changes nothing."""
        return cv2.imdecode(self.encoded[index], cv2.IMREAD_GRAYSCALE)


def find_inputs(path):
    """The files that hold one ECG each.

    path: str, a folder (its subfolders are not searched) or a file; of WFDB any of its files or the record's name
    Returns: {name: path}, sorted by name
    Raises: UserError where there is none, or a name is there twice
    """
    if not os.path.isdir(path):
        return dict([_find_one(path)])
    there = {entry.name: entry.path for entry in os.scandir(path) if not entry.name.startswith('.')}
    found = {}
    for file in sorted(there):
        name, extension = os.path.splitext(file)
        if extension.lower() not in EXTENSIONS or (extension.lower() == '.hea' and _mat_of(os.path.join(path, name))):
            continue
        if name in found:
            raise UserError(f'{there[file]}: the record {name} is there twice, also as {found[name]}; move one away')
        found[name] = there[file]
    if not found:
        raise UserError(f'{path}: no ECGs directly in it, expected files that end in {", ".join(EXTENSIONS)}; name the '
                        'folder that holds them')
    return dict(sorted(found.items()))


def _find_one(path):
    name, extension = os.path.splitext(os.path.basename(path))
    if extension.lower() == '.dat':
        path = _with_extension(os.path.splitext(path)[0], '.hea') or path
    elif extension.lower() not in EXTENSIONS and _with_extension(path, '.hea'):
        name, path = os.path.basename(path), _with_extension(path, '.hea')
    if not os.path.exists(path):
        raise UserError(f'{path}: no such file or folder; expected an ECG or a folder of ECGs')
    if os.path.splitext(path)[1].lower() not in EXTENSIONS:
        raise UserError(f'{path}: not an ECG file, expected one that ends in {", ".join(EXTENSIONS)}')
    if os.path.splitext(path)[1].lower() == '.hea':
        path = _mat_of(os.path.splitext(path)[0]) or path
    return name, path


def _mat_of(stem):
    """The MAT file whose header is `stem`.hea, PhysioNet's way, or None: that one ECG is read from both."""
    return None if _with_extension(stem, '.dat') else _with_extension(stem, '.mat')


def _with_extension(stem, extension):
    """The path of the file `stem` + `extension`, in lower or upper case, or None."""
    return next((stem + e for e in (extension, extension.upper()) if os.path.isfile(stem + e)), None)


def read_input(path, sampling_rate, unit):
    """Read one ECG.

    path: str, as find_inputs() gives it
    sampling_rate: float, Hz, or None; unit: 'mV', 'uV' or None: what holds for files that do not say it themselves
    Returns: (name, signal, notes); signal: float32 array (12, 5000), mV, 500 Hz, rows in LEADS order; notes: strings
    Raises: UserError that names the file, what was found and what was expected
    """
    name, extension = os.path.splitext(os.path.basename(path))
    size = os.path.getsize(path)
    if not os.path.isfile(path) or not 0 < size <= FILE_LIMIT:
        raise UserError(f'{path}: {size} bytes, expected an ECG file of at most {FILE_LIMIT >> 20} MiB that is not '
                        'empty; cut a long recording first, or copy the file again')
    reader = {'.mat': _read_mat, '.hea': _read_wfdb, '.csv': _read_csv, '.npy': _read_npy}[extension.lower()]
    raw = reader(path, sampling_rate, unit)
    rate = raw.rate or sampling_rate
    if not rate:
        raise UserError(f'{path}: nothing says its sampling rate; {GIVE_RATE}')
    _check_rate(path, rate)
    if raw.units is None and unit is None:
        raise UserError(f'{path}: nothing says its unit; {GIVE_UNIT}')
    notes = list(raw.notes)
    values, units, more = _choose_leads(path, raw.values, raw.leads, raw.units or [unit] * len(raw.values))
    notes += more
    values = _to_mv(path, values, units)
    values, more = _to_zero(values, rate)
    notes += more
    values, more = _to_ten_seconds(path, values, rate)
    _check_size(path, values)
    notes += more + _check_leads(path, values, raw.leads is not None)
    return name, values, [f'{path}: {note}' for note in notes]


def _check_rate(path, rate):
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f'{path}: a sampling rate of {rate:g} Hz, expected {RATES[0]} to {RATES[1]} Hz')


def _choose_leads(path, values, leads, units):
    """The twelve leads in LEADS order: (values, their units, notes)."""
    if values.ndim != 2 or values.dtype.kind not in 'iuf':
        raise UserError(f'{path}: an array of shape {values.shape} and type {values.dtype}, expected real numbers, 12 '
                        'leads x samples')
    if leads is None:
        if len(values) != len(LEADS):
            raise UserError(f'{path}: {len(values)} leads, expected 12')
        return values, units, [f'no lead names there; taken as {", ".join(LEADS)}']
    known = [_plain(lead) for lead in leads]
    missing = [lead for lead in LEADS if lead.upper() not in known]
    twice = [lead for lead in LEADS if known.count(lead.upper()) > 1]
    if missing or twice:
        raise UserError(f'{path}: {"no" if missing else "more than one"} lead {", ".join(missing or twice)}; found '
                        f'{", ".join(map(repr, leads[:20]))}, expected each of {", ".join(LEADS)} once')
    chosen = [known.index(lead.upper()) for lead in LEADS]
    unused = [lead for i, lead in enumerate(leads) if i not in chosen]
    notes = [f'not used: {", ".join(map(repr, unused[:20]))}'] if unused else []
    if chosen != sorted(chosen):
        notes.append('leads reordered by their names')
    return values[chosen], [units[i] for i in chosen], notes


def _plain(lead):
    """A lead's name as one compares it: 'lead avr' and 'aVR' are one."""
    return re.sub(r'^LEAD[ _-]*', '', lead.strip().upper())


def _to_mv(path, values, units):
    finite = np.isfinite(values)
    if not finite.all():
        lead, sample = np.argwhere(~finite)[0]
        raise UserError(f'{path}: {(~finite).sum()} samples have no value (NaN) or are infinite, the first in lead '
                        f'{LEADS[lead]} at sample {sample}; expected finite numbers')
    unknown = [unit for unit in units if unit.lower() not in PER_MV]
    if unknown:
        raise UserError(f'{path}: the unit {unknown[0]!r}, expected mV, uV or V')
    return values.astype(np.float64) / np.array([PER_MV[unit.lower()] for unit in units])[:, None]


def _to_zero(values, rate):
    """Take off what an electrode's offset adds: the picture shows mV from 0, not from a baseline."""
    baseline = np.median(values[:, :math.ceil(SECONDS * rate)], axis=1, keepdims=True) if values.size else 0
    far = [lead for lead, each in zip(LEADS, np.ravel(baseline)) if abs(each) > BASELINE_MV]
    if not far:
        return values, []
    return values - baseline, [f'the baseline of {", ".join(far)} is up to {np.abs(baseline).max():.3g} mV from 0; each '
                               "lead's median was taken off"]


def _to_ten_seconds(path, values, rate):
    """The first 10 s at 500 Hz: (float32 array (12, 5000), notes)."""
    seconds = values.shape[1] / rate
    if seconds < MIN_SECONDS:
        raise UserError(f'{path}: {values.shape[1]} samples at {rate:g} Hz are {seconds:.2f} s, expected 10 s, at '
                        f'least {MIN_SECONDS} s')
    notes = []
    values = values[:, :math.ceil(SECONDS * rate)]
    if rate != SAMPLING_RATE:
        from scipy.signal import resample_poly
        ratio = Fraction(SAMPLING_RATE / rate).limit_denominator(1000)
        # A line through the ends is taken off first: a baseline that is not 0 would ring there.
        values = resample_poly(values, ratio.numerator, ratio.denominator, axis=1, padtype='line')
        notes.append(f'resampled from {rate:g} to {SAMPLING_RATE} Hz')
    if seconds > SECONDS + 0.5 / SAMPLING_RATE:
        notes.append(f'{seconds:.4g} s long; the first 10 s are used, the rest is cut off')
    elif values.shape[1] < SAMPLES:
        notes.append(f'{seconds:.4g} s long; padded with 0 mV at its end to 10 s, which no model was trained on')
    signal = np.zeros((len(LEADS), SAMPLES), dtype=np.float32)
    values = values[:, :SAMPLES]
    signal[:, :values.shape[1]] = values.clip(-1e9, 1e9)  # what float32 can hold; the caller refuses such values
    return signal, notes


def _check_size(path, signal):
    largest = np.abs(signal).max()
    if not TINY_MV <= largest <= CREDIBLE_MV:
        raise UserError(f'{path}: its largest value is {largest:.3g} mV, expected {TINY_MV} to {CREDIBLE_MV} mV; is '
                        'the unit right (--unit mV or --unit uV), and is it an ECG?')


def _check_leads(path, signal, named):
    """Notes on leads that look wrong.

    named: bool, the file says which lead is which; one that does not is refused where its order cannot be right
    """
    flat = [lead for lead, row in zip(LEADS, signal) if np.ptp(row) == 0]
    if len(flat) > FLAT_LEADS:
        raise UserError(f'{path}: {len(flat)} of 12 leads are flat ({", ".join(flat)}), expected an ECG')
    notes = [f'{", ".join(flat)} flat: a lead that fell off?'] if flat else []
    wrong = _wrong_limb_leads(signal)
    if wrong and not named and not set(flat) & set(LEADS[:6]):
        raise UserError(f'{path}: no lead names there, and the first six cannot be {", ".join(LEADS[:6])}: '
                        f'{", ".join(wrong)} do not follow from I and II; put the leads in the order {", ".join(LEADS)}, '
                        'or give a file that names them')
    return notes + ([f'{", ".join(wrong)} do not follow from I and II: are the leads what they are called?'] if wrong else [])


def _wrong_limb_leads(signal):
    """Which of III, aVR, aVL and aVF are not what Einthoven and Goldberger make of I and II."""
    one, two, *others = signal[:6] - np.median(signal[:6], axis=1, keepdims=True)
    expected = (two - one, -(one + two) / 2, one - two / 2, two - one / 2)
    return [lead for lead, lead_is, should_be in zip(LEADS[2:6], others, expected)
            if np.std(should_be - lead_is) > 0.5 * np.std(lead_is)]


def _read_mat(path, sampling_rate, unit):
    with open(path, 'rb') as file:
        data = file.read(FILE_LIMIT)
    if b'\x89HDF' in (data[:4], data[512:516]):
        raise UserError(f'{path}: a MAT file of version 7.3 (HDF5), expected version 4 or 5; save it in MATLAB with '
                        "save(..., '-v7') or in Python with scipy.io.savemat")
    try:
        found, names = read_arrays(data, ('ecgdata', 'val'), FILE_LIMIT)
    except ValueError as error:
        raise UserError(f'{path}: not a readable MAT file ({error}); it may be truncated: copy it again') from None
    variable = next((name for name in ('ecgdata', 'val') if name in found), None)
    if variable is None:
        raise UserError(f'{path}: no variable ecgdata or val; found {", ".join(names[:20]) or "no variable"}')
    values = found[variable]
    if values is None:
        raise UserError(f'{path}: {variable} is not an array of real numbers, expected 12 leads x samples')
    if variable == 'ecgdata':
        values = _leads_as_rows(path, values)
        usual = values.shape[1] == SAMPLES  # the competition's 10 s at 500 Hz, in mV
        if usual and sampling_rate not in (None, SAMPLING_RATE):
            raise UserError(f'{path}: {SAMPLES} samples of ecgdata are 10 s at {SAMPLING_RATE} Hz, as in the competition, '
                            f'and --sampling-rate says {sampling_rate:g}; predict it without that option, or save it as NPY')
        return Raw(values, list(LEADS), SAMPLING_RATE if usual else sampling_rate, [unit or 'mV'] * len(values), [])
    header = _with_extension(os.path.splitext(path)[0], '.hea')
    if header:
        return _scale_val(path, values, read_header(header), header)
    if not sampling_rate or not unit:
        raise UserError(f'{path}: val, and no {os.path.splitext(os.path.basename(path))[0]}.hea beside it that says '
                        'its gain, rate and leads; put it there, or give --sampling-rate and --unit')
    return Raw(_leads_as_rows(path, values), None, None, None, [])


def _scale_val(path, values, header, header_path):
    if values.ndim != 2 or values.dtype.kind not in 'iuf' or len(values) != len(header.channels) \
            or header.samples != values.shape[1]:
        raise UserError(f'{path}: val has the shape {values.shape} and the type {values.dtype}, expected numbers of '
                        f'the shape ({len(header.channels)}, {header.samples}) as {header_path} says')
    _refuse_uncalibrated(header, header_path)
    steps = np.array([[channel.baseline, channel.gain] for channel in header.channels])
    values = values.astype(np.float64)
    if values.min(initial=0) == -32768:
        values[values == -32768] = np.nan  # WFDB's "no value" in 16 bits
    return Raw((values - steps[:, :1]) / steps[:, 1:], [channel.lead for channel in header.channels], header.rate,
               [channel.unit for channel in header.channels], [])


def _read_wfdb(path, sampling_rate, unit):
    header = read_header(path)
    _refuse_uncalibrated(header, path)
    folder = os.path.dirname(path)
    for file in sorted({channel.file for channel in header.channels}):
        # A plain name only: a header could name any file of this machine.
        if os.path.basename(file) != file or not os.path.isfile(os.path.join(folder, file)):
            raise UserError(f'{path}: names the signal file {file!r}, expected one beside the header; copy it there')
        if os.path.getsize(os.path.join(folder, file)) > 64 * FILE_LIMIT:
            raise UserError(f'{os.path.join(folder, file)}: more than {FILE_LIMIT >> 14} GiB, cut the recording first')
    _check_rate(path, header.rate)
    try:
        import wfdb
    except ImportError as error:
        raise UserError(f'{path}: WFDB files are read with the package wfdb, which cannot be imported ({error}): '
                        'pip install wfdb') from None
    # Only what is used, so that a recording of a day does not fill the memory.
    until = min(math.ceil(SECONDS * header.rate), header.samples)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            _link_plainly(path, scratch)
            values = wfdb.rdrecord(os.path.join(scratch, 'record'), sampto=until).p_signal.T
    except Exception as error:  # on a broken record wfdb raises whatever its parser stumbles over
        raise UserError(f'{path}: wfdb cannot read it ({type(error).__name__}: {error}); a file of the record is '
                        'damaged or truncated: copy it again') from None
    notes = []
    if header.samples > until:
        notes.append(f'{header.samples / header.rate:.4g} s long; the first 10 s are used, the rest is cut off')
    return Raw(values, [channel.lead for channel in header.channels], header.rate,
               [channel.unit for channel in header.channels], notes)


def _link_plainly(path, scratch):
    """Put a record into the folder `scratch` as record.hea: wfdb takes no names but of ASCII letters, digits, - and _."""
    lines = [line.split(None, 1) for _, line in _header_lines(path)]
    plain = {name: f'signal{number}.dat' for number, name in enumerate(dict.fromkeys(first for first, _ in lines[1:]))}
    for name, target in plain.items():
        source, target = os.path.join(os.path.abspath(os.path.dirname(path)), name), os.path.join(scratch, target)
        try:
            os.symlink(source, target)
        except OSError:  # not permitted on every Windows
            shutil.copyfile(source, target)
    with open(os.path.join(scratch, 'record.hea'), 'w', encoding='utf-8') as file:
        file.writelines(f'{plain[first] if number else "record"} {rest}\n' for number, (first, rest) in enumerate(lines))


def _refuse_uncalibrated(header, path):
    for channel in header.channels:
        if channel.gain <= 0:
            raise UserError(f'{path}: the lead {channel.lead!r} has no gain, so its mV are not known; expected steps '
                            'per mV such as 1000/mV')


def read_header(path):
    """Read a WFDB header (https://wfdb.io/spec/header-files.html) of one segment with one sample per frame.

    path: str, .hea
    Returns: Header
    Raises: UserError that names the line
    """
    lines = _header_lines(path)
    record = re.match(r'(\S+)\s+(\d{1,4})\s+([\d.]+)\S*\s+(\d{1,12})(?:\s|$)', lines[0][1]) if lines else None
    if not record:
        raise UserError(f'{path}: not a WFDB header with a sampling rate and a number of samples; expected a first '
                        'line such as "name 12 500 5000"')
    count = int(record[2])
    if '/' in record[1]:
        raise UserError(f'{path}: a record of several segments, expected one; give its segments one by one')
    if len(lines) != 1 + count:
        raise UserError(f'{path}: {len(lines) - 1} lines of signals, expected {count} as its first line says')
    return Header(_number(path, lines[0][0], record[3]), int(record[4]),
                  [_parse_channel(path, number, line) for number, line in lines[1:]])


def _header_lines(path):
    """(line number, line) of what is neither blank nor a comment; nothing of a file that is too large for a header."""
    with open(path, 'rb') as file:
        data = file.read(HEADER_LIMIT + 1)
    lines = [line.strip() for line in data.decode('utf-8', 'replace').splitlines()] if len(data) <= HEADER_LIMIT else []
    return [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith('#')]


def _parse_channel(path, number, line):
    fields = line.split(None, 8)
    gain = re.fullmatch(r'([\d.]+(?:[eE][+-]?\d+)?)(?:\((-?\d+)\))?(?:/(\S+))?', fields[2]) if len(fields) > 2 else None
    if len(fields) < 2 or not re.fullmatch(r'\d+(x1)?(:\d+)?(\+\d+)?', fields[1]) or (len(fields) > 2 and not gain):
        raise UserError(f'{path}, line {number}: {line[:80]!r}, expected a signal with one sample per frame, such as '
                        '"name.dat 16 1000/mV 16 0 ... II"')
    zero = fields[4] if len(fields) > 4 and re.fullmatch(r'-?\d+', fields[4]) else '0'
    return Channel(fields[0], _number(path, number, gain[1]) if gain else 0.0, float((gain and gain[2]) or zero),
                   (gain and gain[3]) or 'mV', fields[8] if len(fields) > 8 else '')


def _number(path, line, text):
    try:
        return float(text)
    except ValueError:
        raise UserError(f'{path}, line {line}: {text!r} is no number') from None


def _read_csv(path, sampling_rate, unit):
    with open(path, 'rb') as file:
        text = file.read(FILE_LIMIT).decode('utf-8-sig', 'replace')
    lines = [line for line in text.splitlines() if line.strip(' \t,;')]
    if not lines:
        raise UserError(f'{path}: no rows; expected 12 columns or rows of numbers')
    delimiter = next((each for each in ';\t' if each in lines[0]), ',')
    if delimiter != ',':
        lines = [line.replace(',', '.') for line in lines]  # where ; parts the cells, the comma is a decimal point
    first = [cell.strip().strip('"\'').strip() for cell in lines[0].split(delimiter)]
    if _is_number(first[0]) and all(map(_is_number, first)):
        leads = None
        if first in ([str(i) for i in range(12)], [str(i) for i in range(1, 13)]):
            lines = lines[1:]  # the columns' numbers, not a sample
    elif _is_number(first[1] if len(first) > 1 else ''):
        leads = [line.split(delimiter, 1)[0].strip().strip('"\'') for line in lines]
        lines = [line.split(delimiter, 1)[1] if delimiter in line else '' for line in lines]
        return Raw(_parse_numbers(path, lines, delimiter, 1), leads, None, None, [])
    else:
        leads, lines = first, lines[1:]
    if not lines:
        raise UserError(f'{path}: lead names and no numbers below them; expected 12 columns of numbers')
    values = _parse_numbers(path, lines, delimiter, 2 if leads else 1)
    return Raw(_leads_as_rows(path, values) if leads is None else _columns(path, values, leads), leads, None, None, [])


def _parse_numbers(path, lines, delimiter, first_row):
    try:
        return np.loadtxt(lines, delimiter=delimiter, ndmin=2, comments=None, quotechar='"')
    except (ValueError, IndexError) as error:
        what = re.sub(r'at row (\d+)', lambda found: f'in row {int(found[1]) + first_row}', str(error).split(';')[0])
        raise UserError(f'{path}: not a table of numbers ({what}); expected 12 columns or rows of numbers, and at most '
                        'one line of lead names') from None


def _columns(path, values, leads):
    if values.shape[1] != len(leads):
        raise UserError(f'{path}: {values.shape[1]} columns of numbers under {len(leads)} names')
    return values.T


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read_npy(path, sampling_rate, unit):
    with open(path, 'rb') as file:
        magic = file.read(6)
    if magic != b'\x93NUMPY':
        raise UserError(f'{path}: not a NPY file, expected what numpy.save writes; .npz and pickles are not read')
    try:
        # Mapped, so that the header's word alone takes no memory; without pickle, so that nothing in it can run.
        values = np.load(path, mmap_mode='r', allow_pickle=False)
    except Exception as error:  # a damaged header can raise almost anything
        raise UserError(f'{path}: not a readable NPY file ({type(error).__name__}: {error}); expected 12 leads x '
                        'samples of plain numbers; it may be truncated: copy it again') from None
    return Raw(np.array(_leads_as_rows(path, values)), None, None, None, [])


def _leads_as_rows(path, values):
    """Turn an array whose 12 leads are its columns; an array without leads of its own is refused."""
    if values.dtype.kind not in 'iuf':
        raise UserError(f'{path}: values of the type {values.dtype}, expected real numbers')
    if values.ndim != 2 or len(LEADS) not in values.shape:
        raise UserError(f'{path}: the shape {tuple(values.shape)}, expected 12 leads x samples or samples x 12 leads')
    return values if values.shape[0] == len(LEADS) else values.T
