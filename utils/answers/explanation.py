"""What the network looked at: how its answer changes when it is shown less of an ECG.

A lead is taken away; a second is shown alone, since taking one away leaves a pause, which is a
finding itself. What is hidden is drawn as 0 mV. How often this points at the truth: docs/report.md.
"""
import numpy as np

from utils.answers.tasks import margins_of
from utils.ecg.records import LEADS, SAMPLES
from utils.pictures.augment import blank
from utils.pictures.render import renderer_of

SECONDS = 10


def flat_picture(render, signal=None):
    """The picture of twelve leads of 0 mV: uint8 array (height, size).

    render: settings.Render; signal: float32 array (12, 5000), or None: where it is NaN, not shown,
        nothing is drawn here either
    """
    flat = np.zeros((len(LEADS), SAMPLES), np.float32)
    if signal is not None:
        flat[np.isnan(signal)] = np.nan
    return renderer_of(render).draw(flat)


def where_leads_are(picture):
    """Bool array (12, *picture.shape): which pixels are of which lead; band and average beat."""
    pictures = np.zeros((len(LEADS), *picture.shape), np.uint8)
    for lead, each in enumerate(pictures):
        blank(each, lead)
    return pictures > 0


def where_seconds_are(picture):
    """Bool array (10, *picture.shape): which pixels are of which second; none of average beats."""
    size = picture.shape[1]
    masks = np.zeros((SECONDS, *picture.shape), bool)
    masks[:, :size] = np.arange(size) * SECONDS // size == np.arange(SECONDS)[:, None, None]
    return masks


def explain(network, picture, flat, task):
    """How much each lead and each second speaks for each class.

    network: function, uint8 array (n, height, size) -> logits, float32 array (n, classes)
    picture: uint8 array (height, size); flat: flat_picture(); task: tasks.Task
    Returns: (leads, seconds), float arrays (12, classes) and (10, classes), log-odds: by how much
        they fall without the lead, and by how much they rise with the second from those without
        any; task 1 has one class, "abnormal"
    """
    seconds = where_seconds_are(picture)
    without = np.where(where_leads_are(picture), flat, picture)
    no_second = np.where(seconds.any(axis=0), flat, picture)
    alone = np.where(seconds, picture, no_second)
    logits = network(np.concatenate([picture[None], no_second[None], without, alone]))
    margins = margins_of(logits, task).reshape(len(logits), -1)
    return margins[0] - margins[2:-SECONDS], margins[-SECONDS:] - margins[1]
