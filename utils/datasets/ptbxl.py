"""PTB-XL, as PhysioNet publishes it, in the competition's layout: docs/ptbxl.md shows and explains.

    python -m utils.datasets.ptbxl ptb-xl-1.0.3.zip dataset/ptbxl-records --task 1

Task 1: a record with the statement NORM is normal. Task 2: scp_statements.csv has each statement's
class; "normal" gives way to others, a record without a class is "other". Task 3: the findings of
answers/findings.py, by the groups in PTB-XL's own scp_statements.csv. Likelihoods are ignored.
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
from scipy.signal import resample_poly

from utils.answers.findings import FINDINGS, findings_of
from utils.answers.tasks import TASKS
from utils.ecg.signals import LEADS, SAMPLING_RATE
from utils.running import errors, files, log
from utils.running.errors import UserError

URL = 'https://physionet.org/content/ptb-xl/'
DATABASE = 'ptbxl_database.csv'
STATEMENTS = pathlib.Path(__file__).with_name('scp_statements.csv')
MARKER = 'conversion.json'  # in OUT: how it was made
NORMAL, OTHER = 1, 12  # classes of task 2
EARLY_BEATS = {'PRC(S)', 'BIGU', 'TRIGU'}  # of unsaid origin, unless PVC or PAC says it
COLUMNS = ('ecg_id', 'patient_id', 'strat_fold', 'scp_codes')
FILES = {500: ('records500', 'filename_hr', '_hr'), 100: ('records100', 'filename_lr', '_lr')}
GROUPS = ('diagnostic', 'form', 'rhythm', 'diagnostic_class', 'diagnostic_subclass')
HEADER = r'{0} 12 {1} {2}\b.*(\n{0}\.dat 16 \S+/mV .*){{12}}'  # of a record
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
             if (folder / DATABASE).is_file() and rates_of(folder)]
    if len(found) != 1:
        raise UserError(f'{path}: found {len(found)} folders with {DATABASE} and records500 or '
                        f'records100, expected one, here or one folder down; download both from '
                        f'{URL}')
    return found[0]


def rates_of(folder):
    """The sampling rates, Hz, of which there are records in a folder, the highest first."""
    return [rate for rate, (name, _, _) in FILES.items() if (folder / name).is_dir()]


def read_groups(source):
    """The groups of each statement, as PTB-XL's own scp_statements.csv has them.

    Returns: {statement: set of str such as 'super:MI'}, without the underscores that pad names
    """
    table = read_table(source / STATEMENTS.name, None).rename(columns={'': 'statement'})
    table.columns = ['statement', *table.columns[1:]]
    missing = set(GROUPS) - set(table.columns)
    if missing:
        raise UserError(f'{source / STATEMENTS.name}: has no column {", ".join(sorted(missing))}, '
                        f'expected PTB-XL\'s own table; download it again from {URL}')
    groups = {}
    for row in table.to_dict('records'):
        said = {f'{kind}:{row["statement"]}' for kind in ('form', 'rhythm') if row[kind]}
        if row['diagnostic']:
            said |= {f'super:{row["diagnostic_class"]}', f'sub:{row["diagnostic_subclass"]}'}
        groups[row['statement']] = {name.replace(':_', ':').rstrip('_') for name in said}
    return groups


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


def labels_of(statements, meanings, task):
    """A record's labels: list of int, one tag for task 1, rising classes for tasks 2 and 3.

    meanings: of read_classes(), for task 3 of read_groups()
    """
    if task == 1:
        return [0 if 'NORM' in statements else 1]
    codes = set(statements)
    if task == 3:
        said = findings_of(set().union(*(meanings[code] for code in codes)))
        return [number for number, there in enumerate(said, 1) if there]
    if codes & {'PVC', 'PAC'}:
        codes -= EARLY_BEATS
    found = {meanings[code] for code in codes} - {0}
    if len(found) > 1:
        found.discard(NORMAL)
    return sorted(found or {OTHER})


def parse_row(row, meanings, task, test_fold, rate):
    """A row of PTB-XL's table, a dict of str, as one of values; some Exception for a broken one."""
    ecg_id, patient, fold = (int(row[column].removesuffix('.0')) for column in COLUMNS[:3])
    folder, column, ending = FILES[rate]
    file = row[column].replace('\\', '/')  # of a table that was made again on Windows
    if not re.fullmatch(rf'{folder}/[0-9]{{5}}/{ecg_id:05d}{ending}', file):
        raise ValueError(f'{column} is not {folder}/NNNNN/{ecg_id:05d}{ending}')
    codes = dict(ast.literal_eval(row['scp_codes']))
    unknown = [code for code in codes if code not in meanings]
    if unknown or not codes:
        raise ValueError(f'scp_codes has {unknown}, not statements of {STATEMENTS.name}')
    part = 'val' if fold == test_fold else 'train'
    return {'part': part, 'name': f'{PREFIX[part]}{ecg_id:05d}', 'ecg_id': ecg_id,
            'patient': patient, 'fold': fold, 'file': file,
            'statements': '; '.join(f'{code} {value}' for code, value in codes.items()),
            'labels': labels_of(codes, meanings, task)}


def read_records(source, task, test_fold, rate):
    """PTB-XL's table as a DataFrame of what parse_row returns, and a list of str, broken rows."""
    path = source / DATABASE
    meanings = read_groups(source) if task == 3 else read_classes()
    columns = (*COLUMNS, FILES[rate][1])
    rows, problems = [], []
    for number, row in enumerate(read_table(path, columns).to_dict('records'), 1):
        try:
            rows.append(parse_row(row, meanings, task, test_fold, rate))
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


def read_signal(path, scratch, rate):
    """A record: float32 array (12, 5000), mV, rows in LEADS order; UserError where it is broken.
    path: pathlib.Path or zipfile.Path without its extension; scratch: str, a folder; rate: Hz"""
    import wfdb
    copy = pathlib.Path(scratch, path.name)  # wfdb reads files only, and a zip has none
    header, data = (read(path.parent / (path.name + ending)) for ending in ('.hea', '.dat'))
    copy.with_suffix('.hea').write_bytes(header)
    copy.with_suffix('.dat').write_bytes(data)
    try:
        samples, size = 10 * rate, 240 * rate
        if not re.match(HEADER.format(path.name, rate, samples), header.decode('ascii')) or \
                len(data) != size:
            raise ValueError(f'found {len(data)} bytes and the header {header!r:.200}, expected '
                             f'{size} and one of 12 leads of {samples} samples in mV at {rate} Hz')
        record = wfdb.rdrecord(str(copy))
        leads = [lead.upper() for lead in record.sig_name]
        values = record.p_signal[:, [leads.index(lead.upper()) for lead in LEADS]].T
        if not np.isfinite(values).all():
            raise ValueError('found samples without a value (NaN), expected none')
    except Exception as error:  # on broken text wfdb raises whatever its parser stumbles over
        raise UserError(f'{path}: is no whole record ({error!r}); download it again') from None
    if rate != SAMPLING_RATE:
        values = resample_poly(values, SAMPLING_RATE, rate, axis=1, padtype='line')
    return values.astype(np.float32)


def mat_bytes(values):
    """A MAT file with `values` as `ecgdata`: bytes, the same each time, as scipy's text is not."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {'ecgdata': values})
    return b'MATLAB 5.0 MAT-file, written from PTB-XL'.ljust(116) + buffer.getvalue()[116:]


def convert(source, records, out, rate):
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
                values = read_signal(source / record.file, scratch, rate)
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
            labels = record.labels
            if task == 3:  # none at all is possible, so all are told
                labels = [int(number in labels) for number in range(1, len(FINDINGS) + 1)]
            lines.append(','.join([record.name, *map(str, labels)]) + '\n')
        files.write_text(out / f'{part}reference.csv', ''.join(lines))
    files.write_table(out / 'source.csv', records[['name', 'ecg_id', 'patient', 'statements']])
    files.write_bytes(out / 'ATTRIBUTION.txt', read(STATEMENTS.with_name('ptbxl_attribution.txt')))
    if (source / 'LICENSE.txt').is_file():
        files.write_bytes(out / 'LICENSE.txt', read(source / 'LICENSE.txt'))


def print_summary(records, task):
    """Print how many records of each part have each class."""
    labels = {part: records['labels'][records['part'] == part] for part in PREFIX}
    print(f'{"class":38}   train     val')
    for number, name in enumerate(TASKS[task].class_names, min(task - 1, 1)):
        train, val = (sum(number in each for each in labels[part]) for part in PREFIX)
        print(f'{number:2d} {name:35}{train:8d}{val:8d}')
    print(f'{"records":38}{len(labels["train"]):8d}{len(labels["val"]):8d}', flush=True)


def read_options():
    """The command line."""
    parser = argparse.ArgumentParser('python -m utils.datasets.ptbxl',
                                     description='See docs/ptbxl.md.')
    parser.add_argument('source', metavar='PTBXL', help='PTB-XL 1.0.1 to 1.0.3: folder or zip')
    parser.add_argument('out', metavar='OUT', type=pathlib.Path, help='a new folder, up to 5.2 GB')
    parser.add_argument('--task', type=int, choices=(1, 2, 3), required=True)
    parser.add_argument('--test-fold', type=int, default=10, help='becomes val (default: 10)')
    parser.add_argument('--leave-out', type=int, metavar='FOLD',
                        help='a fold that is not converted, kept to be measured with later')
    parser.add_argument('--sampling-rate', type=int, choices=sorted(FILES), metavar='HZ',
                        help='of the records that are read: 500, or 100, a fifth of the download '
                             'and enough for 320 pixels (default: 500 where they are there)')
    parser.add_argument('--limit', type=int, metavar='N', help='only N records, at least 2')
    options = parser.parse_args()
    if options.limit is not None and options.limit < 2:
        parser.error('--limit must be at least 2: a record for each part')
    return options


def main():
    """The command; UserError names the broken records when the others are written."""
    options = read_options()
    out, task = options.out, options.task
    if importlib.util.find_spec('wfdb') is None:
        raise UserError('PTB-XL is read with the package wfdb, which is missing: pip install wfdb')
    source = open_source(options.source)
    rate = options.sampling_rate or rates_of(source)[0]
    if rate not in rates_of(source):
        raise UserError(f'{source}: has no {FILES[rate][0]}; download it from {URL}, or leave '
                        '--sampling-rate out')
    print(f'{source}: the records of {rate} Hz')
    records, problems = read_records(source, task, options.test_fold, rate)
    records = records[records['fold'] != options.leave_out].reset_index(drop=True)
    records = choose(records, min(options.limit or len(records), len(records)))
    chosen = hashlib.sha256(records[['name', 'statements']].to_csv().encode()).hexdigest()
    prepare(out, {'task': task, 'test_fold': options.test_fold, 'sampling_rate': rate,
                  'records_sha256': chosen})
    missing, more = find_missing(source, records)
    records = records[~records['name'].isin(missing)]
    broken = convert(source, records, out, rate)
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
