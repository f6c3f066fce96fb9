"""What the network looked at: how its answer changes when a lead or a second is taken away.

A lead is made blank, as training does (augment.missing_lead); a second is drawn as 0 mV in all
leads. What is asked is the network itself, so an explanation cannot be of something else.
"""
import numpy as np

from utils.records import LEADS, SAMPLES
from utils.render import Renderer

SECONDS = 10
PAPER = 255  # the value of a pixel without a line


def flat_picture(render):
    """The picture of twelve leads of 0 mV: uint8 array (size, size); render: config.Render."""
    renderer = Renderer(render.size, render.mv_per_lead, render.line_width)
    return renderer.draw(np.zeros((len(LEADS), SAMPLES), np.float32))


def without_each(picture, flat):
    """The picture without its first lead, its second, ... (12), and without each second (10).

    picture, flat: uint8 arrays (size, size), flat as flat_picture() draws it
    Returns: uint8 array (22, size, size)
    """
    size = len(picture)
    changed = np.repeat(picture[None], len(LEADS) + SECONDS, axis=0)
    lead_of_row = np.arange(size) * len(LEADS) // size
    second_of_column = np.arange(size) * SECONDS // size
    for lead in range(len(LEADS)):
        changed[lead, lead_of_row == lead] = PAPER
    for second in range(SECONDS):
        inside = second_of_column == second
        changed[len(LEADS) + second][:, inside] = flat[:, inside]
    return changed


def explain(network, picture, flat, task):
    """How much each lead and each second speaks for each class.

    network: function, uint8 array (n, size, size) -> logits, float32 array (n, classes); picture,
        flat: as without_each() takes them; task: tasks.Task
    Returns: (leads, seconds), float arrays (12, classes) and (10, classes): by how much the
        log-odds fall when it is taken away; task 1 has one class, "abnormal"
    """
    logits = network(np.concatenate([picture[None], without_each(picture, flat)]))
    logits = logits.astype(np.float64)
    if not task.multi_label:
        logits = logits[:, 1:] - logits[:, :1]
    falls = logits[0] - logits[1:]
    return falls[:len(LEADS)], falls[len(LEADS):]
