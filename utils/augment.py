"""Training-time changes of a picture that are true to what an ECG is.

In a picture of twelve rows of 10 s, pixels to the right are time and pixels up are mV, so moving
pixels is changing the signal: a shift along x is another moment of recording, a stretch along y
around a lead's zero line is another gain, a displacement along y that varies with x is noise or a
wandering baseline. All of it is one cv2.remap. There are no flips: they would run time backwards.
"""
import cv2
import numpy as np

from utils.records import LEADS

SECONDS = 10.0
WANDER_HZ = (0.1, 0.5)  # breathing and movement


def augment(picture, rng, settings, pixels_per_mv):
    """Change a picture as another recording of the same heart would differ.

    picture: uint8 array (size, size); rng: numpy.random.Generator, decides everything
    settings: config.Augment; pixels_per_mv: float
    Returns: uint8 array (size, size), a new one
    """
    size = len(picture)
    leads = len(LEADS)
    # All is drawn in the same order, whatever is off: no setting changes another's dice.
    shift = int(rng.uniform(0, settings.time_shift) * size)
    gain = 1 + rng.uniform(-settings.gain, settings.gain)
    missing = rng.integers(leads) if rng.random() < settings.missing_lead else None
    amplitude = rng.uniform(0, settings.wander, (leads, 1))
    frequency, phase = rng.uniform(*WANDER_HZ, (leads, 1)), rng.uniform(0, 2 * np.pi, (leads, 1))
    noise = rng.standard_normal((leads, size), dtype=np.float32) * settings.noise

    columns = np.arange(size, dtype=np.float32)
    wander = amplitude * np.sin(2 * np.pi * frequency * SECONDS / size * columns + phase)
    displacement = ((wander + noise) * pixels_per_mv).astype(np.float32)
    lead_of_row = np.arange(size) * leads // size
    zero_line = (size / leads * (lead_of_row + 0.5) - 0.5).astype(np.float32)
    rows = np.arange(size, dtype=np.float32)
    from_row = (zero_line + (rows - zero_line) / np.float32(gain))[:, None]
    from_row = from_row + displacement[lead_of_row]
    from_column = np.broadcast_to((columns - shift) % size, (size, size))
    changed = cv2.remap(picture, np.ascontiguousarray(from_column), from_row, cv2.INTER_LINEAR,
                        borderMode=cv2.BORDER_CONSTANT, borderValue=255)
    if missing is not None:
        changed[lead_of_row == missing] = 255
    return changed
