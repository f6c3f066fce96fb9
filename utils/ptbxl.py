"""PTB-XL, as PhysioNet publishes it, turned into the competition's layout.

    python -m utils.ptbxl ptb-xl-1.0.3.zip dataset/ptbxl --task 2

PTB-XL (Wagner et al., Scientific Data 2020; versions 1.0.1 to 1.0.3, the 500 Hz records) has about 21,800 ECGs of 10 s.
OUT gets train/*.mat and val/*.mat (240 kB a record, 5.2 GB in all), trainreference.csv, valreference.csv (the key,
which the competition keeps to itself), source.csv, ATTRIBUTION.txt and LICENSE.txt. A record's name carries its ecg_id:
TRAIN00001, TEST00009. `strat_fold` splits the records: PTB-XL keeps each patient within one fold.

Where the labels come from: `scp_codes` gives a record's SCP-ECG statements, each with a likelihood in percent that was
read out of the report's wording. 0 means that the wording gave none ("unknown"), as for most form and rhythm
statements, AFIB and PVC among them; an absent finding has no entry at all. So an entry counts, whatever its likelihood,
as in the PTB-XL benchmark (Strodthoff et al. 2021): a threshold above 0 would delete most rhythms and form findings.

Task 1: a record with NORM is normal (0), any other abnormal (1); NORM is the reader's word on exactly that question,
and a reader may well write "sinus bradycardia, otherwise normal ECG".
Task 2: STATEMENTS says which of the twelve classes a statement stands for. There "normal" excludes every other class,
so a class that is named takes the word NORM away: NORM with SBRAD is sinus bradycardia alone. A record that names no
class and is not called normal, say SR alone, is "other": every record has a label, and its reader withheld that one.
"""
import argparse
import ast
import csv
import functools
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import stat
import threading
import typing
import zipfile
import zlib
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import scipy.io

from utils import errors
from utils.errors import UserError
from utils.files import PARTIAL, clear_partials, write_bytes, write_csv, write_json, write_text
from utils.progress import Bar
from utils.records import LEADS, SAMPLES, SAMPLING_RATE
from utils.tasks import TASKS

EXTENSIONS = ('.hea', '.dat')  # of a WFDB record's two files
PREFIX = {'train': 'TRAIN', 'val': 'TEST'}

NOTHING = 0
(NORMAL, SINUS_BRADYCARDIA, SINUS_TACHYCARDIA, SINUS_ARRHYTHMIA, ATRIAL_FIBRILLATION, VENTRICULAR_PREMATURE_BEAT,
 ATRIAL_PREMATURE_BEAT, FIRST_DEGREE_AV_BLOCK, COMPLETE_RBBB, T_CHANGE, ST_CHANGE, OTHER) = range(1, 13)

CLASSES = {1: dict(enumerate(TASKS[1].class_names)), 2: dict(enumerate(TASKS[2].class_names, NORMAL))}

# All 71 statements of scp_statements.csv: the class of task 2, and why.
STATEMENTS = {
    'NORM': (NORMAL, 'the reader calls the whole ECG normal; gives way to every other class'),
    'SR': (NOTHING, 'sinus rhythm is the normal rhythm and says nothing of the beats: neither normal nor a finding'),

    'SBRAD': (SINUS_BRADYCARDIA, 'the class itself'),
    'STACH': (SINUS_TACHYCARDIA, 'the class itself'),
    'SARRH': (SINUS_ARRHYTHMIA, 'the class itself'),
    'AFIB': (ATRIAL_FIBRILLATION, 'the class itself'),
    'PVC': (VENTRICULAR_PREMATURE_BEAT, 'the class itself'),
    'PAC': (ATRIAL_PREMATURE_BEAT, 'the class itself'),
    '1AVB': (FIRST_DEGREE_AV_BLOCK, 'the class itself'),
    'LPR': (FIRST_DEGREE_AV_BLOCK, 'a prolonged PR interval is what a first-degree AV block is on the ECG'),
    'CRBBB': (COMPLETE_RBBB, 'the class itself'),

    'NDT': (T_CHANGE, 'non-diagnostic T abnormalities'),
    'NT_': (T_CHANGE, 'non-specific T-wave changes'),
    'TAB_': (T_CHANGE, 'T-wave abnormality'),
    'LOWT': (T_CHANGE, 'T waves of low amplitude'),
    'INVT': (T_CHANGE, 'inverted T waves'),

    'NST_': (ST_CHANGE, 'non-specific ST changes'),
    'STD_': (ST_CHANGE, 'ST depression'),
    'STE_': (ST_CHANGE, 'ST elevation'),
    'ISC_': (ST_CHANGE, 'ischaemic ST-T: ST depression is its sign; where T is inverted as well, INVT can say so'),
    'ISCAL': (ST_CHANGE, 'as ISC_, anterolateral'),
    'ISCAN': (ST_CHANGE, 'as ISC_, anterior'),
    'ISCAS': (ST_CHANGE, 'as ISC_, anteroseptal'),
    'ISCIL': (ST_CHANGE, 'as ISC_, inferolateral'),
    'ISCIN': (ST_CHANGE, 'as ISC_, inferior'),
    'ISCLA': (ST_CHANGE, 'as ISC_, lateral'),
    'INJAL': (ST_CHANGE, 'subendocardial injury shows as ST depression; PTB-XL files it under MI, SCP-ECG under ST-T'),
    'INJAS': (ST_CHANGE, 'as INJAL, anteroseptal'),
    'INJIL': (ST_CHANGE, 'as INJAL, inferolateral'),
    'INJIN': (ST_CHANGE, 'as INJAL, inferior'),
    'INJLA': (ST_CHANGE, 'as INJAL, lateral'),
    'ANEUR': (ST_CHANGE, 'ST-T as in ventricular aneurysm: ST elevation that stays'),
    'DIG': (ST_CHANGE, 'digitalis effect: the sagging ST depression'),

    'EL': (OTHER, 'electrolytes or a drug: a cause that may show in T, ST, U or QT, and it is not said in which'),
    'LNGQT': (OTHER, 'a long QT is about time, not about the form of T or ST'),

    'AMI': (OTHER, 'infarction: seen in the QRS; a change of ST or T has statements of its own'),
    'ALMI': (OTHER, 'as AMI, anterolateral'),
    'ASMI': (OTHER, 'as AMI, anteroseptal'),
    'ILMI': (OTHER, 'as AMI, inferolateral'),
    'IMI': (OTHER, 'as AMI, inferior'),
    'IPLMI': (OTHER, 'as AMI, inferoposterolateral'),
    'IPMI': (OTHER, 'as AMI, inferoposterior'),
    'LMI': (OTHER, 'as AMI, lateral'),
    'PMI': (OTHER, 'as AMI, posterior'),
    'QWAVE': (OTHER, 'Q waves: QRS form'),
    'ABQRS': (OTHER, 'abnormal QRS: form not said'),

    'LVH': (OTHER, 'hypertrophy is none of the eleven'),
    'RVH': (OTHER, 'as LVH'),
    'SEHYP': (OTHER, 'as LVH, septal'),
    'VCLVH': (OTHER, 'voltage criteria of LVH: a finding, even where the reader goes on to call the ECG normal'),
    'HVOLT': (OTHER, 'high QRS voltage, as VCLVH'),
    'LVOLT': (OTHER, 'low QRS voltage, as VCLVH'),
    'LAO/LAE': (OTHER, 'atrial overload is none of the eleven'),
    'RAO/RAE': (OTHER, 'as LAO/LAE'),

    'IRBBB': (OTHER, 'incomplete: the class wants the complete block'),
    'CLBBB': (OTHER, 'the left bundle: the class is the right one'),
    'ILBBB': (OTHER, 'as CLBBB, incomplete'),
    'LAFB': (OTHER, 'fascicular block is none of the eleven'),
    'LPFB': (OTHER, 'as LAFB'),
    'IVCD': (OTHER, 'non-specific conduction delay is none of the eleven'),
    'WPW': (OTHER, 'pre-excitation is none of the eleven'),
    '2AVB': (OTHER, 'the class is the first degree alone'),
    '3AVB': (OTHER, 'as 2AVB'),

    'AFLT': (OTHER, 'flutter is not fibrillation'),
    'SVTAC': (OTHER, 'supraventricular, not a sinus tachycardia'),
    'PSVT': (OTHER, 'as SVTAC'),
    'SVARR': (OTHER, 'supraventricular arrhythmia: neither said to be of the sinus nor to be single early beats'),
    'PACE': (OTHER, 'a pacemaker, even one that works as it should, is not a normal ECG'),
    'PRC(S)': (OTHER, 'early beats of unsaid origin, so neither class; adds nothing where PVC or PAC says it'),
    'BIGU': (OTHER, 'as PRC(S), every second beat'),
    'TRIGU': (OTHER, 'as PRC(S), every third beat'),
}
EARLY_BEATS = {'PRC(S)', 'BIGU', 'TRIGU'}

DATABASE = 'ptbxl_database.csv'
SCP = 'scp_statements.csv'
COLUMNS = ('ecg_id', 'patient_id', 'strat_fold', 'scp_codes', 'filename_hr')
SUMS = 'SHA256SUMS.txt'
MARKER = 'conversion.json'  # in OUT: what it was made from and how
URL = 'https://physionet.org/content/ptb-xl/'
LARGEST = 64 * 2**20  # bytes; PTB-XL's largest table has about 10 MiB: more is no part of it and could fill the memory
MOST_WORKERS = 16  # more only wait for the disk

ATTRIBUTION = f'''The ECGs in this folder are taken from PTB-XL, a large publicly available electrocardiography dataset,
published on PhysioNet: {URL}

P. Wagner, N. Strodthoff, R.-D. Bousseljot, D. Kreiseler, F. I. Lunze, W. Samek, T. Schaeffter: PTB-XL, a large publicly
available electrocardiography dataset. Scientific Data 7, 154 (2020). https://doi.org/10.1038/s41597-020-0495-6

A. L. Goldberger et al.: PhysioBank, PhysioToolkit, and PhysioNet: components of a new research resource for complex
physiologic signals. Circulation 101 (23), e215-e220 (2000).

Licence: Creative Commons Attribution 4.0 International, https://creativecommons.org/licenses/by/4.0/
Changes: the 500 Hz signals were written as MAT files in float32 mV, the records were renamed (source.csv has each
record's ecg_id), and the labels were derived from the SCP-ECG statements by utils/ptbxl.py.
'''


class BadFile(UserError):
    """One file of PTB-XL is missing or broken; the records that do not need it can still be converted."""


class Record(typing.NamedTuple):
    """One row of ptbxl_database.csv.

    statements: dict, SCP-ECG statement -> likelihood in percent; file: str, the 500 Hz record without its extension
    """
    ecg_id: int
    patient: int
    fold: int
    statements: dict
    file: str


class Job(typing.NamedTuple):
    """What a worker needs to convert one record.

    source: str, PTB-XL's folder or zip; file: str, as in Record; target: str, the .mat to write
    sums: dict extension -> SHA-256 (None: not listed) to hold the record's two files against, or None: leave it out
    """
    source: str
    file: str
    target: str
    sums: dict


class Source:
    """PTB-XL as it was downloaded: a folder or the zip; it may lie one folder deeper, as in PhysioNet's zip.

    path: str
    Raises UserError where neither is found or the zip is broken or hostile.
    """

    def __init__(self, path):
        self.path = path
        self.zip = None if os.path.isdir(path) else open_zip(path)
        if self.zip:
            below = sorted({name.split('/')[0] + '/' for name in self.zip.namelist() if '/' in name})
        else:
            below = sorted(entry.name + '/' for entry in os.scandir(path) if entry.is_dir())
        self.top = ''
        tops = [top for top in ['', *below] if self.has(top + DATABASE)]
        if len(tops) != 1:
            found = 'no ' + DATABASE if not tops else f'{len(tops)} times {DATABASE}, in ' + ', '.join(tops)
            raise UserError(f'{path}: found {found}, expected one, here or one folder down; give the folder or the zip '
                            f'of one version of PTB-XL as {URL} offers it')
        self.top = tops[0]

    def where(self, name):
        """How a message names the file `name`."""
        return f'{self.path}: {self.top}{name}' if self.zip else os.path.join(self.path, self.top + name)

    def has(self, name):
        """True if there is a file `name`, or for a name that ends in / anything in that folder."""
        if not self.zip:
            path = os.path.join(self.path, self.top + name)
            return os.path.isdir(path) if name.endswith('/') else os.path.isfile(path)
        if name.endswith('/'):
            return any(member.startswith(self.top + name) for member in self.zip.namelist())
        return self.top + name in self.zip.NameToInfo

    def read(self, name):
        """The bytes of the file `name`; BadFile where it is missing, too large or unreadable."""
        if not self.has(name):
            raise BadFile(f'{self.where(name)}: there is no such file, expected it beside the rest of PTB-XL; '
                          'download it again')
        try:
            if self.zip:
                size = self.zip.getinfo(self.top + name).file_size
            else:
                size = os.path.getsize(self.where(name))
            if size > LARGEST:
                raise BadFile(f'{self.where(name)}: has {size} bytes, expected at most {LARGEST}; download it again')
            if self.zip:
                return self.zip.read(self.top + name)
            with open(self.where(name), 'rb') as file:
                return file.read()
        except OSError as error:
            raise BadFile(f'{self.where(name)}: cannot be read ({error.strerror or error}); mend it') from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise BadFile(f'{self.where(name)}: cannot be unpacked ({error}); download the zip again') from None

    def read_table(self, name, columns):
        """The rows of the CSV file `name` as dicts; UserError where it is no UTF-8 CSV with `columns` and a row."""
        try:
            reader = csv.DictReader(io.StringIO(self.read(name).decode('utf-8-sig'), newline=''), strict=True)
            rows = list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f'{self.where(name)}: is no UTF-8 CSV file ({error}); download it again') from None
        missing = [column for column in columns if column not in (reader.fieldnames or [])]
        if missing or not rows:
            found = f'no column {", ".join(missing)}' if missing else 'no row below its header'
            raise UserError(f'{self.where(name)}: found {found}, expected PTB-XL\'s table; download it again')
        return rows


@functools.lru_cache(maxsize=1)
def open_source(path):
    """The Source at `path`, opened once in each process: the zip's list of 87,000 files takes half a second to read."""
    return Source(path)


def open_zip(path):
    """The zipfile.ZipFile at `path`; UserError where it is missing, no whole zip, or has names no download has."""
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f'{path}: no such folder or file, expected PTB-XL as {URL} offers it') from None
    except zipfile.BadZipFile as error:
        raise UserError(f'{path}: is neither a folder nor a whole zip ({error}); download it again') from None
    for member in archive.infolist():
        name = member.orig_filename
        parts = name.split('/')
        link = stat.S_ISLNK(member.external_attr >> 16)
        if parts[0] == '' or '..' in parts or '\\' in name or ':' in parts[0] or link:
            raise UserError(f'{path}: has the member {name!r}, expected plain files below one folder only: this is not '
                            f'PTB-XL; download it from {URL}')
    return archive


def read_sums(source):
    """The SHA-256 of each file of PTB-XL, from SHA256SUMS.txt: dict name -> 64 hexadecimal digits."""
    if not source.has(SUMS):
        raise UserError(f'{source.where(SUMS)}: there is no such file, --verify needs it; download it, or leave out '
                        '--verify')
    sums = {}
    for number, line in enumerate(source.read(SUMS).decode('utf-8', 'replace').splitlines(), 1):
        match = re.fullmatch(r'([0-9a-fA-F]{64})\s+\*?(?:\./)?(.+)', line)
        if not match:
            raise UserError(f'{source.where(SUMS)}: line {number} is {line[:80]!r}, expected a SHA-256 and a file '
                            'name; download it again')
        sums[match[2]] = match[1].lower()
    return sums


def check_sum(source, name, expected):
    """Raise BadFile unless the file `name` has the SHA-256 `expected`, a str of digits, or None: not listed."""
    if expected is None:
        raise BadFile(f'{source.where(name)}: is not listed in {SUMS}; download both from one version of PTB-XL')
    found = hashlib.sha256(source.read(name)).hexdigest()
    if found != expected:
        raise BadFile(f'{source.where(name)}: its SHA-256 is {found[:12]}..., {SUMS} has {expected[:12]}...; '
                      'download it again')


def check_source(source, sums):
    """Raise UserError unless the tables, the 500 Hz records and the statements are those of PTB-XL.

    sums: dict, see read_sums, to hold the tables against, or None
    """
    if not source.has('records500/'):
        found = 'only records100, the 100 Hz records,' if source.has('records100/') else 'no records'
        raise UserError(f'{source.where("records500")}: found {found} and no such folder, expected the 500 Hz records; '
                        f'download records500 as well, or the zip, from {URL}')
    rows = source.read_table(SCP, ('description',))
    unknown = sorted({row.get('', '') for row in rows} - set(STATEMENTS))
    if unknown:
        raise UserError(f'{source.where(SCP)}: found the statement {unknown[0]!r}, expected only the 71 of versions '
                        '1.0.1 to 1.0.3; use one of these, or add the statement to STATEMENTS in utils/ptbxl.py')
    for name in (DATABASE, SCP) if sums is not None else ():
        check_sum(source, name, sums.get(name))


def read_records(source):
    """The rows of ptbxl_database.csv.

    Returns: list of Record by ecg_id, and list of str, a line for each row that is broken
    Raises UserError where the table itself is missing or broken, or a patient is in two folds.
    """
    records, problems = {}, []
    for number, row in enumerate(source.read_table(DATABASE, COLUMNS), 1):
        try:
            record = parse_row(row)
            if record.ecg_id in records:
                raise ValueError(f'ecg_id {record.ecg_id} is there twice, expected once')
            records[record.ecg_id] = record
        except ValueError as error:
            problems.append(f'{source.where(DATABASE)}: record {number}: {error}; download the table again')
    folds = {}
    for record in records.values():
        if folds.setdefault(record.patient, record.fold) != record.fold:
            raise UserError(f'{source.where(DATABASE)}: patient {record.patient} is in the folds '
                            f'{folds[record.patient]} and {record.fold}, expected one fold for each patient; download '
                            'the table again')
    return [records[ecg_id] for ecg_id in sorted(records)], problems


def parse_row(row):
    """One row of ptbxl_database.csv, a dict of str, as a Record; ValueError that says what is wrong."""
    numbers = []
    for column in ('ecg_id', 'patient_id', 'strat_fold'):
        match = re.fullmatch(r'(\d{1,9})(\.0*)?', row[column] or '')  # patient_id is written as 15709.0
        if not match:
            raise ValueError(f'{column} is {row[column]!r}, expected a whole number')
        numbers.append(int(match[1]))
    ecg_id, patient, fold = numbers
    if not 1 <= fold <= 10:
        raise ValueError(f'ecg_id {ecg_id}: strat_fold is {fold}, expected 1 to 10')
    expected = rf'records500/\d{{5}}/{ecg_id:05d}_hr'
    if not re.fullmatch(expected, row['filename_hr'] or '', re.ASCII):
        raise ValueError(f'ecg_id {ecg_id}: filename_hr is {row["filename_hr"]!r}, expected {expected}')
    try:
        statements = ast.literal_eval(row['scp_codes'])
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        statements = None
    if not isinstance(statements, dict) or not statements:
        found = repr(row['scp_codes'])[:80]
        raise ValueError(f"ecg_id {ecg_id}: scp_codes is {found}, expected a dict such as {{'NORM': 100.0}}")
    unknown = [code for code in statements if code not in STATEMENTS]
    if unknown:
        raise ValueError(f'ecg_id {ecg_id}: scp_codes has {unknown[0]!r}, expected statements of scp_statements.csv')
    return Record(ecg_id, patient, fold, statements, row['filename_hr'])


def labels_of(statements, task):
    """A record's labels; this module's docstring and STATEMENTS say why.

    statements: dict, SCP-ECG statement -> likelihood; task: 1 or 2
    Returns: list of int; for task 1 one tag, for task 2 the classes in rising order
    """
    if task == 1:
        return [0 if 'NORM' in statements else 1]
    codes = set(statements)
    if codes & {'PVC', 'PAC'}:
        codes -= EARLY_BEATS
    classes = {STATEMENTS[code][0] for code in codes} - {NOTHING}
    if len(classes) > 1:
        classes.discard(NORMAL)
    return sorted(classes or {OTHER})


def split(records, test_fold, limit):
    """The records of each part: those of the fold `test_fold` are val, the others train.

    records: list of Record; limit: int, how many records to take in all, or None for every one
    Returns: dict 'train' and 'val' -> list of Record by ecg_id
    Raises UserError where a part would be empty.
    """
    val = [record for record in records if record.fold == test_fold]
    train = [record for record in records if record.fold != test_fold]
    if not train or not val:
        folds = ', '.join(str(fold) for fold in sorted({record.fold for record in records}))
        raise UserError(f'--test-fold {test_fold}: {DATABASE} has records of the folds {folds or "none"}, expected '
                        'records of this fold and of others; give another --test-fold')
    if limit and limit < len(records):
        of_val = min(max(1, round(limit * len(val) / len(records))), limit - 1)
        train, val = pick(train, limit - of_val), pick(val, of_val)
    return {'train': train, 'val': val}


def pick(records, count):
    """`count` of `records`, evenly spaced in the order of classes and folds, so that their shares stay as they are."""
    ordered = sorted(records, key=lambda record: (labels_of(record.statements, 2), record.fold, record.ecg_id))
    chosen = [ordered[(2 * i + 1) * len(ordered) // (2 * count)] for i in range(count)]
    return sorted(chosen, key=lambda record: record.ecg_id)


def read_signal(source, file, scratch):
    """The 500 Hz signal of one record.

    file: str, such as records500/00000/00001_hr; scratch: str, a folder for a copy of the record's two files: wfdb
    reads files only, and out of the zip there are none
    Returns: float32 (12, 5000), mV, rows in LEADS order
    Raises BadFile where the record is missing or broken, UserError where wfdb is not installed.
    """
    wfdb = import_wfdb()
    name, where = os.path.basename(file), source.where(file)
    content = {extension: source.read(file + extension) for extension in EXTENSIONS}
    size = len(LEADS) * SAMPLES * 2
    if len(content['.dat']) != size:
        raise BadFile(f'{where}.dat: has {len(content[".dat"])} bytes, expected {size}; download it again')
    folder = os.path.join(scratch, f'{name}.{os.getpid()}{PARTIAL}')
    path = os.path.join(folder, name)
    os.makedirs(folder, exist_ok=True)
    try:
        for extension, data in content.items():
            with open(path + extension, 'wb') as copy:
                copy.write(data)
        header = wfdb.rdheader(path)
        check_header(header, name, where + '.hea')
        values = wfdb.rdrecord(path).p_signal
    except (UserError, OSError):
        raise
    except Exception as error:  # on broken text wfdb raises whatever its parser stumbles over
        raise BadFile(f'{where}.hea: wfdb cannot read it ({type(error).__name__}: {error}), expected the header of a '
                      'WFDB record; download it again') from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    names = [lead.upper() for lead in header.sig_name]
    values = values[:, [names.index(lead.upper()) for lead in LEADS]].T
    holes = np.count_nonzero(~np.isfinite(values), axis=1)
    if holes.any():
        raise BadFile(f'{where}.dat: {holes.sum()} samples have no value (NaN), the first in lead '
                      f'{LEADS[int(np.argmax(holes > 0))]}, expected none; download it again')
    return values.astype(np.float32)


def import_wfdb():
    """The package wfdb; UserError that says how to install it."""
    try:
        import wfdb
    except ImportError as error:
        raise UserError(f'PTB-XL is read with the package wfdb, which cannot be imported ({error}): '
                        'pip install wfdb') from None
    return wfdb


def check_header(header, name, where):
    """Raise BadFile unless `header`, from wfdb.rdheader, is one of PTB-XL's 500 Hz records.

    name: str, the record's file name without extension; where: str, how a message names the header
    """
    def distinct(field):
        return sorted(set(getattr(header, field, None) or ()), key=str)

    leads = sorted(str(lead).upper() for lead in getattr(header, 'sig_name', None) or ())
    for what, found, expected in (
            ('the leads', leads, sorted(lead.upper() for lead in LEADS)),
            ('the sampling rate in Hz', header.fs, SAMPLING_RATE),
            ('the number of samples', header.sig_len, SAMPLES),
            ('the units', distinct('units'), ['mV']),
            ('the formats', distinct('fmt'), ['16']),
            ('the samples per frame', distinct('samps_per_frame'), [1]),
            ('the signal files', distinct('file_name'), [name + '.dat'])):
        if found != expected:
            raise BadFile(f'{where}: {what}: found {found}, expected {expected}; download it again')


def mat_bytes(values):
    """A MAT v5 file with the variable ecgdata: bytes. values: float32 (12, 5000), mV

    Not compressed: that would save 150 kB of 240 and take 12 ms, more than reading the record.
    """
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {'ecgdata': values})
    # The first 116 bytes are free text, where scipy puts the time: without it a record has the same bytes each time.
    return b'MATLAB 5.0 MAT-file, written from PTB-XL'.ljust(116) + buffer.getvalue()[116:]


def is_whole(path):
    """True if `path` is a MAT file as this module writes them."""
    try:
        values = scipy.io.loadmat(path)['ecgdata']
    except Exception:  # scipy raises about ten kinds of errors for a broken file; each means: write it anew
        return False
    return values.shape == (len(LEADS), SAMPLES) and values.dtype == np.float32 and bool(np.isfinite(values).all())


def convert(job):
    """Convert one record, unless it is there and whole already; runs in a worker.

    job: Job
    Returns: str, what is wrong with the record, '' if it is in place now
    """
    source = open_source(job.source)
    try:
        for extension, expected in (job.sums or {}).items():
            check_sum(source, job.file + extension, expected)
        if is_whole(job.target):
            return ''
        values = read_signal(source, job.file, os.path.dirname(job.target))
    except BadFile as error:
        if os.path.exists(job.target):  # from an earlier run, before the source broke or was verified
            os.remove(job.target)
        return str(error)
    write_bytes(job.target, mat_bytes(values))
    return ''


def convert_all(jobs):
    """Convert the records in parallel, with a progress bar.

    jobs: list of Job; Returns: list of str, see convert, one for each job
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    bar, results = Bar('PTB-XL', len(jobs), 'records'), []
    workers = min(cores, len(jobs), MOST_WORKERS)
    # Spawned workers behave alike on every system and share no open zip with this process.
    with ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), start_worker) as pool:
        outcomes = pool.map(convert, jobs, chunksize=4)
        try:
            for result in outcomes:
                results.append(result)
                bar.advance()
        except BrokenProcessPool:
            raise UserError('a worker process was killed, perhaps for want of memory; run the same command again: '
                            'it goes on from here') from None
        finally:
            outcomes.close()  # takes back what has not begun, or leaving the pool would wait for all of it
    return results


def start_worker():
    """Leave Ctrl-C to the main process, and end with it however it ends: a pool's workers would wait for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def prepare(out, settings):
    """Make the folder `out` ready for a first or a further run with `settings`, a dict; UserError where it is taken."""
    marker = os.path.join(out, MARKER)
    if not os.path.exists(marker):
        if os.path.exists(out) and not os.path.isdir(out):
            raise UserError(f'{out}: is a file, expected a folder to write to; choose another OUT')
        if os.path.isdir(out) and any(not name.endswith(PARTIAL) for name in os.listdir(out)):
            raise UserError(f'{out}: has files in it and no {MARKER} of an earlier run, expected an empty or a new '
                            'folder; choose another OUT')
        os.makedirs(out, exist_ok=True)
        write_json(marker, settings)
    try:
        with open(marker, encoding='utf-8') as file:
            earlier = dict(json.load(file))
    except (ValueError, TypeError):
        raise UserError(f'{marker}: is not what this command wrote; choose another OUT, or remove this one') from None
    for key, value in settings.items():
        if earlier.get(key) != value:
            raise UserError(f'{marker}: {out} was made with {key} = {earlier.get(key)}, this run has {key} = {value}; '
                            'choose another OUT, or remove this one')
    for folder in (out, os.path.join(out, 'train'), os.path.join(out, 'val')):
        os.makedirs(folder, exist_ok=True)
        clear_partials(folder)


def name_of(record, part):
    """The competition's name for a record of `part`, 'train' or 'val'."""
    return f'{PREFIX[part]}{record.ecg_id:05d}'


def write_tables(out, parts, task, source):
    """Write the references, source.csv and the attribution beside the records.

    parts: dict 'train' and 'val' -> list of Record, those that were converted
    """
    origin = [['name', 'ecg_id', 'patient', 'statements']]
    for part, records in parts.items():
        rows = [['name', 'tag']] if task == 1 else []
        for record in records:
            rows.append([name_of(record, part), *labels_of(record.statements, task)])
            statements = '; '.join(f'{code} {likelihood}' for code, likelihood in record.statements.items())
            origin.append([name_of(record, part), record.ecg_id, record.patient, statements])
        write_csv(os.path.join(out, f'{part}reference.csv'), rows)
    write_csv(os.path.join(out, 'source.csv'), origin)
    write_text(os.path.join(out, 'ATTRIBUTION.txt'), ATTRIBUTION)
    if source.has('LICENSE.txt'):
        write_bytes(os.path.join(out, 'LICENSE.txt'), source.read('LICENSE.txt'))


def summary(parts, task):
    """How many records of each part each class has: str, some lines. parts: see write_tables"""
    counts = {part: [labels_of(record.statements, task) for record in records] for part, records in parts.items()}
    lines = [f'{"class":38}{"train":>8}{"val":>8}']
    for label, name in CLASSES[task].items():
        has = [sum(label in labels for labels in counts[part]) for part in ('train', 'val')]
        lines.append(f'{label:2d} {name:35}{has[0]:8d}{has[1]:8d}')
    lines.append(f'{"records":38}{len(parts["train"]):8d}{len(parts["val"]):8d}')
    if task == 2:
        everything = [record.statements for records in parts.values() for record in records]
        overruled = sum('NORM' in codes and labels_of(codes, 2) != [NORMAL] for codes in everything)
        unnamed = sum(all(STATEMENTS[code][0] == NOTHING for code in codes) for codes in everything)
        lines += ['A record can have several classes, a normal one has no other.',
                  f'{overruled} records with NORM have a class besides and are not counted as normal.',
                  f'{unnamed} records have no statement that names a class, NORM neither: they are counted as other.']
    return '\n'.join(lines)


def parse_options(arguments=None):
    """The command line as argparse's namespace. arguments: list of str, None for the process's own"""
    parser = argparse.ArgumentParser(
        prog='python -m utils.ptbxl',
        description='Turn PTB-XL into the layout of the competition: records as MAT files, their labels, and the key '
                    'to the val part. Run again after a stop, it goes on where it was.')
    parser.add_argument('source', metavar='PTBXL', help='PTB-XL 1.0.1 to 1.0.3 from PhysioNet: its folder or the zip')
    parser.add_argument('out', metavar='OUT', help='the folder to write to: new, empty, or of the same command before; '
                        'all of PTB-XL takes 5.2 GB')
    parser.add_argument('--task', type=int, choices=(1, 2), required=True,
                        help='1: normal or abnormal; 2: the twelve classes')
    parser.add_argument('--test-fold', type=int, choices=range(1, 11), default=10, metavar='N',
                        help='the fold of PTB-XL, 1 to 10, that becomes val; the others become train (default: 10)')
    parser.add_argument('--limit', type=int, metavar='N', help='convert only N records, at least 2, '
                        'in which the parts, classes and folds have the shares that they have in the whole')
    parser.add_argument('--verify', action='store_true',
                        help=f'hold each file that is used against {SUMS} (records that are there already, too)')
    options = parser.parse_args(arguments)
    if options.limit is not None and options.limit < 2:
        parser.error(f'--limit is {options.limit}, expected at least 2: one record for each part')
    return options


def main():
    """The command; returns nothing, raises UserError after converting what it could when something is broken."""
    options = parse_options()
    source = open_source(options.source)
    sums = read_sums(source) if options.verify else None
    check_source(source, sums)
    records, problems = read_records(source)
    parts = split(records, options.test_fold, options.limit)
    prepare(options.out, {'task': options.task, 'test_fold': options.test_fold, 'limit': options.limit,
                          'database_sha256': hashlib.sha256(source.read(DATABASE)).hexdigest()})
    planned = [(part, record) for part in parts for record in parts[part]]
    outcomes = convert_all([
        Job(options.source, record.file, os.path.join(options.out, part, name_of(record, part) + '.mat'),
            None if sums is None else {end: sums.get(record.file + end) for end in EXTENSIONS})
        for part, record in planned])
    converted = {part: [record for (of, record), problem in zip(planned, outcomes) if of == part and not problem]
                 for part in parts}
    write_tables(options.out, converted, options.task, source)
    print(f'PTB-XL for task {options.task} in {options.out}; val is fold {options.test_fold}')
    print(summary(converted, options.task), flush=True)
    problems += [problem for problem in outcomes if problem]
    for problem in problems:
        errors.say_error(problem)
    if problems:
        raise UserError(f'{len(problems)} broken records, named above, were left out, {options.out} has the others; '
                        'mend them and run the same command again')


if __name__ == '__main__':
    errors.run(main)
