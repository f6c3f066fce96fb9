"""main.ipynb: all its cells run, and what is stored in it is a whole run."""
import os
import re
import zipfile

import pytest

from tests.helpers import PROJECT

nbformat = pytest.importorskip('nbformat', reason='the package nbformat is not installed')
nbclient = pytest.importorskip('nbclient', reason='the package nbclient is not installed')
pytest.importorskip('ipykernel', reason='the package ipykernel is not installed')

TINY = '''DEMO_RECORDS, REPORT_RECORDS = 40, 3
DEMO_SETTINGS = {'render.size': 64, 'model.name': 'resnet18', 'model.pretrained': 'none',
                 'train.iters': 3, 'train.batch_size': 8, 'device': 'cpu', 'data.workers': 1}
'''


@pytest.fixture
def notebook():
    stored = nbformat.read(os.path.join(PROJECT, 'main.ipynb'), as_version=4)
    return nbformat.v4.upgrade(stored)  # it is of a version that old Jupyters read, too


def codes_of(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def is_settings(cell):
    return 'parameters' in cell.metadata.get('tags', ())


def run_cells(cells, home, folder):
    """Run cells in a kernel of their own, started in `folder`, for a user whose home is `home`.

    Returns: str, all that they wrote and showed as text
    """
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name='python3',
                                     resources={'metadata': {'path': str(folder)}})
    client.execute(env={'OMP_NUM_THREADS': '1', **os.environ, 'HOME': str(home)})
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    return '\n'.join(output.text if output.output_type == 'stream' else output.data['text/plain']
                     for output in outputs)


def code(source):
    return nbformat.v4.new_code_cell(source)


def project_in(folder):
    """A folder that holds the project's files, where the notebook can write beside them."""
    folder.mkdir()
    for name in os.listdir(PROJECT):
        if name not in ('dataset', 'output'):
            os.symlink(os.path.join(PROJECT, name), folder / name)
    (folder / 'dataset').mkdir()
    os.symlink(os.path.join(PROJECT, 'dataset/samples'), folder / 'dataset/samples')
    return folder


def test_all_cells_run_on_made_up_ecgs(notebook, tmp_path):
    folder, cells = project_in(tmp_path / 'project'), codes_of(notebook)
    cells.insert([is_settings(cell) for cell in cells].index(True) + 1, code(TINY))
    shown = run_cells(cells, tmp_path, folder)
    assert '$ python train.py' in shown and 'scores on 8 records' in shown
    assert shown.count('Image object') == 4  # ECGs, one as the network sees it, curves, validation
    with zipfile.ZipFile(folder / 'output/demo/answer.zip') as archive:
        assert archive.read('answer.csv').decode().count('TEST') == 8
    assert shown.count('SVG object') == 3
    assert '3 records: 1 normal, 2 abnormal' in shown and 'atrial fibrillation 0.' in shown


def test_on_ai_studio_data_are_found_and_only_pictures_lie_among_them(notebook, tmp_path):
    home = tmp_path / 'aistudio'
    mounted = home / 'data/data1234'
    mounted.mkdir(parents=True)
    archive = mounted / '2021A_T2_Task1_data.tar.gz'
    archive.touch()
    folder, (settings, setup) = project_in(home / 'project'), codes_of(notebook)[:2]
    shown = run_cells([settings, setup, code(
        'print(options, sys.path[0], os.environ["PYTHONPATH"])\n'
        'try:\n    run("process.py", "-o", "no.such=1")\n'
        'except RuntimeError as error:\n    print("stopped:", error)')], home, folder)
    for option in (f'data.source={archive}', f'data.root={home}/data/pictures', 'output=output',
                   'train.iters=10000'):
        assert f"'{option}'" in shown
    assert shown.count(f'{home}/external-libraries') == 2
    assert 'unknown key no.such' in shown and 'stopped: process.py' in shown


def test_what_is_stored_is_a_whole_run_of_these_cells(notebook):
    cells = codes_of(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == 'error']
    shown = ''.join(str(output) for output in outputs)
    assert 'Image object' in shown and 'answer.zip' in shown
    assert not re.findall(r'(?<![\w.])/(?:tmp|root|home|work)/\S+', shown)


def test_on_ai_studio_only_missing_packages_are_installed_where_they_persist(notebook, tmp_path):
    home = tmp_path / 'aistudio'
    home.mkdir()
    folder, (settings, setup, install) = project_in(home / 'project'), codes_of(notebook)[:3]
    for name in ('requirements.txt', 'requirements-cpu.txt'):
        (folder / name).unlink()
        (folder / name).write_text('paddlepaddle-gpu>=99\nnumpy>=1  # there\nno-such-package>=1\n')
    shown = run_cells([settings, setup, code('run = print'), install], home, folder)
    assert f'--target {home}/external-libraries no-such-package>=1 numpy==' in shown
    assert 'paddle' not in shown
