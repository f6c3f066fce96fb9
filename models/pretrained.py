"""Find, check and load ImageNet or earlier weights; say what was loaded."""
import hashlib
import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from models import best_model
from utils.answers import tasks
from utils.pictures.render import settings_of
from utils.running.errors import UserError

HEAD = 'fc.'  # the layer whose shape depends on the number of classes
CONNECT_SECONDS = 10


def load_pretrained(model, name, pretrained, drawn_with, task):
    """Load the weights that config.model.pretrained names into a freshly built model.

    model: paddle.nn.Layer; name: str, e.g. 'resnet50'; pretrained: 'imagenet', 'ptbxl' (the model
        that comes along), 'none' or the path of a .pdparams file or of a best_model folder
    drawn_with: dict, render.settings_of()
    task: tasks.Task; after a network of task 3 its head begins with what that answers
    Returns: list of str, what was loaded, and a warning where an earlier best_model was trained on
        pictures that were drawn otherwise
    Raises: UserError where there are no useful weights: never a silent random start
    """
    if pretrained == 'none':
        return ['random start: model.pretrained is none']
    named = {'imagenet': lambda: imagenet_weights(name), 'ptbxl': lambda: best_model.COMES_ALONG}
    path, notes = named.get(pretrained, lambda: pretrained)(), []
    if os.path.isdir(path):
        networks, trained, _ = best_model.load_best(path)
        weights = networks[0]
        if trained.model.name != name:
            raise UserError(f'model.pretrained: {path} is a {trained.model.name}, trained on '
                            f'pictures of {trained.render.size} pixels, and model.name is {name}; '
                            f'draw and train with -o model.name={trained.model.name} -o '
                            f'render.size={trained.render.size}')
        notes = _compare_drawing(path, settings_of(trained.render), drawn_with)
        if trained.task == 3 and task.number != 3:
            weights = {**weights, **_first_head(weights, tasks.head_of_start(task))}
    elif os.path.isfile(path):
        weights = best_model.read_weights(path)
    else:
        raise UserError(f'model.pretrained: {path} does not exist; expected imagenet, ptbxl, none, '
                        'or the path of a .pdparams file or of a best_model folder')
    return [_copy_usable(model, name, weights, path)] + notes


def _first_head(weights, from_start):
    """The head with which a task begins after task 3: {name: float32 array}.

    from_start: as tasks.head_of_start()
    """
    return {key: weights[key] @ from_start for key in weights if key.startswith(HEAD)}


def _copy_usable(model, name, weights, path):
    """Copy what fits; all but the head must. Returns: str, what was loaded."""
    state = model.state_dict()
    own = {key: list(value.shape) for key, value in state.items()}
    head = {key for key in own if key.startswith(HEAD)}
    usable = {key: value for key, value in weights.items() if own.get(key) == list(value.shape)}
    missing = sorted(set(own) - set(usable) - head)
    if missing:
        found = list(weights[missing[0]].shape) if missing[0] in weights else 'nothing'
        raise UserError(f'{path}: {len(missing)} of {len(own)} tensors of {name} are not in it, '
                        f'the first is {missing[0]}: expected shape {own[missing[0]]}, found '
                        f'{found}; set model.name to the network that the file holds')
    model.set_state_dict({**state, **usable})  # all of it: Paddle warns of what it misses
    fresh = ', '.join(sorted(head - set(usable)))
    unused = sorted(set(weights) - set(own))
    return (f'loaded {len(usable)} of {len(own)} tensors of {name} from {path}'
            + (f'; new, random: {fresh}' if fresh else '')
            + (f'; not used: {", ".join(unused[:5])}' if unused else ''))


def _compare_drawing(path, theirs, ours):
    """A warning, in a list, where an earlier best model knows pictures drawn otherwise."""
    wrong = [f'{key} {theirs[key]} there, {value} here' for key, value in ours.items()
             if theirs[key] != value]
    if not wrong:
        return []
    redraw = ' '.join(f'-o render.{key}={theirs[key]}' for key in ours if key != 'version')
    return [f'warning: {path} was trained on pictures drawn otherwise ({", ".join(wrong)}), so '
            f'much of what it has learnt is lost; better draw and train with: {redraw}']


def imagenet_weights(name):
    """The path of Paddle's ImageNet weights: from Paddle's cache, or downloaded into it.

    name: str, e.g. 'resnet50'
    Raises: UserError with the URL, the cache path and the md5 where there is no way to them
    """
    import paddle
    from paddle.utils.download import WEIGHTS_HOME, get_weights_path_from_url
    url, md5 = paddle.vision.models.resnet.model_urls[name]
    path = os.path.join(WEIGHTS_HOME, os.path.basename(url))
    by_hand = (f'download {url} on another machine, put it at {path} (md5 {md5}) and run train.py '
               'again; or start from random weights with -o model.pretrained=none / 预训练权重下载'
               '不了：请在别的机器上下载，放到上述路径，再次运行；或用 -o model.pretrained=none '
               '从随机权重开始')
    if os.path.isfile(path):
        found = hashlib.md5(Path(path).read_bytes()).hexdigest()
        if found == md5:
            return path
        raise UserError(f'{path}: not the ImageNet weights of {name} (md5 {found}), probably a '
                        f'broken download; remove it and run train.py again, or {by_hand}')
    print(f'downloading the ImageNet weights of {name}: {url} -> {path}', flush=True)
    try:
        # Paddle's download waits without end where a firewall drops packets: try the way first.
        socket.create_connection((urlparse(url).hostname, 443), timeout=CONNECT_SECONDS).close()
        return get_weights_path_from_url(url, md5)
    except (OSError, RuntimeError) as error:
        raise UserError(f'the ImageNet weights of {name} cannot be downloaded ({error}): '
                        f'{by_hand}') from None
