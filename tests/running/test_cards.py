"""Which Paddle goes with a card and its driver, with a stub for nvidia-smi."""
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.helpers import PROJECT
from utils.running import cards

pytestmark = pytest.mark.skipif(os.name == 'nt', reason='stubs are shell scripts')

ANSWERS = """#!/bin/sh
case "$1" in
-L) echo "GPU 0: Tesla V100 (UUID: GPU-1)"; echo "GPU 1: Tesla V100 (UUID: GPU-2)";;
--query-gpu=compute_cap) {asked};;
'') echo "| NVIDIA-SMI {driver}       Driver Version: {driver}     CUDA Version: {cuda}     |";;
*) exit 1;;
esac
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Put an nvidia-smi into PATH: function(driver, cuda, asked)."""
    def write(driver='550.54.15', cuda='12.4', asked='echo 7.0; echo 7.0'):
        folder = tmp_path / 'bin'
        folder.mkdir(exist_ok=True)
        (folder / 'nvidia-smi').write_text(ANSWERS.format(driver=driver, cuda=cuda, asked=asked))
        (folder / 'nvidia-smi').chmod(0o755)
        monkeypatch.setenv('PATH', str(folder), prepend=os.pathsep)
    return write


def test_no_nvidia_smi_is_no_card(monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    assert cards.find_cards() is None


@pytest.mark.parametrize('driver, cuda, asked, index', [
    ('550.54.15', '12.4', 'echo 7.0; echo 7.0', 'cu126'),
    ('580.65.06', '13.0', 'echo 8.6', 'cu126'),
    ('525.60.13', '12.0', 'echo 9.0', 'cu126'),   # H100: nothing before CUDA 12 is made for it
    ('570.86.15', '12.8', 'echo 12.0', 'cu129'),  # RTX 50
    ('470.57.02', '11.4', 'exit 2', 'cu118'),     # too old to know the question
    ('440.33.01', '10.2', 'exit 2', None)])
def test_the_index_goes_by_driver_and_card(driver, cuda, asked, index, stub):
    stub(driver, cuda, asked)
    found = cards.find_cards()
    assert found.names == ['Tesla V100'] * 2 and found.driver == driver
    told = subprocess.run([sys.executable, '-m', 'utils.running.cards'], cwd=PROJECT, text=True,
                          capture_output=True)
    if index is None:
        assert told.returncode == 2 and 'update the NVIDIA driver' in told.stderr
        assert 'REQUIREMENTS=requirements-cpu.txt' in told.stderr
    else:
        assert told.stdout == cards.INDEX.format(index) + '\n', told.stderr


def write_package(folder, name, version):
    """An empty package, in a folder as pip takes it for an index."""
    stem = f'{name.replace("-", "_")}-{version}'
    wheel, info = f'{stem}-py3-none-any.whl', f'{stem}.dist-info'
    (folder / name).mkdir(parents=True)
    (folder / name / 'index.html').write_text(f'<a href="{wheel}">{wheel}</a>')
    with zipfile.ZipFile(folder / name / wheel, 'w') as archive:
        archive.writestr(f'{info}/METADATA',
                         f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n')
        archive.writestr(f'{info}/WHEEL',
                         'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
        archive.writestr(f'{info}/RECORD', '')


@pytest.mark.skipif(shutil.which('make') is None, reason='there is no make')
def test_make_installs_paddle_for_gpus_from_its_own_index(stub, tmp_path):
    """PyPI has an older Paddle without CUDA; here, both are folders."""
    stub()
    pypi, own, venv = tmp_path / 'pypi', tmp_path / 'own', tmp_path / 'venv'
    write_package(own, 'paddlepaddle-gpu', '3.3.1')
    with open(os.path.join(PROJECT, 'requirements.txt'), encoding='utf-8') as file:
        names = [line.partition('>')[0].split()[0].lower() for line in file if line[0].isalpha()]
    for name in names:
        write_package(pypi, name, '2.6.2' if name == 'paddlepaddle-gpu' else '99')

    def make(*variables):
        return subprocess.run(
            ['make', f'{venv}/installed', f'VENV={venv}', f'PYTHON={sys.executable}', *variables],
            cwd=PROJECT, text=True, capture_output=True, env={
                **os.environ, 'PIP_INDEX_URL': pypi.as_uri(), 'PIP_RETRIES': '0',
                'PIP_TIMEOUT': '5', 'PIP_NO_CACHE_DIR': '1', 'PIP_CONFIG_FILE': os.devnull})

    failed = make(f'PADDLE_INDEX={(tmp_path / "nowhere").as_uri()}')
    assert failed.returncode == 2 and 'REQUIREMENTS=requirements-cpu.txt' in failed.stdout
    done = make(f'PADDLE_INDEX={own.as_uri()}')
    assert done.returncode == 0, done.stdout + done.stderr
    listed = subprocess.run([f'{venv}/bin/python', '-m', 'pip', 'list'], text=True,
                            capture_output=True).stdout
    assert re.search(r'paddlepaddle-gpu +3\.3\.1\n', listed) and re.search('numpy +99', listed)
