"""Break the real scripts in every way that a notebook can: python -m tests.faults prints fault, tried, survived, lost.

Each fault is a function (place, times, seed) that returns one answer per try: None when nothing was lost, else what was.
tests/test_faults.py runs a few tries of each; this module run by itself runs them all.
"""
import zlib  # noqa: F401  before anything that could load Paddle

import glob
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile

import numpy as np

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, PROJECT)

from tests.conftest import write_competition  # noqa: E402
from utils import checkpoint, files, records, render  # noqa: E402
from utils.errors import UserError  # noqa: E402

ITERATIONS = 9  # three epochs of three
SMALL = ('render.size=32', 'model.name=resnet18', 'model.pretrained=none', 'train.batch_size=12', 'device=cpu',
         f'train.iters={ITERATIONS}', 'train.log_interval=1', 'train.warmup_iters=2', 'data.workers=2')
# Another number of threads rounds otherwise; one is quickest for such small batches.
ENVIRONMENT = {'OMP_NUM_THREADS': '1', **os.environ}
PATIENCE = 240  # seconds until a script that should have ended counts as hanging


class Place:
    """Small data, the pictures, and an undisturbed run of each script to compare with, all below `folder`."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.source = write_competition(self.path('source'))
        self.root, self.output, self.answer = self.path('root'), self.path('output'), self.path('answer', 'answer.csv')
        for script, options in (('process.py', ()), ('train.py', ()), ('predict.py', ())):
            done = self.run(script, self.root, self.output, self.answer, *options)
            assert done.returncode == 0, done.stderr
        self.pictures = picture_bytes(self.root)
        self.trained = what_was_learnt(self.output)
        self.answered = answer_bytes(self.answer)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def fresh(self, name, like=None):
        """An empty folder of that name, or a copy of another."""
        path = self.path(name)
        shutil.rmtree(path, ignore_errors=True)
        if like is None:
            os.makedirs(path)
        else:
            shutil.copytree(like, path)
        return path

    def command(self, script, root, output, answer, *options):
        settings = (f'data.source={self.source}', f'data.root={root}', f'output={output}', f'predict.answer={answer}',
                    *SMALL, *options)
        return [sys.executable, os.path.join(PROJECT, script)] + [part for each in settings for part in ('-o', each)]

    def run(self, script, root, output, answer, *options, before=(), env=None):
        """Run a script to its end; one that hangs is killed, and says so."""
        command = [*before, *self.command(script, root, output, answer, *options)]
        try:
            return subprocess.run(command, cwd=PROJECT, text=True, capture_output=True, timeout=PATIENCE,
                                  env={**ENVIRONMENT, **(env or {})})
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, -signal.SIGKILL, '', 'it hangs')

    def start(self, script, root, output, answer, *options, env=None):
        """Start a script in a session of its own, its output collected while it runs."""
        return Started(self.command(script, root, output, answer, *options), env)


class Started:
    """A running script: the lines it has printed so far, and a way to wait for one."""

    def __init__(self, command, env=None):
        self.process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        start_new_session=True, text=True, env={**ENVIRONMENT, **(env or {})})
        self.pid, self.lines, self.errors = self.process.pid, [], []
        self.readers = [threading.Thread(target=self._collect, args=pair, daemon=True) for pair in
                        ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def _collect(stream, lines):
        for line in stream:
            lines.append(line)

    def wait_until(self, happened):
        """Wait until happened() or the script's end."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and not happened():
            if time.monotonic() > deadline:
                self.errors.append('it hangs')
                self.kill()
            time.sleep(0.001)

    def said(self, words):
        return any(words in line for line in self.lines)

    def kill(self):
        """kill -9, the script alone, as the system does when memory is short."""
        self.process.kill()
        return self.end()

    def end(self):
        """Wait for the end; what hangs is killed, and says so. Returns: the exit code"""
        try:
            code = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self.pid, signal.SIGKILL)
            self.errors.append('it hangs')
            code = self.process.wait()
        for reader in self.readers:
            reader.join(10)
        return code

    def left_behind(self):
        """Processes of its session that outlive it by more than a few seconds."""
        deadline = time.monotonic() + 15
        while members_of(self.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        return members_of(self.pid)


def members_of(session):
    """The living processes of a session."""
    found = []
    for path in glob.glob('/proc/[0-9]*/stat'):
        try:
            with open(path, encoding='utf-8', errors='replace') as file:
                fields = file.read().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] not in 'ZX':
            found.append(int(path.split('/')[2]))
    return found


def workers_of(session):
    """The processes of a session that draw."""
    found = []
    for pid in members_of(session):
        try:
            with open(f'/proc/{pid}/cmdline', 'rb') as file:
                if b'spawn_main' in file.read():
                    found.append(pid)
        except OSError:
            pass
    return found


def picture_bytes(root):
    return {path[len(root):]: read(path) for path in glob.glob(f'{root}/*/*.png')}


def answer_bytes(answer):
    return {extension: read(os.path.splitext(answer)[0] + extension) for extension in ('.csv', '.zip')}


def read(path):
    with open(path, 'rb') as file:
        return file.read()


def digest(value):
    """A checksum of nested dicts and lists of arrays and numbers, to the last bit."""
    if isinstance(value, dict):
        return digest([(key, digest(value[key])) for key in sorted(value)])
    if isinstance(value, (list, tuple)):
        return hashlib.sha256(repr([digest(each) for each in value]).encode()).hexdigest()
    if isinstance(value, np.ndarray):
        return hashlib.sha256(value.tobytes()).hexdigest()
    return repr(value)


def what_was_learnt(output):
    """All of a finished run that must not depend on what happened on the way."""
    last, notes = checkpoint.load_last(os.path.join(output, 'last'))
    assert not notes, notes
    log = read(os.path.join(output, 'train.log')).decode()
    rows = [re.sub(r'batch_cost.*|is saved in .*', '', line.partition('\t')[2])
            for line in log.splitlines() if '[TRAIN]' in line or '[EVAL]' in line]
    return {'best': read(os.path.join(output, 'best_model', 'model.pdparams')),
            'metrics': read(os.path.join(output, 'best_model', 'metrics.json')),
            'history': read(os.path.join(output, 'history.csv')), 'log': rows,
            **{key: digest(last[key]) for key in ('iteration', 'best', 'history', 'losses', 'weights', 'optimizer')}}


def compare(found, expected):
    """None where both are equal, else which parts differ."""
    if found == expected:
        return None
    differ = sorted(key for key in {**found, **expected} if found.get(key) != expected.get(key))
    return f'{len(differ)} of {len(expected)} differ: {", ".join(differ[:5])}'


def whole(output):
    """None where what a dead run left can be used, else what is broken."""
    try:
        checkpoint.load_last(os.path.join(output, 'last'))
        if os.path.isdir(os.path.join(output, 'best_model')):
            checkpoint.load_best(os.path.join(output, 'best_model'))
    except UserError as error:
        return str(error)
    return None


def error_lines(done):
    """What a script said was wrong; not what Paddle for GPUs says on a machine without one."""
    return [line for line in done.stderr.splitlines() if line.startswith(('error: ', 'Traceback'))]


def leftovers(*folders):
    return [path for folder in folders for path in glob.glob(f'{folder}/**/*', recursive=True) +
            glob.glob(f'{folder}/.lock') if path.endswith(('.partial', '.complete', '.lock'))]


def finish(place, output, *options):
    """Let a run that was disturbed go on to its end. Returns: None, or how it differs from an undisturbed one"""
    done = place.run('train.py', place.root, output, place.answer, *options)
    if done.returncode:
        return f'going on failed: {done.stderr[-300:]}'
    return compare(what_was_learnt(output), place.trained) or \
        (f'left behind: {leftovers(output)}' if leftovers(output) else None)


# The faults.

def kill_train(place, times, seed, row=5):
    """kill -9 of train.py at random moments, every second one while it saves; up to `row` on one run."""
    rng, answers = random.Random(seed), []
    while len(answers) < times:
        output, broken = place.fresh('killed'), []
        for number in range(min(row, times - len(answers))):
            # A tiny save_interval saves after every iteration, so that there is much to hit.
            run = place.start('train.py', place.root, output, place.answer, 'train.save_interval=0.0001')
            run.wait_until(lambda: run.said('mixed precision'))
            if number % 2:
                saves = rng.randint(0, 2)
                for _ in range(saves):
                    run.wait_until(lambda: glob.glob(f'{output}/**/*.partial', recursive=True))
                    run.wait_until(lambda: not glob.glob(f'{output}/**/*.partial', recursive=True))
                run.wait_until(lambda: glob.glob(f'{output}/**/*.partial', recursive=True))
                time.sleep(rng.uniform(0, 0.2))
            else:
                time.sleep(rng.uniform(0, 3))
            run.kill()
            broken.append(whole(output))
        end = finish(place, output)
        answers += [each or end for each in broken]
    return answers


def kill_process(place, times, seed):
    """kill -9 of process.py at random moments."""
    rng, answers = random.Random(seed), []
    while len(answers) < times:
        root = place.fresh('killed')
        for _ in range(min(2, times - len(answers))):
            run = place.start('process.py', root, place.output, place.answer)
            run.wait_until(lambda: workers_of(run.pid))
            if rng.random() < 0.7:
                run.wait_until(lambda: picture_bytes(root))
            time.sleep(rng.uniform(0, 0.2))
            run.kill()
            answer = f'workers live on: {run.left_behind()}' if run.left_behind() else None
            for path in glob.glob(f'{root}/*/*.png'):
                if read(path) != place.pictures[path[len(root):]]:
                    answer = f'{path} is half written'
            answers.append(answer)
        done = place.run('process.py', root, place.output, place.answer)
        end = done.stderr[-300:] if done.returncode else compare(picture_bytes(root), place.pictures)
        end = end or (str(leftovers(root)) if leftovers(root) else None)
        answers[-2:] = [each or end for each in answers[-2:]]
    return answers


def kill_predict(place, times, seed):
    """kill -9 of predict.py at random moments, most of them while it writes."""
    rng, answers = random.Random(seed), []
    for number in range(times):
        answer = os.path.join(place.fresh('killed'), 'answer.csv')
        run = place.start('predict.py', place.root, place.output, answer)
        run.wait_until(lambda: run.said('best_model: task'))
        if number % 4 == 0:
            time.sleep(rng.uniform(0, 1))
        else:
            run.wait_until(lambda: os.listdir(os.path.dirname(answer)))
            time.sleep(rng.uniform(0, 0.01))
        run.kill()
        there = {path: read(path) for path in glob.glob(f'{os.path.dirname(answer)}/answer.???')}
        broken = [path for path, data in there.items() if data != place.answered[path[-4:]]]
        done = place.run('predict.py', place.root, place.output, answer)
        end = done.stderr[-300:] if done.returncode else compare(answer_bytes(answer), place.answered)
        answers.append(f'half written: {broken}' if broken else end)
    return answers


def stop_train(place, times, seed, signum=signal.SIGTERM, twice=False):
    """SIGTERM or Ctrl-C, once or twice, at a random iteration of train.py; nothing may stay behind."""
    rng, answers = random.Random(seed), []
    shared = set(os.listdir('/dev/shm')) if os.path.isdir('/dev/shm') else set()
    for _ in range(times):
        output = place.fresh('stopped')
        run = place.start('train.py', place.root, output, place.answer)
        word = f'iter: {rng.randint(1, ITERATIONS - 2)}/'
        run.wait_until(lambda: run.said(word))
        os.killpg(run.pid, signum)
        began = time.monotonic()
        if twice:
            run.wait_until(lambda: any('once more ends at once' in line for line in run.errors))
            began = time.monotonic()
            os.killpg(run.pid, signum)
        code, took = run.end(), time.monotonic() - began
        problem = None
        if code != 128 + signum or any('Traceback' in line for line in run.errors):
            problem = f'exit code {code}: {"".join(run.errors)[-300:]}'
        elif twice and took > 5:
            problem = f'it took {took:.1f} s to end at once'
        elif run.left_behind():
            problem = 'a process lives on'
        elif not twice and (leftovers(output) or not checkpoint.list_last(os.path.join(output, 'last'))):
            problem = f'left: {leftovers(output)}, checkpoints: {checkpoint.list_last(os.path.join(output, "last"))}'
        elif os.path.isdir('/dev/shm') and any('paddle' in name for name in set(os.listdir('/dev/shm')) - shared):
            problem = '/dev/shm has new files'
        answers.append(problem or whole(output) or finish(place, output))
    return answers


def stop_other(place, times, seed, script='process.py'):
    """SIGTERM and Ctrl-C, by turns, at random moments of process.py or predict.py."""
    rng, answers = random.Random(seed), []
    for number in range(times):
        signum = (signal.SIGINT, signal.SIGTERM)[number % 2]
        root = place.fresh('stopped') if script == 'process.py' else place.root
        answer = os.path.join(place.fresh('stopped_answer'), 'answer.csv')
        run = place.start(script, root, place.output, answer)
        run.wait_until(lambda: run.said('settings that differ'))
        time.sleep(rng.uniform(0, 2.5))
        ended = run.process.poll() is not None
        if not ended:
            os.killpg(run.pid, signum) if number % 4 < 2 else os.kill(run.pid, signum)
        code = run.end()
        problem = None
        if code not in (128 + signum,) + ((0,) if ended or code == 0 else ()) or 'Traceback' in ''.join(run.errors):
            problem = f'exit code {code}: {"".join(run.errors)[-1500:]}'
        elif run.left_behind():
            problem = 'a process lives on'
        done = place.run(script, root, place.output, answer)
        same = done.stderr[-300:] if done.returncode else compare(
            *((picture_bytes(root), place.pictures) if script == 'process.py' else (answer_bytes(answer), place.answered)))
        answers.append(problem or same or (str(leftovers(root)) if leftovers(root) else None))
    return answers


def two_trainers(place, times, seed):
    """A second train.py on the same output while the first is at work."""
    answers = []
    for _ in range(times):
        output = place.fresh('shared')
        first = place.start('train.py', place.root, output, place.answer)
        first.wait_until(lambda: first.said('mixed precision'))
        second = place.run('train.py', place.root, output, place.answer)
        code = first.end()
        if second.returncode != 2 or ['another run' in line for line in error_lines(second)] != [True]:
            answers.append(f'the second was not refused: {second.returncode} {second.stderr[-300:]}')
        else:
            answers.append(compare(what_was_learnt(output), place.trained) if code == 0 else f'the first ended with {code}')
    return answers


def two_drawers(place, times, seed):
    """A second process.py on the same data.root while the first is at work."""
    answers = []
    for _ in range(times):
        root = place.fresh('shared')
        first = place.start('process.py', root, place.output, place.answer)
        first.wait_until(lambda: workers_of(first.pid))
        second = place.run('process.py', root, place.output, place.answer)
        code = first.end()
        refused = second.returncode == 2 and 'another run' in second.stderr
        after = second.returncode == 0  # the first was over before the second began
        answers.append(None if code == 0 and (refused or after) and picture_bytes(root) == place.pictures else
                       f'{code}, {second.returncode}: {second.stderr[-300:]}')
    return answers


def lose_worker(place, times, seed):
    """SIGKILL to one process that draws: what it had in hand is drawn again."""
    rng, answers = random.Random(seed), []
    for _ in range(times):
        root = place.fresh('lost')
        run = place.start('process.py', root, place.output, place.answer)
        run.wait_until(lambda: workers_of(run.pid))
        if rng.random() < 0.5:
            run.wait_until(lambda: picture_bytes(root))
        workers = workers_of(run.pid)
        if workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
        code = run.end()
        answers.append(compare(picture_bytes(root), place.pictures) if code == 0 else
                       f'exit code {code}: {"".join(run.errors)[-300:]}')
    return answers


# The first process that draws dies while the second is being started.
DIE_EARLY = '''import os, time
from multiprocessing.process import BaseProcess
started = []
def start(self, _start=BaseProcess.start):
    _start(self)
    started.append(self.pid)
    if len(started) == 2:
        os.kill(started[0], 9)
        time.sleep(1)
BaseProcess.start = start
'''


def lose_worker_early(place, times, seed):
    """A drawing process killed while the next is being started: the pool knows only one of them then."""
    answers, hook = [], place.fresh('hook')
    files.write_text(os.path.join(hook, 'sitecustomize.py'), DIE_EARLY)
    for _ in range(times):
        root = place.fresh('lost')
        done = place.run('process.py', root, place.output, place.answer, env={'PYTHONPATH': hook})
        answers.append(done.stderr[-300:] if done.returncode else compare(picture_bytes(root), place.pictures))
    return answers


CRASH = '''import builtins, os
def careful(path, *rest, _open=builtins.open, **named):
    if isinstance(path, str) and os.path.basename(path) in os.environ['CRASH_ON'].split(','):
        os.kill(os.getpid(), 9)
    return _open(path, *rest, **named)
builtins.open = careful
'''


def crash_reader(place, times, seed):
    """Records that crash whatever reads them: each is named, the others are drawn."""
    rng, answers = random.Random(seed), []
    hook = place.fresh('hook')
    files.write_text(os.path.join(hook, 'sitecustomize.py'), CRASH)
    for _ in range(times):
        root, names = place.fresh('lost'), rng.sample(sorted(os.listdir(os.path.join(place.source, 'train'))), 2)
        done = place.run('process.py', root, place.output, place.answer,
                         env={'PYTHONPATH': hook, 'CRASH_ON': ','.join(names)})
        expected = {path: data for path, data in place.pictures.items() if os.path.basename(path)[:-4] + '.mat' not in names}
        named = all(any(name in line and 'crashed' in line for line in done.stderr.splitlines()) for name in names)
        answers.append(compare(picture_bytes(root), expected) if done.returncode == 2 and named else
                       f'exit code {done.returncode}: {done.stderr[-600:]}')
    return answers


def damaged_picture(place, times, seed):
    """A picture that is damaged after it was drawn: train.py names it and ends, it does not hang."""
    rng, answers = random.Random(seed), []
    for number in range(times):
        root = place.fresh('damaged', like=place.root)
        path = rng.choice(sorted(glob.glob(f'{root}/train/*.png')))
        data = bytearray(read(path))
        data[-60] ^= 255
        files.write_bytes(path, bytes(data))
        done = place.run('train.py', root, place.fresh('damaged_output'), place.answer, f'data.workers={1 + number % 3}',
                         f'data.cache={"true" if number % 2 else "false"}')
        answers.append(None if done.returncode == 2 and [path in line for line in error_lines(done)] == [True] else
                       f'exit code {done.returncode}: {done.stderr[-300:]}')
    return answers


def damaged_checkpoint(place, times, seed):
    """The newest checkpoint is damaged: the run goes on from the one before, says so, and ends the same."""
    rng, answers = random.Random(seed), []
    for number in range(times):
        output = place.fresh('damaged_output')
        run = place.start('train.py', place.root, output, place.answer)
        run.wait_until(lambda: run.said(f'iter: {ITERATIONS - 2}/'))
        os.killpg(run.pid, signal.SIGTERM)
        run.end()
        newest = checkpoint.list_last(os.path.join(output, 'last'))[0]
        size = os.path.getsize(newest)
        with open(newest, 'r+b') as file:
            if number % 2:
                file.truncate(rng.randrange(size))
            else:
                file.seek(rng.randrange(size))
                byte = file.read(1)
                file.seek(-1, 1)
                file.write(bytes([byte[0] ^ 1 << rng.randrange(8)]))
        done = place.run('train.py', place.root, output, place.answer)
        said = newest in done.stdout and 'falling back' in done.stdout
        answers.append(compare(what_was_learnt(output), place.trained) if done.returncode == 0 and said else
                       f'exit code {done.returncode}, said: {said}: {done.stderr[-300:]}')
    return answers


# Disks that are full, and small shared memory: file systems of their own, which go away with the process.

def own_mounts():
    """The command that gives a process its own mounts, or None where the system does not permit it."""
    for command in (['unshare', '-m'], ['unshare', '-r', '-m']):
        try:
            if subprocess.run([*command, 'mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', '/mnt'],
                              capture_output=True).returncode == 0:
                return command
        except OSError:
            pass
    return None


ON_SMALL_DISK = '''mount -t tmpfs -o size="$1" tmpfs "$2" || exit 99
cp -a "$3/." "$2/" && rm -rf "$3" || exit 98
before=$(df -k --output=avail "$2" | tail -1); [ "$4" = all ] || head -c $(( (before - $4) * 1024 )) /dev/zero > "$2/filler"
shift 4; small=$1 keep=$2; shift 2
"$@"; code=$?
rm -f "$small/filler"; cp -a "$small/." "$keep/"; exit $code
'''


def on_small_disk(place, command, content, free, disk='600m'):
    """Run a command with `free` KiB left on the file system of the folder place.path('small').

    content: folder that is copied there first. Returns: (CompletedProcess, copy of the folder afterwards)
    """
    small, keep, first = place.fresh('small'), place.fresh('kept'), place.fresh('first', like=content)
    return subprocess.run([*own_mounts(), 'sh', '-c', ON_SMALL_DISK, 'sh', disk, small, first, str(free), small, keep,
                           *command], cwd=PROJECT, text=True, capture_output=True, timeout=PATIENCE, env=ENVIRONMENT), keep


def one_line(done, path):
    """None where a script told of a full disk as it should: exit code 2 and one line that names the path."""
    fine = done.returncode == 2 and [path in line and 'disk is full' in line for line in error_lines(done)] == [True]
    return None if fine else f'exit code {done.returncode}: {done.stderr[-400:]}'


def full_pictures(place, times, seed):
    """The disk fills while process.py draws, or redraws with other settings: pictures are whole, old or new."""
    rng, answers = random.Random(seed), []
    small = place.path('small')
    for number in range(times):
        again = number % 2
        content = place.root if again else place.fresh('nothing')
        options = ('render.line_width=2',) if again else ()
        done, kept = on_small_disk(place, place.command('process.py', small, place.output, place.answer, *options), content,
                                   4 * rng.randint(3, 3 if again else 40))
        problem = one_line(done, small)
        for path in glob.glob(f'{kept}/*/*.png'):
            if render.read_stamp(path) is None:
                problem = problem or f'{path} is half written'
        if again and set(picture_bytes(kept)) != set(place.pictures):
            problem = problem or 'pictures of before are gone'
        after = place.run('process.py', kept, place.output, place.answer)
        answers.append(problem or after.stderr[-300:] or compare(picture_bytes(kept), place.pictures)
                       if after.returncode else problem or compare(picture_bytes(kept), place.pictures))
    return answers


def full_training(place, times, seed):
    """The disk fills at one of train.py's writes: log, best model, picture, history, curves, checkpoint; and then, on
    top of an earlier state, best model or checkpoint again."""
    rng, answers = random.Random(seed), []
    small = place.path('small')
    model = 43712 + 16  # KiB of best_model with ResNet18
    room = [model + 300, 20000, model + 24, model + 48, model + 56, model + 64, 4, 0]  # KiB, for one write each
    # One epoch is done, then the disk fills.
    begun = place.fresh('begun')
    run = place.start('train.py', place.root, begun, place.answer)
    run.wait_until(lambda: run.said('iter: 4/'))
    os.killpg(run.pid, signal.SIGTERM)
    run.end()
    for number in range(times):
        if number % 2:
            content, free = place.fresh('nothing'), room[number // 2 % len(room)]
        else:
            content, free = begun, rng.choice((3000, 30000, 60000, 100000))
        done, kept = on_small_disk(place, place.command('train.py', place.root, small, place.answer), content, free)
        answers.append(one_line(done, small) or whole(kept) or finish(place, kept))
    return answers


def full_answer(place, times, seed):
    """The disk fills when predict.py writes answer.zip or answer.csv: the old answer stays."""
    answers = []
    small = place.path('small')
    old = place.fresh('old')
    for name in ('answer.csv', 'answer.zip'):
        files.write_text(os.path.join(old, name), 'of before\n')
    for number in range(times):
        done, kept = on_small_disk(place, place.command('predict.py', place.root, place.output,
                                                        os.path.join(small, 'answer.csv')), old, 0)
        problem = one_line(done, small)
        if {read(path) for path in glob.glob(f'{kept}/*')} != {b'of before\n'}:
            problem = problem or f'the old answer is gone: {os.listdir(kept)}'
        answers.append(problem)
    return answers


def full_archive(place, times, seed):
    """The disk fills while an archive is unpacked: named, and nothing half unpacked stays."""
    rng, answers = random.Random(seed), []
    small, archive = place.path('small'), place.path('records.zip')
    with zipfile.ZipFile(archive, 'w') as packed:
        for path in sorted(glob.glob(f'{place.source}/*/*.mat')) + [f'{place.source}/trainreference.csv']:
            packed.write(path, os.path.relpath(path, place.source))
    for _ in range(times):
        command = place.command('process.py', small, place.output, place.answer, f'data.source={archive}')
        done, kept = on_small_disk(place, command, place.fresh('nothing'), rng.randint(200, 9000))
        left = [name for name in os.listdir(kept) if name != '.lock']
        answers.append(one_line(done, small) or (f'left behind: {left}' if left else None))
    return answers


def full_demo(place, times, seed):
    """The disk fills while the demo's ECGs are written."""
    rng, answers = random.Random(seed), []
    small = place.path('small')
    for _ in range(times):
        command = [sys.executable, '-m', 'utils.demo', os.path.join(small, 'demo'), '--records', '40']
        done, kept = on_small_disk(place, command, place.fresh('nothing'), rng.randint(300, 8000))
        broken = [path for path in glob.glob(f'{kept}/**/*.mat', recursive=True) if not readable(path)]
        answers.append(one_line(done, small) or (f'half written: {broken}' if broken else None))
    return answers


def readable(path):
    try:
        records.read_record(path)
    except UserError:
        return False
    return True


def small_shared_memory(place, times, seed):
    """1 MiB of /dev/shm, as containers may have."""
    answers = []
    for number in range(times):
        output = place.fresh('shm')
        done = place.run('train.py', place.root, output, place.answer, f'data.workers={1 + number}', before=[
            *own_mounts(), 'sh', '-c', 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"', 'sh'])
        answers.append(compare(what_was_learnt(output), place.trained) if done.returncode == 0 else done.stderr[-300:])
    return answers


def stop_train_twice(place, times, seed):
    """Ctrl-C twice: it ends at once, and the same command goes on."""
    return stop_train(place, times, seed, signal.SIGINT, twice=True)


def interrupt_train(place, times, seed):
    """Ctrl-C once."""
    return stop_train(place, times, seed, signal.SIGINT)


def stop_predict(place, times, seed):
    """SIGTERM and Ctrl-C at predict.py."""
    return stop_other(place, times, seed, 'predict.py')


# (what happens, function, times in the full run, whether it takes a mount)
FAULTS = [
    ('kill -9 of train.py, half of them while it saves', kill_train, 30, False),
    ('kill -9 of process.py', kill_process, 10, False),
    ('kill -9 of predict.py', kill_predict, 10, False),
    ('SIGTERM to train.py', stop_train, 4, False),
    ('Ctrl-C to train.py', interrupt_train, 3, False),
    ('Ctrl-C twice to train.py', stop_train_twice, 4, False),
    ('SIGTERM or Ctrl-C to process.py', stop_other, 8, False),
    ('SIGTERM or Ctrl-C to predict.py', stop_predict, 6, False),
    ('a drawing process killed by the system', lose_worker, 5, False),
    ('a drawing process killed while others start', lose_worker_early, 2, False),
    ('records that crash the reader', crash_reader, 2, False),
    ('two train.py on one output', two_trainers, 2, False),
    ('two process.py on one data.root', two_drawers, 3, False),
    ('damaged picture while training', damaged_picture, 4, False),
    ('newest checkpoint damaged', damaged_checkpoint, 4, False),
    ('full disk: pictures', full_pictures, 4, True),
    ('full disk: training', full_training, 16, True),
    ('full disk: answer', full_answer, 2, True),
    ('full disk: archive', full_archive, 3, True),
    ('full disk: demo', full_demo, 2, True),
    ('1 MiB of shared memory', small_shared_memory, 2, True),
]


def main():
    chosen = [fault for fault in FAULTS if not sys.argv[1:] or any(word in fault[1].__name__ for word in sys.argv[1:])]
    mounts, table, lost = own_mounts(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder)
        for title, fault, times, takes_mount in chosen:
            if takes_mount and not mounts:
                table.append((title, 'not permitted here to mount', '', ''))
                continue
            began = time.monotonic()
            answers = fault(place, times, 2021)
            bad = [answer for answer in answers if answer]
            lost += len(bad)
            for answer in bad:
                print(f'LOST, {title}: {answer}', flush=True)
            table.append((title, len(answers), len(answers) - len(bad), len(bad)))
            print(f'{title}: {len(answers)} tried, {len(bad)} lost, {time.monotonic() - began:.0f} s', flush=True)
    print(f'\n{"fault":52}{"tried":>8}{"survived":>10}{"lost":>6}')
    for title, *numbers in table:
        print(f'{title:52}{numbers[0]:>8}{numbers[1]:>10}{numbers[2]:>6}')
    return 1 if lost else 0


if __name__ == '__main__':
    sys.exit(main())
