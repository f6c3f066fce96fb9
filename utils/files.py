"""Writing so that a kill or a full disk at any moment leaves either the old file or the new one, both whole."""
import csv
import io
import json
import os
import shutil
import time

from utils.errors import UserError

PARTIAL = '.partial'  # ends the name of every file or folder that is not finished yet


class DiskFull(UserError):
    """There is no room for a file; nothing further need be tried."""


def write_bytes(path, data):
    """Write `data` to `path`: into a temporary file beside it, flushed to the disk, then renamed.

    path: str; data: bytes
    Raises DiskFull that names the path and the room needed when the disk is full; `path` is then what it was before.
    """
    partial = f'{path}.{os.getpid()}{PARTIAL}'
    try:
        with open(partial, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        _remove_quietly(partial)
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            raise DiskFull(f'{path}: the disk is full, {len(data) / 2**20:.1f} MiB are needed; what was there before '
                            'is whole: make room and run the same command again') from None
        error.filename = path
        raise


def write_text(path, text):
    """Write `text` to `path` as UTF-8; see write_bytes."""
    write_bytes(path, text.encode('utf-8'))


def write_json(path, value):
    """Write `value` to `path` as indented JSON; see write_bytes."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def write_csv(path, rows):
    """Write `rows` to `path` as csv_text() spells them; see write_bytes."""
    write_text(path, csv_text(rows))


def csv_text(rows):
    """`rows`, sequences of cells, as CSV with \\n line ends.

    A text cell that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows([_harmless(cell) for cell in row] for row in rows)
    return text.getvalue()


def _harmless(cell):
    if isinstance(cell, str) and cell[:1] in ('=', '+', '-', '@', '\t', '\r'):
        return "'" + cell
    return cell


def sync_folder(folder):
    """Make the names in `folder` survive a power cut, where the system can open folders."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def clear_partials(folder):
    """Remove what an earlier run that was killed left half written directly in `folder`.

    folder: str; need not exist. Partial files of a process that is still alive are left alone.
    """
    if not os.path.isdir(folder):
        return
    for entry in os.scandir(folder):
        if not entry.name.endswith(PARTIAL):
            continue
        pid = entry.name[:-len(PARTIAL)].rpartition('.')[2]
        written = entry.stat(follow_symlinks=False).st_mtime
        if pid.isdigit() and int(pid) != os.getpid() and _writer_lives(int(pid), written):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            _remove_quietly(entry.path)


def _writer_lives(pid, written):
    """Whether the process `pid` can be the one that wrote at the time `written`, in seconds since 1970."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    try:
        with open(f'/proc/{pid}/stat', encoding='utf-8', errors='replace') as file:
            fields = file.read().rpartition(')')[2].split()
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf('SC_CLK_TCK')
    except (OSError, AttributeError, IndexError, ValueError):
        return True  # not Linux: the number is all there is to go by
    # A zombie writes no more; and a restarted container gives the same small numbers to other processes.
    return fields[0] not in 'ZX' and time.time() - age < written + 5


def _remove_quietly(path):
    try:
        os.remove(path)
    except OSError:
        pass
