"""An ECG in a CSV, as people have it -> signals.Raw: names or none, times, units, any delimiter."""
import io
import re

import numpy as np
import pandas as pd

from utils.ecg.signals import LEADS, PER_MV, NotAnECG, Raw, lead_of, raw_without_names

PER_SECOND = {'s': 1, 'sec': 1, 'second': 1, 'seconds': 1, 'ms': 1000, 'msec': 1000, 'us': 10**6}
TIME = r'(elapsed[ _])?time.*|t|sec(ond)?s?|m?s|timestamps?'  # how a column of times is called


def may_be_ecg(data):
    """Whether the first bytes of a CSV name leads or hold lines of 12 numbers or more."""
    lines = _lines(data)[:16]
    if not lines:
        return False
    rows = [_cells(line, _delimiter_of(lines)) for line in lines]
    names = {row[0] for row in rows}.union(*rows[:1])
    named = sum(lead_of(_name_and_unit(name)[0]) is not None for name in names) > 1
    some = rows[min(len(rows) - 1, 2)]
    return named or (len(some) >= len(LEADS) and all(map(_is_number, some)))


def read_csv(path, given_rate, _unit):
    """Read what a CSV holds.

    path: str; given_rate: Hz or None, what --sampling-rate says
    Returns: signals.Raw
    Raises: NotAnECG
    """
    with open(path, 'rb') as file:
        lines = _lines(file.read())
    if not lines:
        raise NotAnECG('no rows; expected 12 columns or rows of numbers')
    delimiter = _delimiter_of(lines)
    head, second = (_cells(line, delimiter) for line in (lines * 2)[:2])
    if head[0] and not _is_number(head[0]) and _is_number(head[-1]):  # each line is a lead
        table = _table(lines, delimiter)
        raw = _raw_of_columns(table.iloc[:, 1:].T, [str(name) for name in table[0]], [])
    elif all(_is_number(cell or '0') for cell in head):
        numbers = [cell for cell in head if cell]
        numbered = numbers in ([str(i + first) for i in range(len(numbers))] for first in (0, 1))
        raw = _raw_of_numbers(_table(lines[numbered:], delimiter))
    else:
        units = second if any(cell.lower() in PER_MV for cell in second) else []
        raw = _raw_of_columns(_table(lines[2 if units else 1:], delimiter), head, units)
    if raw.rate and given_rate and abs(raw.rate / given_rate - 1) > 0.005:
        raise NotAnECG(f'its times say {raw.rate:g} Hz, and --sampling-rate says {given_rate:g}; '
                       'predict it without that option, or take the times out')
    return raw


def _raw_of_columns(table, names, units):
    """The Raw of a table with a name for each column; units: a line of them, or nothing."""
    if table.shape[1] != len(names):
        raise NotAnECG(f'{table.shape[1]} columns of numbers under {len(names)} names')
    raw = Raw([], [], None, [], [])
    for at, (name, unit) in enumerate(map(_name_and_unit, names)):
        unit = unit or (units[at] if units else None)
        column = table.iloc[:, at:at + 1]
        if re.fullmatch(TIME, name.lower()):
            raw = raw._replace(rate=_rate_of(_step_of(column), unit))
            raw.notes.append(f'the column {names[at]!r} says {raw.rate or "no"} Hz')
        elif name:
            is_lead = lead_of(name) is not None
            raw.values.append(_numbers(column)[:, 0] if is_lead else np.full(len(table), np.nan))
            raw.leads.append(name)
            raw.units.append(unit)
    return raw._replace(values=np.array(raw.values))


def _raw_of_numbers(table):
    """The Raw of 12 columns or rows; in front may be a column of times, or an index."""
    values = _numbers(table.dropna(axis=1, how='all'))  # a line may end with a delimiter
    rate = None
    if values.shape[1] == 1 + len(LEADS) and _step_of(table):
        rate = _rate_of(_step_of(table), '')
        values = values[:, 1:]
    return raw_without_names(values)._replace(rate=rate)


def _step_of(table):
    """How far apart the evenly spaced numbers in the first column are; None where they are not."""
    times = pd.to_numeric(table.iloc[:, 0], errors='coerce').to_numpy(float)
    steps = np.diff(times)
    mean = steps.mean() if len(steps) else 0
    return mean if mean > 0 and np.abs(steps - mean).max() <= mean else None


def _rate_of(step, unit):
    """The Hz that times with this step say, or None; a step of 1 of nothing counts the samples."""
    per_second = PER_SECOND.get((unit or '').lower())
    if step is None or (step == 1 and per_second is None):
        return None
    rate = (per_second or (1 if step < 1 else 1000)) / step
    return round(rate) if abs(rate - round(rate)) < 0.001 * rate else rate


def _numbers(table):
    """A table as float array (rows, columns)."""
    for name in table.columns:
        column = table[name]
        if column.dtype.kind in 'iuf':
            continue
        wrong = column[pd.to_numeric(column, errors='coerce').isna() & column.notna()]
        if len(wrong) or column.dtype.kind == 'b':
            cell, row = [*wrong, *column][0], [*wrong.index, 0][0] + 1
            raise NotAnECG(f'not a table of numbers: {str(cell)[:40]!r} in row {row} of the '
                           'numbers; expected 12 columns or rows of numbers, and at most a line of '
                           'lead names and one of units')
    return table.to_numpy(float)


def _table(lines, delimiter):
    """Lines as a pandas.DataFrame, its columns and rows numbered."""
    text = '\n'.join(lines)
    if delimiter != ',':
        text = text.replace(',', '.')  # the comma is a decimal point
    try:
        return pd.read_csv(io.StringIO(text), header=None, skipinitialspace=True, low_memory=False,
                           sep=r'\s+' if delimiter == ' ' else delimiter)
    except ValueError as error:
        raise NotAnECG(f'not a table of numbers ({str(error).strip()}); expected 12 columns or '
                       'rows of numbers') from None


def _lines(data):
    """The lines of a text that are neither blank nor a comment."""
    encoding = 'utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    lines = data.decode(encoding, 'replace').splitlines()
    return [line for line in lines if line.strip(' \t,;"') and line.strip(' "')[:1] != '#']


def _delimiter_of(lines):
    """What parts the cells: ; or a tab, spaces between numbers, or else a comma."""
    line = lines[min(len(lines) - 1, 2)]  # after names and units
    for delimiter in ';\t':
        if delimiter in line:
            return delimiter
    words = line.split()
    spaced = len(words) > 1 and all(word == word.strip(',') for word in words) \
        and all(_is_number(word.replace(',', '.')) for word in words[1:])
    return ' ' if spaced else ','


def _cells(line, delimiter):
    """The cells of a line without quotes and spaces around them."""
    cells = line.split() if delimiter == ' ' else line.split(delimiter)
    if delimiter != ',':
        cells = [cell.replace(',', '.') for cell in cells]
    return [cell.strip(' \t"\'') for cell in cells]


def _name_and_unit(cell):
    """'I [mV]' or 'I (mV)' -> ('I', 'mV'); a name without a unit -> (name, None)."""
    at = max(cell.rfind('['), cell.rfind('('))
    unit = cell[at + 1:-1].strip()
    if at >= 0 and cell[-1] in '])' and unit.lower() in (*PER_MV, *PER_SECOND):
        return cell[:at].rstrip(), unit
    return cell, None


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True
