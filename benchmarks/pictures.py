"""Pictures of made-up ECGs that the other parts are measured with."""
import os

from utils.ecg import records
from utils.pictures.loading import MANIFEST
from utils.pictures.render import encode_png, renderer_of, settings_of
from utils.running import files
from utils.running.settings import Render


def mat_files(source):
    """Paths of the labelled records in the folder `source`, sorted."""
    train = os.path.join(source, 'train')
    return [os.path.join(train, name) for name in sorted(os.listdir(train))]


def draw_all(source, folder, size):
    """Draw the records of `source` as PNGs.

    Returns: list of paths
    """
    render = Render(size=size)
    renderer = renderer_of(render)
    paths = []
    for path in mat_files(source):
        picture = renderer.draw(records.read_record(path)[0])
        paths.append(os.path.join(folder, f'{size}_{os.path.basename(path)}.png'))
        stamp = {**settings_of(render), 'record': len(paths)}
        files.write_bytes(paths[-1], encode_png(picture, stamp))
    return paths


def label_all(source, root, size, count):
    """Make a data.root for train.py: `count` pictures, links to the few that there are, and labels.

    Returns: root
    """
    os.makedirs(os.path.join(root, 'train'))
    paths = draw_all(source, root, size)
    names = [f'TRAIN{index:05d}' for index in range(count)]
    for index, name in enumerate(names):
        os.link(paths[index % len(paths)], os.path.join(root, 'train', f'{name}.png'))
    files.write_text(os.path.join(root, records.REFERENCE), 'name,tag\n' + ''.join(
        f'{name},{index % 2}\n' for index, name in enumerate(names)))
    files.write_json(os.path.join(root, MANIFEST), {
        **settings_of(Render(size=size)), 'train': names, 'val': [], 'finished': True,
        'not_drawn': {'train': [], 'val': []}, 'command': 'python -m benchmarks'})
    return root
