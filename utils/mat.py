"""Numbers out of a MAT file of version 4 or 5, read so that a damaged or hostile file does no harm.

scipy.io.loadmat takes a file's word for what it holds: some damaged files crash the whole process, and a compressed one
fills the memory. Here every length is checked against what is there before it is used.
"""
import math
import struct
import zlib

import numpy as np

MI_NUMBERS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
MI_MATRIX, MI_COMPRESSED = 14, 15
MX_NUMBERS = range(6, 16)  # the classes of arrays of numbers; below are cells, structs, objects, text and sparse ones
COMPLEX = 0x0800
V4_NUMBERS = ('f8', 'f4', 'i4', 'i2', 'u2', 'u1')
HEAD = 4096  # bytes of a compressed variable that surely hold its kind, shape and name


def read_arrays(data, wanted, limit):
    """Read the arrays of numbers with certain names.

    data: bytes of the file; wanted: names; limit: int, bytes that one variable may unpack to
    Returns: (found, names); found: {name: array, or None where it is not one of real numbers}; names: all in the file
    Raises: ValueError that says what is wrong with the file
    """
    found, names = {}, []
    variables = _read_4(data, wanted) if 0 in data[:4] else _read_5(data, wanted, limit)
    try:
        for name, array in variables:
            names.append(name)
            if name in wanted:
                found[name] = array
    except struct.error:
        raise ValueError('it ends within a variable') from None
    return found, names


def _read_5(data, wanted, limit):
    order = {b'IM': '<', b'MI': '>'}.get(data[126:128])
    if order is None:
        raise ValueError('no MAT header')
    for kind, body in _elements(memoryview(data)[128:], order, 1):
        if kind == MI_COMPRESSED:
            name, _ = _read_matrix(_unpack(body, HEAD)[8:], order, ())
            unpacked = _unpack(body, limit + 1) if name in wanted else b''
            if len(unpacked) > limit:
                raise ValueError(f'{name} unpacks to more than {limit >> 20} MiB')
            kind, body = next(_elements(unpacked, order, 8)) if unpacked else (None, b'')
            if kind is None:
                yield name, None
        if kind == MI_MATRIX:
            yield _read_matrix(body, order, wanted)


def _unpack(body, limit):
    try:
        return memoryview(zlib.decompressobj().decompress(body, limit))
    except zlib.error as error:
        raise ValueError(f'a compressed variable is damaged ({error})') from None


def _elements(data, order, padding):
    """(kind, content) of each element in `data`; elements start at multiples of `padding` bytes."""
    at = 0
    while at < len(data):
        kind, length = struct.unpack(order + 'II', data[at:at + 8])
        start, end = at + 8, at + 8 + length
        if kind >> 16:  # four bytes or less, with length and kind in one word
            kind, length = kind & 0xffff, kind >> 16
            start, end = at + 4, at + 4 + length
        if end > len(data) or (start == at + 4 and length > 4):
            raise ValueError('it ends within a variable')
        yield kind, data[start:end]
        at = max(end, at + 8) if padding == 1 else at + 8 + (0 if start == at + 4 else -(-length // padding) * padding)


def _read_matrix(body, order, wanted):
    """(name, array) of one variable; the array is None where it is not wanted, or not of real numbers."""
    elements = _elements(body, order, 8)
    (_, flags), (_, shape), (_, name) = (next(elements, (0, b'')) for _ in range(3))
    flags = struct.unpack(order + 'I', flags[:4])[0]
    name = bytes(name).decode('latin-1')
    if name not in wanted or flags & 0xff not in MX_NUMBERS or flags & COMPLEX:
        return name, None
    kind, numbers = next(elements, (0, b''))
    if kind not in MI_NUMBERS or len(shape) % 4:
        raise ValueError(f'{name} is damaged')
    return name, _as_array(name, numbers, order + MI_NUMBERS[kind], struct.unpack(f'{order}{len(shape) // 4}i', shape))


def _read_4(data, wanted):
    at, data = 0, memoryview(data)
    while at < len(data):
        order = '<' if struct.unpack('<I', data[at:at + 4])[0] < 5000 else '>'
        form, rows, columns, imaginary, length = struct.unpack(order + '5I', data[at:at + 20])
        if form >= 5000 or form // 10 % 10 >= len(V4_NUMBERS) or not 0 < length <= HEAD:
            raise ValueError('no MAT header')
        kind = np.dtype(order + V4_NUMBERS[form // 10 % 10])
        start = at + 20 + length
        name = bytes(data[at + 20:start]).split(b'\0')[0].decode('latin-1')
        at = start + rows * columns * kind.itemsize * (2 if imaginary else 1)
        if at > len(data):
            raise ValueError('it ends within a variable')
        numbers = form % 10 == 0 and not imaginary and name in wanted
        yield name, _as_array(name, data[start:at], kind, (rows, columns)) if numbers else None


def _as_array(name, numbers, kind, shape):
    if min(shape, default=-1) < 0 or math.prod(shape) * np.dtype(kind).itemsize != len(numbers):
        raise ValueError(f'{name} has {len(numbers)} bytes, expected an array of the shape {tuple(shape)}')
    return np.frombuffer(numbers, kind).reshape(shape, order='F').astype(np.dtype(kind).newbyteorder('='))
