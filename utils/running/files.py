"""Writing so that a kill or a full disk at any moment leaves the old file or the new one, whole."""
import contextlib
import json
import os
import shutil

import filelock

from utils.running.errors import DISK_FULL, UserError

PARTIAL = '.partial'  # ends the name of every file or folder that is not finished yet


class DiskFull(UserError):
    """There is no room for a file; nothing further need be tried."""


@contextlib.contextmanager
def replacing(path):
    """A file to write, which takes the place of `path` at the end of the block, whole or never.

    path: str
    Yields: the binary file, a temporary one beside `path`
    Raises: DiskFull when the disk is full; `path` is then what it was before
    """
    partial = f'{path}.{os.getpid()}{PARTIAL}'
    try:
        with open(partial, 'wb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.remove(partial)
        if not isinstance(error, OSError):
            raise
        if error.errno in DISK_FULL:
            raise DiskFull(f'{path}: the disk is full; what was there before is whole: make room '
                           'and run the same command again') from None
        error.filename = path
        raise


def write_bytes(path, data):
    """Write `data`, bytes, to `path`; see replacing()."""
    with replacing(path) as file:
        file.write(data)


def write_text(path, text):
    """Write `text` to `path` as UTF-8, also names of files that are none; see write_bytes."""
    write_bytes(path, text.encode('utf-8', 'surrogateescape'))


def write_json(path, value):
    """Write `value` to `path` as indented JSON; see write_bytes."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + '\n')


def read_json(path):
    """The JSON value in the file `path`, None where it is missing or damaged."""
    try:
        with open(path, encoding='utf-8', errors='surrogateescape') as file:
            return json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None


def write_table(path, frame):
    """Write a pandas.DataFrame to `path` as CSV: no index, every text to the letter."""
    write_text(path, frame.to_csv(index=False).replace('\r\n', '\n'))


@contextlib.contextmanager
def replacing_folder(folder):
    """A new folder to fill, which takes the place of `folder` at the end of the block, or never.

    folder: str; recover_folder() mends what a kill leaves
    Yields: str, a temporary folder beside it
    """
    partial = f'{folder}.{os.getpid()}{PARTIAL}'
    shutil.rmtree(partial, ignore_errors=True)
    try:
        os.makedirs(partial)
        yield partial
        recover_folder(folder)
        os.rename(partial, complete_name(folder))
        recover_folder(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def recover_folder(folder):
    """Finish a replacement that was killed halfway: a complete new folder takes its place."""
    complete, old = complete_name(folder), f'{folder}.old{PARTIAL}'
    if os.path.isdir(complete):
        _remove_folder(old)
        if os.path.isdir(folder):
            os.rename(folder, old)
        os.rename(complete, folder)
    _remove_folder(old)


def _remove_folder(folder):
    if os.path.islink(folder):  # what it points to is not ours
        os.remove(folder)
    shutil.rmtree(folder, ignore_errors=True)


def complete_name(folder):
    """Where a new `folder` lies, whole, for the moment in which the old one makes room for it."""
    return f'{folder}.complete'


def clear_partials(folder):
    """Remove what earlier runs that were killed left half written directly in `folder`.

    folder: str; need not exist. Partial files of a process that is alive are left alone.
    """
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        pid = entry.name[:-len(PARTIAL)].rpartition('.')[2]
        if not entry.name.endswith(PARTIAL) or (pid.isdigit() and _is_alive(int(pid))):
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                os.remove(entry.path)


def _is_alive(pid):
    """Whether a process of another run is at work; a zombie is dead, though nobody has noticed."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's
    with contextlib.suppress(OSError), open(f'/proc/{pid}/stat', 'rb') as file:  # Linux
        if file.read().rpartition(b') ')[2].startswith(b'Z'):
            return False
    return pid != os.getpid()  # ours is a number that a restarted container gave anew


@contextlib.contextmanager
def lock_folder(folder, setting):
    """Hold `folder` for this process; the system lets go of it however the process ends.

    folder: str, made where it does not exist; setting: str, the setting that names it
    Raises: UserError where another run holds it
    """
    os.makedirs(folder, exist_ok=True)
    lock = filelock.FileLock(os.path.join(folder, '.lock'), timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f'{folder}: another run is using this folder; wait for it or stop it, or '
                        f'choose another folder with -o {setting}=FOLDER') from None
    except NotImplementedError:
        print(f'note: {folder} is on a file system without locks: let one run at a time use it')
    try:
        yield
    finally:
        lock.release()
