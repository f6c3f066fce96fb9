"""Find and read the competition's MAT records. Knows nothing of Paddle."""
import gzip
import io
import json
import os
import re
import shutil
import stat
import tarfile
import zipfile
from dataclasses import dataclass

import numpy as np

from utils.errors import UserError
from utils.files import PARTIAL, write_json
from utils.mat import read_arrays

LEADS = ('I', 'II', 'III', 'aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6')
SAMPLING_RATE = 500  # Hz
SAMPLES = 5000  # 10 s
PARTS = ('train', 'val')
REFERENCE = 'trainreference.csv'
MAT_LIMIT = 64 * 2**20  # bytes; the competition's records have half a MiB
UNPACKED_LIMIT = 64 * 2**30  # bytes, of all members of an archive together
UNPACKED_RATIO = 100  # beyond 1 GiB, how many times larger than an archive its members may be; ECGs shrink to a half
MEMBER_LIMIT = 1_000_000  # members of an archive
HEADER_LIMIT = 2**20  # bytes that tarfile may read at once; a hostile header asks for gigabytes
NOT_NUMERIC = ('cell', 'char', 'struct', 'object', 'opaque', 'function', 'sparse')  # scipy.io.whosmat's words
CREDIBLE_MV = 100  # a heart gives a few mV; more means another unit


@dataclass(frozen=True)
class Source:
    """Where the records are.

    folder: str; train, val: {name: path of the MAT file}, sorted by name; reference: path of the labels, or None
    """
    folder: str
    train: dict
    val: dict
    reference: str


def find_source(source, root, project):
    """Find the competition's data where the user says or, if nothing is said, where it usually lies.

    source: str or None, a folder or an archive; root: str, the folder that archives are unpacked into
    project: str, the project's folder: `2021A_T2_Task1_*` is looked for in, beside and above it
    Returns: (Source, notes); notes: list of str, what was found where
    Raises: UserError that says where to get the data when there is none
    """
    if source is not None:
        if not os.path.exists(source):
            raise UserError(f'data.source: {source} does not exist; expected a folder or an archive with train/*.mat, '
                            f'val/*.mat and {REFERENCE}')
        return _open_source(source, root)
    if os.path.isdir(root) and _look_into(root):
        return _look_into(root), [f'data.source is not set; found the records in {root}']
    candidates = _competition_data(root, project)
    if not candidates:
        raise UserError(
            f'no ECGs found: data.source is not set, {root} holds no train/*.mat, and there is no 2021A_T2_Task1_* in, '
            'beside or above the project. Put the archive of the AIWIN 2021 ECG competition (task 1) there or name it '
            'with -o data.source=PATH; README.md tells where to get public data instead; or run "make demo" to see the '
            'pipeline work on made-up ECGs')
    found, notes = _open_source(candidates[0], root)
    others = f' (also there, not used: {", ".join(candidates[1:])})' if candidates[1:] else ''
    return found, [f'data.source is not set; found {candidates[0]}{others}'] + notes


def read_record(path):
    """Read one MAT record.

    path: str, a MAT v5 file with the variable `ecgdata`
    Returns: (signal, note); signal: float32 array (12, 5000), mV, 500 Hz, rows in LEADS order; note: str or None,
        what was mended while reading
    Raises: UserError that names the file, what was found and what was expected
    """
    size = os.path.getsize(path)
    if size == 0:
        raise UserError(f'{path}: the file is empty; copy or download it again')
    if size > MAT_LIMIT:
        raise UserError(f'{path}: {size / 2**20:.0f} MiB, expected a record of 12 x {SAMPLES} numbers, under a MiB')
    with open(path, 'rb') as file:
        data = file.read(MAT_LIMIT)
    _refuse_hdf5(path, data)
    try:
        found, names = read_arrays(data, ('ecgdata',), MAT_LIMIT)
    except ValueError as error:
        raise UserError(f'{path}: not a readable MAT file ({str(error)[:200]}); expected MAT v5 with ecgdata; it may be '
                        'truncated: copy or download it again') from None
    if 'ecgdata' not in found:
        raise UserError(f'{path}: no variable ecgdata; found {", ".join(sorted(names))[:200] or "no variable"}')
    values = found['ecgdata']
    if values is None:
        raise UserError(f'{path}: ecgdata is not numeric (found {_class_of_ecgdata(data)}), expected real numbers in mV')
    return check_signal(path, values)


def check_signal(path, values):
    """Check what a file held, and turn it if its leads are its columns.

    path: str, for the messages; values: whatever the file held
    Returns: (signal, note) as read_record
    Raises: UserError
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in 'iuf':
        kind = values.dtype.name if isinstance(values, np.ndarray) else type(values).__name__
        raise UserError(f'{path}: ecgdata is not numeric (found {kind}), expected real numbers in mV')
    _check_shape(path, values.shape)
    note = None
    if values.shape == (SAMPLES, len(LEADS)):
        values = values.T
        note = f'{path}: ecgdata is (5000, 12); turned to (12, 5000)'
    with np.errstate(over='ignore', invalid='ignore'):
        signal = np.ascontiguousarray(values, dtype=np.float32)
    finite = np.isfinite(signal)
    if not finite.all():
        lead, sample = np.argwhere(~finite)[0]
        raise UserError(f'{path}: {(~finite).sum()} values are NaN or infinite, the first in lead {LEADS[lead]} at '
                        f'sample {sample}; expected finite mV')
    largest = np.abs(signal).max()
    if largest == 0:
        raise UserError(f'{path}: all values are zero; expected an ECG in mV')
    if largest > CREDIBLE_MV:
        raise UserError(f'{path}: values up to {largest:g}; expected mV, at most {CREDIBLE_MV}; divide by 1000 if they '
                        'are microvolts')
    return signal, note


def _check_shape(path, shape):
    shape = tuple(int(n) for n in shape)
    if shape in ((len(LEADS), SAMPLES), (SAMPLES, len(LEADS))):
        return
    if len(shape) == 2 and len(LEADS) in shape:
        samples = shape[1] if shape[0] == len(LEADS) else shape[0]
        raise UserError(f'{path}: ecgdata is {samples} samples long, expected {SAMPLES} (10 s at {SAMPLING_RATE} Hz)')
    raise UserError(f'{path}: ecgdata has the shape {shape}, expected (12, {SAMPLES}): 12 leads x {SAMPLES} samples')


def _refuse_hdf5(path, data):
    if b'\x89HDF' in (data[:4], data[512:516]) or data.startswith(b'MATLAB 7.3'):
        raise UserError(f'{path}: a MAT file of version 7.3 (HDF5), expected version 5; save it in MATLAB with '
                        "save(..., '-v7') or in Python with scipy.io.savemat")


def _class_of_ecgdata(data):
    """What is in the place of numbers, in a word."""
    from scipy.io import whosmat
    try:
        kind = next(kind for name, _, kind in whosmat(io.BytesIO(data)) if name == 'ecgdata')
    except Exception:  # scipy's readers answer a damaged file with almost any exception
        return 'something else'
    return kind if kind in NOT_NUMERIC else 'complex numbers'


def _competition_data(root, project):
    """Folders and archives that look like the competition's, nearest first."""
    project = os.path.abspath(project)
    found = []
    for folder in (root, project, os.path.dirname(project), os.path.dirname(os.path.dirname(project))):
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name.lower().startswith('2021a_t2_task1') and (os.path.isdir(path) or _is_archive(path)) \
                    and path not in found:
                found.append(path)
    return found


def _open_source(source, root):
    notes = []
    folder = source
    if not os.path.isdir(source):
        if not _is_archive(source):
            raise UserError(f'data.source: {source} is neither a folder nor a .tar.gz, .tgz, .tar or .zip')
        folder, note = unpack(source, root)
        notes.append(note)
    found = _look_into(folder)
    if found is None:
        raise UserError(f'{source}: no train/*.mat or val/*.mat at its top or one folder down; expected train/*.mat, '
                        f'val/*.mat and {REFERENCE}')
    return found, notes


def _look_into(folder):
    """The Source in `folder` or in a folder directly below it, or None."""
    below = [entry.path for entry in os.scandir(folder) if entry.is_dir() and not entry.name.endswith(PARTIAL)]
    for candidate in [folder] + sorted(below):
        entries = {entry.name.lower(): entry.path for entry in os.scandir(candidate)}
        parts = {part: _mat_files(entries.get(part)) for part in PARTS}
        if any(parts.values()):
            return Source(candidate, parts['train'], parts['val'], entries.get(REFERENCE))
    return None


def _mat_files(folder):
    """{name: path} of the MAT files of one part; hidden files (a Mac leaves ._X.mat behind) are no records."""
    found = {}
    if folder is None or not os.path.isdir(folder):
        return found
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name, extension = os.path.splitext(entry.name)
        if extension.lower() != '.mat' or name.startswith('.'):
            continue
        if not _is_text(name):
            raise UserError(f'{entry.path!r}: its name is not UTF-8 text, or has control characters; rename it')
        if name in found:
            raise UserError(f'{entry.path}: the record {name} is there twice, also as {found[name]}; remove one')
        found[name] = entry.path
    return found


def _is_text(name):
    try:
        name.encode('utf-8')  # a name that the system gave undecodable bytes cannot be
    except UnicodeEncodeError:
        return False
    return name.isprintable()


def _is_archive(path):
    return path.lower().endswith(('.tar.gz', '.tgz', '.tar', '.zip')) and os.path.isfile(path)


def unpack(archive, root):
    """Unpack the records and labels of an archive into `root`/unpacked, unless an earlier run has done so.

    archive: str, .tar.gz, .tgz, .tar or .zip; root: str
    Returns: (folder, note)
    Raises: UserError for a damaged archive and, before anything is written, for a hostile one
    """
    target = os.path.join(root, 'unpacked')
    status = os.stat(archive)
    origin = {'archive': os.path.basename(archive), 'bytes': status.st_size, 'modified': status.st_mtime_ns}
    try:
        with open(os.path.join(target, 'origin.json'), encoding='utf-8') as file:
            if json.load(file) == origin:
                return target, f'{archive} is unpacked in {target} already'
    except (OSError, ValueError):
        pass  # not unpacked yet, or something else was
    partial = f'{target}.{os.getpid()}{PARTIAL}'
    try:
        with _open_archive(archive) as opened:
            wanted = _choose_members(archive, opened.members(), status.st_size)
            shutil.rmtree(partial, ignore_errors=True)
            for part in PARTS:
                os.makedirs(os.path.join(partial, part))
            for member, relative in wanted:
                _copy_member(archive, opened, member, os.path.join(partial, relative))
        write_json(os.path.join(partial, 'origin.json'), origin)
        shutil.rmtree(target, ignore_errors=True)
        os.rename(partial, target)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError,
            ArithmeticError, LookupError) as error:
        raise UserError(f'{archive}: damaged or not an archive ({error}); download it again') from None
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise UserError(f'{target}: the disk is full, {sum(m.size for m, _ in wanted) / 2**20:.0f} MiB are needed '
                            f'to unpack {archive}; make room or set data.root to another folder') from None
        if error.filename is None:
            raise UserError(f'{archive}: damaged or not an archive ({error}); download it again') from None
        raise
    except Exception as error:
        if type(error).__module__ not in ('zlib', 'lzma'):
            raise
        raise UserError(f'{archive}: damaged ({error}); download it again') from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target, f'unpacked {len(wanted)} files of {archive} into {target}'


@dataclass(frozen=True)
class Member:
    """One entry of an archive: its name as text, its unpacked size in bytes, whether it is a plain file or a folder."""
    name: str
    size: int
    kind: str
    handle: object


class _Tar:
    def __init__(self, path):
        with open(path, 'rb') as file:
            zipped = file.read(2) == b'\x1f\x8b'
        self.file = _Careful(gzip.open(path) if zipped else open(path, 'rb'))
        try:
            self.tar = tarfile.TarFile(fileobj=self.file, encoding='utf-8', errors='surrogateescape')
        except BaseException:
            self.file.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tar.close()
        self.file.close()

    def members(self):
        for info in self.tar:
            name = _decode(info.name.encode('utf-8', 'surrogateescape'))
            kind = 'file' if info.isreg() else 'folder' if info.isdir() else 'link or device'
            yield Member(name, info.size, kind, info)

    def open(self, member):
        return self.tar.extractfile(member.handle)


class _Careful:
    """A file for tarfile that does not let a header make it read gigabytes into memory."""

    def __init__(self, file):
        self.file, self.seek, self.tell, self.close = file, file.seek, file.tell, file.close

    def read(self, size):
        if not 0 <= size <= HEADER_LIMIT:
            raise ValueError(f'a header of {size} bytes')
        return self.file.read(size)


class _Zip:
    def __init__(self, path):
        self.zip = zipfile.ZipFile(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.zip.close()

    def members(self):
        for info in self.zip.infolist():
            utf8 = info.flag_bits & 0x800
            name = info.orig_filename if utf8 else _decode(info.orig_filename.encode('cp437', 'replace'))
            mode = info.external_attr >> 16
            plain = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR)
            kind = 'link or device' if not plain else 'folder' if name.endswith('/') else 'file'
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f'{name!r} is packed with method {info.compress_type}, expected deflate')
            yield Member(name, info.file_size, kind, info)

    def open(self, member):
        return self.zip.open(member.handle)


def _open_archive(path):
    return _Zip(path) if path.lower().endswith('.zip') else _Tar(path)


def _decode(name):
    """Bytes of a member's name as text: UTF-8, else GBK, which Chinese Windows writes."""
    for encoding in ('utf-8', 'gbk'):
        try:
            return name.decode(encoding)
        except UnicodeDecodeError:
            pass
    return name.decode('latin-1')


def _choose_members(archive, members, archive_size):
    """Check every member, each before the next is looked for, then pick the records and the labels.

    archive: str; members: iterable of Member; archive_size: int, bytes
    Returns: list of (Member, path below the target folder), the path made by us: train/NAME.mat
    Raises: UserError
    """
    wanted, taken, total = [], {}, 0
    limit = min(UNPACKED_LIMIT, max(2**30, UNPACKED_RATIO * archive_size))
    for count, member in enumerate(members):
        parts = member.name.replace('\\', '/').split('/')
        if '..' in parts or parts[0] == '' or re.match(r'^[A-Za-z]:', member.name) or '\0' in member.name:
            raise UserError(f'{archive}: the member {member.name!r} would land outside the target folder; nothing was '
                            'unpacked: get the archive from another source')
        if member.kind == 'link or device':
            raise UserError(f'{archive}: the member {member.name!r} is a link or a device, expected only files and '
                            'folders; nothing was unpacked: get the archive from another source')
        total += member.size
        if member.size < 0 or count >= MEMBER_LIMIT:
            raise ValueError(f'more than {MEMBER_LIMIT} members' if member.size >= 0 else 'a member of negative size')
        if total > limit:
            raise UserError(f'{archive}: its members unpack to more than {limit / 2**30:.1f} GiB, expected records under '
                            'a MiB each; nothing was unpacked: get the archive from another source')
        relative = _place(parts) if member.kind == 'file' else None
        if relative is None:
            continue
        if relative.lower() in taken:
            raise UserError(f'{archive}: the member {member.name!r} is there twice (also {taken[relative.lower()]!r}); '
                            'nothing was unpacked')
        if member.size > MAT_LIMIT:
            raise UserError(f'{archive}: the member {member.name!r} unpacks to {member.size / 2**20:.0f} MiB, '
                            'expected records under a MiB; nothing was unpacked')
        if not _is_text(relative):
            raise UserError(f'{archive}: the name of the member {member.name!r} has control characters; nothing was '
                            'unpacked: get the archive from another source')
        taken[relative.lower()] = member.name
        wanted.append((member, relative))
    return wanted


def _place(parts):
    """Where a member goes: train/NAME.mat, val/NAME.mat, the labels, or None; at the top or one folder down."""
    parts = [part for part in parts if part not in ('', '.')]
    if not parts or parts[0] == '__MACOSX' or parts[-1].startswith('.'):
        return None
    if parts[-1].lower() == REFERENCE and len(parts) <= 2:
        return REFERENCE
    name, extension = os.path.splitext(parts[-1])
    if 2 <= len(parts) <= 3 and parts[-2].lower() in PARTS and extension.lower() == '.mat':
        return os.path.join(parts[-2].lower(), f'{name}.mat')
    return None


def _copy_member(archive, opened, member, path):
    left = member.size
    with opened.open(member) as source, open(path, 'wb') as target:
        while True:
            block = source.read(2**20)
            if not block:
                break
            left -= len(block)
            if left < 0:
                raise UserError(f'{archive}: the member {member.name!r} is larger than it says; get the archive from '
                                'another source')
            target.write(block)
        target.flush()
        os.fsync(target.fileno())  # origin.json vouches for it, after a power cut, too
    if left:
        raise UserError(f'{archive}: the member {member.name!r} is truncated; download the archive again')
