import os
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import PROJECT
from utils.running import pool


def job(number):
    """A job for the pool: some die, one takes too much memory, one is the user's mistake."""
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 7:
        return bytearray(3 * 2**30)
    return number, os.getpid()


def die_once(path):
    """The first process that does this job is killed, as the system does when memory is short."""
    if not os.path.exists(path):
        open(path, 'w').close()
        os.kill(os.getpid(), signal.SIGKILL)
    return 'done'


@pytest.mark.skipif(sys.platform != 'linux', reason='the limit on memory is set on Linux')
def test_a_crash_costs_its_job_and_no_other():
    results = dict(pool.run_jobs(job, list(range(10)), 2))
    assert len(results) == 10
    crashed = {number for number, result in results.items() if isinstance(result, pool.Crashed)}
    assert crashed == {3, 7} and 'memory' in str(results[7])
    assert all(results[number][0] == number for number in set(range(10)) - crashed)
    assert os.getpid() not in {results[number][1] for number in set(range(10)) - crashed}


def test_a_killed_job_is_tried_once_more(tmp_path):
    jobs = [str(tmp_path / name) for name in 'abc']
    assert dict(pool.run_jobs(die_once, jobs, 2)) == dict.fromkeys(jobs, 'done')


SCRIPT = '''
import sys, time
sys.path[:0] = [{project!r}, {tests!r}]
from utils.running import errors, pool
from test_pool import wait

def main():
    for _, is_safe in pool.run_jobs(wait, [0.01, 60, 60], 2):
        print('started' if is_safe else 'Ctrl-C reaches it', flush=True)

if __name__ == '__main__':
    errors.run(main)
'''


def wait(seconds):
    """Wait; whether Ctrl-C, which a terminal sends to all processes, does not reach this one."""
    time.sleep(seconds)
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='looks for processes in /proc')
@pytest.mark.parametrize('signum, code', [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_processes_end_with_the_main_one(signum, code, tmp_path):
    (tmp_path / 'script.py').write_text(SCRIPT.format(project=PROJECT,
                                                      tests=os.path.dirname(__file__)))
    running = subprocess.Popen([sys.executable, str(tmp_path / 'script.py')], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout.readline() == 'started\n'
    os.kill(running.pid, signum)
    _, stderr = running.communicate(timeout=30)  # also waits until all have closed stderr
    assert running.returncode == code and 'Traceback' not in stderr
