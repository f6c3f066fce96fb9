"""Ctrl-C and SIGTERM: the first asks to stop at the next good moment, the second ends the process at once."""
import contextlib
import os
import signal


class StopRequest:
    """Remembers that the user or the system asked to stop; `signum` is the signal's number, 0 while none came."""

    def __init__(self):
        self.signum = 0
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._note)

    def _note(self, signum, _frame):
        if self.signum and 'PADDLE_TRAINER_ID' in os.environ:
            return  # paddle.distributed.launch repeats itself three times at once, and ends us after 30 s
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        with contextlib.suppress(OSError):  # a closed stderr
            os.write(2, b'stopping after this iteration; once more ends at once\n')


@contextlib.contextmanager
def ctrl_c_held_back():
    """Ctrl-C waits until the end of the block, and never reaches a process that is started within."""
    if not hasattr(signal, 'pthread_sigmask'):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
