"""Ctrl-C and SIGTERM: the first asks to stop at the next good moment, the second ends the process at once."""
import os
import signal


class StopRequest:
    """Remembers that the user or the system asked to stop; `signum` is the signal's number, 0 while none came."""

    def __init__(self):
        self.signum = 0
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._note)

    def _note(self, signum, _frame):
        if self.signum:
            os._exit(128 + signum)
        self.signum = signum
        os.write(2, b'stopping after this iteration; once more ends at once\n')
