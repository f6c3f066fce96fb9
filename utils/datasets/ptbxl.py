"""PTB-XL, as PhysioNet publishes it, in the competition's layout: docs/ptbxl.md shows and explains.

    python -m utils.datasets.ptbxl ptb-xl-1.0.3.zip dataset/ptbxl-records --task 1

Task 1: a record with the statement NORM is normal. Task 2: scp_statements.csv has each statement's
class; "normal" gives way to others, a record without a class is "other". Likelihoods are ignored.
"""
import argparse
import ast
import hashlib
import importlib.util
import io
import pathlib
import re
import tempfile
import zipfile

import numpy as np
import pandas as pd
import scipy.io

from utils.answers.tasks import TASKS
from utils.ecg.signals import LEADS
from utils.running import errors, files, log
from utils.running.errors import UserError

URL = 'https://physionet.org/content/ptb-xl/'
DATABASE = 'ptbxl_database.csv'
STATEMENTS = pathlib.Path(__file__).with_name('scp_statements.csv')
MARKER = 'conversion.json'  # in OUT: how it was made
NORMAL, OTHER = 1, 12  # classes of task 2
EARLY_BEATS = {'PRC(S)', 'BIGU', 'TRIGU'}  # of unsaid origin, unless PVC or PAC says it
COLUMNS = ('ecg_id', 'patient_id', 'strat_fold', 'filename_hr', 'scp_codes')
HEADER = r'{0} 12 500 5000\b.*(\n{0}\.dat 16 \S+/mV .*){{12}}'  # of a record
PREFIX = {'train': 'TRAIN', 'val': 'TEST'}


def open_source(path):
    """PTB-XL's pathlib.Path or zipfile.Path. path: str, its folder or zip, or the one above it."""
    top = pathlib.Path(path)
    if not top.is_dir():
        try:
            top = zipfile.Path(path)
            if any(member.filename.startswith('/') for member in top.root.infolist()):
                raise zipfile.BadZipFile('a name starts with /')  # some Pythons hang on '//'
        except (FileNotFoundError, zipfile.BadZipFile) as error:
            raise UserError(f'{path}: is no folder or whole zip ({error}), expected PTB-XL; '
                            f'download it again from {URL}') from None
    found = [folder for folder in (top, *top.iterdir())
             if (folder / DATABASE).is_file() and (folder / 'records500').is_dir()]
    if len(found) != 1:
        raise UserError(f'{path}: found {len(found)} folders with {DATABASE} and records500, '
                        f'expected one, here or one folder down; download both from {URL}')
    return found[0]


def read(path):
    """The bytes of a file, in a folder or a zip; UserError where that fails."""
    try:
        return path.read_bytes()
    except Exception as error:  # for a broken member zipfile raises a dozen kinds
        raise UserError(f'{path}: cannot be read ({error!r}); download it again') from None


def read_table(path, columns):
    """`columns` of a CSV file as a pandas.DataFrame of str; UserError where that fails."""
    try:
        return pd.read_csv(io.BytesIO(read(path)), usecols=columns, dtype=str, na_filter=False,
                           encoding='utf-8-sig')
    except ValueError as error:  # pandas' own are such, and UnicodeDecodeError
        raise UserError(f'{path}: is no UTF-8 CSV file with the columns {", ".join(columns)} '
                        f'({error}); mend it or download it again') from None


def read_classes(path=STATEMENTS):
    """The class of task 2 that each statement stands for: dict, str -> 1 to 12, 0 for none."""
    table = read_table(path, ('statement', 'class', 'class_name'))
    names = {str(number): name for number, name in enumerate(TASKS[2].class_names, 1)}
    expected = table['class'].map({'': '', **names})
    wrong = table[(expected != table['class_name']) | table['statement'].duplicated()]
    if len(wrong):
        raise UserError(f'{path}: found {", ".join(wrong.iloc[0])}; expected each statement once, '
                        f'with the number and the name of one of {names}, or neither; mend it')
    return dict(zip(table['statement'], table['class'].replace('', '0').astype(int)))


def labels_of(statements, classes, task):
    """A record's labels: list of int, one tag for task 1, rising classes for task 2."""
    if task == 1:
        return [0 if 'NORM' in statements else 1]
    codes = set(statements)
    if codes & {'PVC', 'PAC'}:
        codes -= EARLY_BEATS
    found = {classes[code] for code in codes} - {0}
    if len(found) > 1:
        found.discard(NORMAL)
    return sorted(found or {OTHER})


def parse_row(row, classes, task, test_fold):
    """A row of PTB-XL's table, a dict of str, as one of values; some Exception for a broken one."""
    ecg_id, patient, fold = (int(row[column].removesuffix('.0')) for column in COLUMNS[:3])
    file = row['filename_hr'].replace('\\', '/')  # of a table that was made again on Windows
    if not re.fullmatch(rf'records500/[0-9]{{5}}/{ecg_id:05d}_hr', file):
        raise ValueError(f'filename_hr is not records500/NNNNN/{ecg_id:05d}_hr')
    codes = dict(ast.literal_eval(row['scp_codes']))
    unknown = [code for code in codes if code not in classes]
    if unknown or not codes:
        raise ValueError(f'scp_codes has {unknown}, not statements of {STATEMENTS.name}')
    part = 'val' if fold == test_fold else 'train'
    return {'part': part, 'name': f'{PREFIX[part]}{ecg_id:05d}', 'ecg_id': ecg_id,
            'patient': patient, 'fold': fold, 'file': file,
            'statements': '; '.join(f'{code} {value}' for code, value in codes.items()),
            'labels': labels_of(codes, classes, task)}


def read_records(source, task, test_fold):
    """PTB-XL's table as a DataFrame of what parse_row returns, and a list of str, broken rows."""
    path, classes = source / DATABASE, read_classes()
    rows, problems = [], []
    for number, row in enumerate(read_table(path, COLUMNS).to_dict('records'), 1):
        try:
            rows.append(parse_row(row, classes, task, test_fold))
        except Exception as error:  # literal_eval raises many kinds
            problems.append(f'{path}: row {number} is broken ({error!r}), download it again: {row}')
    if {row['part'] for row in rows} != set(PREFIX):
        raise UserError(*problems, f'{path}: found the folds {sorted({r["fold"] for r in rows})}, '
                        f'expected {test_fold} and others; give another --test-fold')
    records = pd.DataFrame(rows).sort_values(['part', 'ecg_id'], ignore_index=True)
    folds = records.groupby('patient')['fold'].nunique()
    if folds.max() > 1 or records['ecg_id'].duplicated().any():
        raise UserError(f'{path}: the patient {folds.idxmax()} is in {folds.max()} folds, or an '
                        'ecg_id is there twice, expected each once; download it again')
    return records, problems


def choose(records, limit):
    """`limit` records, evenly spaced in the order of parts, labels and folds: the shares stay."""
    order = records.sort_values(['part', 'labels', 'fold'], key=lambda column: column.map(str))
    return order.iloc[np.linspace(0, len(order) - 1, limit, dtype=int)].sort_index()


def find_missing(source, records):
    """Names of the records whose files are not there, and a list of one str about them, or none."""
    folders = {file.rpartition('/')[0] for file in records['file']}
    there = {path.name for folder in folders if (source / folder).is_dir()
             for path in (source / folder).iterdir()}
    missing = [record.name for record in records.itertuples() if not
               {record.file.rpartition('/')[2] + end for end in ('.hea', '.dat')} <= there]
    files = records['file'][records['name'].isin(missing)]
    return missing, [f'{source}: {len(missing)} of {len(records)} records are not there, such as '
                     f'{", ".join(files[:3])}; download it again'] if missing else []


def prepare(out, settings):
    """Make the folder `out` ready for a first or a further run with `settings`, a dict."""
    earlier = files.read_json(out / MARKER)
    foreign = [path for path in out.glob('*') if not path.name.endswith(files.PARTIAL)]
    if earlier != settings and foreign:
        raise UserError(f'{out}: has files that were made with {earlier or "other programs"}, this '
                        f'run has {settings}; choose another OUT')
    out.mkdir(parents=True, exist_ok=True)
    files.write_json(out / MARKER, settings)
    for folder in (out, out / 'train', out / 'val'):
        folder.mkdir(exist_ok=True)
        files.clear_partials(folder)


def read_signal(path, scratch):
    """A record: float32 array (12, 5000), mV, rows in LEADS order; UserError where it is broken.
    path: pathlib.Path or zipfile.Path without its extension; scratch: str, a folder"""
    import wfdb
    copy = pathlib.Path(scratch, path.name)  # wfdb reads files only, and a zip has none
    header, data = (read(path.parent / (path.name + ending)) for ending in ('.hea', '.dat'))
    copy.with_suffix('.hea').write_bytes(header)
    copy.with_suffix('.dat').write_bytes(data)
    try:
        if not re.match(HEADER.format(path.name), header.decode('ascii')) or len(data) != 120000:
            raise ValueError(f'found {len(data)} bytes and the header {header!r:.200}, expected '
                             '120000 and one of 12 leads of 5000 samples in mV at 500 Hz')
        record = wfdb.rdrecord(str(copy))
        leads = [lead.upper() for lead in record.sig_name]
        values = record.p_signal[:, [leads.index(lead.upper()) for lead in LEADS]].T
        if not np.isfinite(values).all():
            raise ValueError('found samples without a value (NaN), expected none')
    except Exception as error:  # on broken text wfdb raises whatever its parser stumbles over
        raise UserError(f'{path}: is no whole record ({error!r}); download it again') from None
    return values.astype(np.float32)


def mat_bytes(values):
    """A MAT file with `values` as `ecgdata`: bytes, the same each time, as scipy's text is not."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {'ecgdata': values})
    return b'MATLAB 5.0 MAT-file, written from PTB-XL'.ljust(116) + buffer.getvalue()[116:]


def convert(source, records, out):
    """Write the records that are not there and whole: dict, name -> what is wrong with a record."""
    size = len(mat_bytes(np.zeros((12, 5000), np.float32)))
    problems = {}
    with tempfile.TemporaryDirectory(files.PARTIAL, dir=out) as scratch, \
            log.bar(len(records), 'PTB-XL', 'records') as bar:
        for record in records.itertuples():
            bar.update(1)
            path = out / record.part / f'{record.name}.mat'
            if path.is_file() and path.stat().st_size == size:
                continue
            try:
                values = read_signal(source / record.file, scratch)
            except UserError as error:
                path.unlink(missing_ok=True)
                problems[record.name] = str(error)
            else:
                files.write_bytes(path, mat_bytes(values))
    return problems


def write_tables(source, records, out, task):
    """Write the references, source.csv, the attribution and the licence."""
    for part in PREFIX:
        lines = ['name,tag\n'] if task == 1 else []
        for record in records[records['part'] == part].itertuples():
            lines.append(','.join([record.name, *map(str, record.labels)]) + '\n')
        files.write_text(out / f'{part}reference.csv', ''.join(lines))
    files.write_table(out / 'source.csv', records[['name', 'ecg_id', 'patient', 'statements']])
    files.write_bytes(out / 'ATTRIBUTION.txt', read(STATEMENTS.with_name('ptbxl_attribution.txt')))
    if (source / 'LICENSE.txt').is_file():
        files.write_bytes(out / 'LICENSE.txt', read(source / 'LICENSE.txt'))


def print_summary(records, task):
    """Print how many records of each part have each class."""
    labels = {part: records['labels'][records['part'] == part] for part in PREFIX}
    print(f'{"class":38}   train     val')
    for number, name in enumerate(TASKS[task].class_names, task - 1):
        train, val = (sum(number in each for each in labels[part]) for part in PREFIX)
        print(f'{number:2d} {name:35}{train:8d}{val:8d}')
    print(f'{"records":38}{len(labels["train"]):8d}{len(labels["val"]):8d}', flush=True)


def main():
    """The command; UserError names the broken records when the others are written."""
    parser = argparse.ArgumentParser('python -m utils.datasets.ptbxl', description='See docs/ptbxl.md.')
    parser.add_argument('source', metavar='PTBXL', help='PTB-XL 1.0.1 to 1.0.3: folder or zip')
    parser.add_argument('out', metavar='OUT', type=pathlib.Path, help='a new folder, up to 5.2 GB')
    parser.add_argument('--task', type=int, choices=(1, 2), required=True)
    parser.add_argument('--test-fold', type=int, default=10, help='becomes val (default: 10)')
    parser.add_argument('--limit', type=int, metavar='N', help='only N records, at least 2')
    options = parser.parse_args()
    if options.limit is not None and options.limit < 2:
        parser.error('--limit must be at least 2: a record for each part')
    out, task = options.out, options.task
    if importlib.util.find_spec('wfdb') is None:
        raise UserError('PTB-XL is read with the package wfdb, which is missing: pip install wfdb')
    source = open_source(options.source)
    records, problems = read_records(source, task, options.test_fold)
    records = choose(records, min(options.limit or len(records), len(records)))
    chosen = hashlib.sha256(records[['name', 'statements']].to_csv().encode()).hexdigest()
    prepare(out, {'task': task, 'test_fold': options.test_fold, 'records_sha256': chosen})
    missing, more = find_missing(source, records)
    records = records[~records['name'].isin(missing)]
    broken = convert(source, records, out)
    records = records[~records['name'].isin(broken)]
    write_tables(source, records, out, task)
    print_summary(records, task)
    problems += [*broken.values(), *more]
    if problems:
        count = len(problems) - len(more) + len(missing)
        raise UserError(*problems, f'{count} broken records, named above, were left out; mend them '
                        'and run the same command again')


if __name__ == '__main__':
    errors.run(main)
