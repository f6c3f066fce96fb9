"""Find and read the competition's MAT records."""
import os
import re
import warnings
from dataclasses import dataclass

import numpy as np

from utils.ecg import archives, text
from utils.ecg.signals import (
    LEADS,
    PER_MV,
    SAMPLES,
    SAMPLING_RATE,
    NotAnECG,
    kind_of,
    lead_of,
    make_signal,
    naming,
    raw_without_names,
    reading_with,
    same_rate,
)
from utils.running import files
from utils.running.errors import UserError, first_of

PARTS = archives.PARTS
REFERENCE = archives.REFERENCE
PATIENTS = archives.PATIENTS
TABLES = ('.csv', '.tsv', '.txt', '.xls', '.xlsx')
# Variables so called say the rate, and the unit; below 100 Hz a rate is the heart's or the mains'.
RATE = re.compile(r'(?i)(sampl\w*?_?(rate|freq\w*)|s?freq(uency)?|fs|hz|rate)$')
UNIT = re.compile(r'(?i)((ecg|ecg_?data|signal|data)_?)?units?$')


@dataclass(frozen=True)
class Source:
    """Where the records are.

    folder: str; train, val: {name: path of the MAT file}, sorted by name; reference, patients: path
    of the labels and of the table that says whose record each is, or None
    """
    folder: str
    train: dict
    val: dict
    reference: str
    patients: str


def find_source(source, root, project):
    """Find the competition's data where the user says or, if nothing is said, where it usually is.

    source: str or None, a folder or an archive; root: str, the folder that archives are unpacked
        into; project: str, `2021A_T2_Task1_*` is looked for in, beside and above it
    Returns: (Source, notes); notes: list of str, what was found where
    Raises: UserError that says where to get the data when there is none
    """
    if source is not None:
        return _open(source, root)
    candidates = _candidates(root, project)
    if not candidates:
        raise UserError(
            f'no ECGs found: data.source is not set, {root} holds no train/*.mat, and there is no '
            '2021A_T2_Task1_* in, beside or above the project. Put the archive of the AIWIN 2021 '
            'ECG competition (task 1) there or name it with -o data.source=PATH; README.md tells '
            'where to get public data instead; or run "make demo" to see the pipeline work on '
            'made-up ECGs / 没有找到心电图：请把比赛的压缩包放在项目文件夹里，或用 -o '
            'data.source=PATH 指定；没有数据时可先运行 make demo')
    found, notes = _open(candidates[0], root)
    others = f' (also there, not used: {", ".join(candidates[1:])})' if candidates[1:] else ''
    note = f'data.source is not set; the newest ECGs found: {candidates[0]}{others}'
    return found, [note, *notes]


def read_record(path):
    """Read one MAT record; in a process that may crash, since scipy's reader can.

    path: str, a MAT file of version 4 or 5 with the variable `ecgdata`, (12, 5000), mV, 500 Hz
    Returns: (signal, notes) as signals.make_signal()
    Raises: UserError that names the file, what was found and what was expected
    """
    with naming(path):
        refuse_others(path)
        raw = raw_of_ecgdata(read_mat(path, 'ecgdata')['ecgdata'])
        if raw.values.shape[1] != SAMPLES:
            raise NotAnECG(f'ecgdata is {raw.values.shape[1]} samples long, expected {SAMPLES} '
                           f'(10 s at {SAMPLING_RATE} Hz)')
    return make_signal(path, raw)


def refuse_others(path):
    """Raise NotAnECG where a file is something else than its name says."""
    with open(path, 'rb') as file:
        kind = text.what_else(path, file.read(2000))
    if kind:
        raise NotAnECG(f'not what its name says, but {kind}')


def raw_of_ecgdata(values, unit='mV'):
    """The Raw of a competition's array, of any length; 5000 samples are 10 s at 500 Hz."""
    raw = raw_without_names(values)
    turned = f'ecgdata is {values.shape}; turned to {raw.values.shape}'
    return raw._replace(leads=list(LEADS), units=[unit] * len(LEADS),
                        rate=SAMPLING_RATE if raw.values.shape[1] == SAMPLES else None,
                        notes=[turned] if raw.values.shape != values.shape else [])


def read_mat(path, *names):
    """The variables `names` of a MAT file, {name: array of real numbers}, at least one of them.

    Raises: NotAnECG; the process may crash on a damaged file
    """
    from scipy.io import loadmat, whosmat  # not needed by the process that only waits
    with reading_with('scipy', 'expected a MAT file of version 5; it may be truncated: copy or '
                      'download it again'), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        found = loadmat(path, appendmat=False)
        there = {name: found[name] for name in names if name in found}
        # loadmat gives logical arrays as uint8; whosmat, which unpacks all again, tells.
        clear = there and all(getattr(each, 'dtype', '') != 'uint8' for each in there.values())
        kinds = {} if clear else {name: kind for name, _, kind in whosmat(path, False)}
    if not there:
        raise NotAnECG(f'no variable {" or ".join(names)}; found '
                       f'{", ".join(sorted(kinds))[:200] or "no variable"}')
    for name, values in there.items():
        kind = 'logical' if kinds.get(name) == 'logical' else kind_of(values)
        if kind:
            raise NotAnECG(f'{name} is not numeric (found {kind}), expected real numbers')
    if 'ecgdata' in there:
        _check_beside(found)
    return there


def _check_beside(found):
    """Refuse `ecgdata` where another variable of the file says other than 500 Hz, mV, LEADS.

    found: {name: array}
    """
    for name, value in found.items():
        words = [str(np.squeeze(each)).strip() for each in np.ravel(value)[:40]]
        leads = [lead_of(word) for word in words if lead_of(word)]
        other = {PER_MV.get(word.lower()) for word in words if word} - {1}
        rate = np.ravel(value)[0] if np.size(value) == 1 and not kind_of(value) else 0
        if (RATE.match(name) and rate >= 100 and not same_rate(rate, SAMPLING_RATE)) or (
                UNIT.match(name) and other) or (
                len(leads) >= len(LEADS) and leads != [*LEADS]):
            raise NotAnECG(f'{name} beside ecgdata says {", ".join(words)[:80]}, expected '
                           f'{SAMPLING_RATE} Hz, mV and {", ".join(LEADS)}; mend it, or save the '
                           'ECG as CSV with the names of its leads')


def _candidates(root, project):
    """Paths with ECGs, what was put there last first: folders in `root`, the competition's folders
    and archives; what we unpacked ourselves only where there is nothing else."""
    above = os.path.dirname(os.path.abspath(project))
    named = [path for folder in (root, project, above, os.path.dirname(above))
             for path in _entries(folder)
             if os.path.basename(path).lower().startswith('2021a_t2_task1')]
    found = {}
    for path in [root, *_entries(root), *named]:
        if path in named and path.lower().endswith(archives.EXTENSIONS) and os.path.isfile(path):
            found[path] = os.stat(path).st_ctime
        for source in _look_into(path, below=path != root):
            records = [*source.train.values(), *source.val.values()]
            found[path] = max(os.stat(record).st_ctime for record in records)
    newest_first = sorted(found, key=found.get, reverse=True)
    return ([path for path in newest_first if not archives.origin_of(path)]
            or [path for path in newest_first if archives.origin_of(path)][:1])


def _open(path, root):
    """The Source at `path`, and a list of what there is to say of it."""
    expected = f'expected a folder or an archive with train/*.mat, val/*.mat and {REFERENCE}'
    if not os.path.exists(path):
        raise UserError(f'data.source: {path} does not exist; {expected}')
    folder, notes = (path, []) if os.path.isdir(path) else archives.unpack(path, root)
    found = _look_into(folder)
    if len(found) != 1:
        several = f'several data sets: {", ".join(each.folder for each in found)}'
        raise UserError(f'{path}: {several if found else "no train/*.mat or val/*.mat"} at its top '
                        f'or one folder down; {expected}')
    others = _others(found[0])
    if others:
        notes.append(f'{found[0].folder}: not used: {first_of(others)}')
    return found[0], notes


def _others(source):
    """What stands beside the records, or is a table beside the labels, and is not used: names."""
    used = {*source.train.values(), *source.val.values(), source.reference, source.patients}
    parts = {os.path.dirname(path) for path in [*source.train.values(), *source.val.values()]}
    found = [path for path in _entries(source.folder) if path.lower().endswith(TABLES)]
    found += [path for part in sorted(parts) for path in _entries(part)]
    return [os.path.relpath(path, source.folder) for path in found
            if path not in used and not os.path.basename(path).startswith('.')]


def _entries(folder):
    """Paths of what is in a folder, sorted; none where it is no folder, or may not be read."""
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))
                if not name.endswith(files.PARTIAL)]
    except OSError:
        return []


def _look_into(folder, below=True):
    """The Sources: one in `folder` or, if `below`, those in folders directly in it."""
    found = []
    for each in [folder, *(_entries(folder) if below else [])]:
        there = {os.path.basename(path).lower(): path for path in _entries(each)}
        train, val = (_mat_files(there.get(part, '')) for part in PARTS)
        if train or val:
            found.append(Source(each, train, val, there.get(REFERENCE), there.get(PATIENTS)))
    return found[:1] if found and found[0].folder == folder else found


def _mat_files(folder):
    """{name: path} of the MAT files of one part; hidden files, as a Mac leaves them, are none."""
    found, problems = {}, []
    for path in _entries(folder):
        name, extension = os.path.splitext(os.path.basename(path))
        if extension.lower() != '.mat' or name.startswith('.'):
            continue
        if name in found:
            problems.append(f'{path}: the record {name} is there twice, also as {found[name]}; '
                            'remove one')
        if name != name.strip() or name.lower().endswith('.mat') or not name.isprintable():
            problems.append(f'{path!r}: a record of this name can never be labelled: spaces around '
                            'it, .mat at its end, control characters or bytes that are no text; '
                            'rename it')
        found[name] = path
    if problems:
        raise UserError(*problems)
    return found
