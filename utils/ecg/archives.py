"""Unpack the competition's archive: its records and labels, and nothing else."""
import os
import re
import shutil
import stat
import tarfile
import zipfile

from utils.ecg import text
from utils.running import files
from utils.running.errors import DISK_FULL, UserError, first_of

PARTS = ('train', 'val')
REFERENCE = 'trainreference.csv'
PATIENTS = 'source.csv'  # beside the labels: which records are of one patient, if it is known
EXTENSIONS = ('.tar.gz', '.tgz', '.tar', '.zip')
ORIGIN = 'origin.json'  # in a folder that we unpacked: which archive it is from
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
LIMIT = 64 * 2**30  # bytes of all records together


def unpack(archive, root):
    """Unpack the records and labels of an archive below `root`, unless that was done before.

    archive: str, .tar.gz, .tgz, .tar or .zip; root: str
    Returns: (folder, notes)
    Raises: UserError for an archive that is damaged or not what it should be
    """
    if not archive.lower().endswith(EXTENSIONS):
        raise UserError(f'data.source: {archive} is neither a folder nor a .tar.gz, .tgz, .tar or '
                        '.zip')
    target = os.path.join(root, f'unpacked-{os.path.basename(archive)}')
    status = os.stat(archive)
    origin = {'size': status.st_size, 'modified': status.st_mtime_ns, 'with': PATIENTS}
    files.recover_folder(target)
    if origin_of(target) == origin:
        return target, [f'{archive} is unpacked in {target}']
    if os.path.lexists(target) and not origin_of(target):
        raise UserError(f'{target}: in the way of unpacking {archive}, and not made by process.py; '
                        'rename it')
    try:
        with files.replacing_folder(target) as partial:
            count, others = _extract(archive, partial)
            files.write_json(os.path.join(partial, ORIGIN), origin)
    except UserError:
        raise
    except Exception as error:  # the libraries answer a damaged file with almost any exception
        if isinstance(error, OSError) and (error.filename or error.errno in DISK_FULL):
            error.filename = error.filename or target
            raise
        with open(archive, 'rb') as file:
            other = text.what_else(archive, file.read(2000))
        raise UserError(f'{archive}: not an archive, but {other}' if other else
                        f'{archive}: damaged or not an archive ({type(error).__name__}: {error}); '
                        'download it again') from None
    more = f'; not used: {first_of(others)}' if others else ''
    return target, [f'unpacked {count} files of {archive} into {target}{more}']


def origin_of(folder):
    """What our marker in a folder that we unpacked says; None in any other folder."""
    return files.read_json(os.path.join(folder, ORIGIN))


def _extract(archive, folder):
    """Copy the records and labels into `folder`, under names of our own.

    Returns: (how many, names of what else is in it)
    """
    for part in PARTS:
        os.makedirs(os.path.join(folder, part))
    count, total, others = 0, 0, []
    for name, is_file, size, open_member in _members(archive):
        parts = [part for part in name.replace('\\', '/').split('/') if part != '.']
        if not parts:
            continue  # './', with which tar -C FOLDER . begins
        if '..' in parts or parts[:1] == [''] or re.match('[A-Za-z]:', name):
            raise UserError(f'{archive}: the member {name!r} would land outside the target folder; '
                            'nothing was unpacked: get the archive from another source')
        place = _place(parts)
        if place is None:
            others += [name] if is_file and parts[-1] else []
            continue
        path = os.path.join(folder, place)
        total += size
        why = ('is a link or no file: pack what it stands for (tar -h)' if not is_file else
               'is there twice' if os.path.exists(path) else
               f'makes it more than {LIMIT >> 30} GiB' if total > LIMIT else None)
        if why:
            raise UserError(f'{archive}: the member {name!r} {why}; nothing was unpacked')
        with open_member() as source, open(path, 'wb') as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())  # the marker vouches for it, after a power cut, too
        count += 1
    return count, others


def _members(archive):
    """(name, whether it is a plain file, size in bytes, function that opens it) of each member."""
    if archive.lower().endswith('.zip'):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                name = info.orig_filename
                if not info.flag_bits & 0x800:  # not flagged as UTF-8
                    name = text.decode(name.encode('cp437', 'replace')) or name
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.flag_bits & 1 or info.compress_type not in PACKED:
                    why = 'a password' if info.flag_bits & 1 else 'a packing such as Deflate64'
                    raise UserError(f'{archive}: {name!r} has {why}, which Python cannot unpack; '
                                    'unpack it by other means and name the folder')
                yield name, kind in (0, stat.S_IFREG), info.file_size, lambda: opened.open(info)
        return
    with tarfile.open(archive, encoding='utf-8', errors='surrogateescape') as opened:
        for info in opened:
            name = text.decode(info.name.encode('utf-8', 'surrogateescape')) or info.name
            yield name, info.isreg(), info.size, lambda: opened.extractfile(info)
        # tarfile takes a damaged header for the end, which zeros mark; and gzip has a checksum.
        stream = opened.fileobj
        if stream.tell() < opened.offset + tarfile.BLOCKSIZE or any(stream.read(2**24)):
            raise EOFError('it ends within')


def _place(parts):
    """Where a member goes, under a folder at most: train/NAME.mat, val/NAME.mat, the labels, the
    patients, or None for anything else."""
    if not parts[-1] or parts[0] == '__MACOSX' or parts[-1].startswith('.'):
        return None
    if parts[-1].lower() in (REFERENCE, PATIENTS) and len(parts) <= 2:
        return parts[-1].lower()
    name, extension = os.path.splitext(parts[-1])
    if 2 <= len(parts) <= 3 and parts[-2].lower() in PARTS and extension.lower() == '.mat':
        return os.path.join(parts[-2].lower(), f'{name}.mat')
    return None
