"""What a script says and returns when something is wrong.

Exit codes: 2 for the user's input, 1 for a fault of ours, 130 after Ctrl-C, 143 after SIGTERM.
"""
import os
import sys


class UserError(Exception):
    """Mistakes that the user can mend: a line each that names what was found, what was expected and what to do.

    lines: one str per mistake
    """

    def __init__(self, *lines):
        super().__init__('\n'.join(lines))
        self.lines = lines


class Stopped(Exception):
    """The user or the system asked the script to stop, and it has put everything in order.

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
        code = main() or 0
    except UserError as error:
        for line in error.lines:
            say_error(line)
        code = 2
    except OSError as error:
        say_error(describe_os_error(error))
        code = 2
    except KeyboardInterrupt:
        say_error('interrupted')
        code = 130
    except Stopped as stop:
        code = 128 + stop.signum
    sys.stdout.flush()
    sys.exit(code)


def say_error(message):
    """Print `message` as one line on stderr."""
    print('error: ' + ' '.join(str(message).split()), file=sys.stderr, flush=True)


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
