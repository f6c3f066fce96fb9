"""What tests of several rooms start from, made once."""
import pytest

from tests.helpers import SMALL, overrides, run_script, write_competition


@pytest.fixture(scope='session')
def competition(tmp_path_factory):
    """A small data set in the competition's layout; tests must not change it."""
    return write_competition(tmp_path_factory.mktemp('competition'))


@pytest.fixture(scope='session')
def drawn(competition, tmp_path_factory):
    """data.root with the pictures of `competition` at 64 pixels; tests must not change it."""
    root = str(tmp_path_factory.mktemp('drawn'))
    result = run_script('process.py', *overrides(f'data.source={competition}',
                                                 f'data.root={root}', *SMALL))
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture(scope='session')
def trained(drawn, tmp_path_factory):
    """The output folder of a short training on `drawn`; tests must not change it."""
    output = str(tmp_path_factory.mktemp('trained'))
    result = run_script('train.py', *overrides(f'data.root={drawn}', f'output={output}', *SMALL,
                                               'train.iters=10', 'train.log_interval=2'))
    assert result.returncode == 0, result.stderr
    return output
