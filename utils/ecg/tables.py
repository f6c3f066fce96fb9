"""An ECG in a text table, as people have it -> signals.Raw: names or none, index, times, units.

Every row and column is used, or named in a note, or the table is refused.
"""
import re

import numpy as np

from utils.ecg import text
from utils.ecg.signals import LEADS, PER_MV, RATES, NotAnECG, Raw, lead_of, same_rate
from utils.ecg.text import MISSING, is_number
from utils.running.errors import first_of

PER_SECOND = {unit: per_second for per_second, units in (
    (1, 's sec second seconds \u79d2'), (1000, 'ms msec \u6beb\u79d2'), (10**6, 'us \u5fae\u79d2'),
    (10**9, 'ns'), (1 / 60, 'min mins minute minutes minuten'), (1 / 3600, 'h hour hours'))
    for unit in units.split()}
TIME = re.compile(r'(elapsed[ _])?time.*|t|sec(ond)?s?|[mun]?s|\u65f6\u95f4.*|zeit')
UNNAMED = re.compile(r'|unnamed: \d+')  # so pandas calls a column without a name
WHOSE = re.compile(r'(patient|subject|record(ing)?|file|case|study|ecg)?[ _]?(id|name|no|nr|'
                   r'number)|patient|subject|record(ing)?|file|(\u60a3\u8005|\u75c5\u4eba).*')
CLOCK = re.compile(r'(?:.*[ T])?(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)(?:Z|[+-]\d\d:?\d\d)?')
GROUPED = {mark: re.compile(rf'[-+]?[1-9]\d{{0,2}}({re.escape(mark)}\d{{3}})+') for mark in ',.'}
# Lines above the table: what says the rate, the gain, or anything else that must not be overlooked.
RATE = re.compile(r'sampl\w*[ _-]*(rate|freq)|sampling\W+\d+ *k?hz|\u91c7\u6837\u7387|\u91c7\u6837'
                  r'\u9891\u7387|^\W*(fs|sfreq)\b')
GAIN = re.compile(r'gain.*(digit|step|count|unit|adu|lsb)s? *(/|per) *(mv|millivolt)')
DECIDES = re.compile(r'sampl\w*[ _-]*(int|per)|\bfs\b|fr[e\u00e9]quen[cz]|interval|\bdt\b|abtast|'
                     r'\d *(k?hz|ms|msec)\b|\d[. ]\d* *s\b|\brate\b|\bgain|lsb|\badc|\bunits?\b|'
                     r'\bscal(e|ing)\b|\bvolts?\b|resol|[mu\u00b5\u03bc]v\b|\bbits?\b|invert|'
                     r'(lead|channel).*\border\b|\border\b.*(lead|channel)|'
                     r'\u91c7\u6837|\u589e\u76ca|\u5355\u4f4d')
# What is measured or printed of any ECG, with what follows it, decides nothing.
ROUTINE = re.compile(r'\b(heart|ventricular|atrial|pulse|resp\w*\.?|frame)[ _]*rate\b[^,;]*|'
                     r'\b(p|pr|pq|qrs|qtc?|rr|st|filters?|notch|\w*-?pass|patient)\b[^,;]*|'
                     r'(duration|length)\W*\d+([.]\d+)? *s\w*|'
                     r'(gain\W*)?\d+([.]\d+)? *mm ?/ ?m?[sv]\b|'
                     r'rhythm[^,;]*|invert\w* t\b|\bcare unit[^,;]*')
FEW = 8  # numbers side by side: fewer are no ECG's
MOST_ABOVE = 1000  # lines above the numbers
EXPECTED = 'expected 12 columns or rows of numbers, and at most a line of lead names and of units'


def may_be_ecg(path, head):
    """Whether the first bytes of a table name leads or hold a line of numbers, or are no table."""
    end = (head.rfind(b'\n') + 1) // 2 * 2  # UTF-16 has two bytes
    try:
        rows = [cells for _, cells in text.rows_of(path, head[:end] or head)]
    except ValueError:
        return True  # which reading it will say
    if rows and 'name' in map(str.lower, rows[0][:2]):
        return False  # labels, answers
    return not rows or _leads_in([cells[0] for cells in rows if cells]) > 1 or any(
        _leads_in(cells) > 1 or (sum(map(is_number, cells)) >= FEW
                                 and not {*cells[1:]} <= {'', '0', '1'})
        or len({*map(lead_of, re.split(r'\W+', ' '.join(cells)))}) > FEW for cells in rows)


def read_csv(path, given_rate, _unit):
    """Read what a text table holds.

    path: str; given_rate: Hz or None, what --sampling-rate says
    Returns: signals.Raw
    Raises: NotAnECG
    """
    with open(path, 'rb') as file:
        data = file.read()
    try:
        above, table = _lower_part(text.rows_of(path, data))
    except ValueError as error:
        raise NotAnECG(f'not a table of numbers ({error}); {EXPECTED}') from None
    names, units, more, body = _parts(_upright(table))
    rate, gain, names, notes = _said_above(above + more, names, len(body[0]))
    rates = {}
    raw = _raw_of_columns(names, units, list(zip(*body)), rates)
    rates.update({'a line above the table': rate, '--sampling-rate': given_rate})
    rates = {who: each for who, each in rates.items() if each and each > 0}
    for who, each in rates.items():
        if not same_rate(each, max(rates.values())):
            raise NotAnECG(f'{max(rates.values()):g} Hz by {max(rates, key=rates.get)}, and '
                           f'{each:g} by {who}; take the wrong one out')
    if gain and any(raw.units):
        raise NotAnECG('a unit with the leads and a gain above the table; take one out')
    if gain:
        raw = raw._replace(values=raw.values / gain, units=['mV'] * len(raw.units))
    if max(map(len, (table, table[0]))) > text.MOST - FEW:
        notes.append(f'only its first {text.MOST} samples were read')
    return raw._replace(rate=next(iter(rates.values()), None), notes=notes)


def _lower_part(rows):
    """The table, rows of one width: (cells of the lines above it, list of its rows' cells)."""
    while rows and not any(rows[-1][1]):
        rows.pop()
    if not rows:
        raise NotAnECG(f'no rows; {EXPECTED}')
    width = len(rows[-1][1])
    if not any(cells[-1] for _, cells in rows if len(cells) == width):  # each ends with a delimiter
        rows = [(line, cells[:-1] if len(cells) == width else cells) for line, cells in rows]
        width -= 1
    start = max((at for at, (_, cells) in enumerate(rows, 1) if len(cells) != width), default=0)
    above, table = rows[:start], [cells for _, cells in rows[start:]]
    line, last = above[-1] if above else (0, [])
    if len(last) == width - 1 and (_leads_in(last) > 1 or _counts(last)):
        table.insert(0, ['', *above.pop()[1]])  # R leaves out the corner above its index
    if len(above) > MOST_ABOVE or any(sum(map(is_number, cells)) >= FEW for _, cells in above):
        raise NotAnECG(f'{len(last)} cells in line {line}, {width} in each line below; a line '
                       'that is empty or has lost some? mend it')
    return [cells for _, cells in above], table


def _upright(table):
    """A table with its leads side by side: as it is, or turned."""
    named = any(_leads_in(cells) > 1 for cells in table[:20])
    if named or (_leads_in([cells[0] for cells in table]) < 2
                 and not len(table) < 16 <= len(table[0])):
        return table
    numbered = not _are_numbers(table[0]) and _counts(table[0])
    return list(zip(*table[numbered:]))  # V1, V2, ... above the samples say nothing


def _parts(table):
    """(names; units, or []; lines above the names; rows of numbers) of an upright table.

    names: list of str, None in the place of numbered leads; or None. A row that counts, above the
    numbers, is no sample.
    """
    start = next((at for at, cells in enumerate(table) if _are_numbers(cells)), len(table))
    while start and not any(table[start - 1]):
        start -= 1  # a gap at the beginning
    if start > MOST_ABOVE or start == len(table):
        raise NotAnECG(f'no row of numbers; {EXPECTED}')
    head, body = [[_bare(cell) for cell in cells] for cells in table[:start]], table[start:]
    at = max((at for at, cells in enumerate(head) if _leads_in(cells) > 1),
             default=max((at for at, cells in enumerate(head) if len(list(filter(None, cells)))
                          >= FEW), default=len(head)))
    names, below = (head[at:] or [None])[0], head[at + 1:]
    units = [cell.strip('[]()') for cell in below[-1]] if below else []
    if len(below) > 1 or (units and not {unit.lower() for unit in units} & {*PER_MV, *PER_SECOND}):
        raise NotAnECG(f'the line {",".join(below[0])[:80]!r} below the names is neither '
                       f'numbers nor units; {EXPECTED}')
    if len(body) > 1 and len(body[0]) > FEW and _counts(body[0]):
        names, body = names or [_bare(cell) for cell in body[0]], body[1:]
    if names and _counts(names):  # the corner may say what the first column is
        names = None if text.counts(names) else [names[0], *[None] * (len(names) - 1)]
    return names, units, head[:at], body


def _said_above(lines, names, width):
    """What the lines above a table say: (Hz or None, steps per mV or None, names, notes).

    lines: list of lists of cells; names: list of str or None; width: int, columns of the table
    """
    found, unused, given = {RATE: None, GAIN: None}, [], names
    for cells in lines:
        cells = cells[1:] if cells[:1] in (['#'], ['%']) else cells
        said = ' '.join(filter(None, cells)).lstrip('#% ')[:400]
        parts = cells if _leads_in(cells) > 1 else re.split(r'[\s,;|]+', said)
        parts = parts if any(parts[width:]) else parts[:width]  # a delimiter more at its end
        numbers = re.findall(r'\d+(?:\.\d+)?', said)
        kind = next((kind for kind in found if kind.search(said.lower())), None)
        if _leads_in(parts) > 1:
            if names or len(parts) != width:
                raise NotAnECG(f'{width} columns of numbers under {len(parts)} names, or named '
                               f'twice: {said[:80]!r}')
            names = [_bare(part) for part in parts]
        elif kind and len(numbers) == 1 and not found[kind]:
            found[kind] = float(numbers[0]) * (1000 if 'khz' in said.lower() else 1)
        elif kind or _decides(';'.join(cells)) or (said and names is not given):
            raise NotAnECG(f'the line {said[:80]!r} above the table is not understood; take it '
                           'out, and give --sampling-rate and --unit')
        elif said:
            unused.append(repr(said[:80]))
    notes = [f'lines above the table, not used: {first_of(unused)}'] if unused else []
    return found[RATE], found[GAIN], names, notes


def _raw_of_columns(names, units, columns, rates):
    """The Raw of columns of cells, without a rate.

    names: as of _parts(), or None: the first may be an index; rates: {what says so: Hz}, filled
    """
    count = len(columns)
    names = names or [''] * (count == len(LEADS) + 1) + [None] * min(count, len(LEADS))
    nameless = None in names
    if nameless and names.count(None) != len(LEADS) or len(names) != count:
        raise NotAnECG(f'{count} columns of numbers that no line names; {EXPECTED}')
    parted = [_name_and_unit(name) for name in
              (names[:-len(LEADS)] + list(LEADS) if nameless else names)]
    known = [at for at, (name, _) in enumerate(parted) if lead_of(name)]
    values = dict(zip(known, _numbers([columns[at] for at in known])))
    raw = Raw([], [], None, [], [])
    for at, (name, unit) in enumerate(parted):
        unit = unit or (units[at] if units else None) or None
        if at not in values:
            where = f'column {at + 1} ({names[at]!r})'
            says = _read_times(name.lower(), (unit or '').lower(), columns[at], where)
            if says:
                rates[where] = says
            if says or (UNNAMED.fullmatch(name.lower()) and says is None):
                continue
        raw.values.append(values.get(at, np.full(len(columns[0]), np.nan)))
        raw.leads.append(name or f'column {at + 1}')
        raw.units.append(unit)
    return raw._replace(values=np.array(raw.values), leads=None if nameless else raw.leads)


@np.errstate(over='ignore', invalid='ignore')
def _read_times(name, unit, cells, where):
    """What a column that is no lead says: Hz; None, it counts or is empty; False, nothing.

    name, unit: str, lower case; cells: tuple of str; where: str, for messages
    Raises: NotAnECG where times, numbers or whose record it is jump, or times are none
    """
    is_time = (unit in PER_SECOND or TIME.fullmatch(name)) and 'sample' not in name
    unit = unit or (name if is_time and name in PER_SECOND else '')
    given, (times, unit) = unit, _seconds(cells, unit)
    said = {cell.lower() for cell in cells} - MISSING
    if RATE.search(name) and len(said) == 1 and times is not None:
        return times[0]
    if is_time and len(said) > 1 and (times is None or (name[-1:] in ')]' and unit == given)):
        raise NotAnECG(f'{where} says {cells[0][:40]!r}, expected times: seconds, milliseconds '
                       'or hours:minutes:seconds; write them so, or take them out')
    if len(said) == 1 and (RATE.search(name) or _decides(name)):
        raise NotAnECG(f'{where} says {cells[0][:40]!r}, which is not understood; take it out, and '
                       'give --sampling-rate and --unit')
    whose = WHOSE.fullmatch(name)
    if len(said) < 2 or (times is None and not whose):
        return False if said else None
    if times is None:
        times = np.unique(cells, return_inverse=True)[1].astype(float)
    steps = np.diff(times)
    if _wraps(steps):
        return None
    step, finest = steps.mean(), np.min(steps, where=steps > 0, initial=np.inf)
    coarse = finest > 1.5 * step and finest > 0.002 * (times[-1] - times[0])
    whole = not (times % 1).any() and unit not in PER_SECOND
    is_time = is_time or UNNAMED.fullmatch(name)
    if not _are_even(times, steps, max(step, finest)) or (coarse and whose):
        rises = max(np.mean(steps > 0), np.mean(steps < 0)) > 0.9  # so does what counts
        if not (is_time or whose or (whole and rises) or text.counts(cells)):
            return False
        at = np.nan_to_num(np.abs(steps - np.nanmedian(steps)), nan=np.inf).argmax()
        raise NotAnECG(f'{where} goes from {cells[at][:40]} to {cells[at + 1][:40]} at sample '
                       f'{at + 1}, expected one recording, in equal steps upwards: samples are '
                       'lost, twice, in another order or of another record there; give a stretch '
                       'without it')
    counter = whole and np.ptp(steps) == 0 and (step == 1 or UNNAMED.fullmatch(name))
    if counter or coarse or not is_time:
        return None if whole else False
    return _rate_of(step, unit)


def _rate_of(step, unit):
    """Hz of a step between times; step: float, in `unit`, str, '' where that is not said."""
    # Without a unit it is the one that gives a rate (of days, too): their ranges do not overlap.
    rates = [each / step for each in (1, 1000, 10**6, 10**9, 1 / 86400)]
    rate = PER_SECOND[unit] / step if unit in PER_SECOND else next(
        (each for each in rates if RATES[0] <= each <= RATES[1]), rates[0])
    return round(rate) if abs(rate - round(rate)) < 0.001 * rate else rate


def _decides(words):
    """Whether a line or a name says something of rate, gain, unit or order."""
    return DECIDES.search(ROUTINE.sub('', words.lower()))


def _wraps(steps):
    """Whether a counter starts again and again after as many steps, as one of 8 bit does."""
    falls = np.flatnonzero(steps < 0)
    return len(falls) > 3 and (steps[steps >= 0] == 1).all() and np.ptp(steps[falls]) == 0 \
        and np.ptp(np.diff(falls)) == 0


def _are_even(times, steps, most):
    """Whether times rise in equal steps but for rounding, by `most` at most, and none is lost."""
    away = np.abs(times - times[0] - steps.mean() * np.arange(len(times)))
    usual = np.nanmedian(steps)
    odd = np.mean(np.abs(steps - usual) > 0.9 * usual)  # many are what times rounded to 1 ms have
    return steps.mean() > 0 and (away <= 1.001 * most).all() and not (usual > 0 and 0 < odd < 0.01)


def _seconds(cells, unit):
    """(float array or None, their unit) of cells with numbers or times of the day."""
    clocks = [CLOCK.fullmatch(cell[:60].strip("'")) for cell in cells]
    try:
        if None in clocks:
            return _numbers([cells])[0], unit
    except NotAnECG:
        return None, unit
    seconds = [int(each[1] or 0) * 3600 + int(each[2]) * 60 + float(each[3].replace(',', '.'))
               for each in clocks]
    return np.unwrap(seconds, period=86400), 's'  # over midnight


def _numbers(columns):
    """Columns of cells as float array (columns, rows), an empty cell as NaN."""
    columns = [text.plain_numbers('\n'.join(column)).split('\n') for column in columns]
    decimal = [mark for mark in ',.' if _stands_before_decimals(mark, columns)]
    if len(decimal) > 1:
        raise NotAnECG('both , and . stand before decimals; expected one of them')
    values = np.empty((len(columns), len(columns[0]) if columns else 0))
    for at, column in enumerate(columns):
        words = '\n'.join('nan' if cell.lower() in MISSING else cell for cell in column)
        for mark in {*',.'} - {*decimal}:
            words = words.replace(mark, '')
        try:
            if '_' in words:
                raise ValueError  # Python's own, in numbers
            values[at] = [float(word) for word in words.replace(',', '.').split('\n')]
        except ValueError:
            row = next((row for row, cell in enumerate(column)
                        if not is_number(cell) and cell.lower() not in MISSING), 0)
            raise NotAnECG(f'not a table of numbers: {column[row][:40]!r} in row {row + 1} of '
                           f'the numbers; {EXPECTED}') from None
    return values


def _stands_before_decimals(mark, columns):
    """Whether , or . parts decimals; it parts thousands where only numbers of 1000 and more have
    it, with three digits behind it."""
    other = ',.'.replace(mark, '')
    with_mark = [[cell for cell in column if mark in cell] for column in columns]
    if not any(with_mark):
        return False
    return any(not GROUPED[mark].fullmatch(cell.split(other)[0])
               for cells in with_mark for cell in cells) or all(
        len(cells) in (0, len(column)) for cells, column in zip(with_mark, columns))


def _are_numbers(cells):
    filled = [cell for cell in cells if cell]
    numbers = sum(is_number(cell) or cell.lower() in MISSING for cell in filled)
    return 2 * numbers > len(filled)


def _counts(cells):
    """Whether a line counts columns; its first cell may say something else."""
    return text.counts(cells) or text.counts(cells[1:])


def _leads_in(cells):
    """How many of the first cells name a lead; none where they count, as R's V1, V2, ... do."""
    cells = [_bare(cell) for cell in cells[:40]]
    return 0 if _counts(cells) else sum(lead_of(_name_and_unit(cell)[0]) is not None
                                        for cell in cells)


def _bare(cell):
    """A cell of the head without what makes it a comment, and without quotes."""
    return cell.lstrip('#% ').strip(' \'"')


def _name_and_unit(cell):
    """'I [mV]', 'I (mV)' or 'I_mV' -> ('I', 'mV'); a name without a unit -> (name, None)."""
    said = re.fullmatch(r'(.*?)[\s_/,]*([\s_/,\[(])\s*([^\s_/,()\[\]]*)\s*[\])]?',
                        ' '.join(cell[:100].split()))  # many spaces would take it long
    if said and (said[3].lower() in {*PER_MV, *PER_SECOND} or (said[2] in '[('
                                                               and lead_of(said[1]))):
        return said[1], said[3]
    return cell, None
