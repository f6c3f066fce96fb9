"""Find, check and load ImageNet or earlier weights; say what was loaded."""
import hashlib
import os
import socket
from urllib.parse import urlparse

from utils import checkpoint
from utils import config as settings
from utils.errors import UserError
from utils.render import settings_of

HEAD = 'fc.'  # the layer whose shape depends on the number of classes
CONNECT_SECONDS = 10


def load_pretrained(model, name, pretrained, drawn_with):
    """Load the weights that config.model.pretrained names into a freshly built model.

    model: paddle.nn.Layer; name: str, e.g. 'resnet50'; pretrained: 'imagenet', 'none' or the path of a .pdparams file
        or of a best_model folder; drawn_with: dict, render.settings_of() of the pictures to train on
    Returns: list of str, what was loaded, and a warning where a best_model was trained on pictures drawn otherwise
    Raises: UserError where there are no useful weights: never a silent random start
    """
    if pretrained == 'none':
        return ['random start: model.pretrained is none']
    path = imagenet_weights(name) if pretrained == 'imagenet' else pretrained
    if os.path.isdir(path):
        weights, trained_config, _ = checkpoint.load_best(path)
    elif os.path.isfile(path):
        weights, trained_config = checkpoint.read_weights(path), os.path.join(os.path.dirname(path), 'config.yml')
    else:
        raise UserError(f'model.pretrained: {path} does not exist; expected imagenet, none, or the path of a .pdparams '
                        'file or of a best_model folder')
    state = model.state_dict()
    own = {key: list(value.shape) for key, value in state.items()}
    head = {key for key in own if key.startswith(HEAD)}
    usable = {key: value for key, value in weights.items() if key in own and list(value.shape) == own[key]}
    missing = sorted(set(own) - set(usable) - head)
    if not set(usable) - head:
        raise UserError(f'{path}: none of its {len(weights)} tensors fits {name}; expected the weights of a {name} of '
                        'paddle.vision.models; set model.name to what the file holds, or model.pretrained to another')
    if missing:
        found = list(weights[missing[0]].shape) if missing[0] in weights else 'nothing'
        raise UserError(f'{path}: {len(missing)} tensors of {name} are not in it, the first is {missing[0]}: expected '
                        f'shape {own[missing[0]]}, found {found}; set model.name to the network that the file holds')
    checkpoint.check_weights(path, usable)
    model.set_state_dict({**state, **usable})  # all of it: Paddle warns of what it misses
    fresh = sorted(head - set(usable))
    unused = sorted(set(weights) - set(own))
    said = f'loaded {len(usable)} of {len(own)} tensors of {name} from {path}'
    said += f'; new, random: {", ".join(fresh)}' if fresh else ''
    said += f'; not used: {", ".join(unused[:5])}{", ..." if len(unused) > 5 else ""}' if unused else ''
    from_model = os.path.isfile(os.path.join(os.path.dirname(trained_config), checkpoint.CHECKSUMS))
    return [said] + (_compare_drawing(path, trained_config, drawn_with) if from_model else [])


def _compare_drawing(path, trained_config, drawn_with):
    """A warning, in a list, where an earlier best model knows pictures that were drawn otherwise."""
    theirs = settings_of(settings.load(trained_config).render)
    wrong = [f'{key} {theirs[key]} there, {value} here' for key, value in drawn_with.items() if theirs[key] != value]
    redraw = ' '.join(f'-o render.{key}={theirs[key]}' for key in drawn_with if key != 'version')
    return [f'warning: {path} was trained on pictures drawn otherwise ({", ".join(wrong)}), so much of what it has '
            f'learnt is lost; better draw and train with: {redraw}'] if wrong else []


def imagenet_weights(name):
    """The path of Paddle's ImageNet weights: from Paddle's cache, or downloaded into it.

    name: str, e.g. 'resnet50'
    Raises: UserError with the URL, the cache path and the md5 where they can be neither found nor downloaded
    """
    import paddle
    from paddle.utils.download import WEIGHTS_HOME, get_weights_path_from_url
    url, md5 = paddle.vision.models.resnet.model_urls[name]
    path = os.path.join(WEIGHTS_HOME, os.path.basename(url))
    if os.path.isfile(path) and _md5(path) == md5:
        return path
    by_hand = (f'download {url} on another machine, put it at {path} (md5 {md5}) and run train.py again; or start from '
               'random weights with -o model.pretrained=none')
    if os.path.isfile(path):
        raise UserError(f'{path}: not the ImageNet weights of {name} (md5 {_md5(path)}), probably a broken download; '
                        f'remove it and run train.py again, or {by_hand}')
    print(f'downloading the ImageNet weights of {name}: {url} -> {path}', flush=True)
    try:
        # Paddle's own download waits without end where a firewall drops packets, so the way is tried first.
        socket.create_connection((urlparse(url).hostname, 443), timeout=CONNECT_SECONDS).close()
        path = get_weights_path_from_url(url, md5)
    except (OSError, RuntimeError) as error:
        raise UserError(f'the ImageNet weights of {name} cannot be downloaded ({error}): {by_hand}') from None
    return path


def _md5(path):
    digest = hashlib.md5()
    with open(path, 'rb') as file:
        for block in iter(lambda: file.read(2**20), b''):
            digest.update(block)
    return digest.hexdigest()
