"""Text tables as people's programs write them -> rows of cells: ECGs, labels and patients.

And what a file is that is not what its name says.
"""
import csv
import io
import itertools
import os
import re

from utils.running.errors import UserError

# Minus signs of typesetters; spaces and apostrophes between thousands, see plain_numbers().
MINUS = str.maketrans(dict.fromkeys('\u2212\u2013\ufe63\uff0d', '-'))
THOUSANDS = re.compile(r"(?<=\d)[\u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))")
MISSING = {'', 'na', 'nan', 'n/a', '#n/a', 'null', 'none', 'inf', '-inf'}
MOST = 250_000  # rows, and cells of a row, that are looked at: 10 s at 20 kHz are fewer
NUMBER = re.compile(r"[-+]?(\d[\d.,']*(?<!,)|[.,]\d+)(e[-+]?\d+)?", re.IGNORECASE)
OTHERS = (  # how a file begins, what it is, what to do, and how such a file's name ends
    (rb'version https://git-lfs', "a pointer of Git LFS in the file's place; run git lfs pull "
     'where it comes from, or download the file itself', ()),
    (rb'(?is)\s*(<\?xml[^>]*>\s*)?<(!doctype\s+)?html\b', 'a web page (HTML), such as a message of '
     'the site; download it again, logged in where the site asks for it', ()),
    (rb'# (Created by Octave|name: )', "Octave's text; save it there with save -v7", ('.txt',)),
    (rb'(?s)\x89HDF|MATLAB 7\.3|.{512}\x89HDF', "HDF5, as MATLAB's version 7.3 is; save it in "
     "MATLAB with save(..., '-v7') or in Python with scipy.io.savemat", ()),
    (rb'\x93NUMPY', 'an NPY file; let its name end so', ('.npy',)),
    (rb'MATLAB 5\.0', 'a MAT file; let its name end so', ('.mat',)),
    (rb'PK\x03\x04', "a zip, as Excel's .xlsx and NumPy's .npz are; unpack it, or save a table as "
     'CSV and an array with numpy.save', ('.zip',)),
    (rb'\x1f\x8b', 'packed with gzip; unpack it', ('.gz', '.tgz')),
    (rb"Rar!\x1a\x07|7z\xbc\xaf'\x1c", 'a RAR or 7z archive; unpack it', ('.rar', '.7z')),
    (rb'\x80[\x02-\x05]', 'a Python pickle, which can run code; use numpy.save', ()))


def what_else(path, head):
    """What the file `path`, which begins with `head`, bytes, is other than its name says, and what
    to do about it; None where it is not known to be."""
    return next((what for begin, what, endings in OTHERS if re.match(begin, head)
                 and not path.lower().endswith(endings)), None)


def decode(data):
    """Bytes as text, in the first encoding that fits; None where none does."""
    if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
        encodings = ['utf-16']
    elif b'\0' in data[:2]:  # digits and Latin letters without a byte order mark
        encodings = ['utf-16-be' if data[0] == 0 else 'utf-16-le']
    else:  # GBK's common characters are pairs of high bytes, cp1252's \xb5 (micro) stands alone
        pairs = re.search(rb'[\xa1-\xf7][\xa1-\xfe]', data)
        encodings = ['utf-8-sig', 'gb2312', 'gb18030' if pairs else 'cp1252', 'gb18030']
    for encoding in encodings:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return None


def plain_numbers(text):
    """A text with ASCII's minus, and without spaces and apostrophes that part thousands."""
    return THOUSANDS.sub('', text.translate(MINUS))


def is_number(cell):
    """Whether a cell is a number, whatever parts its thousands and decimals."""
    return NUMBER.fullmatch(cell if cell.isascii() else plain_numbers(cell)) is not None


def rows_of(path, data):
    """The rows of the table `path`, which holds `data`, bytes: list of (line number, cells), cells
    without spaces around them.

    Raises: ValueError that says what it is instead
    """
    other, text = what_else(path, data[:2000]), decode(data)
    if other or text is None:
        raise ValueError(other or 'no text in UTF-8, UTF-16 or GBK; save it as CSV')
    said = re.match(r'"?sep=(.)"?[ \t]*(\r\n?|\n)', text)  # Excel's
    text = text[said.end():] if said else text
    text = text.replace('\r\r\n', '\n').rstrip('\x1a\0')  # DOS's end of a file
    reader = csv.reader(io.StringIO(text, newline=''), skipinitialspace=True,
                        delimiter=said[1] if said else _delimiter_of(text))
    try:
        return [(reader.line_num + bool(said), [cell.strip() for cell in row[:MOST]])
                for row in itertools.islice(reader, MOST)]
    except csv.Error as error:
        raise ValueError(str(error)) from None


def counts(cells):
    """Whether cells, list of str, count: whole numbers in equal steps, or 0 or 1 to n in any order;
    the same word may stand before each: R numbers columns V1, V2, ..."""
    word = re.match(r'[^\d-]*', cells[0])[0] if cells else ''
    found = [re.fullmatch(r'(-?\d{1,15})(\.0*)?', cell[len(word):]) for cell in cells]
    if not cells or None in found or any(not cell.startswith(word) for cell in cells):
        return False
    numbers = [int(each[1]) for each in found]
    steps = {after - before for before, after in zip(numbers, numbers[1:])}
    return (len(steps) == 1 and steps != {0}) or sorted(numbers) in (
        list(range(len(numbers))), list(range(1, len(numbers) + 1)))


def read_named_rows(path, names):
    """Read a table with a line for each record: labels, or patients.

    path: str; names: set of str, the records; tells an index in front from records called so
    Returns: (header, rows): its cells in lower case, or None where no column is called name; list
        of (line number, cells), the record's name first; no blank lines
    Raises: UserError
    """
    try:
        with open(path, 'rb') as file:
            rows = [(line, cells) for line, cells in rows_of(path, file.read()) if any(cells)]
    except (FileNotFoundError, ValueError) as error:
        found = 'no such file' if isinstance(error, OSError) else f'not a table ({error})'
        raise UserError(f'{path}: {found}; expected one with a line for each record') from None
    header = [cell.lstrip('# ').lower() for cell in rows[0][1]] if rows else []
    header = header if 'name' in header[:2] and 'name' not in names else None
    rows = rows[1:] if header else rows
    index = [cells[0] for _, cells in rows]
    if (header or ['name'])[0] in ('', 'unnamed: 0') or counts(index) and not (
            names & set(index) or (header and header[0] == 'name'
                                   and len(header) >= len(rows[0][1]))):
        rows = [(line, cells[1:] or ['']) for line, cells in rows]
        header = header and header[header.index('name'):]
    return header, rows


def record_of(cell, names):
    """The record that a table means: the path and extension of its file may stand there, too."""
    stem, extension = os.path.splitext(re.split(r'[/\\]', cell)[-1])
    return stem if cell not in names and (stem in names or extension.lower() == '.mat') else cell


def _delimiter_of(text):
    """What parts the cells: what leaves most numbers, or else stands in most lines."""
    lines = text[-2**16:].splitlines()
    words = max((len(line.split()) for line in lines), default=0)

    def score(mark):
        parts = [line.split(mark) for line in lines]
        return (sum(is_number(cell.strip(' \t"\'')) for cells in parts for cell in cells),
                sum(len(cells) > 1 for cells in parts))
    return max(';\t,|\uff0c ' if words >= 8 else ';\t,|\uff0c', key=score)
