"""The report: what is explained and chosen, what is escaped, and that a browser shows it."""
import html.parser
import os
import re
import shutil
import subprocess

import numpy as np
import pytest

from tests.helpers import make_signal, overrides, run_script
from utils.answers import calibration, explanation
from utils.answers.answer import Answer
from utils.answers.tasks import TASKS, decide
from utils.ecg.records import LEADS
from utils.pictures.render import Renderer
from utils.reports import page, report
from utils.reports.page_texts import CLASSES, TEXTS
from utils.running.settings import Render

HOSTILE = ['<script>alert(1)<', '"><img src=x onerror=alert(1)>', "'; drop--", 'a\nb\r\tc',
           '<td><table>', '{{ 7 * 7 }}', '{name}', '&amp;&lt;', '记录一', '\u202egnp.x']
CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))),
                None)


def make_answer(task, names, known=True):
    rng = np.random.default_rng(0)
    shape = (len(names), 12) if task.multi_label else (len(names),)
    thresholds = np.full(12, 0.4) if task.multi_label else 0.4
    truth = decide(rng.random(shape), thresholds, task) if known else None
    return Answer(task, names, rng.random(shape), thresholds, truth, width=0.3)


def write_page(path, task, names, language='en', known=True):
    answer, rng = make_answer(task, names, known), np.random.default_rng(1)
    drawings = [report.Drawing(index, make_signal(index) if index % 2 else None,
                               np.full((64, 64), 255, np.uint8), 2.0, rng.normal(size=(12, 12)),
                               rng.normal(size=(10, 12))) for index in report.choose(answer, 10)]
    curves = [(key, [(0.1, 0.2), (0.8, 0.7)], 0.1) for key in ('before', 'after')]
    page.write(str(path), language, answer, drawings, {names[0]: ['<b>note</b>']},
               {'sure': 0.95, 'band': calibration.Band(1.0, 50, 30, 30, True), 'curves': curves,
                'facts': [('model', '<i>resnet18</i>')], 'validation': [('AUC', 0.9, 0.8, 1.0)],
                'temperature': [1.5], 'scores': [('F1', 0.8, 0.7, 0.9)]})
    return path.read_bytes().decode(), answer


class Seen(html.parser.HTMLParser):
    """The tags, attributes and texts of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.texts.append(data)


def in_browser(path, folder):
    """(DOM after the script has run, lines of the console) of a page."""
    if CHROMIUM is None:
        pytest.skip('chromium is not installed: the report is not looked at in a browser')
    result = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr',
         f'--user-data-dir={folder}', '--virtual-time-budget=2000', '--dump-dom', f'file://{path}'],
        capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout, [line for line in result.stderr.splitlines() if 'CONSOLE' in line]


@pytest.mark.parametrize('number, language', [(1, 'zh'), (2, 'en')])
def test_hostile_names_are_text_and_a_browser_does_not_complain(tmp_path, number, language):
    path, task = tmp_path / 'report.html', TASKS[number]
    seen = Seen(write_page(path, task, HOSTILE, language)[0])
    plain = [f'TEST{i}' for i in range(len(HOSTILE))]
    expected = Seen(write_page(tmp_path / 'plain.html', task, plain, language)[0])
    assert seen.tags == expected.tags  # no name adds or ends an element
    assert [name for name, _ in seen.attributes] == [name for name, _ in expected.attributes]
    for name in HOSTILE:
        assert seen.texts.count(name) >= 2, name  # in the table and above its drawing
    assert '<b>note</b>' in ''.join(seen.texts) and '<i>resnet18</i>' in ''.join(seen.texts)
    addresses = [value for name, value in seen.attributes if name in ('src', 'href', 'action')]
    assert all(address.startswith(('#', 'data:image/png;base64,')) for address in addresses)
    dom, console = in_browser(path, tmp_path / 'browser')
    assert console == [] and f'{len(HOSTILE)} / {len(HOSTILE)}' in dom


def test_a_browser_runs_no_other_script(tmp_path):
    """The page's policy; and the check above would have seen a complaint."""
    path = tmp_path / 'report.html'
    text = write_page(path, TASKS[1], ['A', 'B'])[0]
    path.write_text(text.replace('<h1>', '<script>document.title = "taken"</script><h1>'), 'utf-8')
    dom, console = in_browser(path, tmp_path / 'browser')
    assert console and 'taken</title>' not in dom and '2 / 2' in dom


def test_both_languages_say_everything():
    for key, texts in TEXTS.items():
        assert len(texts) == 2 and all(texts), key
        assert set(re.findall(r'\{\w+\}', texts[0])) == set(re.findall(r'\{\w+\}', texts[1])), key
    assert set(CLASSES) == {name for task in TASKS.values() for name in task.class_names}


@pytest.mark.parametrize('known', [True, False])
def test_tells_every_record_and_what_is_wrong(tmp_path, known):
    names = [f'TEST{i:04d}' for i in range(40)]
    text, answer = write_page(tmp_path / 'report.html', TASKS[1], names, known=known)
    body = text[text.index('<tbody>'):text.index('</tbody>')]
    assert all(name in body for name in names)
    assert body.count('class="tag unsure"') == answer.unsure.sum() > 0
    assert body.count('class="tag wrong"') == answer.wrong.sum() and answer.wrong.any() == known


def test_chooses_the_wrong_the_unsure_and_some_sure_of_each_kind():
    answer = make_answer(TASKS[1], [f'T{i}' for i in range(200)])
    chosen = report.choose(answer, 40)
    assert len(chosen) == len(set(chosen)) == 40
    kinds = [0 if answer.wrong[i] else 1 if answer.unsure[i] else 2 for i in chosen]
    assert kinds == sorted(kinds) and set(kinds) == {0, 1, 2}
    assert {answer.decisions[i] for i, kind in zip(chosen, kinds) if kind == 2} == {0, 1}
    assert chosen[0] == max(np.flatnonzero(answer.wrong), key=lambda i: answer.confidence[i])
    assert sorted(report.choose(answer, 1000)) == list(range(200))
    assert report.choose(answer, 0) == []


def test_what_mattered_is_told_for_the_answer_that_was_given():
    """A lead that speaks for normal speaks against abnormal."""
    answer = Answer(TASKS[1], ['normal', 'abnormal'], np.array([0.1, 0.9]), 0.5, None)
    falls = np.zeros((12, 1))
    falls[[3, 8], 0] = 2.0, -1.0
    for index, lead in ((0, 'V3'), (1, 'aVR')):
        drawing = report.Drawing(index, None, None, 2.0, falls, np.zeros((10, 1)))
        told = page._mattered(answer, list(TASKS[1].class_names), drawing)
        assert (told['lead'], told['what']) == (lead, answer.names[index])
        assert told['probability'] == '0.900'
    assert float(told['without']) == pytest.approx(0.549, abs=0.001)  # log-odds 2.197 - 2


def test_a_trace_is_true_to_the_signal():
    signal = make_signal(3)[0]
    path = page._trace(signal)
    numbers = np.array([int(number) for number in re.findall(r'-?\d+', path)]).reshape(-1, 2)
    points = np.cumsum(numbers, axis=0) / page.FINE
    drawn = np.interp(25 * np.arange(5000) / 500, points[:, 0], points[:, 1]) / -10
    assert drawn.max() == pytest.approx(signal.max(), abs=0.01)
    assert np.abs(drawn - signal).mean() < 0.004 and points[-1, 0] == pytest.approx(249.95, abs=0.1)


def test_what_a_sheet_does_not_show_is_not_drawn_as_flat():
    signal = make_signal(1)
    signal[:, 2500:] = np.nan
    render = Render(size=64)
    half, whole = (explanation.flat_picture(render, each) for each in (signal, None))
    assert np.array_equal(half[:64, :30], whole[:64, :30])
    assert (half[:64, 34:] == half[0, 0]).all() and not (whole[:64, 34:] == half[0, 0]).all()


def test_points_at_the_lead_and_the_second_that_a_network_looks_at():
    """A network that measures the ink of V2 in the fourth second alone."""
    render = Render(size=121)  # neither a multiple of 12 leads nor of 10 seconds
    picture = Renderer(121, render.mv_per_lead, render.line_width, True).draw(make_signal(1))
    lead = LEADS.index('V2')
    where = explanation.where_leads_are(picture)[lead] & explanation.where_seconds_are(picture)[3]
    assert (explanation.where_leads_are(picture).sum(axis=0) == 1).all() and 80 < where.sum() < 180

    def network(pixels):
        ink = np.where(where, 255.0 - pixels, 0).sum(axis=(1, 2))
        return np.stack([-ink, ink], axis=1).astype(np.float32)

    flat = explanation.flat_picture(render)
    leads, seconds = explanation.explain(network, picture, flat, TASKS[1])
    assert leads.shape == (12, 1) and seconds.shape == (10, 1)
    assert leads.argmax() == lead and not np.delete(leads, lead).any()
    assert seconds.argmax() == 3 and not np.delete(seconds, 3).any()
    twelve = explanation.explain(lambda pixels: np.outer(pixels.mean(axis=(1, 2)), np.arange(12)),
                             picture, explanation.flat_picture(render), TASKS[2])
    assert [each.shape for each in twelve] == [(12, 12), (10, 12)]


def test_language_follows_the_user(monkeypatch):
    for name, language in (('zh_CN.UTF-8', 'zh'), ('en_GB.UTF-8', 'en'), ('C', 'en')):
        monkeypatch.setenv('LC_ALL', name)
        assert report.language_of_user() == language


def test_originals_are_those_that_were_drawn(competition, drawn, tmp_path):
    names = [f'TEST{i:04d}' for i in range(1, 7)]
    found = report.find_originals(drawn, [*names, 'TEST9999'])
    assert sorted(found) == names
    signals, _, _ = report.read_originals(found, {'TEST0001'}, None, None)
    assert list(signals) == ['TEST0001'] and signals['TEST0001'].shape == (12, 5000)
    gone = {'A': str(tmp_path / 'gone.mat')}
    assert report.read_originals(gone, {'A'}, None, None) == ({}, {}, {})
    root = shutil.copytree(drawn, tmp_path / 'root')
    shutil.copy(root / 'val' / 'TEST0002.png', root / 'val' / 'TEST0001.png')  # of another record
    assert 'TEST0001' not in report.find_originals(str(root), names)
    (root / 'render.json').unlink()
    assert report.find_originals(str(root), names) == {}


def predict(trained, folder, *arguments):
    result = run_script('predict.py', '--model', trained, *arguments, *overrides(
        f'output={folder}', f'predict.answer={folder}/answer.csv', 'device=cpu'))
    assert result.returncode == 0, result.stderr


def test_predict_writes_it(trained, drawn, tmp_path):
    reference = tmp_path / 'reference.csv'
    reference.write_text('name,tag\n' + ''.join(f'TEST{i + 1:04d},{i % 2}\n' for i in range(6)))
    predict(trained, tmp_path, '--report', 'zh', '--report-records', '4', '--reference', reference,
            *overrides(f'data.root={drawn}', 'predict.batch_size=4'))
    text = (tmp_path / 'report.html').read_text(encoding='utf-8')
    assert text.count('<article') == 4 and all(f'TEST{i:04d}' in text for i in range(1, 7))
    assert text.count('class="trace"') == 4 * 2 * len(LEADS)  # a pulse and a signal for each lead


def test_own_ecgs_with_hostile_names(trained, competition, tmp_path):
    ecgs = tmp_path / 'ecgs'
    ecgs.mkdir()
    for number, name in enumerate(HOSTILE, 1):
        shutil.copy(os.path.join(competition, 'val', f'TEST{(number - 1) % 6 + 1:04d}.mat'),
                    ecgs / f'{name}.mat')
    predict(trained, tmp_path, '--input', ecgs, '--report', 'en')
    path = tmp_path / 'input_report.html'
    seen = Seen(path.read_bytes().decode())
    assert seen.tags.count('script') == 1 and 'img' not in seen.tags
    assert seen.texts.count(HOSTILE[0]) == seen.texts.count('a\nb\r\tc') == 2
    dom, console = in_browser(path, tmp_path / 'browser')
    assert console == [] and f'{len(HOSTILE)} / {len(HOSTILE)}' in dom
