"""The pages of a picture file or a PDF."""
import numpy as np
from PIL import Image, ImageOps

from utils.ecg.paper import vectors
from utils.ecg.signals import NotAnECG

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp', '.webp', '.pdf')
NARROWEST, WIDEST = 300, 8000  # pixels
PDF_DPI = 250
MOST_PAGES = 50


def read(path, only=0):
    """Each page of a file: (its number from 1, uint8 array (height, width, 3), upright as the file
    says, vectors.Drawn or None); only: number of the page that is read, 0 for all.

    Raises: NotAnECG where it is damaged, too small or too large
    """
    read_pages = _read_pdf if path.lower().endswith('.pdf') else _read_image
    try:
        for number, page, drawn in read_pages(path, only):
            if not NARROWEST <= min(page.size) <= max(page.size) <= WIDEST:
                raise NotAnECG(f'a picture of {page.width} x {page.height} pixels, expected '
                               f'{NARROWEST} to {WIDEST}; scan the sheet anew at 150 to 300 dpi')
            page = ImageOps.exif_transpose(page)
            if page.mode in ('RGBA', 'LA', 'P'):  # what is transparent is paper
                page = page.convert('RGBA')
                page = Image.alpha_composite(Image.new('RGBA', page.size, 'white'), page)
            yield number, np.array(page.convert('RGB')), drawn
    except (NotAnECG, MemoryError):
        raise
    except Exception as error:  # a damaged picture can make Pillow raise almost anything
        raise NotAnECG(f'a damaged picture or PDF ({type(error).__name__}: {error}); copy it '
                       'again') from None


def count(path):
    """How many pages a file has; 1 where that cannot be told."""
    try:
        if path.lower().endswith('.pdf'):
            return min(len(_open_pdf(path)), MOST_PAGES)
        with Image.open(path) as image:
            return min(getattr(image, 'n_frames', 1), MOST_PAGES)
    except Exception:  # read() says why
        return 1


def _read_image(path, only):
    with Image.open(path) as image:
        for number in _numbers(getattr(image, 'n_frames', 1), only):
            image.seek(number - 1)
            yield number, image, None


def _numbers(length, only):
    return [only] if 0 < only <= length else range(1, min(length, MOST_PAGES) + 1)


def _open_pdf(path):
    try:
        import pypdfium2
    except ImportError as error:
        raise NotAnECG('PDFs are read with the package pypdfium2, which cannot be imported '
                       f'({error}): pip install pypdfium2') from None
    return pypdfium2.PdfDocument(path)


def _read_pdf(path, only):
    document = _open_pdf(path)
    for number in _numbers(len(document), only):
        page = document[number - 1]
        scale = min(PDF_DPI / 72, WIDEST / max(page.get_size()))
        picture = page.render(scale=scale).to_pil()
        yield number, picture, vectors.find_lines(page, picture.size)
