"""The house stands: imports run down only, Paddle stays in models/, functions stay small."""
import ast

from tests import rooms

MOST_LINES, MOST_PARAMETERS, MOST_OF_TRAIN = 45, 6, 450
TREES = rooms.read_sources()


def test_imports_run_down_only():
    for parts, tree in TREES.items():
        room = rooms.room_of(parts)
        assert room in rooms.ROOMS or parts == ('utils', '__init__'), f'{parts}: in no room'
        for module in rooms.imports_of(tree):
            assert module[0] not in ('', 'tests', 'benchmarks'), f'{parts} imports {module}'
            other = rooms.room_of(module)
            assert other is None or rooms.ROOMS.index(other) <= rooms.ROOMS.index(room), \
                f'{parts} imports {module}'


def test_paddle_stays_in_models():
    for parts, tree in TREES.items():
        if parts[0] == 'utils' or parts == ('process',):
            imported = {module[0] for module in rooms.imports_of(tree)}
            assert not imported & {'paddle', 'models'}, parts


def test_settings_alone_read_the_command_line():
    """But for what is a command itself, such as python -m utils.datasets.demo."""
    for parts, tree in TREES.items():
        is_command = any(isinstance(node, ast.Compare) and ast.unparse(node.left) == '__name__'
                         for node in ast.walk(tree))
        if parts == ('utils', 'running', 'settings') or (is_command and len(parts) > 1):
            continue
        assert not {('argparse',), ('sys', 'argv')} & rooms.imports_of(tree), parts
        assert not any(isinstance(node, ast.Attribute) and node.attr == 'argv'
                       for node in ast.walk(tree)), parts


def test_functions_are_small():
    for parts, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            lines, of = node.end_lineno - node.lineno + 1, node.args
            assert lines <= MOST_LINES, f'{parts}: {node.name} has {lines} lines'
            names = [each.arg for each in (*of.posonlyargs, *of.args, of.vararg, *of.kwonlyargs,
                                           of.kwarg) if each and each.arg != 'self']
            assert len(names) <= MOST_PARAMETERS, f'{parts}: {node.name} takes {names}'


def test_train_is_one_story():
    assert rooms.count_lines(('train',)) <= MOST_OF_TRAIN


def test_tests_stand_as_the_code_does():
    folders = {path.parent.relative_to(rooms.PROJECT).parts
               for path in rooms.PROJECT.glob('tests/**/test_*.py')}
    known = {('tests', room.split('.')[-1]) for room in rooms.ROOMS}
    assert {folder[:2] for folder in folders} <= {('tests',), *known}


def test_the_command_prints_every_room(capsys):
    rooms.main()
    said = capsys.readouterr().out
    assert all(f'{room}: ' in said for room in rooms.ROOMS) and 'lines in all' in said
