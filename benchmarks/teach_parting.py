"""Teach the network that parts the rows of a sheet (utils/ecg/paper/parting.py).

python -m benchmarks.teach_parting draw RECORDS SHEETS --count 1200    sheets of ECGs, 2 s each
python -m benchmarks.teach_parting learn SHEETS OUT --iterations 4800    OUT.onnx, 1 s each

RECORDS: folder of MAT files as process.py reads them. Both go on where they were. Sheets are drawn
as benchmarks/paper.py draws them, but closer, faster and higher: more rows run into each other.
What is learnt is the trace of each row, as wide as it was printed, from the ink that is found.
"""
import argparse
import glob
import json
import multiprocessing
import os
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from models import device
from models.parting import build_parting, to_onnx
from models.weights import Average
from tests.copies import photo, scan
from tests.sheets import LAYOUTS, draw_sheet, pulse_of, random_style, traces_of
from utils.ecg import records
from utils.ecg.paper import FLAT, ink, parting
from utils.ecg.signals import SAMPLES, SAMPLING_RATE
from utils.running import files

KINDS = {'clean': 0.28, 'scan': 0.33, 'photo': 0.18, 'copy': 0.21}  # parts of the sheets
COPIED = {'clean': lambda sheet, rng: sheet, 'scan': scan, 'photo': photo,
          'copy': lambda sheet, rng: scan(sheet, rng, ['copy'])}
PHOTO_DPI = 250
ABOVE_MM, BELOW_MM = 30, 28  # the first and the last row, what is kept
INK_STEPS = 200  # of a byte, that are the ink's darkness
CROP = 416, 256  # pixels, height and width of what is learnt from at once
EACH, BATCH, HELD = 8, 8, 128  # crops of a sheet, of an iteration, and those that are mixed
MEETING = 0.7  # of the crops, where rows meet
LEVEL_PX = 8  # by which a baseline may be found wrongly
TRACE, BEYOND = 4, 4  # how much more what is a trace's counts, and what is nearer to another row
RATE, WARM_UP, SHARE = 0.002, 50, 0.1  # of learning; iterations; part of them that are averaged
SAVED = 200  # iterations


class Flat(NamedTuple):
    """Where a sheet's mm are in its picture, as grid.Grid: known, not found."""
    low: np.ndarray
    high: np.ndarray
    px_per_mm: float
    to_pixels: np.ndarray

    def pixels(self, places):
        found = np.c_[places, np.ones(len(places))] @ self.to_pixels.T
        return found[:, :2] / found[:, 2:]


def lay_flat(sheet):
    """Where the mm of a tests.sheets.Sheet are: Flat."""
    ends = [place.x + (place.stop - place.start) / SAMPLING_RATE * sheet.style.speed
            for place in sheet.places]
    high = np.array([max(ends) + 20, max(place.y for place in sheet.places) + 25])
    found = Flat(np.zeros(2), high, 0.0, sheet.to_pixels)
    return found._replace(px_per_mm=np.linalg.norm(np.diff(
        found.pixels(np.array([[50.0, 50], [200, 50]])), axis=0)) / 150)


def vary(signal, rng):
    """Often faster and higher: float32 array (12, 5000), mV."""
    faster = rng.choice([1, rng.uniform(1, 1.8)], p=[0.4, 0.6])
    higher = rng.choice([1, rng.uniform(0.8, 1.5)], p=[0.4, 0.6])
    twice = np.concatenate([signal, signal[:, ::-1]], axis=1)
    return np.float32(higher) * np.stack([
        np.interp(np.arange(SAMPLES) * faster, np.arange(2 * SAMPLES), lead) for lead in twice]
    ).astype(np.float32)


def lines_of(sheet, signal):
    """The rows of a sheet: list of (y, traces), mm: y is the median; float arrays (n, 2)."""
    style, found = sheet.style, []
    for y in sorted({place.y for place in sheet.places}):
        places = [place for place in sheet.places if place.y == y]
        traces = traces_of(signal, style, places)
        level = np.median(np.concatenate(traces)[:, 1])
        pulse = [] if style.pulse == 'none' else [pulse_of(style, places)]
        found.append((level, traces + pulse))
    return found


def draw(job):
    """Draw a sheet and write what is learnt from it; job: (MAT file, path without end, number)."""
    record, path, number = job
    cv2.setNumThreads(1)
    rng = np.random.default_rng(number)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    dpi = PHOTO_DPI if kind == 'photo' else rng.uniform(110 if kind == 'clean' else 150, 300)
    style = random_style(rng, str(rng.choice(LAYOUTS)), dpi)
    if rng.random() < 0.7:
        style = replace(style, spacing=max(style.spacing * rng.uniform(0.45, 1), 9))
    signal = vary(records.read_record(record)[0], rng)
    sheet = draw_sheet(signal, style)
    sheet = COPIED[kind](sheet, rng)
    flat, inside, origin = ink.lay_flat(sheet.picture, lay_flat(sheet), FLAT)
    dark, _ = ink.find_ink(flat, inside, FLAT)
    rows = lines_of(sheet, signal)
    levels = np.array([(level - origin[1]) * FLAT for level, _ in rows])
    target = _draw_rows([[(each - origin) * FLAT for each in traces] for _, traces in rows],
                        dark.shape, style.trace_width * FLAT)
    low = max(int(levels.min()) - ABOVE_MM * FLAT, 0)
    high = int(levels.max()) + BELOW_MM * FLAT
    seen = np.clip(dark * INK_STEPS, 0, 255).astype(np.uint8)
    about = {'levels': list(levels - low), 'meetings': _meetings(target[:, low:high])}
    picture = np.dstack([seen, *target])[low:high]
    files.write_bytes(path + '.png', cv2.imencode('.png', picture)[1].tobytes())
    files.write_json(path + '.json', about)


def _draw_rows(rows, shape, pen):
    """Rows as they were printed, every third one in one plane: uint8 array (3, height, width)."""
    planes = np.zeros((parting.KINDS, 2 * shape[0], 2 * shape[1]), np.uint8)
    for number, traces in enumerate(rows):
        for trace in traces:
            points = np.round((2 * trace + 0.5) * 16).astype(np.int32)
            cv2.polylines(planes[number % parting.KINDS], [points], False, 255,
                          max(round(2 * pen), 1), cv2.LINE_AA, shift=4)
    return np.stack([cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_AREA)
                     for plane in planes])


def _meetings(target):
    """Where rows touch: list of [x, y], pixels."""
    near = [cv2.dilate(plane, np.ones((7, 5), np.uint8)) > 90 for plane in target]
    both = np.uint8((near[0] & near[1]) | (near[1] & near[2]) | (near[0] & near[2]))
    middles = cv2.connectedComponentsWithStats(cv2.dilate(both, np.ones((9, 9), np.uint8)))[3]
    return middles[1:].astype(int).tolist()


def crop(picture, about, rng):
    """A part of a sheet: (seen float32 array (7, h, w), said (12, h, w), how much each counts)."""
    height, width = CROP
    x, y = rng.integers(0, max(picture.shape[1] - width, 1)), rng.integers(
        -60, max(len(picture) - height + 60, -59))
    if about['meetings'] and rng.random() < MEETING:
        x, y = (np.array(about['meetings'][rng.integers(len(about['meetings']))])
                - (width // 2, height // 2) + rng.integers((-100, -120), (101, 121)))
    x = int(np.clip(x, 0, max(picture.shape[1] - width, 0)))
    part = np.zeros((height, width, 4), np.uint8)
    there = picture[max(y, 0):max(y + height, 0), x:x + width]
    part[max(-y, 0):max(-y, 0) + len(there), :there.shape[1]] = there
    levels = np.array(about['levels']) - y + rng.normal(0, LEVEL_PX, len(about['levels']))
    marks = parting.marks(levels[:, None], height, FLAT)[..., 0]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    if rng.random() < 0.5:
        part, marks = part[::-1], marks[:, ::-1]
    order = rng.permutation(parting.KINDS)
    part, marks = part[..., [0, *order + 1]], marks[order]
    seen = part[..., 0].astype(np.float32) / INK_STEPS * np.float32(rng.uniform(0.8, 1.15))
    traces = part[..., 1:].transpose(2, 0, 1).astype(np.float32) / 255
    nearest = np.repeat(marks.argmax(axis=0), 2)[:, None]
    beyond = np.max([plane * (nearest != kind) for kind, plane in enumerate(traces)], axis=0)
    counts = 1 + TRACE * traces + BEYOND * beyond
    marked = np.repeat(marks[:, :, None], width // 2, axis=2)
    return (np.concatenate([parting.to_blocks(seen[None]), marked]), parting.to_blocks(traces),
            parting.to_blocks(counts))


def crops(folder, rng):
    """Crops of all sheets in a folder, mixed, over and over again."""
    held = []
    while True:
        for path in rng.permutation(sorted(glob.glob(os.path.join(folder, '*.json')))):
            picture = cv2.imread(path[:-5] + '.png', cv2.IMREAD_UNCHANGED)
            with open(path, encoding='utf-8') as file:
                about = json.load(file)
            held += [crop(picture, about, rng) for _ in range(EACH)]
            while len(held) >= HELD:
                yield held.pop(rng.integers(len(held)))


def learn(folder, out, iterations):
    """Learn from the sheets in a folder; writes out.onnx, and out.last that it goes on from."""
    paddle = device.import_paddle()
    paddle.seed(0)
    network, mean = build_parting(), build_parting()
    average = Average(network, mean, SHARE)
    mean.eval()
    optimizer = paddle.optimizer.AdamW(RATE, parameters=network.parameters(), weight_decay=0.01,
                                       grad_clip=paddle.nn.ClipGradByGlobalNorm(1.0))
    learning, done = {'network': network, 'mean': mean, 'optimizer': optimizer}, 0
    if os.path.exists(out + '.last'):
        kept = paddle.load(out + '.last')
        done = kept['done']
        for name, each in learning.items():
            each.set_state_dict(kept[name])
    feed, losses = crops(folder, np.random.default_rng(done)), []
    for iteration in range(done + 1, iterations + 1):
        decay = 0.5 * (1 + np.cos(np.pi * iteration / iterations))
        optimizer.set_lr(RATE * decay * min(iteration / WARM_UP, 1))
        seen, said, counts = (paddle.to_tensor(np.stack(each))
                              for each in zip(*(next(feed) for _ in range(BATCH))))
        loss = paddle.nn.functional.binary_cross_entropy_with_logits(network(seen), said, counts)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
        average.follow(iteration)
        if iteration % SAVED == 0 or iteration == iterations:
            print(f'{iteration} iterations: loss {np.mean(losses[-SAVED:]):.4f}', flush=True)
            state = {name: each.state_dict() for name, each in learning.items()}
            paddle.save({**state, 'done': iteration}, out + files.PARTIAL)
            os.replace(out + files.PARTIAL, out + '.last')
            files.write_bytes(out + '.onnx', to_onnx(mean))


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.teach_parting', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest='step', required=True)
    drawing = steps.add_parser('draw')
    drawing.add_argument('records')
    drawing.add_argument('sheets')
    drawing.add_argument('--count', type=int, default=1200)
    learning = steps.add_parser('learn')
    learning.add_argument('sheets')
    learning.add_argument('out')
    learning.add_argument('--iterations', type=int, default=4800)
    arguments = parser.parse_args()
    if arguments.step == 'learn':
        learn(arguments.sheets, arguments.out, arguments.iterations)
    else:
        draw_all(arguments.records, arguments.sheets, arguments.count)


def draw_all(folder, sheets, count):
    """Draw what is not there yet of `count` sheets."""
    os.makedirs(sheets, exist_ok=True)
    names = sorted(glob.glob(os.path.join(folder, '*.mat')))
    jobs = [(names[number % len(names)], os.path.join(sheets, f'{number:05d}'), number)
            for number in range(count)]
    with multiprocessing.Pool() as pool:
        left = [job for job in jobs if not os.path.exists(job[1] + '.json')]
        for _ in tqdm(pool.imap_unordered(draw, left), total=len(left)):
            pass


if __name__ == '__main__':
    main()
