import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.faults import own_mounts
from tests.helpers import PROJECT
from utils.running import files
from utils.running.errors import UserError


def test_a_file_takes_its_place_whole(tmp_path):
    path = str(tmp_path / 'a.txt')
    files.write_text(path, 'old')
    with pytest.raises(RuntimeError), files.replacing(path) as file:
        file.write(b'half')
        assert open(path).read() == 'old'
        raise RuntimeError
    assert open(path).read() == 'old'
    files.write_text(path, 'new')
    assert open(path).read() == 'new' and os.listdir(tmp_path) == ['a.txt']


ON_A_SMALL_DISK = '''import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from models import checkpoint
from utils.running import files
os.chdir(sys.argv[2])
files.write_bytes('a', b'old')
checkpoint.save_last('last', {'iteration': 1}, {'x': np.ones(9)})
for write in (lambda: files.write_bytes('a', bytes(2**17)),
              lambda: checkpoint.save_last('last', {'iteration': 2}, {'x': np.ones(2**14)})):
    try:
        write()
    except files.DiskFull as error:
        print('full:', error.lines[0].partition(':')[0])
print(open('a').read(), sorted(os.listdir()), os.listdir('last'), checkpoint.load_last('last')[0])
'''


def test_a_full_disk_leaves_what_was_there(tmp_path):
    if own_mounts() is None:
        pytest.skip('a disk that is full needs the right to mount one')
    mount = 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"'
    result = subprocess.run([*own_mounts(), 'sh', '-c', mount, tmp_path, sys.executable, '-c',
                             ON_A_SMALL_DISK, PROJECT, tmp_path], capture_output=True, text=True)
    assert result.stdout.splitlines() == [
        'full: a', 'full: last/iter_00000002.npz',
        "old ['a', 'last'] ['iter_00000001.npz'] {'iteration': 1}"]
    assert result.stderr == ''  # nor what NumPy says to a disk that is full


def test_tables_keep_names_to_the_letter(tmp_path):
    path = str(tmp_path / 't.csv')
    names = ['-1', '=x', 'NA', '001', 'a,b', 'say "hi"', '心电图']
    files.write_table(path, pd.DataFrame({'name': names}))
    assert pd.read_csv(path, dtype=str, keep_default_na=False)['name'].tolist() == names
    assert open(path, 'rb').read().count(b'\n') == 1 + len(names)


def replace_folder(folder, text):
    with files.replacing_folder(str(folder)) as new:
        files.write_text(os.path.join(new, 'what'), text)


def test_a_folder_is_replaced_or_finished_later(tmp_path, monkeypatch):
    """Stopped before any one of its renames, a replacement leaves the old or the new folder."""
    real = os.rename
    for stop_at in range(1, 5):
        folder = tmp_path / str(stop_at) / 'model'
        replace_folder(folder, 'old')
        count = iter(range(1, 99))

        def rename(*paths):
            if next(count) == stop_at:
                raise KeyboardInterrupt
            real(*paths)
        monkeypatch.setattr(os, 'rename', rename)
        with contextlib.suppress(KeyboardInterrupt):
            replace_folder(folder, 'new')
        monkeypatch.setattr(os, 'rename', real)
        files.recover_folder(str(folder))
        assert (folder / 'what').read_text() == ('old' if stop_at == 1 else 'new')
        assert os.listdir(folder.parent) == ['model']


def test_a_link_to_a_folder_is_replaced_and_its_target_left_alone(tmp_path):
    replace_folder(tmp_path / 'elsewhere', 'mine')
    os.symlink('elsewhere', tmp_path / 'model')
    for text in ('first', 'second'):
        replace_folder(tmp_path / 'model', text)
        assert (tmp_path / 'model' / 'what').read_text() == text
    assert (tmp_path / 'elsewhere' / 'what').read_text() == 'mine'
    assert sorted(os.listdir(tmp_path)) == ['elsewhere', 'model']


def test_partial_files_of_the_dead_are_cleared(tmp_path):
    dead = subprocess.run([sys.executable, '-c', 'import os; print(os.getpid())'],
                          capture_output=True, text=True).stdout.strip()
    for name in (f'a.png.{dead}.partial', f'b.png.{os.getppid()}.partial', 'c.png', 'd.partial'):
        (tmp_path / name).touch()
    (tmp_path / f'best.{dead}.partial').mkdir()
    files.clear_partials(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == sorted([f'b.png.{os.getppid()}.partial', 'c.png'])


@pytest.mark.skipif(not os.path.isdir('/proc/self'), reason='looks for a zombie as Linux has them')
def test_partial_files_of_a_zombie_are_cleared(tmp_path):
    zombie = subprocess.Popen(['true'])  # it ends, and nobody waits for it
    while b') Z' not in Path(f'/proc/{zombie.pid}/stat').read_bytes():
        time.sleep(0.01)
    (tmp_path / f'a.png.{zombie.pid}.partial').touch()
    files.clear_partials(str(tmp_path))
    assert os.listdir(tmp_path) == []
    zombie.wait()


def test_a_folder_is_locked_for_others_until_its_holder_dies(tmp_path):
    code = ('import sys, time; sys.path.insert(0, sys.argv[1]); from utils.running import files\n'
            'with files.lock_folder(sys.argv[2], "output"):\n'
            '    print("held", flush=True); time.sleep(60)')
    holder = subprocess.Popen([sys.executable, '-c', code, PROJECT, str(tmp_path)],
                              stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'held\n'
    with pytest.raises(UserError, match='another run is using this folder.*-o output=FOLDER'), \
            files.lock_folder(str(tmp_path), 'output'):
        pass
    holder.kill()
    holder.communicate()
    with files.lock_folder(str(tmp_path), 'output'):
        pass
