"""The report that predict.py --report writes: what the model is worth, all answers, and the ECGs
that one should look at, explained. page.py makes HTML of it.
"""
import contextlib
import locale
import os
import time
import zlib
from typing import NamedTuple, Optional

import cv2
import numpy as np

from utils.answers import calibration, explanation, tasks
from utils.ecg import formats, paper, records
from utils.ecg.signals import make_signal, naming
from utils.pictures.render import MANIFEST, read_stamp
from utils.running import files, log
from utils.running.errors import UserError

SHEET_WIDTH = 1400  # pixels, at most, of a picture of a sheet
COLOURS = (0, 0, 220), (200, 60, 0), (0, 140, 0), (180, 0, 180)  # red, blue, green, purple


class Drawing(NamedTuple):
    """An ECG that is shown.

    index: int, in Answer.names; signal: float32 array (12, 5000), mV, or None where only the
    picture is there: uint8 array (size, size), with mv_per_lead mV in the height of a band
    leads, seconds: float arrays (12, classes) and (10, classes), of explanation.explain()
    sheet: bytes, as lay_over() gives it, or None where it was not read from a picture
    """
    index: int
    signal: object
    picture: np.ndarray
    mv_per_lead: float
    leads: np.ndarray
    seconds: np.ndarray
    sheet: Optional[bytes] = None


def choose(answer, count):
    """The ECGs to look at: in turn a wrong one, an unsure one, a sure one of each kind.

    Returns: list of at most `count` indices: the wrong (the surest first), the unsure (the least
        sure first), the sure of each kind (the surest first)
    """
    groups = {'wrong': [], 'unsure': []}
    for index in np.argsort(-answer.confidence, kind='stable').tolist():
        kind = 'wrong' if answer.wrong[index] else 'unsure' if answer.unsure[index] else \
            tuple(np.ravel(answer.decisions[index]))
        groups.setdefault(kind, []).append(index)
    groups['unsure'].reverse()
    turns = sorted((turn, at, index) for at, group in enumerate(groups.values())
                   for turn, index in enumerate(group))
    return [index for _, _, index in sorted(turns[:count], key=lambda each: each[1])]


def find_originals(root, names):
    """{name: path} of the test records' MAT files that are byte for byte what was drawn.

    root: str, data.root; names: list of str
    """
    source = str((files.read_json(os.path.join(root, MANIFEST)) or {}).get('source'))
    try:
        there = records.find_source(source, root, root)[0].val
    except UserError:
        return {}
    found = {}
    for name in filter(there.get, names):
        with contextlib.suppress(OSError), open(there[name], 'rb') as file:
            stamp = read_stamp(os.path.join(root, 'val', f'{name}.png')) or {}
            if zlib.crc32(file.read()) == stamp.get('record'):
                found[name] = there[name]
    return found


def read_originals(paths, chosen, rate, unit):
    """Read once more, to be looked at, what was read before without a crash.

    paths: {name: path}; chosen: names whose signals are kept; rate, unit: as formats.read_input()
    Returns: ({name: float32 array (12, 5000), mV}, {name: bytes, as lay_over()}, {name: list of
        str, notes of reading})
    """
    signals, sheets, notes = {}, {}, {}
    for name, path in paths.items():
        with contextlib.suppress(UserError, OSError):  # it is not there any more
            if paper.is_picture(path):
                with naming(path):
                    sheet = paper.read_picture(path)[0]
                signal, said = make_signal(path, sheet.raw)
                if name in chosen:
                    sheets[name] = lay_over(sheet)
            else:
                signal, said = formats.read_input(path, rate, unit)
            notes[name] = [note[len(path) + 2:] for note in said]
            if name in chosen:
                signals[name] = signal
    return signals, sheets, notes


def lay_over(sheet):
    """A paper.Sheet's picture with the traces that were found in it, in colour: bytes, JPEG."""
    scale = min(SHEET_WIDTH / sheet.picture.shape[1], 1)
    picture = cv2.resize(sheet.picture[..., ::-1], None, fx=scale, fy=scale,
                         interpolation=cv2.INTER_AREA)
    for number, (_, points) in enumerate(sheet.traces):
        points = np.rint(((points + 0.5) * scale - 0.5) * 16).astype(np.int32)
        cv2.polylines(picture, [points], False, COLOURS[number % len(COLOURS)], 1, cv2.LINE_AA, 4)
    return cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


def draw(answer, chosen, originals, asked, trained):
    """Explain the chosen ECGs.

    chosen: list of indices; originals: (signals, sheets), as read_originals() gives them
    asked: (network, pictures, batch_size) that gave the answer; trained: models.trained.Trained
    Returns: list of Drawing
    """
    network, pictures, size = asked
    signals, sheets = originals

    def in_batches(pixels):
        return trained.asked(np.concatenate([network(pixels[at:at + size])
                                             for at in range(0, len(pixels), size)]))

    render, drawings = trained.config.render, []
    with log.bar(len(chosen), 'explaining', 'ECGs') as bar:
        for index in chosen:
            picture = pictures.read(index, 0)
            name, temperature = answer.names[index], trained.rule.temperature
            flat = explanation.flat_picture(render, signals.get(name))
            leads, seconds = explanation.explain(in_batches, picture, flat, answer.task)
            rhythm = picture[:render.size]
            drawings.append(Drawing(index, signals.get(name), rhythm, render.mv_per_lead,
                                    leads / temperature, seconds / temperature, sheets.get(name)))
            bar.update()
    return drawings


def describe_model(trained):
    """What the page has to say of the model: dict with facts, [(key of page_texts.TEXTS, value)];
    validation, scores; temperature, list; curves, [(key, [(mean, true), ...], error)] of
    reliability without the temperature and with one that was learnt from other records.

    trained: models.trained.Trained
    """
    config, targets, margins = trained.config, trained.targets, trained.margins
    has_one = np.any(np.asarray(trained.rule.temperature) != 1)
    calibrated = calibration.calibrate(margins, targets, config.seed)[1] if has_one else margins
    curves = []
    for key, values in (('before', margins), ('after', calibrated)):
        mean, true, error = calibration.reliability(tasks.probabilities_of(values), targets)
        curves.append((key, list(zip(mean, true)), error))
    return {'facts': [('model', f'{trained.folder}: {len(trained.models)} x {config.model.name}'),
                      ('trained', trained.iteration), ('drawn', f'{config.render.size} px'),
                      ('made', time.strftime('%Y-%m-%d %H:%M'))],
            'validation': trained.known.scores(config.seed), 'curves': curves,
            'temperature': np.atleast_1d(trained.rule.temperature).tolist()}


def language_of_user():
    """'zh' where the system speaks Chinese, else 'en'."""
    words = [os.environ.get(name) for name in ('LC_ALL', 'LC_MESSAGES', 'LANG')]
    spoken = next(filter(None, words), None) or locale.getlocale()[0] or ''
    return 'zh' if spoken.lower().startswith(('zh', 'chinese')) else 'en'
