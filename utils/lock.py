"""One run at a time on one output folder."""
import contextlib
import os

from utils.errors import UserError


@contextlib.contextmanager
def lock_folder(folder, setting):
    """Hold `folder` for this process; the system lets go of it when the process ends, however it ends.

    folder: str, must exist; setting: str, the setting that names it, e.g. 'output'
    Raises: UserError where another run holds it
    """
    path = os.path.join(folder, '.lock')
    file = _open_locked(path, folder, setting)
    try:
        with contextlib.suppress(OSError):  # the number is only for the message: a full disk is told of elsewhere
            file.truncate(0)
            file.write(str(os.getpid()).encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        file.close()


def _open_locked(path, folder, setting):
    while True:
        file = open(path, 'ab+', buffering=0)
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(20).decode('ascii', 'replace').strip()
            file.close()
            raise UserError(f'{folder}: another run (process {holder or "unknown"}) is using this folder; wait for it or '
                            f'stop it, or choose another folder with -o {setting}=FOLDER') from None
        try:
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        file.close()  # its holder removed it between our opening and our locking: that was a lock on nothing


def _lock(file):
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError from None
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass  # a file system without locks (some network drives): nothing to hold on to
