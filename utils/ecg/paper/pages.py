"""The pages of a picture file or a PDF."""
import numpy as np
from PIL import Image, ImageOps, ImageSequence


def read(path):
    """Each page of a file: uint8 arrays (height, width, 3)."""
    with Image.open(path) as image:
        for page in ImageSequence.Iterator(image):
            yield np.asarray(ImageOps.exif_transpose(page).convert('RGB'))
