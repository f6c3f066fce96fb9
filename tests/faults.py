"""Break the real scripts in every way that a notebook can: python -m tests.faults [NAME[=TIMES]...]

Prints a table of faults: tried, survived, lost. A fault is a function (place, rng, number) that
does it once, the `number`-th time, and returns None when nothing was lost, else what was.
tests/test_faults.py tries a few of them; this module run by itself tries them all.
"""
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
import time
import zipfile
import zlib  # noqa: F401  before Paddle, see models/device.py

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, PROJECT)

from models import best_model, checkpoint  # noqa: E402
from tests.helpers import write_competition  # noqa: E402
from utils.answers.answer import write_answer  # noqa: E402
from utils.ecg import records  # noqa: E402
from utils.pictures import render  # noqa: E402
from utils.running import files  # noqa: E402
from utils.running.errors import UserError  # noqa: E402

ITERATIONS = 9  # three epochs of three
SMALL = ('render.size=32', 'model.name=resnet18', 'model.pretrained=none', 'train.batch_size=12',
         f'train.iters={ITERATIONS}', 'train.log_interval=1', 'train.warmup_iters=2',
         'data.workers=2', 'device=cpu')
SAVE_ALWAYS = 'train.save_interval=0.0001'  # minutes, less than an iteration takes
# Another number of threads rounds otherwise; one is quickest for such small batches.
ENVIRONMENT = {'OMP_NUM_THREADS': '1', 'PYTHONUNBUFFERED': '1', **os.environ}
PATIENCE = 240  # seconds until a script that should have ended counts as hanging
KILLS_OF_A_RUN = 5


class Place:
    """Small data and an undisturbed run of each script to compare with, all below `folder`."""

    def __init__(self, folder):
        self.folder = str(folder)
        self.source = write_competition(self.path('source'))
        self.root, self.output = self.path('root'), self.path('output')
        self.answer = self.path('answer', 'answer.csv')
        for script in ('process.py', 'train.py', 'predict.py'):
            done = self.run(script)
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

    def command(self, script, *options, root=None, output=None, answer=None):
        """A script's command line: `options` are settings, the others folders instead of ours."""
        pairs = (f'data.source={self.source}', f'data.root={root or self.root}',
                 f'output={output or self.output}', f'predict.answer={answer or self.answer}',
                 *SMALL, *options)
        return [sys.executable, os.path.join(PROJECT, script),
                *(part for pair in pairs for part in ('-o', pair))]

    def run(self, script, *options, before=(), env=None, **folders):
        """Run a script to its end; one that hangs is killed, and says so."""
        command = [*before, *self.command(script, *options, **folders)]
        try:
            return subprocess.run(command, cwd=PROJECT, text=True, capture_output=True,
                                  timeout=PATIENCE, env={**ENVIRONMENT, **(env or {})})
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, -signal.SIGKILL, '', 'it hangs')

    def start(self, script, *options, **folders):
        return Started(self.command(script, *options, **folders), self.folder)

    def stopped(self, name, iteration, *options):
        """The output of a run that SIGTERM has stopped in the iteration after `iteration`."""
        output = self.fresh(name)
        run = self.start('train.py', *options, output=output)
        run.wait_for(f'iter: {iteration}/')
        os.kill(run.pid, signal.SIGTERM)
        run.end()
        return output


class Started:
    """A script that runs in a session of its own; what it says is in two files."""

    def __init__(self, command, folder):
        self.out, self.err = (tempfile.mktemp(end, dir=folder) for end in ('.out', '.err'))
        with open(self.out, 'wb') as out, open(self.err, 'wb') as err:
            self.process = subprocess.Popen(command, cwd=PROJECT, stdout=out, stderr=err,
                                            start_new_session=True, env=ENVIRONMENT)
        self.pid, self.hangs = self.process.pid, ''

    @property
    def said(self):
        return read(self.out).decode()

    @property
    def stderr(self):
        return self.hangs + read(self.err).decode()

    def wait_until(self, happened):
        """Wait until happened() or the script's end."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None and not happened():
            if time.monotonic() > deadline:
                self.hangs = 'it hangs'
                self.process.kill()
            time.sleep(0.002)

    def wait_for(self, words):
        self.wait_until(lambda: words in self.said)

    def kill(self):
        """kill -9, the script alone, as the system does when memory is short."""
        self.process.kill()
        return self.end()

    def end(self):
        """Wait for the end; what hangs is killed, and says so. Returns: the exit code"""
        self.wait_until(lambda: False)
        self.returncode = self.process.wait()
        return self.returncode

    def left_behind(self):
        """None, or that processes of its session outlive it by more than a few seconds."""
        deadline = time.monotonic() + 15
        while members_of(self.pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        return f'processes live on: {members_of(self.pid)}' if members_of(self.pid) else None


def members_of(session, drawing=False):
    """The living processes of a session; `drawing`: those alone that process.py has draw."""
    found = []
    for path in glob.glob('/proc/[0-9]*/stat'):
        try:
            fields = read(path).decode(errors='replace').rpartition(')')[2].split()
            if int(fields[3]) == session and fields[0] not in 'ZX' and (
                    not drawing or b'spawn_main' in read(f'{path[:-4]}cmdline')):
                found.append(int(path.split('/')[2]))
        except OSError:
            continue
    return found


def read(path):
    with open(path, 'rb') as file:
        return file.read()


def picture_bytes(root):
    return {path[len(root):]: read(path) for path in glob.glob(f'{root}/*/*.png')}


def answer_bytes(answer):
    return {end: read(os.path.splitext(answer)[0] + end) for end in ('.csv', '.zip')}


def what_was_learnt(output):
    """All of a finished run that must not depend on what happened on the way."""
    state, arrays, notes = checkpoint.load_last(os.path.join(output, 'last'))
    assert not notes, notes
    log = read(os.path.join(output, 'train.log')).decode()
    rows = [re.sub('batch_cost.*|is saved in .*', '', line.partition('\t')[2])
            for line in log.splitlines() if '[TRAIN]' in line or '[EVAL]' in line]
    progress = {**state['progress'], 'log_bytes': None}  # its lines hold times
    return {**{name: read(os.path.join(output, name)) for name in (
                'history.csv', 'best_model/model.pdparams', 'best_model/metrics.json')},
            'log': rows, 'iteration': state['iteration'], 'progress': progress,
            **{key: (value.dtype, hashlib.sha256(value.tobytes()).hexdigest())
               for key, value in arrays.items()}}


def compare(found, expected):
    """None where both are equal, else which parts differ."""
    if found == expected:
        return None
    differ = sorted(key for key in {**found, **expected} if found.get(key) != expected.get(key))
    return f'{len(differ)} of {len(expected)} differ: {", ".join(differ[:5])}'


def whole(output):
    """None where what a dead run left can be used, else what is broken."""
    try:
        _, _, notes = checkpoint.load_last(os.path.join(output, 'last'))
        if os.path.isdir(os.path.join(output, 'best_model')):
            best_model.load_best(os.path.join(output, 'best_model'))
    except UserError as error:
        return str(error)
    return '; '.join(notes) or None


def left_in(*folders):
    """What is left of files that were being written."""
    found = [path for folder in folders for path in glob.glob(f'{folder}/**', recursive=True)
             if path.endswith((files.PARTIAL, '.complete'))]
    return f'left behind: {found}' if found else None


def exit_code(done):
    """How a script ended, where it should have ended otherwise."""
    return f'exit code {done.returncode}: {done.stderr[-600:]}'


def error_lines(done):
    """What a script said was wrong; not what Paddle for GPUs says on a machine without one."""
    return [line for line in done.stderr.splitlines() if line.startswith(('error: ', 'Traceback'))]


def finish(place, output, *options):
    """None where a run that was disturbed goes on to the end of an undisturbed one."""
    done = place.run('train.py', *options, output=output)
    if done.returncode:
        return f'going on failed: {exit_code(done)}'
    return compare(what_was_learnt(output), place.trained) or left_in(output)


def draw_again(place, root):
    """None where process.py completes the pictures that it was disturbed with."""
    done = place.run('process.py', root=root)
    return exit_code(done) if done.returncode else \
        compare(picture_bytes(root), place.pictures) or left_in(root)


def predict_again(place, answer):
    done = place.run('predict.py', answer=answer)
    return exit_code(done) if done.returncode else compare(answer_bytes(answer), place.answered)


# The faults.

def kill_train(place, rng, number):
    """kill -9 of train.py, every second one while it saves; several on one run, which then ends."""
    output = place.path('killed') if number % KILLS_OF_A_RUN else place.fresh('killed')
    run = place.start('train.py', SAVE_ALWAYS, output=output)
    run.wait_for('mixed precision')
    if number % 2:
        def saving():
            return left_in(output)

        for _ in range(rng.randint(0, 2)):
            run.wait_until(saving)
            run.wait_until(lambda: not saving())
        run.wait_until(saving)
        time.sleep(rng.uniform(0, 0.1))
        run.wait_until(saving)
    else:
        time.sleep(rng.uniform(0, 2))
    run.kill()
    place.hits = getattr(place, 'hits', 0) + bool(left_in(output))
    end = finish(place, output) if number % KILLS_OF_A_RUN == KILLS_OF_A_RUN - 1 else None
    return whole(output) or end


def kill_process(place, rng, number):
    """kill -9 of process.py at random moments, twice on the same pictures."""
    root = place.path('killed') if number % 2 else place.fresh('killed')
    run = place.start('process.py', root=root)
    run.wait_until(lambda: members_of(run.pid, drawing=True))
    if rng.random() < 0.7:
        run.wait_until(lambda: picture_bytes(root))
    time.sleep(rng.uniform(0, 0.2))
    run.kill()
    broken = [path for path, data in picture_bytes(root).items() if data != place.pictures[path]]
    return run.left_behind() or (f'half written: {broken}' if broken else None) or (
        draw_again(place, root) if number % 2 else None)


def kill_predict(place, rng, number):
    """kill -9 of predict.py at random moments, most of them while it writes."""
    answer = os.path.join(place.fresh('killed'), 'answer.csv')
    run = place.start('predict.py', answer=answer)
    run.wait_for('best_model: task')
    if number % 4:
        run.wait_until(lambda: os.listdir(os.path.dirname(answer)))
        time.sleep(rng.uniform(0, 0.01))
    else:
        time.sleep(rng.uniform(0, 1))
    run.kill()
    there = glob.glob(f'{os.path.dirname(answer)}/answer.???')
    broken = [path for path in there if read(path) != place.answered[path[-4:]]]
    return f'half written: {broken}' if broken else predict_again(place, answer)


def stop_train(place, rng, _, signum=signal.SIGTERM, twice=False):
    """SIGTERM or Ctrl-C, once or twice, at a random iteration of train.py."""
    output = place.fresh('stopped')
    run = place.start('train.py', output=output)
    run.wait_for(f'iter: {rng.randint(1, ITERATIONS - 2)}/')
    os.kill(run.pid, signum)
    if twice:
        run.wait_until(lambda: 'once more ends at once' in run.stderr)
        run.process.send_signal(signum)  # does nothing where it has ended
    began = time.monotonic()
    if run.end() != 128 + signum or 'Traceback' in run.stderr:
        return exit_code(run)
    if twice:
        problem = 'it did not end at once' if time.monotonic() - began > 5 else None
    else:
        there = checkpoint.list_last(os.path.join(output, 'last'))
        problem = left_in(output) if there else 'it did not save'
    return problem or run.left_behind() or whole(output) or finish(place, output)


def interrupt_train(place, rng, number):
    return stop_train(place, rng, number, signal.SIGINT)


def stop_train_twice(place, rng, number):
    return stop_train(place, rng, number, signal.SIGINT, twice=True)


def stop_other(place, rng, number, script):
    """SIGTERM and Ctrl-C, by turns, to the script alone or its whole session."""
    signum = (signal.SIGINT, signal.SIGTERM)[number % 2]
    root = place.fresh('stopped') if script == 'process.py' else place.root
    answer = os.path.join(place.fresh('stopped_answer'), 'answer.csv')
    run = place.start(script, root=root, answer=answer)
    run.wait_for('settings that differ')
    time.sleep(rng.uniform(0, 2.5))
    if run.process.poll() is None:
        (os.killpg if number % 4 < 2 else os.kill)(run.pid, signum)
    if run.end() not in (0, 128 + signum) or 'Traceback' in run.stderr:  # 0: it was faster
        return exit_code(run)
    return run.left_behind() or (draw_again(place, root) if script == 'process.py'
                                 else predict_again(place, answer))


def stop_process(place, rng, number):
    return stop_other(place, rng, number, 'process.py')


def stop_predict(place, rng, number):
    return stop_other(place, rng, number, 'predict.py')


def two_at_once(place, script, **folders):
    """A second script on a folder while the first is at work: one of them gets it."""
    first = place.start(script, **folders)
    first.wait_until(lambda: 'mixed precision' in first.said or members_of(first.pid, True))
    second = place.run(script, **folders)
    refused = ['another run' in line for line in error_lines(second)] == [True]
    if first.end() or second.returncode not in (0, 2) or second.returncode == 2 and not refused:
        return f'{exit_code(first)}; {exit_code(second)}'
    return None if refused else 'the second was not refused'


def two_trainers(place, _, __):
    output = place.fresh('shared')
    return two_at_once(place, 'train.py', output=output) or \
        compare(what_was_learnt(output), place.trained)


def two_drawers(place, _, __):
    root = place.fresh('shared')
    return two_at_once(place, 'process.py', root=root) or \
        compare(picture_bytes(root), place.pictures)


def lose_worker(place, rng, _):
    """SIGKILL to one process that draws: what it had in hand is drawn again."""
    root = place.fresh('lost')
    run = place.start('process.py', root=root)
    run.wait_until(lambda: members_of(run.pid, drawing=True))
    if rng.random() < 0.5:
        run.wait_until(lambda: picture_bytes(root))
    for worker in members_of(run.pid, drawing=True)[:1]:
        os.kill(worker, signal.SIGKILL)
    return exit_code(run) if run.end() else compare(picture_bytes(root), place.pictures)


def hooked(place, code):
    """An environment in which every Python runs `code` first."""
    folder = place.fresh('hook')
    files.write_text(os.path.join(folder, 'sitecustomize.py'), code)
    return {'PYTHONPATH': folder}


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


def lose_worker_early(place, _, __):
    """The first process that draws is killed while the second is being started."""
    root = place.fresh('lost')
    done = place.run('process.py', root=root, env=hooked(place, DIE_EARLY))
    return exit_code(done) if done.returncode else compare(picture_bytes(root), place.pictures)


CRASH = '''import builtins, os
def careful(path, *rest, _open=builtins.open, **named):
    if isinstance(path, str) and os.path.basename(path) in os.environ['CRASH_ON'].split(','):
        os.kill(os.getpid(), 9)
    return _open(path, *rest, **named)
builtins.open = careful
'''


def crash_reader(place, rng, _):
    """Records that crash whatever reads them: each is named, the others are drawn."""
    root = place.fresh('lost')
    names = rng.sample(sorted(os.listdir(os.path.join(place.source, 'train'))), 2)
    done = place.run('process.py', root=root, env={**hooked(place, CRASH),
                                                   'CRASH_ON': ','.join(names)})
    expected = {path: data for path, data in place.pictures.items()
                if f'{os.path.basename(path)[:-4]}.mat' not in names}
    named = all(any(name in line and 'crashed' in line for line in error_lines(done))
                for name in names)
    return compare(picture_bytes(root), expected) if done.returncode == 2 and named else \
        exit_code(done)


def damage_picture(place, rng, number):
    """A picture that is damaged, before training or meanwhile: named in one line, no hang."""
    root = place.fresh('damaged', like=place.root)
    path = rng.choice(sorted(glob.glob(f'{root}/train/*.png')))
    data = read(path)
    damaged = data[:-60] + bytes([data[-60] ^ 255]) + data[-59:]
    if number % 2 == 0:
        files.write_bytes(path, damaged)
    run = place.start('train.py', 'data.cache=false', f'data.workers={1 + number % 3}', root=root,
                      output=place.fresh('damaged_output'))
    run.wait_for('mixed precision')
    files.write_bytes(path, damaged)
    fine = run.end() == 2 and [path in line for line in error_lines(run)] == [True]
    return None if fine else exit_code(run)


def damage_checkpoint(place, rng, number):
    """The newest checkpoint is damaged: the run goes on from the one before, and says so."""
    output = place.stopped('damaged_output', ITERATIONS - 3, SAVE_ALWAYS)
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
    done = place.run('train.py', output=output)
    if done.returncode or newest not in done.stdout or 'falling back' not in done.stdout:
        return exit_code(done) + done.stdout[:600]
    return compare(what_was_learnt(output), place.trained)


# Disks that are full, and small shared memory: file systems of their own, which go with a process.

def own_mounts():
    """The command that gives a process its own mounts, or None where that is not permitted."""
    for command in (['unshare', '-m'], ['unshare', '-r', '-m']):
        mount = [*command, 'mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', '/mnt']
        try:
            if subprocess.run(mount, capture_output=True).returncode == 0:
                return command
        except OSError:
            pass
    return None


ON_SMALL_DISK = '''mount -t tmpfs -o size=700m tmpfs "$1" || exit 99
cp -a "$2/." "$1/" && rm -rf "$2" || exit 98
free=$(df -k --output=avail "$1" | tail -1)
head -c $(( (free - $3) * 1024 )) /dev/zero > "$1/filler"
small=$1 keep=$4; shift 4
"$@"; code=$?
rm -f "$small/filler"; cp -a "$small/." "$keep/"; exit $code
'''


def on_small_disk(place, command, content, free):
    """Run a command with `free` KiB left on the file system of the folder place.path('small').

    content: folder that is copied there first, and removed
    Returns: (problem, copy of the folder afterwards); problem: None where the command told of a
        full disk as it should: exit code 2 and one line that names the path
    """
    small, keep = place.fresh('small'), place.fresh('kept')
    done = subprocess.run([*own_mounts(), 'sh', '-c', ON_SMALL_DISK, 'sh', small, content,
                           str(free), keep, *command], cwd=PROJECT, text=True, capture_output=True,
                          timeout=PATIENCE, env=ENVIRONMENT)
    told = [small in line and 'disk is full' in line for line in error_lines(done)] == [True]
    return None if done.returncode == 2 and told else exit_code(done), keep


def full_pictures(place, rng, number):
    """The disk fills while process.py draws, or draws with other settings what is there."""
    content = place.fresh('first', like=place.root if number % 2 else None)
    options = ('render.line_width=2',) if number % 2 else ()
    command = place.command('process.py', *options, root=place.path('small'))
    problem, kept = on_small_disk(place, command, content,
                                  4 * rng.randint(3, 3 if number % 2 else 40))
    broken = [path for path in glob.glob(f'{kept}/*/*.png') if render.read_stamp(path) is None]
    if broken or (number % 2 and set(picture_bytes(kept)) != set(place.pictures)):
        return f'half written: {broken}, or pictures of before are gone'
    return problem or draw_again(place, kept)


def full_training(place, rng, number):
    """The disk fills at one of train.py's first writes: log, best model, picture, checkpoint."""
    model = 43712  # KiB of best_model with ResNet18; a checkpoint is three times as large
    room = [0, 4, 20000, model, model + 40, model + 80, model + 300, 100000, 2 * model + 500]
    command = place.command('train.py', root=place.root, output=place.path('small'))
    problem, kept = on_small_disk(place, command, place.fresh('first'), room[number % len(room)])
    return problem or whole(kept) or finish(place, kept)


def full_save(place, rng, number):
    """The disk fills while a checkpoint or a better model is written beside training."""
    begun = place.path('begun')
    if not os.path.isdir(begun):
        place.stopped('begun', 4)
    command = place.command('train.py', SAVE_ALWAYS, output=place.path('small'))
    problem, kept = on_small_disk(place, command, place.fresh('first', like=begun),
                                  rng.choice((3000, 30000, 60000, 120000)))
    state = checkpoint.load_last(os.path.join(kept, 'last'))[0]
    if state is None or whole(kept):
        return f'the checkpoint of before is gone: {os.listdir(kept)}'
    return problem or finish(place, kept)


def full_answer(place, _, __):
    """The disk is full when predict.py writes its answer: the old one stays."""
    write_answer(os.path.join(place.fresh('old'), 'answer.csv'), 'name,tag\nOLD,1\n')
    old = answer_bytes(place.path('old', 'answer.csv'))
    command = place.command('predict.py', answer=place.path('small', 'answer.csv'))
    problem, kept = on_small_disk(place, command, place.path('old'), 0)
    return problem or compare(answer_bytes(os.path.join(kept, 'answer.csv')), old)


def full_archive(place, rng, _):
    """The disk fills while an archive is unpacked: nothing half unpacked stays."""
    archive = place.path('records.zip')
    with zipfile.ZipFile(archive, 'w') as packed:
        for path in sorted(glob.glob(f'{place.source}/**/*.*', recursive=True)):
            packed.write(path, os.path.relpath(path, place.source))
    command = place.command('process.py', f'data.source={archive}', root=place.path('small'))
    problem, kept = on_small_disk(place, command, place.fresh('first'), rng.randint(200, 9000))
    left = [name for name in os.listdir(kept) if name != '.lock']
    return problem or (f'left behind: {left}' if left else None)


def full_demo(place, rng, _):
    """The disk fills while the demo's ECGs are written."""
    command = [sys.executable, '-m', 'utils.datasets.demo', place.path('small', 'demo'),
               '--records', '40']
    problem, kept = on_small_disk(place, command, place.fresh('first'), rng.randint(300, 2500))
    for path in glob.glob(f'{kept}/**/*.mat', recursive=True):
        records.read_record(path)  # raises where it is half written
    return problem


def small_shared_memory(place, _, number):
    """1 MiB of /dev/shm, as containers may have."""
    output = place.fresh('shm')
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"'
    done = place.run('train.py', f'data.workers={1 + number}', output=output,
                     before=[*own_mounts(), 'sh', '-c', mount, 'sh'])
    return exit_code(done) if done.returncode else compare(what_was_learnt(output), place.trained)


# (what happens, function, how often, whether it takes a mount)
FAULTS = [
    ('kill -9 of train.py, half of them while it saves', kill_train, 30, False),
    ('kill -9 of process.py', kill_process, 10, False),
    ('kill -9 of predict.py', kill_predict, 10, False),
    ('SIGTERM to train.py', stop_train, 4, False),
    ('Ctrl-C to train.py', interrupt_train, 3, False),
    ('Ctrl-C twice to train.py', stop_train_twice, 4, False),
    ('SIGTERM or Ctrl-C to process.py', stop_process, 8, False),
    ('SIGTERM or Ctrl-C to predict.py', stop_predict, 6, False),
    ('a drawing process killed by the system', lose_worker, 5, False),
    ('a drawing process killed while others start', lose_worker_early, 2, False),
    ('records that crash the reader', crash_reader, 2, False),
    ('two train.py on one output', two_trainers, 2, False),
    ('two process.py on one data.root', two_drawers, 3, False),
    ('damaged picture while training', damage_picture, 4, False),
    ('newest checkpoint damaged', damage_checkpoint, 4, False),
    ('full disk: pictures', full_pictures, 4, True),
    ('full disk: training', full_training, 9, True),
    ('full disk: saving beside training', full_save, 8, True),
    ('full disk: answer', full_answer, 2, True),
    ('full disk: archive', full_archive, 3, True),
    ('full disk: demo', full_demo, 2, True),
    ('1 MiB of shared memory', small_shared_memory, 2, True),
]


def main():
    pairs = [each.partition('=') for each in sys.argv[1:]]
    asked = {name: int(times or 0) for name, _, times in pairs}
    mounts, table, lost = own_mounts(), [], 0
    with tempfile.TemporaryDirectory() as folder:
        place = Place(folder)
        for title, fault, times, takes_mount in FAULTS:
            if asked and fault.__name__ not in asked:
                continue
            if takes_mount and not mounts:
                table.append((title, 'not permitted here to mount', '', ''))
                continue
            times, rng = asked.get(fault.__name__) or times, random.Random(2021)
            began, bad = time.monotonic(), 0
            for number in range(times):
                answer = fault(place, rng, number)
                bad += answer is not None
                if answer:
                    print(f'LOST, {title}, number {number}: {answer}', flush=True)
            lost += bad
            table.append((title, times, times - bad, bad))
            print(f'{title}: {times} tried, {bad} lost, {time.monotonic() - began:.0f} s',
                  flush=True)
        if hasattr(place, 'hits'):
            print(f'{place.hits} of the kills of train.py left a half-written file')
    print(f'\n{"fault":52}{"tried":>8}{"survived":>10}{"lost":>6}')
    for title, *numbers in table:
        print(f'{title:52}{numbers[0]:>8}{numbers[1]:>10}{numbers[2]:>6}')
    return 1 if lost else 0


if __name__ == '__main__':
    sys.exit(main())
