"""What a script says and returns when something is wrong.

Exit codes: 2 for the user's input, 1 for a fault of ours, 130 after Ctrl-C, 143 after SIGTERM.
"""
import contextlib
import os
import signal
import sys

LONGEST = 2000  # characters of a line; a damaged file can hold a name of a million


class UserError(Exception):
    """Mistakes that the user can mend: a line each that names what was found, what was expected and what to do.

    lines: one str per mistake
    """

    def __init__(self, *lines):
        super().__init__('\n'.join(lines))
        self.lines = lines


class Stopped(BaseException):
    """The user or the system asked the script to stop. Like KeyboardInterrupt it is no Exception, which code may catch.

    signum: int, the signal's number; the exit code is 128 + signum.
    """

    def __init__(self, signum):
        super().__init__(f'stopped by signal {signum}')
        self.signum = signum


def run(main):
    """Call `main()` and leave the process with the exit code that this module's docstring names.

    main: function without arguments; returns an exit code, None for 0.
    """
    code = 1
    try:
        handle_signals()
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        for line in error.lines:
            say_error(line)
        code = 2
    except BrokenPipeError:  # `python process.py | head`: whoever read has seen enough
        code = 128 + 13
    except OSError as error:
        say_error(describe_os_error(error))
        code = 2
    except (KeyboardInterrupt, Stopped) as stop:
        code = 128 + getattr(stop, 'signum', signal.SIGINT)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # all is done; while the interpreter goes down, one would only change the code
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = None  # nothing more can be written there, and Python would try once more
    sys.exit(code)


def handle_signals():
    """Make Ctrl-C and SIGTERM raise Stopped, the second one end the process; again after what takes them, as Paddle does."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)


def _stop(signum, _frame):
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda second, _: os._exit(128 + second))
    with contextlib.suppress(OSError):
        os.write(2, b'\nstopping: what is done so far stays, the same command goes on; once more ends at once\n')
    raise Stopped(signum)


def say_error(message):
    """Print `message` as one line on stderr; what could steer the terminal, from a hostile name, becomes '?'."""
    line = ''.join(char if char.isprintable() else '?' for char in ' '.join(str(message).split()))
    line = line if len(line) <= LONGEST else f'{line[:LONGEST // 2]} ... {line[-LONGEST // 2:]}'
    print(f'error: {line}', file=sys.stderr, flush=True)


def describe_os_error(error):
    """One line for an OSError: the path, what the system said, and what to do where that is known.

    error: OSError
    Returns: str
    """
    path = error.filename if error.filename is not None else 'a file'
    line = f'{path}: {error.strerror or error}'
    if error.errno in (28, 122):  # ENOSPC, EDQUOT
        line += '; the disk is full: make room or choose another folder, then run the same command again'
    elif error.errno in (13, 30):  # EACCES, EROFS
        line += f'; this user (uid {os.getuid()}) may not read or write there' if hasattr(os, 'getuid') else ''
    return line
