"""The answer as one page to look at: output/report.html, in English or Chinese.

It needs no network and no server. Whatever comes from outside, names above all, goes through
html.escape(), and the page's own policy lets no other script run than the one that is in it.
"""
import base64
import hashlib
import io
import locale
import os
import string
from html import escape
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from utils import calibration, files
from utils.explain import SECONDS
from utils.records import LEADS, SAMPLING_RATE
from utils.report_texts import CLASSES, TEXTS
from utils.tasks import log_odds, probability_of

FOLDER = os.path.dirname(os.path.abspath(__file__))
# Of the drawing, mm: where the paper and the bars beside it end; ECG paper has 25 mm/s, 10 mm/mV.
PAPER, WIDTH, HEAD, ROW, BELOW = 258.0, 280.0, 8.0, 14.0, 15.0
PULSE = 'v0h1.5v-10h5v10h1.5'  # 1 mV, 0.2 s
UNITS = 50  # to a mm, in the path of a trace, so that it needs no decimal points


class Answer(NamedTuple):
    """What is answered.

    task: tasks.Task; names: list of str; probabilities: float array (n,) of "abnormal", or (n, 12)
    thresholds, decisions: as tasks.decide() takes and gives them; unsure: bool array (n,)
    truth: as decisions, or None; notes: {name: list of str}, what reading had to say
    scores: list of (key of TEXTS, value, low, high), None without truth
    """
    task: object
    names: list
    probabilities: np.ndarray
    thresholds: object
    decisions: np.ndarray
    unsure: np.ndarray
    truth: object
    notes: dict
    scores: list


class Validation(NamedTuple):
    """The records that the model is judged by: targets, and probabilities before and after the
    temperature, arrays (n,) or (n, 12); scores as in Answer; note: str, of the temperature;
    sure: float, as predict.sure; band: calibration.Band
    """
    targets: np.ndarray
    before: np.ndarray
    after: np.ndarray
    scores: list
    note: str
    sure: float
    band: object


class Drawing(NamedTuple):
    """An ECG that is shown.

    index: int, in Answer.names; signal: float32 array (12, 5000), mV, or None; picture: uint8 array
    (size, size), and mv_per_lead, its band's height, to show where there is no signal
    shown: int, the class that is explained; leads, seconds: float arrays (12,) and (10,), by how
    much its log-odds fall without each
    """
    index: int
    signal: object
    picture: np.ndarray
    mv_per_lead: float
    shown: int
    leads: np.ndarray
    seconds: np.ndarray
