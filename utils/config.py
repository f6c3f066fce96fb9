"""config.yml -> frozen dataclasses. A key that does not exist, a wrong type or an impossible value is an error."""
import argparse
import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass, field
from typing import Optional, Union

import yaml

from utils.errors import UserError


def yaml_word(value):
    """A value as one would write it in config.yml: true, null, 0.5, imagenet."""
    return yaml.safe_dump(value, allow_unicode=True, width=2**20).splitlines()[0]


def _at_least(low):
    return (lambda value: value >= low), f'at least {low}'


def _above(low):
    return (lambda value: value > low), f'above {low}'


def _between(low, high):
    return (lambda value: low <= value <= high), f'from {low} to {high}'


def _within(low, high):
    return (lambda value: low < value < high), f'above {low} and below {high}'


def _one_of(*values):
    return (lambda value: any(value is v or (value == v and type(value) is type(v)) for v in values)), \
        'one of ' + ', '.join(yaml_word(v) for v in values)


def _auto_or(check):
    test, words = check
    return (lambda value: value == 'auto' or (not isinstance(value, str) and test(value))), f'auto or {words}'


def setting(default, check=None):
    """A dataclass field with its default and, optionally, a (test, words) pair that its value must pass."""
    return field(default=default, metadata={'check': check} if check else {})


@dataclass(frozen=True)
class Data:
    source: Optional[str] = setting(None)
    root: str = setting('dataset')
    workers: Union[str, int] = setting('auto', _auto_or(_between(1, 256)))
    cache: Union[str, bool] = setting('auto', _one_of('auto', True, False))
    validation_fraction: float = setting(0.1, _within(0, 1))


@dataclass(frozen=True)
class Render:
    size: int = setting(640, _between(32, 4096))
    mv_per_lead: float = setting(2.0, _between(0.1, 100))
    line_width: float = setting(1.0, _between(0.1, 20))


@dataclass(frozen=True)
class Model:
    name: str = setting('resnet50', _one_of('resnet18', 'resnet34', 'resnet50', 'resnet101'))
    pretrained: str = setting('imagenet')


@dataclass(frozen=True)
class Train:
    iters: int = setting(10000, _at_least(1))
    batch_size: int = setting(32, _at_least(2))
    optimizer: str = setting('adamw', _one_of('adamw', 'momentum'))
    learning_rate: float = setting(0.001, _above(0))
    warmup_iters: int = setting(200, _at_least(0))
    decay: str = setting('cosine', _one_of('cosine', 'polynomial'))
    end_learning_rate: float = setting(0.0, _at_least(0))
    weight_decay: float = setting(0.02, _at_least(0))
    clip_norm: float = setting(5.0, _at_least(0))
    label_smoothing: float = setting(0.0, (lambda value: 0 <= value < 1, 'at least 0 and below 1'))
    class_weights: str = setting('none', _one_of('none', 'balanced'))
    amp: Union[str, bool] = setting('auto', _one_of('auto', True, False))
    best_metric: str = setting('f1', _one_of('f1', 'auc', 'accuracy', 'loss'))
    log_interval: int = setting(10, _at_least(1))
    save_interval: float = setting(10.0, _above(0))
    resume: str = setting('auto', _one_of('auto', 'never'))


@dataclass(frozen=True)
class Augment:
    time_shift: float = setting(1.0, _between(0, 1))
    gain: float = setting(0.2, (lambda value: 0 <= value < 1, 'at least 0 and below 1'))
    missing_lead: float = setting(0.3, _between(0, 1))
    noise: float = setting(0.01, _between(0, 10))
    wander: float = setting(0.05, _between(0, 10))


@dataclass(frozen=True)
class Predict:
    batch_size: int = setting(32, _at_least(1))
    threshold: Union[str, float] = setting('auto', _auto_or(_between(0, 1)))
    answer_format: str = setting('list', _one_of('list', 'onehot'))
    precision: str = setting('fp32', _one_of('fp32', 'bf16'))
    answer: str = setting('answer.csv', (lambda value: value.endswith('.csv'), 'a name that ends in .csv'))


@dataclass(frozen=True)
class Config:
    task: int = setting(1, _one_of(1, 2))
    seed: int = setting(2021, _between(0, 2**31 - 1))
    device: str = setting('auto', _one_of('auto', 'gpu', 'cpu'))
    output: str = setting('output')
    data: Data = Data()
    render: Render = Render()
    model: Model = Model()
    train: Train = Train()
    augment: Augment = Augment()
    predict: Predict = Predict()


def parse_arguments(description, add_arguments=None):
    """Read a script's command line and the configuration it names.

    description: str, what --help says first; add_arguments: function(parser) for the script's own arguments
    Returns: (argparse.Namespace, Config)
    Raises: UserError
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-c', '--config', default='config.yml', metavar='FILE',
                        help='the settings; every key is explained there (default: config.yml)')
    parser.add_argument('-o', '--override', action='append', default=[], metavar='SECTION.KEY=VALUE',
                        help='a setting that replaces the one in the file, e.g. -o train.iters=500; repeatable')
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    return arguments, load(arguments.config, arguments.override)


def load(path, overrides=()):
    """Read a YAML file of settings; keys it does not name keep their defaults.

    path: str; overrides: 'section.key=value' strings, values parsed as YAML
    Returns: Config
    Raises: UserError that names the file, the key, what was found and what was expected
    """
    try:
        with open(path, encoding='utf-8-sig') as file:
            text = file.read(2**20 + 1)
    except FileNotFoundError:
        raise UserError(f'{path}: no such settings file; run the script in the project folder, or name one with '
                        '-c FILE') from None
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: byte {error.start} is not UTF-8; save the file as UTF-8') from None
    if len(text) > 2**20:
        raise UserError(f'{path}: larger than 1 MiB, which no settings file is; name another with -c FILE')
    values = _parse_yaml(text, path)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise UserError(f'{path}: found {_kind(values)} at the top, expected lines of the form "key: value"')
    for override in overrides:
        _apply_override(values, override)
    return _build(Config, values, '', path)


def differences(config, other=Config()):
    """The settings in which `config` differs from `other`, by default from the defaults.

    Returns: list of (key, value in config, value in other), keys like 'train.iters'
    """
    ours, theirs = flatten(config), flatten(other)
    return [(key, value, theirs[key]) for key, value in ours.items() if value != theirs[key]]


def flatten(config):
    """All settings as {'section.key': value}, in the order of config.yml."""
    flat = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            flat.update({f'{item.name}.{key}': inner for key, inner in flatten(value).items()})
        else:
            flat[item.name] = value
    return flat


def to_yaml(config):
    """The effective settings as YAML text that load() reads back to an equal Config."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def describe(config):
    """One line that lists the settings which differ from the defaults."""
    changed = [f'{key}={yaml_word(value)}' for key, value, _ in differences(config)]
    return 'settings that differ from the defaults: ' + (', '.join(changed) or 'none')


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice and an alias, which can blow up a small file a billionfold."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem='aliases (*name) are not used here',
                                       problem_mark=self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value.__hash__ and str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f'the key {key.value} stands twice', problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _parse_yaml(text, where):
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  _Loader is a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f', line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise UserError(f'{where}{line}: not valid YAML: {error.problem}; expected lines of the form "key: value"') \
            from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise UserError(f'{where}: not valid YAML: {error}; expected lines of the form "key: value"') from None


def _apply_override(values, override):
    key, equals, text = override.partition('=')
    if not equals or not key:
        raise UserError(f'-o {override}: expected section.key=value, for example -o train.iters=500')
    *sections, last = key.strip().split('.')
    for section in sections:
        values[section] = values.get(section) if isinstance(values.get(section), dict) else {}
        values = values[section]
    values[last] = _parse_yaml(text, f'-o {override}') if text.strip() else None


def _build(kind, values, prefix, path):
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise UserError(f'{path}: unknown key {prefix}{key}; {_nearest(f"{prefix}{key}")}')
    hints = typing.get_type_hints(kind)
    found = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            if value is not None and not isinstance(value, dict):
                raise UserError(f'{path}: {prefix}{name} is a section of keys, found {_kind(value)}')
            found[name] = _build(hints[name], value or {}, f'{name}.', path)
        else:
            found[name] = _check(value, hints[name], known[name].metadata.get('check'), f'{prefix}{name}', path)
    return kind(**found)


def _check(value, hint, check, key, path):
    allowed = typing.get_args(hint) or (hint,)
    if isinstance(value, str) and float in allowed and str not in allowed:
        value = _number(value)
    if type(value) is int and float in allowed and int not in allowed:
        value = float(value)
    words = check[1] if check else ' or '.join(_TYPE_WORDS[kind] for kind in allowed)
    if type(value) not in allowed or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f'{path}: {key} is {_kind(value)}, expected '
                        f'{" or ".join(_TYPE_WORDS[kind] for kind in allowed)}{f" ({words})" if check else ""}')
    if check and not check[0](value):
        raise UserError(f'{path}: {key} is {yaml_word(value)}, expected {words}')
    return value


def _number(text):
    """YAML 1.1 reads 1e-3 (no dot) as text; a person means the number."""
    try:
        return float(text)
    except ValueError:
        return text


def _nearest(key):
    every = list(flatten(Config())) + [item.name for item in dataclasses.fields(Config)]
    last = key.rpartition('.')[2]
    close = difflib.get_close_matches(key, every, 1, 0.6) or \
        [name for name in every if name.rpartition('.')[2] == last] or \
        difflib.get_close_matches(key, every, 1, 0.0)
    return f'the nearest known key is {close[0]}'


_TYPE_WORDS = {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false', type(None): 'null'}


def _kind(value):
    if value is None:
        return 'empty'
    word = {dict: 'a section of keys', list: 'a list'}.get(type(value))
    return word or f'{yaml_word(value)} ({_TYPE_WORDS.get(type(value), type(value).__name__)})'
