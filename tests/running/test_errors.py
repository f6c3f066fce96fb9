import os
import subprocess
import sys

import pytest

from tests.helpers import PROJECT


def end(body, *shell, **options):
    """Run a script whose main() has the given body: subprocess.CompletedProcess."""
    code = ('import os, signal, sys\nsys.path.insert(0, os.environ["PROJECT"])\n'
            f'from utils.running import errors\ndef main():\n    {body}\nerrors.run(main)')
    command = f'exec "$0" -c "$1" {" ".join(shell)}'
    return subprocess.run(['sh', '-c', command, sys.executable, code],
                          env={**os.environ, 'PROJECT': PROJECT, **options}, capture_output=True,
                          text=True)


@pytest.mark.parametrize('body, code, words', [
    ('return 0', 0, ''),
    ('raise errors.UserError("one", "two")', 2, 'error: one\nerror: two\n'),
    ('open("/nowhere/x.csv")', 2, 'error: /nowhere/x.csv: No such file or directory\n'),
    ('os.kill(os.getpid(), signal.SIGTERM)', 143, 'stopping'),
    ('os.kill(os.getpid(), signal.SIGINT)', 130, 'stopping'),
    ('return 1 / 0', 1, 'ZeroDivisionError'),
    ('raise errors.UserError("a\\x1b[2Jb")', 2, 'error: a?[2Jb\n'),
    ('bytes(2**62)', 2, 'error: memory ran out'),
    ('raise OSError("(External) CUDA error(719), launch failure.\\n [Hint: x] (at a.cc:1)")', 2,
     'error: the GPU failed: (External) CUDA error(719), launch failure; what was saved is whole'),
    ('raise OSError("anything")', 2, 'error: a file: anything'),
])
def test_exit_codes_and_lines(body, code, words):
    result = end(body)
    assert result.returncode == code
    assert words in result.stderr and ('Traceback' in result.stderr) == (code == 1)


def test_full_standard_output_is_named():
    result = end('print("much")', '>/dev/full')
    assert result.returncode == 2
    assert 'error: standard output: No space left on device' in result.stderr


def test_closed_output(tmp_path):
    assert end('print("anything")', '>&-', '2>&-').returncode == 0
    result = end('print("anything"); raise errors.UserError("one")', '>&-')
    assert result.returncode == 2 and result.stderr == 'error: one\n'
    path = tmp_path / 'file'  # must not get the number of standard output, where C code prints
    end(f'file = open("{path}", "w"); os.write(1, b"from C")', '<&-', '>&-')
    assert path.read_bytes() == b''


@pytest.mark.parametrize('catcher', ['None', 'errors.StopRequest()'])
def test_a_second_signal_ends_at_once(catcher):
    body = f'''kept = {catcher}
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        print('goes on', flush=True)
    finally:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            pass
        print('never')'''
    result = end(body)
    assert result.returncode == 130 and 'never' not in result.stdout and 'stopping' in result.stderr
    assert ('goes on' in result.stdout) == (catcher != 'None')


def test_an_ascii_terminal():
    result = end('print("心电图"); raise errors.UserError("心电图")', PYTHONIOENCODING='ascii')
    assert result.returncode == 2
    assert result.stdout == '\\u5fc3\\u7535\\u56fe\n' and 'Traceback' not in result.stderr


def test_a_reader_that_has_seen_enough():
    result = end('print("x" * 10**6)', '| head -c 1')
    assert result.stderr == ''
