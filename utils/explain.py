"""What the network looked at: how its answer changes when it is shown less of an ECG.

A lead is taken away; a second is shown alone, since taking one away leaves a pause, which is a
finding itself. What is hidden is drawn as 0 mV. How often this points at the truth: docs/report.md.
"""
import numpy as np

from utils.records import LEADS, SAMPLES
from utils.render import Renderer
from utils.tasks import margins_of

SECONDS = 10


def flat_picture(render):
    """The picture of twelve leads of 0 mV: uint8 array (size, size); render: config.Render."""
    renderer = Renderer(render.size, render.mv_per_lead, render.line_width)
    return renderer.draw(np.zeros((len(LEADS), SAMPLES), np.float32))


def where_leads_are(picture):
    """Bool array (12, *picture.shape): which pixels are of which lead; its band."""
    rows = np.arange(len(picture)) * len(LEADS) // len(picture)
    masks = rows[:, None] == np.arange(len(LEADS))[:, None, None]
    return np.broadcast_to(masks, (len(LEADS), *picture.shape))


def where_seconds_are(picture):
    """Bool array (10, *picture.shape): which pixels are of which second; its columns."""
    columns = np.arange(picture.shape[-1]) * SECONDS // picture.shape[-1]
    masks = columns == np.arange(SECONDS)[:, None, None]
    return np.broadcast_to(masks, (SECONDS, *picture.shape))


def explain(network, picture, flat, task):
    """How much each lead and each second speaks for each class.

    network: function, uint8 array (n, size, size) -> logits, float32 array (n, classes)
    picture: uint8 array (size, size); flat: flat_picture(); task: tasks.Task
    Returns: (leads, seconds), float arrays (12, classes) and (10, classes), log-odds: by how much
        they fall without the lead, and by how much they rise from those of the flat picture with
        the second; task 1 has one class, "abnormal"
    """
    without = np.where(where_leads_are(picture), flat, picture)
    alone = np.where(where_seconds_are(picture), picture, flat)
    logits = network(np.concatenate([picture[None], flat[None], without, alone]))
    margins = margins_of(logits, task).reshape(len(logits), -1)
    return margins[0] - margins[2:-SECONDS], margins[-SECONDS:] - margins[1]
