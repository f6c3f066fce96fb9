"""What task 1 and task 2 are: class names, trainreference.csv, answer.csv. Knows nothing of Paddle."""
import csv
import io
import os
from dataclasses import dataclass

import numpy as np

from utils.errors import UserError

CSV_LIMIT = 64 * 2**20  # bytes


@dataclass(frozen=True)
class Task:
    """A task of the competition.

    class_names: what the network's outputs stand for; multi_label: several classes at once (sigmoid), else one
    """
    number: int
    class_names: tuple
    multi_label: bool


TASKS = {
    1: Task(1, ('normal', 'abnormal'), False),
    2: Task(2, ('normal', 'sinus bradycardia', 'sinus tachycardia', 'sinus arrhythmia', 'atrial fibrillation',
                'ventricular premature beat', 'atrial premature beat', 'first-degree AV block',
                'complete right bundle branch block', 'T-wave change', 'ST change', 'other'), True),
}


def read_reference(path, names, task):
    """Read the labels of records and check them against the records that are there.

    path: str, CSV; task 1: header name,tag with tags 0 or 1; task 2: no header, name,label[,label...], labels 1-12, or
        name and twelve cells of 0 and 1
    names: iterable of str, the records that must have a label each; task: Task
    Returns: targets for sorted(names): int64 array (n,) for task 1, float32 array (n, 12) of 0 and 1 for task 2
    Raises: UserError with one line per problem: file, line number, what was found and expected
    """
    names = set(names)
    found, problems = {}, []
    for row, (line, cells) in enumerate(_read_rows(path)):
        name = _strip_mat(cells[0])
        try:
            if row == 0 and task.number == 1 and name.lower() == 'name':
                continue
            label = _parse_labels(cells, task)
            if name in found:
                raise ValueError(f'the record {name} stood in line {found[name][0]} already; remove one of the lines')
            if name not in names:
                raise ValueError(f'there is no picture of the record {name}; run process.py, or remove the line')
            found[name] = (line, label)
        except ValueError as error:
            problems.append(f'{path}, line {line}: {error}')
    missing = sorted(names - set(found))
    if missing:
        some = ', '.join(missing[:5]) + (', ...' if len(missing) > 5 else '')
        problems.append(f'{path}: no label for {len(missing)} of {len(names)} records: {some}; expected one line each')
    if problems and _fits_other_task(path, task):
        raise UserError(f'{path}: these look like the labels of task {3 - task.number}, expected those of task {task.number}; '
                        f'set task: {3 - task.number} (-o task={3 - task.number})')
    if problems:
        more = [f'{path}: and {len(problems) - 20} more problems'] if len(problems) > 20 else []
        raise UserError(*problems[:20], *more)
    return as_targets([found[name][1] for name in sorted(names)], task)


def _fits_other_task(path, task):
    other = TASKS[3 - task.number]
    rows = [cells for _, cells in _read_rows(path)]
    header = bool(rows) and rows[0][0].lower() == 'name'
    try:
        return header == (other.number == 1) and bool([_parse_labels(cells, other) for cells in rows[header:]])
    except ValueError:
        return False


def as_targets(labels, task):
    """Turn labels into what the network is trained on.

    labels: list of tag (task 1) or of sets of 1-12 (task 2)
    Returns: int64 array (n,) or float32 array (n, 12)
    """
    if not task.multi_label:
        return np.array(labels, dtype=np.int64)
    targets = np.zeros((len(labels), len(task.class_names)), dtype=np.float32)
    for row, chosen in zip(targets, labels):
        row[[label - 1 for label in chosen]] = 1
    return targets


def decide(probabilities, thresholds, task):
    """Turn probabilities into an answer.

    probabilities: float array (n,) of "abnormal" for task 1, (n, 12) for task 2
    thresholds: float, or float array (12,)
    Returns: int64 array (n,) of 0 and 1, or (n, 12) where every row has a 1 and "normal" stands alone
    """
    chosen = (probabilities >= thresholds).astype(np.int64)
    if task.multi_label:
        # In log-odds: a class with a low threshold could not be far below it otherwise, and would always be the nearest.
        margin = log_odds(probabilities) - log_odds(thresholds)
        nothing = ~chosen.any(axis=1)
        chosen[nothing, margin[nothing].argmax(axis=1)] = 1
        both = (chosen[:, 0] == 1) & chosen[:, 1:].any(axis=1)
        normal_wins = margin[:, 0] > margin[:, 1:].max(axis=1)
        chosen[both & ~normal_wins, 0] = 0
        chosen[both & normal_wins, 1:] = 0
    return chosen


def log_odds(probabilities):
    """Probabilities, also 0 and 1, as finite log-odds: float or array -> float or array."""
    within = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.log(within / (1 - within))


def is_abnormal(target, task):
    """Whether one row of as_targets() stands for an ECG that is not normal."""
    return not target[0] if task.multi_label else bool(target)


def words_for(target, task):
    """The class names of one row of as_targets(), as one phrase."""
    if not task.multi_label:
        return task.class_names[target]
    return ', '.join(name for name, present in zip(task.class_names, target) if present)


def answer_rows(names, decisions, task, form='list'):
    """The rows of answer.csv.

    names: list of str; decisions: as decide returns them; form: 'list' or 'onehot', for task 2
    Returns: list of lists of cells; task 1 with the header name,tag; task 2 without one, name,label[,label...] or, one-hot,
        the name and for each of the twelve classes 1 or 0
    """
    if not task.multi_label:
        return [['name', 'tag']] + [[name, int(tag)] for name, tag in zip(names, decisions)]
    if form == 'onehot':
        return [[name] + [int(present) for present in row] for name, row in zip(names, decisions)]
    return [[name] + [int(label) + 1 for label in np.flatnonzero(row)] for name, row in zip(names, decisions)]


def _parse_labels(cells, task):
    cells = cells[:1] + [cell for cell in cells[1:] if cell]  # a spreadsheet pads short rows with empty cells
    if len(cells) < 2:
        raise ValueError(f'found {cells[0]!r} alone, expected name,{"label" if task.multi_label else "tag"}')
    if not task.multi_label:
        if len(cells) > 2 or cells[1] not in ('0', '1', '0.0', '1.0'):
            raise ValueError(f'found the tag {",".join(cells[1:])!r}, expected 0 (normal) or 1 (abnormal)')
        return int(cells[1][0])
    count = len(task.class_names)
    if len(cells) == 1 + count and set(cells[1:]) <= {'0', '1'}:  # one-hot; a list never names all twelve
        if '1' not in cells[1:]:
            raise ValueError('found twelve times 0; every record has at least one label')
        cells = cells[:1] + [str(i + 1) for i in range(count) if cells[i + 1] == '1']
    labels = set()
    for cell in cells[1:]:
        if not (cell.isascii() and cell.isdigit() and 1 <= int(cell[:4]) <= count):
            raise ValueError(f'found the label {cell!r}, expected whole numbers from 1 to {count}')
        labels.add(int(cell))
    if 1 in labels and len(labels) > 1:
        raise ValueError('found label 1 (normal) beside others; a normal record has no other label')
    return labels


def _read_rows(path):
    """(line number, cells) of the rows of a CSV that are not blank; comma, semicolon or tab between cells."""
    text = _read_text(path)
    first = text.lstrip().split('\n', 1)[0]
    delimiter = max(',;\t', key=first.count)
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if any(cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f'{path}, line {reader.line_num}: not a CSV row ({error})') from None


def _read_text(path):
    try:
        size = os.path.getsize(path)
        if size > CSV_LIMIT:
            raise UserError(f'{path}: {size / 2**20:.0f} MiB, expected a table of names and labels under '
                            f'{CSV_LIMIT // 2**20} MiB')
        with open(path, 'rb') as file:
            data = file.read()
    except FileNotFoundError:
        raise UserError(f'{path}: no such file; expected the labels of the records, one line each') from None
    encodings = ('utf-16',) if data[:2] in (b'\xff\xfe', b'\xfe\xff') else ('utf-8-sig', 'gb18030')
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise UserError(f'{path}: neither UTF-8, UTF-16 nor GBK text; save it as UTF-8 CSV')


def _strip_mat(name):
    return name[:-4] if name.lower().endswith('.mat') else name
