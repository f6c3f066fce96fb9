"""Saving all or nothing, reading without harm: best_model, last, partial files, locks, archives, tables."""
import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import numpy as np
import pytest
from conftest import PROJECT, SMALL, overrides, refused, run_script

from utils import checkpoint, files, records
from utils.errors import UserError
from utils.lock import lock_folder

WEIGHTS = {'fc.weight': np.arange(6, dtype=np.float32).reshape(2, 3), 'fc.bias': np.zeros(3, np.float32)}
METRICS = {'epoch': 1, 'iteration': 3, 'threshold': 0.5, 'validation': {'f1': 0.5}}
STATE = {'iteration': 3, 'best': None, 'history': [], 'losses': [0.5], 'skipped': 0, 'bad': 0, 'log_bytes': 10,
         'weights': WEIGHTS, 'optimizer': {'fc.bias_moment1_0': WEIGHTS['fc.bias']}, 'scaler': {}, 'fingerprint': {'seed': 1}}


class Harmful:
    """Pickles to a call that writes a file."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, 'w')


def save_best(folder, value=1.0, metrics=METRICS):
    checkpoint.save_best(str(folder), {'w': np.full(2000, value, np.float32)}, f'seed: {int(value)}\n', metrics)


def value_in(folder):
    """Which save_best() a best_model folder is of; its three files must be of the same."""
    weights, path, metrics = checkpoint.load_best(str(folder))
    assert np.unique(weights['w']).size == 1
    return weights['w'][0]


def seal(folder):
    """Put the checksums of a best_model folder right, as whoever changes it can."""
    names = (checkpoint.WEIGHTS, 'config.yml', 'metrics.json')
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / checkpoint.CHECKSUMS).write_text(json.dumps(sums))


def seal_checkpoint(path, state):
    if isinstance(state, dict) and state['history'] == []:
        state = {**state, 'history': '[]'}
    body = state if isinstance(state, bytes) else pickle.dumps(state, 4)
    path.write_bytes(checkpoint.MAGIC + hashlib.sha256(body).hexdigest().encode() + b'\n' + body)


# Weights.

@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_weights_of_every_protocol(protocol, tmp_path):
    path = tmp_path / 'w.pdparams'
    path.write_bytes(pickle.dumps({**WEIGHTS, checkpoint.NAME_TABLE: {'fc.weight': 'linear_0.w_0'}}, protocol))
    read = checkpoint.read_weights(str(path))
    assert read.keys() == WEIGHTS.keys() and all(np.array_equal(read[key], WEIGHTS[key]) for key in WEIGHTS)


@pytest.mark.parametrize('where', ['value', 'key', 'inside', 'top'])
def test_weights_that_would_run_code(where, tmp_path):
    marker, path = tmp_path / 'marker', tmp_path / 'w.pdparams'
    harmful = Harmful(marker)
    path.write_bytes(pickle.dumps({'value': {**WEIGHTS, 'x': harmful}, 'key': {'x': {'y': [harmful]}},
                                   'inside': [WEIGHTS, (harmful,)], 'top': harmful}[where]))
    with pytest.raises(UserError, match='not a file of weights.*io.open|open'):
        checkpoint.read_weights(str(path))
    assert not marker.exists()


@pytest.mark.parametrize('code', [
    b'cos\nsystem\n(S"touch MARKER"\ntR.', b"(S'touch MARKER'\nios\nsystem\n.", b'cbuiltins\neval\n(S"1"\ntR.',
    b'\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.', b'cnumpy.core.multiarray\nscalar\n(tR.',
    b'cnumpy\ndtype\n(S"O8"\ntR.', b'Pnumber\n.', b'\x82\x01.', b'cbuiltins\ngetattr\n.', b'c__main__\nx\n.'])
def test_pickles_by_hand(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'w.pdparams').write_bytes(code)
    with pytest.raises(UserError, match='w.pdparams'):
        checkpoint.read_weights('w.pdparams')
    assert os.listdir(tmp_path) == ['w.pdparams']


@pytest.mark.parametrize('data, words', [
    (b'', 'empty'), (b'name,tag\nA,0\n', 'not a file of weights'), (b'<!DOCTYPE html><html>404', 'web page'),
    (pickle.dumps([1, 2]), 'holds a list'), (pickle.dumps(7), 'holds a int'), (pickle.dumps({'model': WEIGHTS}), 'is a dict'),
    (pickle.dumps({1: WEIGHTS['fc.bias']}), 'expected a tensor'), (pickle.dumps(WEIGHTS)[:-20], 'truncated'),
    (pickle.dumps({'x': np.array(['text'])}), 'expected numbers'),
    (pickle.dumps({'x': np.array([None], dtype=object)}), 'expected numbers')])
def test_files_that_hold_no_weights(data, words, tmp_path):
    path = tmp_path / 'w.pdparams'
    path.write_bytes(data)
    with pytest.raises(UserError, match=words) as refusal:
        checkpoint.read_weights(str(path))
    assert len(refusal.value.lines) == 1 and str(path) in str(refusal.value)


def test_a_folder_or_nothing_is_no_file_of_weights(tmp_path):
    for path, words in ((tmp_path, 'a folder'), (tmp_path / 'none', 'no such file')):
        with pytest.raises(UserError, match=words):
            checkpoint.read_weights(str(path))


def test_copies_without_end_are_refused(tmp_path):
    """A text of 1 MB that some hundred bytes have encoded a thousand times."""
    path = tmp_path / 'w.pdparams'
    text = b'X' + (10**6).to_bytes(4, 'little') + b'a' * 10**6 + b'q\0' + b'c_codecs\nencode\nq\1'
    path.write_bytes(b'\x80\x02](' + text + b'(h\1h\0X\6\0\0\0latin1q\2tR' * 1 + b'h\1(h\0h\2tR' * 2000 + b'e.')
    with pytest.raises(UserError, match='without end'):
        checkpoint.read_weights(str(path))


# best_model.

def test_best_model_is_whole_or_not_there_at_every_moment(tmp_path, monkeypatch):
    """A kill is an exception here that comes before the n-th change of a name or removal."""
    folder, moments = tmp_path / 'best_model', 0
    save_best(folder, 1)
    for moment in range(1, 30):
        calls = [0]

        def killed_before(function):
            def call(*arguments, **named):
                calls[0] += 1
                if calls[0] >= moment:
                    raise KeyboardInterrupt
                return function(*arguments, **named)
            return call

        with monkeypatch.context() as patch:
            for module, name in ((os, 'rename'), (os, 'replace'), (shutil, 'rmtree')):
                patch.setattr(module, name, killed_before(getattr(module, name)))
            try:
                save_best(folder, moment + 1)
            except KeyboardInterrupt:
                moments += 1
        assert value_in(folder) in (moment, moment + 1)
        checkpoint.recover_folder(str(folder))
        files.clear_partials(str(tmp_path))
        assert value_in(folder) in (moment, moment + 1)
        shutil.rmtree(tmp_path / f'best_model.{os.getpid()}.partial', ignore_errors=True)
        save_best(folder, moment + 1)
        assert value_in(folder) == moment + 1 and os.listdir(tmp_path) == ['best_model']
        if calls[0] < moment:
            break
    assert 8 <= moments < 29


def test_best_model_can_be_read_while_it_is_replaced(tmp_path):
    folder, done = tmp_path / 'best_model', []
    save_best(folder, 1)

    def replace():
        for value in range(2, 150):
            save_best(folder, value)
        done.append(True)

    thread = threading.Thread(target=replace)
    thread.start()
    read = 0
    while not done:
        try:
            assert value_in(folder) >= 1
            read += 1
        except UserError:  # replaced twice within one read
            pass
    thread.join()
    assert read > 5 and value_in(folder) == 149


def test_reading_best_model_changes_nothing(tmp_path):
    folder = tmp_path / 'best_model'
    save_best(folder, 1)
    os.rename(folder, tmp_path / 'best_model.complete')
    assert value_in(folder) == 1
    assert os.listdir(tmp_path) == ['best_model.complete']


@pytest.mark.parametrize('name', [checkpoint.WEIGHTS, 'config.yml', 'metrics.json'])
def test_one_flipped_bit_in_best_model(name, tmp_path):
    save_best(tmp_path / 'best_model')
    path = tmp_path / 'best_model' / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=f'{name}: not the file that train.py wrote'):
        checkpoint.load_best(str(tmp_path / 'best_model'))
    path.unlink()
    with pytest.raises(UserError, match=f'{name}: missing'):
        checkpoint.load_best(str(tmp_path / 'best_model'))


@pytest.mark.parametrize('sums', ['', '[]', '{}', '[' * 9000, 'x', '{"model.pdparams": 7}'])
def test_damaged_checksums(sums, tmp_path):
    save_best(tmp_path / 'best_model')
    (tmp_path / 'best_model' / checkpoint.CHECKSUMS).write_text(sums)
    with pytest.raises(UserError, match='damaged'):
        checkpoint.load_best(str(tmp_path / 'best_model'))


@pytest.mark.parametrize('metrics', ['[]', '{}', '[' * 9000, '7', '{"epoch": 1, "iteration": 1, "threshold": "x"}',
                                     '{"epoch": 1, "iteration": 1, "threshold": 0.5, "validation": {"f1": null}}',
                                     '{"epoch": "x", "iteration": 1, "threshold": 0.5, "validation": {"f1": 1}}'])
def test_metrics_of_a_stranger(metrics, tmp_path):
    save_best(tmp_path / 'best_model')
    (tmp_path / 'best_model' / 'metrics.json').write_text(metrics)
    seal(tmp_path / 'best_model')
    with pytest.raises(UserError, match='metrics.json: not as train.py wrote it'):
        checkpoint.load_best(str(tmp_path / 'best_model'))


def test_no_model_is_one_line(tmp_path):
    for folder in (tmp_path / 'none', tmp_path):
        with pytest.raises(UserError, match='python train.py'):
            checkpoint.load_best(str(folder))


# last.

def test_last_keeps_two_and_falls_back(tmp_path):
    for iteration in (3, 6, 9):
        checkpoint.save_last(str(tmp_path), {**STATE, 'iteration': iteration}, iteration)
    assert [os.path.basename(path) for path in checkpoint.list_last(str(tmp_path))] == ['iter_00000009.ckpt',
                                                                                       'iter_00000006.ckpt']
    state, notes = checkpoint.load_last(str(tmp_path))
    assert state['iteration'] == 9 and notes == []
    newest, before = checkpoint.list_last(str(tmp_path))
    with open(newest, 'r+b') as file:
        file.truncate(200)
    state, notes = checkpoint.load_last(str(tmp_path))
    assert state['iteration'] == 6 and len(notes) == 1 and newest in notes[0] and 'falling back' in notes[0]
    assert np.array_equal(state['weights']['fc.weight'], WEIGHTS['fc.weight'])
    # What goes on from there does not keep the damaged one as the newest of its two.
    checkpoint.save_last(str(tmp_path), {**STATE, 'iteration': 7}, 7)
    assert [os.path.basename(path) for path in checkpoint.list_last(str(tmp_path))] == ['iter_00000007.ckpt',
                                                                                       'iter_00000006.ckpt']


def test_both_checkpoints_damaged_is_one_line(tmp_path):
    for iteration in (3, 6):
        checkpoint.save_last(str(tmp_path), STATE, iteration)
    for path in checkpoint.list_last(str(tmp_path)):
        with open(path, 'wb'):
            pass
    with pytest.raises(UserError, match='none of its 2 checkpoints can be read.*train.resume=never') as refusal:
        checkpoint.load_last(str(tmp_path))
    assert len(refusal.value.lines) == 1


def test_checkpoint_that_would_run_code(tmp_path):
    marker = tmp_path / 'marker'
    seal_checkpoint(tmp_path / 'iter_00000003.ckpt', {**STATE, 'best': Harmful(marker)})
    with pytest.raises(UserError, match='none of its 1 checkpoints'):
        checkpoint.load_last(str(tmp_path))
    assert not marker.exists()


@pytest.mark.parametrize('key', sorted(STATE))
def test_checkpoint_of_a_stranger(key, tmp_path):
    seal_checkpoint(tmp_path / 'iter_00000003.ckpt', {**STATE, key: 'x'})
    with pytest.raises(UserError, match=f'its {key} is missing or of the wrong kind'):
        checkpoint.load_last(str(tmp_path))


@pytest.mark.parametrize('key', sorted(STATE))
def test_checkpoint_without_one_of_its_parts(key, tmp_path):
    seal_checkpoint(tmp_path / 'iter_00000003.ckpt', pickle.dumps({name: value for name, value in {
        **STATE, 'history': '[]'}.items() if name != key}))
    with pytest.raises(UserError, match=f'its {key} is missing'):
        checkpoint.load_last(str(tmp_path))


@pytest.mark.parametrize('change', [{'iteration': 0}, {'optimizer': {}}, {'best': {}}, {'best': {'value': 1.0}}])
def test_checkpoint_that_says_nonsense(change, tmp_path):
    seal_checkpoint(tmp_path / 'iter_00000003.ckpt', {**STATE, **change})
    with pytest.raises(UserError, match='not as train.py wrote them'):
        checkpoint.load_last(str(tmp_path))


def test_checkpoint_of_a_long_run_can_be_read(tmp_path):
    history = [{'iteration': i, 'epoch': 1, 'learning_rate': 0.001, 'train_loss': 1 / 3} for i in range(250_000)]
    checkpoint.save_last(str(tmp_path), {**STATE, 'history': history}, 3)
    assert checkpoint.load_last(str(tmp_path))[0]['history'] == history


def test_first_checkpoint_of_a_fresh_run_takes_the_place_of_another_runs(tmp_path):
    for iteration in (3, 6):
        checkpoint.save_last(str(tmp_path), STATE, iteration)
    checkpoint.save_last(str(tmp_path), STATE, 4, alone=True)
    assert os.listdir(tmp_path) == ['iter_00000004.ckpt']


# Files.

def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    path.write_bytes(b'old')

    def full(_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(files.DiskFull, match='a.png: the disk is full, 2.0 MiB are needed'):
        files.write_bytes(str(path), bytes(2 * 2**20))
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['a.png']


def test_partial_files_of_the_dead_are_cleared(tmp_path):
    other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])
    gone = subprocess.Popen([sys.executable, '-c', ''])
    zombie = subprocess.Popen([sys.executable, '-c', ''])
    gone.wait()
    if os.path.isdir('/proc/self'):
        while open(f'/proc/{zombie.pid}/stat').read().rpartition(')')[2].split()[0] != 'Z':
            time.sleep(0.01)
    try:
        for name in (f'a.{other.pid}.partial', f'b.{gone.pid}.partial', 'c.old.partial', f'd.{os.getpid()}.partial'):
            (tmp_path / name).write_bytes(b'x')
        (tmp_path / f'best.{gone.pid}.partial' / 'in').mkdir(parents=True)
        stays = {f'a.{other.pid}.partial'}
        if os.path.isdir('/proc/self'):
            (tmp_path / f'z.{zombie.pid}.partial').write_bytes(b'x')
            # Written an hour before the process that has its number now began: another had it then.
            (tmp_path / f'y.{other.pid}.partial').write_bytes(b'x')
            os.utime(tmp_path / f'y.{other.pid}.partial', (time.time() - 3600,) * 2)
        files.clear_partials(str(tmp_path))
        assert set(os.listdir(tmp_path)) == stays
    finally:
        other.kill()
        other.wait()
        zombie.wait()


def test_formulas_in_tables():
    rows = [['name', 'tag'], ['=cmd|"/c calc"!A1', 1], ['+1', 0], ['-1', 0], ['@SUM(A1)', 1], ['A,B', -1], ['\tx', 1.5]]
    assert files.csv_text(rows) == ('name,tag\n"\'=cmd|""/c calc""!A1",1\n\'+1,0\n\'-1,0\n\'@SUM(A1),1\n"A,B",-1\n'
                                    "'\tx,1.5\n")


def test_lock(tmp_path):
    with lock_folder(str(tmp_path), 'output'):
        code = (f'from utils.lock import lock_folder\nfrom utils import errors\n'
                f'def main():\n    with lock_folder({str(tmp_path)!r}, "output"): pass\nerrors.run(main)')
        second = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, text=True, capture_output=True)
        assert refused(second, 'another run', str(os.getpid()), '-o output=FOLDER')
    assert os.listdir(tmp_path) == []
    (tmp_path / '.lock').write_text('4711')  # of a run that was killed
    with lock_folder(str(tmp_path), 'output'):
        pass


# Signals and output that ends early, of any script.

SLEEPER = '''
import sys, time
from utils import errors
def main():
    print('ready', flush=True)
    try:
        time.sleep(60)
    except Exception:
        sys.exit('swallowed')
    finally:
        time.sleep({slow})
errors.run(main)
'''


@pytest.mark.skipif(not hasattr(os, 'killpg'), reason='signals of Unix')
@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('times', [1, 2])
def test_signals(signum, times):
    script = subprocess.Popen([sys.executable, '-c', SLEEPER.format(slow=0 if times == 1 else 60)], cwd=PROJECT, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert script.stdout.readline() == 'ready\n'
    for _ in range(times):
        script.send_signal(signum)
        time.sleep(0.5)
    _, errors = script.communicate(timeout=20)
    assert script.returncode == 128 + signum and 'Traceback' not in errors and 'once more ends at once' in errors


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_output_that_takes_no_more():
    code = 'from utils import errors\ndef main():\n    for i in range(9999): print("line", i)\nerrors.run(main)'
    with open('/dev/full', 'w') as full:
        done = subprocess.run([sys.executable, '-c', code], cwd=PROJECT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert 'Traceback' not in done.stderr and done.returncode == 2 and 'disk is full' in done.stderr
    done = subprocess.run(f'"{sys.executable}" -c \'{code}\' | head -1', shell=True, cwd=PROJECT, capture_output=True,
                          text=True)
    assert done.stdout == 'line 0\n' and done.stderr == ''


# Archives.

def hostile_tar(path, *members, mode='w:gz'):
    """members: (name, type, size as written in the header, linkname)"""
    with tarfile.open(path, mode) as tar:
        for name, kind, data, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, link, len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


@pytest.mark.parametrize('name, kind, link', [
    ('train/A.mat', tarfile.SYMTYPE, '/etc/passwd'), ('train/A.mat', tarfile.LNKTYPE, '/etc/passwd'),
    ('train/A.mat', tarfile.CHRTYPE, ''), ('train/A.mat', tarfile.FIFOTYPE, ''), ('../MARKER.mat', tarfile.REGTYPE, ''),
    ('/tmp/train/MARKER.mat', tarfile.REGTYPE, ''), ('train/../../train/MARKER.mat', tarfile.REGTYPE, ''),
    ('C:/train/MARKER.mat', tarfile.REGTYPE, ''), ('train\\..\\..\\MARKER.mat', tarfile.REGTYPE, ''),
    ('train', tarfile.SYMTYPE, '..'), ('train/\x1b[2J.mat', tarfile.REGTYPE, ''), ('train/A\nB.mat', tarfile.REGTYPE, '')])
def test_hostile_members(name, kind, link, tmp_path):
    root = tmp_path / 'deep' / 'root'
    root.mkdir(parents=True)
    archive = hostile_tar(tmp_path / 'a.tar.gz', ('train/GOOD.mat', tarfile.REGTYPE, b'x', ''), (name, kind, b'', link))
    with pytest.raises(UserError, match='nothing was unpacked') as refusal:
        records.unpack(archive, str(root))
    assert len(refusal.value.lines) == 1
    assert not list(tmp_path.glob('**/*MARKER*')) and os.listdir(root) == []


def test_duplicates_and_large_members(tmp_path):
    twice = hostile_tar(tmp_path / 'twice.tar.gz', *[(name, tarfile.REGTYPE, b'x', '') for name in ('train/A.mat',
                                                                                                  'top/TRAIN/a.MAT')])
    large = hostile_tar(tmp_path / 'large.tar.gz', ('train/A.mat', tarfile.REGTYPE, bytes(65 * 2**20), ''))
    for archive, words in ((twice, 'is there twice'), (large, 'unpacks to 65 MiB')):
        with pytest.raises(UserError, match=words):
            records.unpack(archive, str(tmp_path / 'root'))
    assert not (tmp_path / 'root').exists()


@pytest.mark.parametrize('size, words', [(2**50, 'unpack to more than 1.0 GiB'), (-1024, 'negative size')])
def test_members_of_impossible_size(size, words, tmp_path):
    """The size stands in the header alone; who believes it reads for hours, or in a circle."""
    info = tarfile.TarInfo('readme.txt')
    info.size = size
    with open(tmp_path / 'a.tar', 'wb') as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    began = time.monotonic()
    with pytest.raises(UserError, match=words):
        records.unpack(str(tmp_path / 'a.tar'), str(tmp_path / 'root'))
    assert time.monotonic() - began < 10


def test_tar_header_that_asks_for_gigabytes(tmp_path):
    info = tarfile.TarInfo('././@LongLink')
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 3 * 2**30
    with open(tmp_path / 'a.tar', 'wb') as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(UserError, match='a header of 3221225472 bytes'):
        records.unpack(str(tmp_path / 'a.tar'), str(tmp_path / 'root'))


@pytest.mark.parametrize('size', [3, 2**40])
def test_zip_member_that_lies_about_its_size(size, tmp_path):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('train/A.mat', bytes(100000))
        archive.filelist[0].file_size = size
    with pytest.raises(UserError):
        records.unpack(str(path), str(tmp_path / 'root'))
    assert not (tmp_path / 'root').exists() or os.listdir(tmp_path / 'root') == []


def test_record_with_a_name_that_is_no_text(tmp_path):
    (tmp_path / 'train').mkdir()
    try:
        open(os.path.join(os.fsencode(tmp_path), b'train', b'\xff\xfe.mat'), 'wb').close()
    except OSError:
        pytest.skip('this file system has no such names')
    done = run_script('process.py', *overrides(f'data.source={tmp_path}', f'data.root={tmp_path / "root"}', *SMALL))
    refused(done, 'not UTF-8')
