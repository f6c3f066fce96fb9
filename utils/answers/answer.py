"""What is answered to some ECGs, and the files that it is written to: answer.csv, answer.zip."""
import io
import os
import zipfile
from dataclasses import dataclass
from functools import cached_property
from typing import Optional

import numpy as np
import pandas as pd

from utils.answers import calibration, metrics, tasks
from utils.answers.findings import Found
from utils.running import files
from utils.running.errors import UserError

ZIP_DATE = (2021, 11, 15, 0, 0, 0)  # fixed: the same answer gives the same bytes, known as ours


@dataclass(frozen=True)
class Answer:
    """What is answered to some ECGs.

    task: tasks.Task; names: list of str; probabilities: float array (n,) of "abnormal", or (n, 12)
    thresholds: as tasks.decide() takes them; truth: as tasks.read_reference(), or None
    width: float, of the calibration.Band in which answers are unsure
    findings: findings.Found, what a network of task 3 found besides, or None
    """
    task: tasks.Task
    names: list
    probabilities: np.ndarray
    thresholds: object
    truth: Optional[np.ndarray]
    width: float = 0.0
    findings: Optional[Found] = None

    @cached_property
    def decisions(self):
        return tasks.decide(self.probabilities, self.thresholds, self.task)

    @cached_property
    def confidence(self):
        return calibration.confidence_of(self.probabilities, self.thresholds)

    @cached_property
    def unsure(self):
        return self.confidence < self.width

    @cached_property
    def wrong(self):
        """Bool array (n,); none is where the truth is not known."""
        if self.truth is None:
            return np.zeros(len(self.names), bool)
        return (self.truth != self.decisions).reshape(len(self.names), -1).any(axis=1)

    def table(self):
        """pandas.DataFrame, as probabilities.csv has it: name, probabilities, unsure, findings."""
        columns = self.task.class_names if self.task.multi_label else ('abnormal',)
        table = pd.DataFrame(self.probabilities.reshape(len(self.names), -1), columns=columns)
        table = table.round(6)
        table.insert(0, 'name', self.names)
        table['unsure'] = self.unsure.astype(int)
        if self.findings:
            table['findings'] = [self.findings.words(index) for index in range(len(self.names))]
        return table

    def scores(self, seed):
        """List of (name, value, low, high); empty where the truth is not known."""
        if self.truth is None:
            return []
        return list(metrics.intervals(self.truth, self.probabilities, self.thresholds, seed,
                                      self.task))


def write_answer(path, text):
    """Write answer.csv and, as the competition takes it, answer.zip beside it.

    path: str, of answer.csv, which comes last; text: as tasks.answer_text() returns it
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(os.path.basename(path), ZIP_DATE)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        archive.writestr(entry, text.encode('utf-8', 'surrogateescape'))
    files.write_bytes(f'{os.path.splitext(path)[0]}.zip', packed.getvalue())
    files.write_text(path, text)


def refuse_foreign(path):
    """Refuse to write where write_answer() would replace what it has not written.

    path: str, of answer.csv
    Raises: UserError
    """
    packed = f'{os.path.splitext(path)[0]}.zip'
    if os.path.lexists(packed) and not _is_own_zip(packed, path):
        raise UserError(f'{packed}: would be replaced, and is no earlier answer of predict.py; '
                        'move it away, or choose another name with -o predict.answer=NAME.csv')
    if os.path.lexists(path) and not os.path.lexists(packed):
        raise UserError(f'{path}: would be replaced, and is no earlier answer of predict.py, '
                        f'which has {packed} beside it; move it away, or choose another name with '
                        '-o predict.answer=NAME.csv')


def _is_own_zip(path, answer):
    """Whether write_answer() wrote the zip `path` beside `answer`."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError):
        return False
    return [(each.filename, each.date_time) for each in members] == \
        [(os.path.basename(answer), ZIP_DATE)]
