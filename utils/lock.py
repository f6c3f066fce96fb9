"""One run at a time on one output folder."""
import contextlib
import os

from utils.errors import UserError


@contextlib.contextmanager
def lock_folder(folder):
    """Hold `folder` for this process; the system lets go of it when the process ends, however it ends.

    folder: str, must exist
    Raises: UserError where another run holds it
    """
    path = os.path.join(folder, '.lock')
    with open(path, 'a+') as file:
        try:
            _lock(file)
        except BlockingIOError:
            file.seek(0)
            raise UserError(f'{folder}: another run (process {file.read(20).strip() or "unknown"}) is using this folder; '
                            'wait for it or stop it, or choose another folder with -o output=FOLDER') from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.remove(path)


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
