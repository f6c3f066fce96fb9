"""config.yml -> frozen dataclasses. An unknown key, a wrong type or value is an error."""
import argparse
import dataclasses
import difflib
import math
import operator
import os
import shlex
import sys
import typing
from dataclasses import dataclass
from typing import Optional, Union

import yaml

from utils.running.errors import UserError

KINDS = {int: 'a whole number', float: 'a number', str: 'text', bool: 'true or false',
         type(None): 'empty', dict: 'a section of keys', list: 'a list'}


def matters(default, check, before=None):
    """A setting that decides what is learnt: a run that goes on must have it as it was.

    check: (test, words) that a value must pass; before: its value for models and checkpoints that
        are older than the setting, where that is not the default
    """
    before = default if before is None else before
    return dataclasses.field(default=default, metadata={'check': check, 'matters': True,
                                                        'before': before})


def free(default, check):
    """A setting that may change between a run and its going on; see matters()."""
    return dataclasses.field(default=default, metadata={'check': check, 'matters': False,
                                                        'before': default})


def between(low, high):
    return lambda value: low <= value <= high, f'from {low} to {high}'


def below(high):
    return lambda value: 0 <= value < high, f'at least 0 and below {high}'


def at_least(low):
    return lambda value: value >= low, f'at least {low}'


def above(low):
    return lambda value: value > low, f'above {low}'


def one_of(*values):
    words = ', '.join(str(value).lower() for value in values)
    return lambda value: value in values, f'one of {words}'


def auto_or(check):
    test, words = check
    return (lambda value: value == 'auto' or not isinstance(value, str) and test(value),
            f'auto or {words}')


def is_path(value):
    try:
        return bool(value.strip()) and b'\0' not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


PATH = (lambda value: value is None or is_path(value), 'a path, not an empty text')
TABLE = (lambda value: is_path(value) and value.endswith('.csv'), 'a path that ends in .csv')


@dataclass(frozen=True)
class Data:
    source: Optional[str] = free(None, PATH)
    root: str = free('dataset', PATH)
    workers: Union[str, int] = free('auto', auto_or(between(1, 256)))
    cache: Union[str, bool] = free('auto', one_of('auto', True, False))
    validation_fraction: float = matters(0.1, between(0.001, 0.999))


@dataclass(frozen=True)
class Render:
    size: int = matters(640, between(32, 4096))
    mv_per_lead: float = matters(2.0, between(0.1, 100))
    line_width: float = matters(1.0, between(0.1, 20))
    beats: bool = matters(True, one_of(True, False), before=False)


@dataclass(frozen=True)
class Model:
    name: str = matters('resnet50', one_of('resnet18', 'resnet34', 'resnet50', 'resnet101'))
    pretrained: str = matters('imagenet', PATH)


@dataclass(frozen=True)
class Train:
    iters: int = matters(10000, at_least(1))
    epochs: int = matters(0, at_least(0))
    batch_size: int = matters(32, at_least(2))
    optimizer: str = matters('adamw', one_of('adamw', 'momentum'))
    learning_rate: float = matters(0.001, above(0))
    warmup_iters: int = matters(200, at_least(0))
    decay: str = matters('cosine', one_of('cosine', 'polynomial'))
    end_learning_rate: float = matters(0.0, at_least(0))
    weight_decay: float = matters(0.02, at_least(0))
    clip_norm: float = matters(5.0, at_least(0))
    label_smoothing: float = matters(0.0, below(1))
    class_weights: str = matters('none', one_of('none', 'balanced'))
    amp: Union[str, bool] = free('auto', one_of('auto', True, False))
    ema: float = matters(0.33, between(0, 1))
    folds: int = matters(1, between(1, 20))
    best_metric: str = matters('loss', one_of('f1', 'auc', 'accuracy', 'loss'))
    eval_interval: Union[str, int] = matters('auto', auto_or(at_least(1)))
    log_interval: int = free(10, at_least(1))
    save_interval: float = free(5.0, above(0))
    resume: str = free('auto', one_of('auto', 'never', 'extend'))


@dataclass(frozen=True)
class Augment:
    time_shift: float = matters(1.0, between(0, 1))
    gain: float = matters(0.2, below(1))
    missing_lead: float = matters(0.3, between(0, 1))
    printed: float = matters(0.0, between(0, 1))
    noise: float = matters(0.01, between(0, 10))
    wander: float = matters(0.05, between(0, 10))


@dataclass(frozen=True)
class Predict:
    batch_size: int = free(32, at_least(1))
    views: int = matters(1, between(1, 50))
    threshold: Union[str, float] = free('auto', auto_or(between(0, 1)))
    sure: float = free(0.95, between(0.5, 0.999))
    answer_format: str = free('list', one_of('list', 'onehot'))
    precision: str = free('fp32', one_of('fp32', 'bf16'))
    answer: str = free('answer.csv', TABLE)


@dataclass(frozen=True)
class Config:
    task: int = matters(1, one_of(1, 2, 3))
    seed: int = matters(2021, between(0, 2**31 - 1))
    device: str = free('auto', one_of('auto', 'gpu', 'cpu'))
    output: str = free('output', PATH)
    data: Data = Data()
    render: Render = Render()
    model: Model = Model()
    train: Train = Train()
    augment: Augment = Augment()
    predict: Predict = Predict()


SECTIONS = {item.name: item.type for item in dataclasses.fields(Config)
            if dataclasses.is_dataclass(item.type)}
# {'section.key': dataclasses.Field} of all settings, in the order of config.yml
FIELDS = {item.name: item for item in dataclasses.fields(Config) if item.name not in SECTIONS}
FIELDS.update({f'{name}.{item.name}': item for name, section in SECTIONS.items()
               for item in dataclasses.fields(section)})
# Settings that are gone, which older models and checkpoints name: what is always done now.
REMOVED = {'train.backbone_rate': 1.0}


def parse_arguments(description, add_arguments=None):
    """Read a script's command line and the configuration it names.

    description: str, what --help says first; add_arguments: function(parser) for the script's own
    Returns: (argparse.Namespace, Config)
    Raises: UserError
    """
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('-c', '--config', metavar='FILE',
                        help='the settings; every key is explained there (default: config.yml '
                             'here, or else beside the script)')
    parser.add_argument('-o', '--override', action='append', default=[],
                        metavar='SECTION.KEY=VALUE',
                        help='a setting that replaces the one in the file; repeatable')
    if add_arguments:
        add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.config or os.path.exists('config.yml'):
        return arguments, load(arguments.config or 'config.yml', arguments.override)
    beside = os.path.dirname(os.path.abspath(sys.argv[0]))
    print(f'settings: {os.path.join(beside, "config.yml")}; its paths count from its folder')
    return arguments, load(os.path.join(beside, 'config.yml'), arguments.override, beside)


def command(script, arguments, *changes, without=()):
    """A command line that can be pasted: `script` with the settings of this run.

    script: str, e.g. 'train.py'; arguments: as parse_arguments() returned them
    changes: 'section.key=value' strings that replace or add to the overrides; without: keys to drop
    """
    words = ['python', os.path.join(os.path.dirname(sys.argv[0]), script)]
    if arguments.config:
        words += ['-c', arguments.config]
    overrides = {text.partition('=')[0].strip(): text for text in [*arguments.override, *changes]}
    for key, text in overrides.items():
        if key not in without:
            words += ['-o', text]
    return ' '.join(shlex.quote(word) for word in words)


def load(path, overrides=(), base='', trained=False):
    """Read a YAML file of settings; keys it does not name keep their defaults.

    path: str; overrides: 'section.key=value' strings; base: str, the folder that relative paths
        count from, but for those in overrides, which count from the current one
    trained: bool, the file is a model's: keys it does not name are younger than the model
    Returns: Config
    Raises: UserError that names the file, the key, what was found and what was expected
    """
    values = {key: (item.metadata['before'] if trained else item.default, path, base)
              for key, item in FIELDS.items()}
    values.update({key: (value, path, base) for key, value in _read(path).items()
                   if not (trained and key in REMOVED)})
    for override in overrides:
        key, equals, text = override.partition('=')
        if not equals:
            raise UserError(f'-o {override}: expected section.key=value, e.g. -o train.iters=500')
        values[key.strip()] = _plain(text), f'-o {override}', ''
    checked = {name: {} for name in ('', *SECTIONS)}
    for key, (value, where, folder) in values.items():
        if key not in FIELDS:
            nearest = difflib.get_close_matches(key[:100].lower(), FIELDS, 1, 0)[0]
            raise UserError(f'{where}: unknown key {key}; the nearest known key is {nearest}')
        section, _, name = key.rpartition('.')
        checked[section][name] = _check(value, FIELDS[key], f'{where}: {key}', folder)
    sections = {name: section(**checked[name]) for name, section in SECTIONS.items()}
    return Config(**checked[''], **sections)


def flatten(config):
    """All settings as {'section.key': value}, in the order of config.yml."""
    return {key: operator.attrgetter(key)(config) for key in FIELDS}


def that_matter(config):
    """The settings that decide what is learnt, as {'section.key': value}."""
    return {key: value for key, value in flatten(config).items() if FIELDS[key].metadata['matters']}


def default_of(key):
    """The default of the setting 'section.key'."""
    return FIELDS[key].default


def before(key):
    """What the setting 'section.key' was before it could be set; None where there is none."""
    return FIELDS[key].metadata['before'] if key in FIELDS else REMOVED.get(key)


def to_yaml(config):
    """The effective settings as YAML text that load() reads back to an equal Config."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def describe(config):
    """One line that lists the settings which differ from the defaults."""
    changed = [f'{key}={value}' for key, value in flatten(config).items()
               if value != FIELDS[key].default]
    return 'settings that differ from the defaults: ' + (', '.join(changed) or 'none')


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.MarkedYAMLError(problem=f'the key {key.value} stands twice',
                                           problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _read(path):
    """What a YAML file says, as {'section.key': value}."""
    try:
        with open(path, encoding='utf-8-sig') as file:
            values = yaml.load(file, Loader=_Loader)  # a SafeLoader
    except FileNotFoundError:
        raise UserError(f'{path}: no such settings file; run the script in the project folder, or '
                        'name one with -c FILE') from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError) as error:
        mark = getattr(error, 'problem_mark', None)
        line = f', line {mark.line + 1}' if mark else ''
        problem = getattr(error, 'problem', error)
        raise UserError(f'{path}{line}: not valid YAML in UTF-8: {problem}; expected lines '
                        '"key: value"') from None
    if not isinstance(values, (dict, type(None))):
        raise UserError(f'{path}: found {_words(values)}, expected lines "key: value"')
    flat = {}
    for name, value in (values or {}).items():
        if name not in SECTIONS:
            flat[str(name)] = value
        elif isinstance(value, (dict, type(None))):
            flat.update({f'{name}.{key}': inner for key, inner in (value or {}).items()})
        else:
            raise UserError(f'{path}: {name} is a section of keys, found {_words(value)}')
    return flat


def _plain(text):
    """A number, true, false or null as YAML has them; any other text to the letter."""
    text = text.strip()
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    quoted = text[:1] in ('"', "'") and isinstance(value, str)
    plain = isinstance(value, (int, float)) or text in ('null', 'Null', 'NULL', '~')
    return value if quoted or plain else text


def _check(value, item, what, base):
    """The value of one setting as its type, or a UserError that begins with `what`."""
    allowed = typing.get_args(item.type) or (item.type,)
    check = test, words = item.metadata['check']
    if value != 'auto' and not isinstance(value, bool) and {int, float} & set(allowed):
        value = _number(value, int in allowed)
    if type(value) not in allowed:
        kinds = ' or '.join(KINDS[each] for each in allowed)
        raise UserError(f'{what} is {_words(value)}, expected {kinds} ({words})')
    if not test(value):
        raise UserError(f'{what} is {value!r}, expected {words}')
    if check in (PATH, TABLE) and value not in (None, 'imagenet', 'ptbxl', 'none'):
        value = os.path.join(base, os.path.expanduser(value))
    return value


def _number(value, whole):
    """640.0 and 1e4 where a whole number is due; 1e-3, which YAML 1.1 takes for text."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return value
    if not math.isfinite(number):
        return str(value)  # NaN and infinity are no setting
    return int(number) if whole and number.is_integer() else number


def _words(value):
    word = KINDS.get(type(value), type(value).__name__)
    return word if isinstance(value, (dict, list, type(None))) else f'{value!r} ({word})'
