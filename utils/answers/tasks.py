"""What the tasks are: class names, labels, probabilities, decisions, answers."""
import csv
import io
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from utils.answers.findings import FINDINGS
from utils.ecg.text import counts, read_named_rows, record_of
from utils.running.errors import UserError

MOST_WORDS = 12  # of the class names of a record
TAGS = {'0': 0, '1': 1, 'normal': 0, 'abnormal': 1, '正常': 0, '异常': 1}
TURNED = re.compile(r'(?<!ab)norm|healthy|(?<!不)正常')  # a column in which 1 would mean normal
ABNORMAL_COUNTS = 10  # times as much as any other output of task 3, in the loss


@dataclass(frozen=True)
class Task:
    """A task of the competition, or 3: all that PTB-XL's readers wrote, to start from.

    class_names: what the network's outputs stand for; multi_label: several classes at once
    (sigmoid), else one (softmax)
    """
    number: int
    class_names: tuple
    multi_label: bool

    @property
    def importance(self):
        """How much each class counts in the loss: float32 array (classes,) with a mean of 1.

        In task 3 "abnormal" is what is asked for first.
        """
        importance = np.ones(len(self.class_names), np.float32)
        if self.number == 3:
            importance[0] = ABNORMAL_COUNTS
        return importance / importance.mean()

    @property
    def normal_alone(self):
        """Whether a record with the first label has no other."""
        return self.class_names[0] == 'normal'


TASKS = {
    1: Task(1, ('normal', 'abnormal'), False),
    2: Task(2, ('normal', 'sinus bradycardia', 'sinus tachycardia', 'sinus arrhythmia',
                'atrial fibrillation', 'ventricular premature beat', 'atrial premature beat',
                'first-degree AV block', 'complete right bundle branch block', 'T-wave change',
                'ST change', 'other'), True),
    3: Task(3, tuple(name for name, _, _ in FINDINGS), True),
}


def head_of_start(task):
    """How a network of task 3 can answer another task before it has learnt it.

    Returns: float32 array (classes of task 3, classes), to multiply task 3's logits with
    """
    findings = TASKS[3].class_names
    head = np.zeros((len(findings), len(task.class_names)), np.float32)
    if not task.multi_label:
        head[0] = -0.5, 0.5  # the log-odds are the difference of the two
        return head
    head[0, 0] = -1
    for column, name in enumerate(task.class_names[1:], 1):
        head[findings.index(name), column] = 1
    return head


def targets_of_findings(targets, task):
    """The labels of task 3 as those of another task.

    targets: float32 array (n, classes of task 3) of 0 and 1
    Returns: as read_reference(); in task 2 an ECG without any class is "other"
    """
    if not task.multi_label:
        return targets[:, 0].astype(np.int64)
    findings = TASKS[3].class_names
    others = targets[:, [findings.index(name) for name in task.class_names[1:]]]
    normal = (targets[:, :1] == 0) & ~others.any(axis=1, keepdims=True)
    classes = np.concatenate([normal, others], axis=1).astype(np.float32)
    classes[~classes.any(axis=1), -1] = 1
    return classes


def read_reference(path, names, task):
    """Read the labels of records and check them against the records that are there.

    path: str, CSV; task 1: header name,tag with tags 0 or 1 (or normal, abnormal, 正常, 异常);
        task 2: no header, name,label[,label...], labels 1-12, or name and twelve cells of 0 and 1;
        task 3: as task 2, with its own labels
    names: iterable of str, the records that must have a label each; task: Task
    Returns: targets for sorted(names): int64 array (n,), or float32 array (n, classes) of 0 and 1
    Raises: UserError with one line per problem: file, line number, what was found and expected
    """
    names = set(names)
    header, rows = read_named_rows(path, names)
    _check_header(path, header or [], task)
    found, problems = {}, []
    for line, cells in rows:
        name = record_of(cells[0], names)
        try:
            if name not in names:
                raise ValueError(f'there is no record {name} among these {len(names)}; remove the '
                                 'line, add the record, or begin a header with name')
            if name in found:
                raise ValueError(f'the record {name} stood in line {found[name][0]} already; '
                                 'remove one of the lines')
            found[name] = line, _parse_labels(cells, task)
        except ValueError as error:
            problems.append(f'{path}, line {line}: {error}')
    missing = sorted(names - set(found))
    if missing:
        some = ', '.join(missing[:5]) + (', ...' if len(missing) > 5 else '')
        problems.append(f'{path}: no label for {len(missing)} of {len(names)} records: {some}; '
                        'expected one line each')
    said = {_plain(cell) for _, cells in rows for cell in cells[1:] if cell}
    other = 1 if task.multi_label else 2
    if problems and said == {'1', '2'} and not task.multi_label:
        problems = [f'{path}: the tags are 1 and 2, expected 0 (normal) and 1 (abnormal); where '
                    'they mean that, write 0 for 1 and 1 for 2']
    elif problems and said - {'1', '2'} and _fit(rows, TASKS[other]):
        problems = [f'{path}: these look like the labels of task {other}, expected those of task '
                    f'{task.number}; set task: {other}']
    if problems:
        raise UserError(*problems)
    return np.array([found[name][1] for name in sorted(names)],
                    np.float32 if task.multi_label else np.int64)


def _check_header(path, header, task):
    """Refuse columns in which the numbers mean something else."""
    expected = ['name', *(task.class_names if task.multi_label else ['tag'])]
    if task.multi_label:
        other = len(header) == len(expected) and not counts(header[1:]) and header != [
            word.lower() for word in expected]
    else:
        other = TURNED.search(' '.join(header[1:2]))
    if other:
        raise UserError(f'{path}: found the columns {", ".join(header)}, expected '
                        f'{", ".join(expected)}, in which 1 says that it is so; write them so')


def _fit(rows, task):
    """Whether the rows of a file would pass as the labels of `task`."""
    try:
        return bool([_parse_labels(cells, task) for _, cells in rows])
    except ValueError:
        return False


def _plain(cell):
    """A label without what programs add: '1.0', '1e+00' and 'True' are '1'."""
    try:
        return f'{float({"true": 1, "false": 0}.get(cell.lower(), cell)):g}'
    except ValueError:
        return cell


def _parse_labels(cells, task):
    """The tag (task 1) or 0 or 1 for each class of one row; ValueError says why not."""
    count, labels = len(task.class_names), [_plain(cell) for cell in cells[1:]]
    while labels and not labels[-1]:
        labels.pop()  # spreadsheets pad short rows
    if not labels:
        expected = 'label' if task.multi_label else 'tag'
        raise ValueError(f'found {cells[0]!r} alone, expected name,{expected}')
    if not task.multi_label:
        if len(labels) > 1 or labels[0].lower() not in TAGS:
            raise ValueError(f'found the tag {",".join(labels)!r}, expected 0 (normal) or 1 '
                             '(abnormal)')
        return TAGS[labels[0].lower()]
    nothing = {'0'} if not task.normal_alone else None  # of task 3 there may be nothing to say
    if len(labels) == count and set(labels) in ({'0', '1'}, nothing):  # one-hot
        labels = [str(number) for number, cell in enumerate(labels, 1) if cell == '1']
    wrong = [label for label in labels if label not in map(str, range(1, count + 1))]
    if wrong:
        raise ValueError(f'found the label {wrong[0]!r}, expected whole numbers from 1 to {count}')
    if task.normal_alone and '1' in labels and set(labels) != {'1'}:
        raise ValueError('found label 1 (normal) beside others; a normal record has no other')
    return [int(str(number) in labels) for number in range(1, count + 1)]


def margins_of(logits, task):
    """What the network says, as log-odds.

    logits: float32 array (n, classes); task: Task
    Returns: float64 array (n,) of "abnormal" (softmax), or (n, 12) (sigmoid)
    """
    margins = logits.astype(np.float64)
    return margins if task.multi_label else margins[:, 1] - margins[:, 0]


def probabilities_of(margins):
    """Log-odds as probabilities: float array -> float64 array."""
    return np.exp(-np.logaddexp(0, -np.asarray(margins, dtype=np.float64)))


def log_odds(probabilities):
    """Probabilities, also 0 and 1, as finite log-odds: float or array -> float or array."""
    within = np.clip(probabilities, 1e-9, 1 - 1e-9)
    return np.log(within / (1 - within))


def decide(probabilities, thresholds, task):
    """Turn probabilities into an answer.

    probabilities: float array (n,) of "abnormal", or (n, 12); thresholds: float, or array (12,)
    Returns: int64 array (n,) of 0 and 1, or (n, classes); in task 2 every row has a 1, and "normal"
        stands alone
    """
    chosen = (probabilities >= thresholds).astype(np.int64)
    if task.multi_label and task.normal_alone:
        # In log-odds: a class with a low threshold could not be far below it otherwise, and
        # would always be the nearest.
        margin = log_odds(probabilities) - log_odds(thresholds)
        nothing = ~chosen.any(axis=1)
        chosen[nothing, margin[nothing].argmax(axis=1)] = 1
        both = (chosen[:, 0] == 1) & chosen[:, 1:].any(axis=1)
        normal_wins = margin[:, 0] > margin[:, 1:].max(axis=1)
        chosen[both & ~normal_wins, 0] = 0
        chosen[both & normal_wins, 1:] = 0
    return chosen


def is_abnormal(target, task):
    """Whether one row of read_reference() stands for an ECG that is not normal."""
    if not task.multi_label:
        return bool(target)
    return bool(target[0]) != task.normal_alone


def words_for(target, task):
    """The class names of one row of read_reference(), as one phrase."""
    if not task.multi_label:
        return task.class_names[target]
    there = [name for name, present in zip(task.class_names, target) if present]
    return ', '.join(there[:MOST_WORDS])


def counts_of(decisions, task):
    """How often each class was answered: int array (classes,); decisions: of decide()."""
    return decisions.sum(axis=0) if task.multi_label else np.bincount(decisions, minlength=2)


def answer_text(names, decisions, task, form='list'):
    """What answer.csv holds, names to the letter.

    names: list of str; decisions: as decide() returns them; form: 'list' or 'onehot', for task 2
    Returns: str; with the header name,tag for task 1; for task 2 name,label[,label...] or the name
        and twelve times 0 or 1, without a header
    """
    if not task.multi_label:
        rows = [['name', 'tag'], *zip(names, decisions)]
    elif form == 'onehot':
        rows = [[name, *row] for name, row in zip(names, decisions)]
    else:
        rows = [[name, *(np.flatnonzero(row) + 1)] for name, row in zip(names, decisions)]
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)  # pandas has no rows of several lengths
    return text.getvalue()


def validation_table(names, targets, margins, task):
    """The answers for records that were not trained on, as validation.csv holds them.

    names: list of str; targets: as read_reference(); margins: as margins_of()
    Returns: pandas.DataFrame: name, truth and log-odds of "abnormal", or of each of the 12 classes
    """
    columns = task.class_names if task.multi_label else ('abnormal',)
    truth = pd.DataFrame(targets.reshape(len(names), -1).astype(int),
                         columns=[f'{name}: truth' for name in columns])
    said = pd.DataFrame(margins.reshape(len(names), -1),
                        columns=[f'{name}: log-odds' for name in columns])
    return pd.concat([pd.Series(names, name='name'), truth, said], axis=1)


def of_validation_table(table, task):
    """(targets, margins) of what validation_table() made."""
    targets = table.filter(regex=': truth$').to_numpy()
    margins = table.filter(regex=': log-odds$').to_numpy(np.float64)
    if not task.multi_label:
        return targets[:, 0].astype(np.int64), margins[:, 0]
    return targets.astype(np.float32), margins
