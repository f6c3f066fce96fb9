"""Who imports whom, and how many lines each room has: python -m tests.rooms. Read with ast.

A room is a package of utils, or models, or the scripts; each may import those before it in ROOMS.
"""
import ast
import os
from pathlib import Path

PROJECT = Path(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPTS = ('process', 'train', 'predict')
ROOMS = ('utils.running', 'utils.ecg', 'utils.pictures', 'utils.answers', 'utils.reports',
         'utils.datasets', 'models', 'scripts')


def read_sources():
    """{module's parts, such as ('utils', 'ecg', 'beats'): syntax tree} of all that has a room."""
    paths = [PROJECT / f'{script}.py' for script in SCRIPTS]
    paths += sorted(PROJECT.glob('utils/**/*.py')) + sorted(PROJECT.glob('models/**/*.py'))
    return {path.relative_to(PROJECT).with_suffix('').parts: ast.parse(path.read_text('utf-8'))
            for path in paths}


def room_of(parts):
    """A module's room, a str; 'utils' of what lies in none of its rooms, None of what is not ours.
    """
    if parts[0] in SCRIPTS:
        return 'scripts'
    room = '.'.join(parts[:2 if parts[0] == 'utils' else 1])
    return room if room in ROOMS else 'utils' if parts[0] == 'utils' else None


def imports_of(tree):
    """What a file imports, wherever it does: set of tuples such as ('utils', 'ecg', 'beats')."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(tuple(name.name.split('.')) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = (*[''] * node.level, *(node.module or '').split('.'))
            found.update((*module, name.name) for name in node.names)
    return found


def module_of(parts, known):
    """The module among `known` that an import is of, such as ('models', 'ranks')."""
    while parts not in known and (*parts, '__init__') not in known:
        parts = parts[:-1]
    return parts


def count_lines(parts):
    return len(PROJECT.joinpath(*parts).with_suffix('.py').read_text('utf-8').splitlines())


def main():
    trees = read_sources()
    for room in ROOMS:
        modules = [parts for parts in trees if room_of(parts) == room]
        print(f'{room}: {sum(map(count_lines, modules))} lines')
        for parts in modules:
            ours = {module_of(each, trees) for each in imports_of(trees[parts]) if room_of(each)}
            names = sorted('.'.join(each[each[0] == 'utils':]) for each in ours)
            print(f'{count_lines(parts):6} {parts[-1]}: {", ".join(names) or "-"}')
    print(f'{sum(map(count_lines, trees))} lines in all')


if __name__ == '__main__':
    main()
