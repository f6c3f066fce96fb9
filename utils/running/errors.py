"""What a script says and returns when something is wrong, and how it stops.

Exit codes: 2 for the user's input, 1 for a fault of ours, 130 after Ctrl-C, 143 after SIGTERM.
"""
import contextlib
import os
import re
import signal
import sys

LONGEST = 2000  # characters of a line; a damaged file can hold a name of a million
MOST = 20  # lines that are said one by one
DISK_FULL = (28, 122)  # ENOSPC, EDQUOT
FORBIDDEN = (1, 13, 30)  # EPERM, EACCES, EROFS


class UserError(Exception):
    """Mistakes that the user can mend: a line, str, for each that names what was found, what was
    expected and what to do.
    """

    def __init__(self, *lines):
        super().__init__('\n'.join(lines))
        self.lines = lines


class Stopped(BaseException):
    """The user or the system asked the script to stop; no Exception, which code may catch.

    signum: int, the signal's number; the exit code is 128 + signum
    """

    def __init__(self, signum):
        super().__init__(signum)
        self.signum = signum


class StopRequest:
    """Remembers that the user or the system asked to stop; a second signal ends the process.

    signum: int, the signal's number, 0 while none came
    """

    def __init__(self):
        self.signum = 0
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self._note)

    def _note(self, signum, _frame):
        if not self.signum:
            _say_at_once(b'stopping soon; once more ends at once\n')
        elif 'PADDLE_TRAINER_ID' not in os.environ:  # Paddle's launcher repeats itself three times
            os._exit(128 + signum)
        self.signum = signum


def run(main):
    """Call `main()` and leave the process with the exit code that this module's docstring names.

    main: function without arguments; returns an exit code, None for 0
    """
    code = 1
    _make_streams_safe()
    try:
        handle_signals()
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        say_errors(error.lines)
        code = 2
    except BrokenPipeError:  # `python process.py | head`: whoever read has seen enough
        code = 128 + 13
    except OSError as error:
        say_error(describe_os_error(error))
        code = 2
    except MemoryError:
        say_error('memory ran out; close what else is running, or take a machine with more')
        code = 2
    except (KeyboardInterrupt, Stopped) as stop:
        code = 128 + getattr(stop, 'signum', signal.SIGINT)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)  # all is done; now one would only change the code
    try:
        sys.stdout.flush()
    except OSError:
        sys.stdout = None  # nothing more can be written there, and Python would try once more
    sys.exit(code)


def _make_streams_safe():
    """Let a terminal that knows only ASCII, or a closed one, not end a script."""
    # A file that is opened must not get the number of a closed stdout: C code prints there.
    while os.open(os.devnull, os.O_RDWR) < 2:
        pass
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'w', encoding='utf-8'))  # noqa: SIM115
        getattr(sys, name).reconfigure(errors='backslashreplace')


def handle_signals():
    """Make Ctrl-C and SIGTERM raise Stopped, a second one end the process; again after what takes
    them, as Paddle does."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _stop)


def _stop(signum, _frame):
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda second, _: os._exit(128 + second))
    _say_at_once(b'\nstopping: what is done so far stays, the same command goes on\n')
    raise Stopped(signum)


def _say_at_once(text):
    with contextlib.suppress(OSError):  # a closed stderr
        os.write(2, text)


def say_error(message):
    """Print `message` as one line on stderr; what could steer the terminal becomes '?'."""
    line = ''.join(char if char.isprintable() else '?' for char in ' '.join(str(message).split()))
    if len(line) > LONGEST:
        line = f'{line[:LONGEST // 2]} ... {line[-LONGEST // 2:]}'
    print(f'error: {line}', file=sys.stderr, flush=True)


def words_of_paddle(error):
    """What one of Paddle's errors says, without the places in its sources."""
    text = ' '.join(str(error).split())
    said = re.search(r'\([A-Z]\w+\) .*', text)
    return (said[0] if said else text).partition(' [Hint')[0].partition(' (at ')[0].rstrip('. ')


def say_errors(lines):
    """Print each of `lines`, list of str; of very many the first, how many there are, the last."""
    most = len(lines) if len(lines) < MOST + 2 else MOST
    for line in lines[:most]:
        say_error(line)
    if most < len(lines):
        say_error(f'... and {len(lines) - most - 1} more of this kind')
        say_error(lines[-1])


def first_of(words, most=9):
    """The first of `words`, list of str, as a line says them, and how many more there are."""
    more = f' and {len(words) - most} more' if len(words) > most else ''
    return ', '.join(words[:most]) + more


def describe_os_error(error):
    """One line for an OSError: the path, what the system said, and what to do where known."""
    if error.errno is None and '(External)' in str(error):  # as which Paddle raises CUDA's errors
        return (f'the GPU failed: {words_of_paddle(error)}; what was saved is whole, and the same '
                'command goes on from it; if it fails again, look at nvidia-smi, or ask for the '
                'CPU: -o device=cpu / 显卡出错：已保存的内容完好，可用同一命令继续；'
                '也可用 -o device=cpu')
    path = error.filename
    if path is None:  # what is written to a file names it: see files.py and log.py
        path = 'standard output' if error.errno in DISK_FULL else 'a file'
    line = f'{path}: {error.strerror or error}'
    if error.errno in DISK_FULL:
        line += '; the disk is full: make room or choose another folder, then run it again'
    elif error.errno in FORBIDDEN:
        line += '; you may not read or write there: choose another path or change its rights'
    return line
