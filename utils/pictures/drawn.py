"""ECGs of one's own as pictures in memory, drawn as a model's training pictures were."""
import contextlib
import io

import numpy as np
from PIL import Image

from utils.ecg.formats import read_input
from utils.pictures.render import encode_png, renderer_of, shape_of
from utils.running import log, pool
from utils.running.errors import UserError, describe_os_error


class DrawnPictures:
    """Pictures in memory, read as loading.Pictures are; PNGs, which take a tenth of the room.

    encoded: list of bytes; shape: (height, width), pixels
    """

    def __init__(self, encoded, shape):
        self.encoded = encoded
        self.shape = shape

    def __len__(self):
        return len(self.encoded)

    def read(self, index, _epoch):
        """One picture, uint8 array (height, width)."""
        return np.array(Image.open(io.BytesIO(self.encoded[index])))


def draw_inputs(found, render, rate, unit, workers):
    """Read ECGs and draw each as process.py draws records, on `workers` processes.

    found: {name: path}, of find_inputs(); render: settings.Render; rate, unit: as read_input()
    Returns: (names, pictures, notes, problems); names: list of str, in the order of `found`;
        pictures: DrawnPictures; notes: list of str; problems: list of (name, line)
    """
    jobs = [(name, path, render, rate, unit) for name, path in found.items()]
    results = {}
    with log.bar(len(jobs), 'reading', 'ECGs') as bar, \
            contextlib.closing(pool.run_jobs(_draw, jobs, min(workers, len(jobs)))) as outcomes:
        for (name, path, *_), outcome in outcomes:
            if isinstance(outcome, pool.Crashed):
                outcome = None, f'{path}: {outcome}; the file is damaged, or memory ran out'
            results[name] = outcome
            bar.update()
    names = [name for name in found if results[name][0]]
    return (names, DrawnPictures([results[name][0] for name in names], shape_of(render)),
            [note for name in names for note in results[name][1]],
            [(name, results[name][1]) for name in found if not results[name][0]])


def _draw(job):
    """(PNG, notes), or (None, problem)."""
    _, path, render, rate, unit = job
    try:
        signal, notes = read_input(path, rate, unit)
        return encode_png(renderer_of(render).draw(signal), {}), notes
    except UserError as error:
        return None, str(error)
    except OSError as error:
        return None, describe_os_error(error)
