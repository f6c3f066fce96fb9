"""ECGs that never were in the competition's layout, one a file -> signals.

Formats: MAT (`ecgdata`, or PhysioNet's `val` with its .hea), WFDB (.hea and .dat), CSV, NPY and the
XML of Philips' carts. What a file says of its sampling rate, unit and leads counts; see signals.py
for what it leaves open.
"""
import math
import os
import re
import shutil
import tempfile

import numpy as np

from utils.ecg import records, tables
from utils.ecg.signals import (
    SAMPLES,
    SAMPLING_RATE,
    SECONDS,
    NotAnECG,
    Raw,
    make_signal,
    naming,
    raw_without_names,
)
from utils.running.errors import UserError

EXTENSIONS = ('.mat', '.hea', '.csv', '.npy', '.xml')
FILE_LIMIT = 64 * 2**20  # bytes
NO_VALUE = -32768  # WFDB's, in 16 bits


def find_inputs(path):
    """The files that hold one ECG each.

    path: str, a folder (its subfolders are not searched) or a file; of WFDB any of its files or
        the record's name
    Returns: (found, notes, problems); found: {name: path}, sorted by name; notes: list of str,
        what was skipped; problems: list of (name, line), what cannot be read
    Raises: UserError where there is none
    """
    if not os.path.isdir(path):
        return dict([_find_one(path)]), [], []
    candidates, skipped = {}, []
    for file in sorted(os.listdir(path)):
        stem, extension = os.path.splitext(os.path.join(path, file))
        if file.startswith('.') or (extension.lower() == '.hea' and _mat_of(stem)):
            continue
        if _may_be_ecg(stem + extension):
            candidates.setdefault(os.path.basename(stem), []).append(stem + extension)
        elif not _with_extension(stem, '.hea'):  # a .dat, or what else belongs to a WFDB record
            skipped.append(file)
    notes = [f'{path}: skipped what is no ECG: {", ".join(skipped[:20])}'
             + (f' and {len(skipped) - 20} more' if len(skipped) > 20 else '')] if skipped else []
    if not candidates:
        raise UserError(f'{path}: no ECGs directly in it, expected files that end in '
                        f'{", ".join(EXTENSIONS)}; name the folder that holds them', *notes)
    found, problems = {}, []
    for name, paths in sorted(candidates.items()):
        if len(paths) == 1:
            found[name] = paths[0]
        else:
            problems.append((name, f'the record {name} is there several times: {", ".join(paths)}; '
                                   'move all but one away'))
    return found, notes, problems


def read_input(path, rate, unit):
    """Read one ECG; in a process that may crash, since scipy's reader can.

    path: str, as find_inputs() gives it; rate: float, Hz, or None; unit: 'mV', 'uV' or None: what
        holds for files that do not say it themselves
    Returns: (signal, notes) as signals.make_signal()
    Raises: UserError that names the file, what was found and what was expected
    """
    readers = {'.mat': _read_mat, '.hea': _read_wfdb, '.csv': tables.read_csv, '.npy': _read_npy,
               '.xml': _read_xml}
    with naming(path):
        size = os.path.getsize(path)
        if not os.path.isfile(path) or not 0 < size <= FILE_LIMIT:
            raise NotAnECG(f'{size} bytes, expected an ECG file of at most {FILE_LIMIT >> 20} MiB '
                           'that is not empty; cut a long recording first, or copy the file again')
        raw = readers[os.path.splitext(path)[1].lower()](path, rate, unit)
    return make_signal(path, raw, rate, unit)


def _find_one(path):
    stem, extension = os.path.splitext(path)
    if extension.lower() == '.dat' and _with_extension(stem, '.hea'):
        path = _with_extension(stem, '.hea')
    elif extension.lower() not in EXTENSIONS and _with_extension(path, '.hea'):
        stem, path = path, _with_extension(path, '.hea')
    if not os.path.exists(path):
        raise UserError(f'{path}: no such file or folder; expected an ECG or a folder of ECGs')
    if os.path.splitext(path)[1].lower() not in EXTENSIONS:
        raise UserError(f'{path}: not an ECG file, expected one that ends in '
                        f'{", ".join(EXTENSIONS)}')
    if path.lower().endswith('.hea'):
        path = _mat_of(stem) or path
    return os.path.basename(stem), path


def _mat_of(stem):
    """The MAT file whose header is `stem`.hea, PhysioNet's way, or None."""
    return None if _with_extension(stem, '.dat') else _with_extension(stem, '.mat')


def _with_extension(stem, extension):
    """The path of the file `stem` + `extension`, in lower or upper case, or None."""
    paths = [stem + extension, stem + extension.upper()]
    return next((path for path in paths if os.path.isfile(path)), None)


def _may_be_ecg(path):
    """Whether a file in a folder is to be read: its extension or, of CSV and XML, its beginning."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in EXTENSIONS or not os.path.isfile(path):
        return False
    with open(path, 'rb') as file:
        head = file.read(2**18)
    if extension == '.xml':
        return b'restingecgdata' in head.replace(b'\0', b'')  # it may be UTF-16
    return extension != '.csv' or tables.may_be_ecg(head)


def _read_mat(path, rate, unit):
    found = records.read_mat(path, 'ecgdata', 'val')
    if 'ecgdata' in found:
        raw = records.raw_of_ecgdata(found['ecgdata'], unit or 'mV')
        if raw.rate and rate not in (None, raw.rate):
            raise NotAnECG(f'{SAMPLES} samples of ecgdata are 10 s at {SAMPLING_RATE} Hz, as in '
                           f'the competition, and --sampling-rate says {rate:g}; predict it '
                           'without that option, or save it as NPY')
        return raw
    values = found['val']
    stem = os.path.splitext(path)[0]
    header_path = _with_extension(stem, '.hea')
    if not header_path and not (rate and unit):
        raise NotAnECG(f'val, and no {os.path.basename(stem)}.hea beside it that says its gain, '
                       'rate and leads; put it there, or give --sampling-rate and --unit')
    if not header_path:
        return raw_without_names(values)
    header, names, _ = _read_with_wfdb(header_path, with_signals=False)
    if values.shape != (header.n_sig, header.sig_len):
        raise NotAnECG(f'val has the shape {values.shape}, expected '
                       f'({header.n_sig}, {header.sig_len}) as {header_path} says')
    values = np.where(values == NO_VALUE, np.nan, values.astype(np.float64))
    values = (values.T - header.baseline) / header.adc_gain
    return Raw(values.T, names, header.fs, header.units, [])


def _read_wfdb(path, _rate, _unit):
    header, names, values = _read_with_wfdb(path, with_signals=True)
    seconds = header.sig_len / header.fs
    cut = f'{seconds:.4g} s long; the first 10 s are used, the rest is cut off'
    return Raw(values, names, header.fs, header.units,
               [cut] if values.shape[1] < header.sig_len else [])


def _read_with_wfdb(path, with_signals):
    """Read a WFDB record of one segment with one sample per frame.

    path: str, its .hea; with_signals: bool, read the first 10 s of its signals, too
    Returns: (wfdb.Record of the header, n lead names, float array (n, samples) or None)
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = os.path.join(scratch, 'record')
        _link_plainly(path, plain, with_signals)
        try:
            import wfdb
            header = wfdb.rdheader(plain)
            names = [name or '' for name in header.sig_name]
            if not with_signals:
                return header, names, None
            until = min(math.ceil(SECONDS * header.fs), header.sig_len)
            return header, names, wfdb.rdrecord(plain, sampto=until).p_signal.T
        except ImportError as error:
            raise NotAnECG('WFDB files are read with the package wfdb, which cannot be imported '
                           f'({error}): pip install wfdb') from None
        except MemoryError:
            raise
        except Exception as error:  # wfdb raises whatever its parser stumbles over
            raise NotAnECG(f'wfdb cannot read it ({type(error).__name__}: {error}); a file of the '
                           'record is damaged or truncated: copy it again') from None


def _link_plainly(path, plain, with_signals):
    """Put a record at `plain`.hea, since wfdb takes no names but of ASCII letters, - and _; refuse
    what it would read otherwise than meant: a missing gain as 200, a missing rate as 250 Hz.
    """
    with open(path, encoding='utf-8', errors='replace') as file:
        lines = [(line.split(None, 1) + [''])[:2] for line in file
                 if line.strip() and line.strip()[0] != '#']
    first = re.match(r'(\d+)\s+[\d.]\S*\s+\d+(\s|$)', lines[0][1]) if lines else None
    if not first or '/' in lines[0][0]:
        raise NotAnECG('not a WFDB header of one segment with a sampling rate and a number of '
                       'samples; expected a first line such as "name 12 500 5000"')
    targets = {}
    for file, rest in lines[1:]:
        if not re.match(r'\d+(x1)?(:\d+)?(\+\d+)?\s+[\d.]*[1-9]', rest):
            raise NotAnECG(f'the line {f"{file} {rest}"[:80]!r}, expected a signal with one sample '
                           'per frame and a gain, such as "name.dat 16 1000/mV 16 0 ... II"')
        targets.setdefault(file, f'{plain}{len(targets)}.dat')
    if len(lines) - 1 != int(first[1]):
        raise NotAnECG(f'{len(lines) - 1} lines of signals, expected {first[1]} as its start says')
    for file, target in targets.items() if with_signals else ():
        source = os.path.join(os.path.abspath(os.path.dirname(path)), file)
        if os.path.basename(file) != file or not os.path.isfile(source):  # only such, not any file
            raise NotAnECG(f'names the signal file {file!r}, expected one beside the header; copy '
                           'it there')
        try:
            os.symlink(source, target)  # a recording of a day is a gigabyte
        except OSError:  # not permitted on every Windows
            shutil.copyfile(source, target)
    with open(f'{plain}.hea', 'w', encoding='utf-8') as file:
        file.write(f'{os.path.basename(plain)} {lines[0][1]}\n')
        file.writelines(f'{os.path.basename(targets[name])} {rest}\n' for name, rest in lines[1:])


def _read_xml(path, _rate, _unit):
    try:
        import sierraecg
        leads = sierraecg.read_file(path).leads
        with open(path, 'rb') as file:  # the package does not tell how many uV a step is
            data = file.read().replace(b'\0', b'')
        step = float(re.search(rb'<(?:signal)?resolution>\s*([\d.]+)', data)[1])
        values = np.array([lead.samples for lead in leads]) * step
    except ImportError as error:
        raise NotAnECG("the XML of Philips' carts is read with the package sierraecg, which cannot "
                       f'be imported ({error}): pip install sierraecg') from None
    except Exception as error:
        raise NotAnECG(f'sierraecg cannot read it ({type(error).__name__}: {error}), expected the '
                       "XML of Philips' carts") from None
    return Raw(values, [lead.label for lead in leads], leads[0].sampling_freq,
               ['uV'] * len(leads), [])


def _read_npy(path, _rate, _unit):
    try:
        # Mapped, so that only what is used is read; without pickle, so that nothing in it can run.
        values = np.load(path, mmap_mode='r', allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError('an archive of arrays')
    except Exception as error:  # a damaged header can raise almost anything
        raise NotAnECG(f'not a readable NPY file ({type(error).__name__}: {error}); expected what '
                       'numpy.save writes of 12 leads x samples; copy it again') from None
    return raw_without_names(values)
