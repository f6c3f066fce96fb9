"""A report as one page of HTML, in English or Chinese.

It needs no network and no server. Jinja escapes whatever comes from outside, names above all, and
the page's own policy lets no other script run than the one that is in it.
"""
import base64
import hashlib
import io
import os

import cv2
import numpy as np
from PIL import Image

from utils.answers.findings import FINDINGS
from utils.answers.tasks import counts_of, log_odds, probabilities_of
from utils.ecg.records import LEADS, SAMPLING_RATE
from utils.reports.page_texts import CLASSES, LANGUAGES, TEXTS
from utils.running import files

ROW = 13.0  # mm from one lead to the next; ECG paper has 25 mm/s and 10 mm/mV
FINE = 50  # units to a mm in the path of a trace, which then needs no decimal points
PULSE = 'M-360 0h50v-500h250v500h50'  # before each trace: 1 mV, 0.2 s
TOLERANCE = 0.05  # mm by which a simplified trace may be off: 5 uV


def write(path, language, answer, drawings, notes, said):
    """Write the page.

    path: str; language: 'en' or 'zh'; answer: answer.Answer; drawings: list of report.Drawing
    notes: {name: list of str}, what reading had to say; said: dict, what the template has to say of
    the model beside: facts, scores, validation, curves, band, sure, temperature
    """
    import jinja2  # not needed without a report
    folder = os.path.dirname(os.path.abspath(__file__))
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(folder), autoescape=True,
                                     undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    with open(os.path.join(folder, 'page.js'), encoding='utf-8') as file:
        script = file.read()
    classes = [CLASSES[name] if language == 'zh' else name for name in answer.task.class_names]
    shown = {each.index for each in drawings}
    rows = [_row(answer, index, classes, notes.get(name, []), index in shown)
            for index, name in enumerate(answer.names)]
    files.write_text(path, environment.get_template('page.html').render(
        t={key: words[LANGUAGES.index(language)] for key, words in TEXTS.items()},
        language=language, classes=classes, script=script,
        hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        rows=rows, counts=counts_of(answer.decisions, answer.task).tolist(),
        unsure=int(answer.unsure.sum()),
        known=answer.truth is not None, confusion=_confusion(answer), **said,
        LEADS=LEADS, FINE=FINE, PULSE=PULSE, with_findings=answer.findings is not None,
        findings=[chinese if language == 'zh' else english for english, chinese, _ in FINDINGS],
        ecgs=[{**rows[each.index], **_mattered(answer, classes, each), **_drawn(each)}
              for each in drawings]))


def _row(answer, index, classes, notes, shown):
    """What the table shows of a record."""
    def words(decision):
        return [classes[each] for each in chosen_of(decision)]

    def chosen_of(decision):
        return np.flatnonzero(decision) if answer.task.multi_label else [int(decision)]

    chosen = chosen_of(answer.decisions[index])
    values = np.atleast_1d(answer.probabilities[index])
    values = values[chosen] if answer.task.multi_label else values
    unsure, wrong, known = answer.unsure[index], answer.wrong[index], answer.truth is not None
    kinds = ['unsure' if unsure else 'sure', *(f'c{each}' for each in chosen)]
    kinds += ['noted'] * bool(notes) + ['wrong' if wrong else 'right'] * known
    return {'index': index, 'name': answer.names[index], 'answer': words(answer.decisions[index]),
            'values': [f'{value:.3f}' for value in values], 'value': f'{values.max(initial=0):.6f}',
            'truth': words(answer.truth[index]) if known else [], 'unsure': unsure, 'wrong': wrong,
            'shown': shown, 'notes': notes, 'kinds': ' '.join(kinds),
            'findings': answer.findings.of(index) if answer.findings else []}


def _confusion(answer):
    """Task 1: rows of truth, columns of answers; task 2: of each class found, missed, false."""
    if answer.truth is None:
        return []
    if not answer.task.multi_label:
        pairs = 2 * answer.truth + answer.decisions
        return np.bincount(pairs, minlength=4).reshape(2, 2).tolist()
    truth, said = answer.truth == 1, answer.decisions == 1
    return np.stack([truth & said, truth & ~said, ~truth & said]).sum(axis=1).T.tolist()


def _mattered(answer, classes, drawing):
    """What mattered for the answer that is clearest, as the page tells it."""
    margins = np.atleast_1d(log_odds(answer.probabilities[drawing.index]))
    decision, chosen, sign = answer.decisions[drawing.index], 0, 1
    if answer.task.multi_label:
        clear = np.where(decision == 1, margins - log_odds(answer.thresholds), -np.inf)
        chosen = int(clear.argmax())
        name = classes[chosen]
    else:
        sign, name = (1 if decision else -1), classes[int(decision)]
    leads, seconds = sign * drawing.leads[:, chosen], sign * drawing.seconds[:, chosen]
    chances = probabilities_of(sign * margins[chosen] - np.array([0, leads.max()]))
    return {'what': name, 'probability': f'{chances[0]:.3f}', 'without': f'{chances[1]:.3f}',
            'lead': LEADS[leads.argmax()], 'second': int(seconds.argmax()) + 1,
            'leads': leads.tolist(), 'seconds': seconds.tolist(),
            'largest': max(np.abs(leads).max(), np.abs(seconds).max(), 1e-9)}


def _drawn(drawing):
    """The drawing in mm: traces, or the picture as a PNG, and how far apart the leads are; and the
    sheet that it was read from."""
    sheet = drawing.sheet and base64.b64encode(drawing.sheet).decode()
    if drawing.signal is None:
        data = io.BytesIO()
        Image.fromarray(drawing.picture).save(data, 'png', optimize=True)
        return {'row': 10 * drawing.mv_per_lead, 'traces': [], 'sheet': sheet,
                'picture': base64.b64encode(data.getvalue()).decode()}
    return {'row': ROW, 'traces': [_trace(values) for values in drawing.signal], 'picture': None,
            'sheet': sheet}


def _trace(values):
    """A lead as an SVG path, 0 mV at 0, in parts of a mm; what no eye sees is left out, and nothing
    is drawn where the lead is NaN, not shown."""
    places = np.flatnonzero(np.isfinite(values))
    stretches = np.split(places, np.flatnonzero(np.diff(places) > 1) + 1)
    return ''.join(_stretch(each, values[each]) for each in stretches if len(each))


def _stretch(samples, values):
    points = np.stack([25 * samples / SAMPLING_RATE, -10 * values], axis=1).astype(np.float32)
    points = np.rint(FINE * cv2.approxPolyDP(points, TOLERANCE, False)[:, 0]).astype(int)
    steps = ''.join(f'{x} {y} ' for x, y in np.diff(points, axis=0))
    return f'M{points[0, 0]} {points[0, 1]}l{steps.strip()}'
