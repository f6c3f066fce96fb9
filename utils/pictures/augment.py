"""Training-time changes of a picture that are true to what an ECG is.

In a picture of twelve rows of 10 s, pixels to the right are time and pixels up are mV, so moving
pixels is changing the signal: a shift along x is another moment of recording, a stretch along y
around a lead's zero line is another gain, a displacement along y that varies with x is noise or a
wandering baseline. All of it is one cv2.remap. There are no flips: they would run time backwards.
Average beats have the same gain and the same missing lead; they do not know when they were
recorded, and averaging has taken the noise, so they are only moved a little: a QRS's middle is not
found to the sample, and its level is not the patient's. A printed sheet shows each lead for a part
of the 10 s only, so in some pictures the rest is white, as it is where a sheet was read.
"""
import cv2
import numpy as np

from utils.ecg.records import LEADS
from utils.pictures.render import BEAT_COLUMNS, BEAT_ROWS, BEAT_SCALE

SECONDS = 10.0
WANDER_HZ = (0.1, 0.5)  # breathing and movement
PRINTED_ROWS = (3, 6)  # of a sheet: 3 rows of 4 leads, 2.5 s each, or 6 rows of 2, 5 s each
STRIPS = (0, 1, 1, 3)  # leads that a sheet shows for the whole 10 s besides, each as likely
USUAL_STRIP = 1, 0.7  # lead II, and how often it is one of them
BEAT_SHIFT = 0.05  # s, the farthest that average beats are moved, with time_shift 1


def augment(picture, rng, settings, pixels_per_mv):
    """Change a picture as another recording of the same heart would differ.

    picture: uint8 array (size, size), or (2 * size, size) with average beats
    rng: numpy.random.Generator, decides everything; settings: settings.Augment
    pixels_per_mv: float
    Returns: uint8 array of the same shape, a new one
    """
    size = picture.shape[1]
    leads = len(LEADS)
    # All is drawn in the same order, whatever is off: no setting changes another's dice.
    shift = int(rng.uniform(0, settings.time_shift) * size)
    gain = 1 + rng.uniform(-settings.gain, settings.gain)
    missing = rng.integers(leads) if rng.random() < settings.missing_lead else None
    amplitude = rng.uniform(0, settings.wander, (leads, 1))
    frequency, phase = rng.uniform(*WANDER_HZ, (leads, 1)), rng.uniform(0, 2 * np.pi, (leads, 1))
    noise = rng.standard_normal((leads, size), dtype=np.float32) * settings.noise
    moved = rng.uniform(-1, 1, 2) * (BEAT_SHIFT * settings.time_shift, settings.wander)  # s, mV
    hidden = ~draw_shown(rng, size) if rng.random() < settings.printed else None

    columns = np.arange(size, dtype=np.float32)
    wander = amplitude * np.sin(2 * np.pi * frequency * SECONDS / size * columns + phase)
    displacement = ((wander + noise) * pixels_per_mv).astype(np.float32)
    lead_of_row = np.arange(size) * leads // size
    from_row = _stretched(size, leads, gain) + displacement[lead_of_row]
    changed = _remap(picture[:size], (columns - shift) % size, from_row)
    if len(picture) > size:
        beats = _remap(picture[size:],
                       columns + np.float32(moved[0] * BEAT_SCALE * size / SECONDS),
                       _stretched(size, BEAT_ROWS, gain)
                       + np.float32(moved[1] * BEAT_SCALE * pixels_per_mv))
        changed = np.concatenate([changed, beats])
    if missing is not None:
        blank(changed, missing)
    if hidden is not None:
        changed[:size][hidden[lead_of_row]] = 255
    return changed


def draw_shown(rng, columns):
    """Which leads a printed sheet shows when: bool array (12, columns), over 10 s.

    rng: numpy.random.Generator, decides on the rows of the sheet and its strips of 10 s
    """
    leads = np.arange(len(LEADS))
    rows = rng.choice(PRINTED_ROWS)
    panels = len(LEADS) // rows
    shown = leads[:, None] // rows == np.arange(columns) * panels // columns
    strips = rng.permutation(leads)[:rng.choice(STRIPS)]
    if len(strips) and rng.random() < USUAL_STRIP[1]:
        strips[0] = USUAL_STRIP[0]
    shown[strips] = True
    return shown


def _stretched(size, rows, gain):
    """The row that each row of pixels comes from, with another gain: float32 array (size, 1)."""
    pixels = np.arange(size, dtype=np.float32)
    row = np.arange(size) * rows // size
    zero_line = (size / rows * (row + 0.5) - 0.5).astype(np.float32)
    return (zero_line + (pixels - zero_line) / np.float32(gain))[:, None]


def _remap(picture, from_column, from_row):
    size = len(picture)
    return cv2.remap(picture, np.ascontiguousarray(np.broadcast_to(from_column, (size, size))),
                     np.ascontiguousarray(np.broadcast_to(from_row, (size, size))),
                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=255)


def blank(picture, lead):
    """Take a lead out of a picture, in place; lead: int, its place in LEADS."""
    size = picture.shape[1]
    picture[:size][np.arange(size) * len(LEADS) // size == lead] = 255
    if len(picture) > size:
        row, column = divmod(lead, BEAT_COLUMNS)
        pixels = np.arange(size)
        cell = np.ix_(pixels * BEAT_ROWS // size == row, pixels * BEAT_COLUMNS // size == column)
        picture[size:][cell] = 255


def shift_in_time(pictures, part):
    """Pictures as if the recording had begun earlier, what comes too late wrapped around.

    pictures: uint8 array (n, height, size); part: float, of the 10 s
    Returns: uint8 array of the same shape; average beats stay where they are
    """
    size = pictures.shape[2]
    shifted = pictures.copy()
    shifted[:, :size] = np.roll(pictures[:, :size], round(part * size), axis=2)
    return shifted
