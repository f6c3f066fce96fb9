"""Which labelled records train and which validate: each class alike, each patient in one part."""
import os
import re

import numpy as np

from utils.ecg.records import PATIENTS
from utils.ecg.text import MISSING, read_named_rows, record_of
from utils.running.errors import UserError

PATIENT = ('patient', 'subject', '\u60a3\u8005', '\u75c5\u4eba')  # or patient_id, Patient ID ...


def choose_validation(targets, groups, fold, config):
    """The labelled records that validate; the others train.

    targets, groups: as split() takes them; fold: int, counted from 0, of train.folds
    config: settings.Config
    Returns: bool array (n,)
    """
    count = len(targets)
    if config.train.folds > 1:
        sizes = [len(part) for part in np.array_split(range(count), config.train.folds)]
    else:
        held_out = validation_size(count, config.data.validation_fraction)
        sizes, fold = [count - held_out, held_out], 1
    return split(targets, sizes, groups, config.seed) == fold


def validation_size(count, fraction):
    """How many of `count` labelled records validate: round(count * fraction).

    Raises: UserError where that leaves too few for either part
    """
    wanted = round(count * fraction)
    if wanted < 1 or count - wanted < 2:
        raise UserError(f'{count} labelled records and data.validation_fraction {fraction:g} give '
                        f'{wanted} for validation and {count - wanted} for training, expected at '
                        'least 1 and 2; add records or change the fraction')
    return wanted


def read_patients(root, names):
    """Whose record each is: the column patient of root/source.csv; where there is no such file, or
    a cell that says nothing, somebody else's.

    Returns: list of str
    """
    path = os.path.join(root, PATIENTS)
    if not os.path.isfile(path):
        return names
    header, rows = read_named_rows(path, set(names))
    header = header or (rows[0][1] if rows else [])
    columns = [at for at, cell in enumerate(header)
               if re.sub(r'[^\w]|_|id$', '', cell) in PATIENT]
    if header[:1] != ['name'] or len(columns) != 1:
        raise UserError(f'{path}: found the columns {", ".join(header)}, expected name first, and '
                        'patient; call them so, or remove the file')
    found = {record_of(cells[0], set(names)): cells[columns[0]]
             for _, cells in rows if len(cells) > columns[0]}
    missing = sorted(set(names) - set(found))
    if missing or len(found) < len(rows):
        raise UserError(f'{path}: {len(rows)} lines, and none for {len(missing)} of {len(names)} '
                        f'records ({", ".join(missing[:5])}); expected one for each, with an empty '
                        'patient where that is not known; has a spreadsheet taken zeros away?')
    return [name if found[name].lower() in {*MISSING, 'unknown', '?', '-'} else found[name]
            for name in names]


def split(targets, sizes, groups, seed):
    """Deal the labelled records to parts, each class or label alike, each patient to one part.

    Rarest label first, records go where that label is still owed most (Sechidis et al. 2011).
    targets: int array (n,), or array (n, classes) of 0 and 1; sizes: ints, records of each part;
    groups: n values, equal for records of one patient; seed: int
    Returns: int array (n,), the number of each record's part; parts have exactly their sizes where
        no patient has several records
    """
    labels = np.eye(targets.max() + 1)[targets] if targets.ndim == 1 else targets
    _, group_of = np.unique(np.asarray(groups), return_inverse=True)
    weights = np.bincount(group_of)
    counts = np.zeros((len(weights), labels.shape[1]))
    np.add.at(counts, group_of, labels)
    room = np.array(sizes, dtype=float)
    owed = np.outer(room / room.sum(), counts.sum(axis=0))
    rng = np.random.default_rng((seed, 0))
    left, part_of = np.ones(len(weights), dtype=bool), np.zeros(len(weights), dtype=int)
    while left.any():
        there = left @ counts
        label = np.where(there > 0, there, np.inf).argmin()
        group = rng.choice(np.flatnonzero(left & (counts[:, label] >= min(there[label], 1))))
        open_parts = np.flatnonzero(room > 0)
        part = max(open_parts, key=lambda each: (owed[each, label], room[each]))
        owed[part] -= counts[group]
        room[part] -= weights[group]
        left[group] = False
        part_of[group] = part
    return part_of[group_of]
