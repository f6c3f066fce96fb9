"""ECGs that never were in the competition's layout, one a file -> signals.

Formats: READERS. What a file says of its sampling rate, unit and leads counts; see signals.py for
what it leaves open.
"""
import math
import os
import re
import shutil
import tempfile

import numpy as np

from utils.ecg import paper, records, tables, text
from utils.ecg.signals import (
    CUT,
    SAMPLES,
    SAMPLING_RATE,
    SECONDS,
    NotAnECG,
    Raw,
    lead_of,
    make_signal,
    naming,
    raw_without_names,
    reading_with,
)
from utils.running.errors import UserError, first_of

# What lies beside ECGs and is none; whatever else has no reader is named, so that nobody takes it
# for read.
BESIDE = ('.md', '.rst', '.doc', '.docx', '.rtf', '.odt', '.ppt', '.pptx', '.html', '.htm', '.css',
          '.js', '.py', '.ipynb', '.m', '.r', '.c', '.h', '.sh', '.bat', '.ini', '.cfg', '.yml',
          '.yaml', '.toml', '.log', '.db', '.atr', '.qrs', '.ann', '.sha256', '.md5', '.lnk')
NAMES_BESIDE = ('readme', 'license', 'licence', 'records', 'annotators', 'sha256sums', 'makefile')
FILE_LIMIT = 64 * 2**20  # bytes
NO_VALUE = -32768  # WFDB's, in 16 bits


def find_inputs(paths):
    """The files that hold one ECG each.

    paths: list of str, folders (their subfolders are not searched) and files; of WFDB any of its
        files or the record's name
    Returns: (found, notes, problems); found: {name: path}, sorted by name; notes: list of str,
        what was skipped; problems: list of (name, line), what cannot be read
    Raises: UserError where there is none
    """
    candidates, notes, problems = {}, [], []
    for path in paths:
        chosen = _look_into(path, notes) if os.path.isdir(path) else [path]
        chosen = [page for file in chosen for page in paper.paths_of(file)]
        for name, file, problem in map(_find_one, chosen):
            if problem:
                problems.append((name, problem))
            elif os.path.realpath(file) not in map(os.path.realpath, candidates.get(name, ())):
                candidates.setdefault(name, []).append(file)
    for name, files in candidates.items():
        if len(files) > 1:
            problems.append((name, f'the record {name} is there several times: {", ".join(files)}; '
                                   'move all but one away'))
    found = {name: files[0] for name, files in sorted(candidates.items()) if len(files) == 1}
    if not found and not problems:
        raise UserError(f'{", ".join(paths)}: no ECGs directly in it, expected files that end in '
                        f'{", ".join(READERS)}; name the folder that holds them', *notes)
    if not found:
        raise UserError(*[line for _, line in problems], *notes)
    return found, notes, problems


def read_input(path, rate, unit):
    """Read one ECG; in a process that may crash, since scipy's reader can.

    path: str, as find_inputs() gives it; rate: float, Hz, or None; unit: 'mV', 'uV' or None: what
        holds for files that do not say it themselves
    Returns: (signal, notes) as signals.make_signal()
    Raises: UserError that names the file, what was found and what was expected
    """
    with naming(path):
        file, _, _ = path.partition(paper.PAGE)  # one of several pages
        size = os.path.getsize(file)
        if not os.path.isfile(file) or not 0 < size <= FILE_LIMIT:
            raise NotAnECG(f'{size} bytes, expected an ECG file of at most {FILE_LIMIT >> 20} MiB '
                           'that is not empty; cut a long recording first, or copy the file again')
        records.refuse_others(file)
        raw = READERS[os.path.splitext(file)[1].lower()](path, rate, unit)
    return make_signal(path, raw, rate, unit,
                       ', or give another --unit where the file names none')


def _look_into(folder, notes):
    """The paths in a folder that may be ECGs; what else is there goes into a note."""
    paths = [os.path.join(folder, file) for file in sorted(os.listdir(folder))
             if not file.startswith('.')]
    named = set()  # files that a .hea in the folder, or beside it, names
    for path in paths:
        if path.lower().endswith('.hea') and os.path.isfile(path):
            with open(path, 'rb') as file:
                named |= {line.split()[0] for line in file.read(2**16).splitlines() if line.split()}
    parts = {path for path in paths if os.fsencode(os.path.basename(path)) in named
             and not path.lower().endswith((*READERS,))}
    chosen = [path for path in paths if path not in parts and _may_be_ecg(path)]
    skipped = [os.path.basename(path) for path in paths if path not in {*chosen, *parts}]
    if skipped:
        notes.append(f'{folder}: skipped what is no ECG: {first_of(skipped, 20)}')
    return chosen


def _find_one(path):
    """(name, path to read, None) of an ECG, or (name, path, what is wrong)."""
    file, _, page = path.partition(paper.PAGE)
    stem, extension = os.path.splitext(file)
    if page:
        return f'{os.path.basename(stem)}-{page}', path, None
    header = None if extension.lower() in READERS else (
        _with_extension(path, '.hea') or _with_extension(stem, '.hea'))
    if header:
        stem, path = os.path.splitext(header)[0], header
    name, problem = os.path.basename(stem), None
    if not os.path.exists(path):
        problem = f'{path}: no such file or folder; expected an ECG or a folder of ECGs'
    elif os.path.splitext(path)[1].lower() not in READERS:
        lacks = ', or its .hea beside it' if extension.lower() == '.dat' else ''
        problem = f'{path}: not an ECG file that is read, expected one that ends in ' \
                  f'{", ".join(READERS)}{lacks}; unpack or convert it'
    elif path.lower().endswith('.hea') and not _with_extension(stem, '.dat'):
        path = _with_extension(stem, '.mat') or path  # PhysioNet's way
    return name, path, problem


def _with_extension(stem, extension):
    """The path of the file `stem` + `extension`, in lower or upper case, or None."""
    paths = [stem + extension, stem + extension.upper()]
    return next((path for path in paths if os.path.isfile(path)), None)


def _may_be_ecg(path):
    """Whether a file in a folder is to be read, or named as one that cannot be."""
    stem, extension = os.path.splitext(os.path.basename(path).lower())
    if READERS.get(extension) == tables.read_csv and os.path.isfile(path):
        with open(path, 'rb') as file:
            return tables.may_be_ecg(path, file.read(2**18))
    return not os.path.isdir(path) and extension not in BESIDE and stem not in NAMES_BESIDE


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
    header, notes = _read_with_wfdb(header_path, with_signals=False)
    if values.shape != (header.n_sig, header.sig_len or values.shape[-1]):
        raise NotAnECG(f'val has the shape {values.shape}, expected '
                       f'({header.n_sig}, {header.sig_len}) as {header_path} says')
    values = np.where(values == NO_VALUE, np.nan, values.astype(np.float64))
    values = (values.T - header.baseline) / header.adc_gain
    return Raw(values.T, header.sig_name, header.fs, header.units, notes)


def _read_wfdb(path, _rate, _unit):
    record, notes = _read_with_wfdb(path)
    return Raw(record.p_signal.T, record.sig_name, record.fs, record.units, notes)


def _read_with_wfdb(path, with_signals=True):
    """Read a WFDB record of one segment with one sample per frame.

    path: str, its .hea; with_signals: bool, read the first 10 s of its signals, too
    Returns: (wfdb.Record, notes)
    """
    with tempfile.TemporaryDirectory() as scratch:
        plain = os.path.join(scratch, 'record')
        with reading_with('wfdb', 'a file of the record is damaged or truncated: copy it again'):
            notes = _link_plainly(path, plain, with_signals)
            import wfdb
            record = wfdb.rdheader(plain)
            seconds = (record.sig_len or 0) / record.fs
            if with_signals:
                until = record.sig_len and min(math.ceil(SECONDS * record.fs), record.sig_len)
                record = wfdb.rdrecord(plain, sampto=until)
                if seconds > record.sig_len / record.fs:
                    notes.append(CUT.format(seconds))
            record.sig_name = [name or '' for name in record.sig_name]
            return record, notes


def _link_plainly(path, plain, with_signals):
    """Put a record at `plain`.hea, since wfdb takes no names but of ASCII letters, - and _, and no
    dates but its own; refuse what it would read otherwise than meant: a missing gain as 200, a
    missing rate as 250 Hz. A file that is not there and holds no lead is left out.

    Returns: list of str, notes on what was left out
    """
    with open(path, 'rb') as file:
        words = re.sub('[\u00b5\u03bc]', 'u', text.decode(file.read()) or '')
    lines = [line.strip() for line in words.splitlines() if line.strip(' \t')[:1] not in ('', '#')]
    first = re.match(r'[^\s/]+\s+(\d+)\s+([\d.]\S*)(\s+\d+)?(?=\s|$)', lines[0]) if lines else None
    signals = [re.match(r'(\S+)\s+(\d+(?:x1)?(?::\d+)?(?:\+\d+)?\s+[\d.]*[1-9].*)', line)
               for line in lines[1:]]
    if not first:
        raise NotAnECG('not a WFDB header of one segment with a sampling rate; expected a first '
                       'line such as "name 12 500 5000"')
    if None in signals:
        raise NotAnECG(f'the line {lines[1 + signals.index(None)][:80]!r}, expected a signal with '
                       'one sample per frame and a gain, such as "name.dat 16 1000/mV 16 0 ... II"')
    if len(signals) != int(first[1]):
        raise NotAnECG(f'{len(signals)} lines of signals, expected {first[1]} as its start says')
    kept, notes = [], []
    for number, name in enumerate(dict.fromkeys(each[1] for each in signals)):
        of_file = [each[2] for each in signals if each[1] == name]
        called = [(each.split(None, 7) + [''] * 8)[7] for each in of_file]
        source = os.path.join(os.path.abspath(os.path.dirname(path)), name)
        if not with_signals or (os.path.basename(name) == name and os.path.isfile(source)):
            kept += [f'record{number}.dat {each}\n' for each in of_file]
            if with_signals:
                _link(source, f'{plain}{number}.dat')
        elif all(each and not lead_of(each) for each in called):
            notes.append(f'{", ".join(called)} not used: the file {name} is not there')
        else:  # only such a file, not any
            raise NotAnECG(f'names the signal file {name!r}, expected one beside the header; copy '
                           'it there')
    length = first[3] if int(first[3] or 0) else ''  # 0: not known
    with open(f'{plain}.hea', 'w', encoding='utf-8') as file:
        file.writelines([f'record {len(kept)} {first[2]}{length}\n', *kept])
    return notes


def _link(source, target):
    with open(source, 'rb') as file:
        head = file.read(200)
    other = text.what_else(source, head) if head.isascii() else None  # samples may begin so, too
    if other:
        raise NotAnECG(f'{os.path.basename(source)} is not what its name says, but {other}')
    try:
        os.symlink(source, target)  # a recording of a day is a gigabyte
    except OSError:  # not permitted on every Windows
        shutil.copyfile(source, target)


def _read_xml(path, _rate, _unit):
    with open(path, 'rb') as file:
        data = file.read().replace(b'\0', b'')
    if b'restingecg' not in data.lower():
        raise NotAnECG("XML, but not of Philips' carts (restingecgdata), the only one that is "
                       'read; export or convert it to CSV')
    with reading_with('sierraecg', 'a file that is damaged or of an unknown version?'):
        import sierraecg
        leads = sierraecg.read_file(path).leads
        # The package does not tell how many uV a step is.
        step = float(re.search(rb'<(?:signal)?resolution>\s*([\d.]+)', data)[1])
        values = np.array([lead.samples for lead in leads]) * step
        return Raw(values, [lead.label for lead in leads], leads[0].sampling_freq,
                   ['uV'] * len(leads), [])


def _read_npy(path, _rate, _unit):
    with reading_with('numpy', 'expected what numpy.save writes of an array of plain numbers, 12 '
                      'leads x samples; save it so, or copy it again'):
        # Mapped, so that only what is used is read; without pickle, so that nothing in it can run.
        values = np.load(path, mmap_mode='r', allow_pickle=False)
        if not isinstance(values, np.ndarray):
            raise ValueError('an archive of arrays')
    return raw_without_names(values)


READERS = {'.mat': _read_mat, '.hea': _read_wfdb, '.csv': tables.read_csv, '.txt': tables.read_csv,
           '.tsv': tables.read_csv, '.npy': _read_npy, '.xml': _read_xml,
           **dict.fromkeys(paper.EXTENSIONS, paper.read_raw)}
