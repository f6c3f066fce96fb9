"""How often an explanation points at what utils.datasets.demo changed: the model against random
weights.

python -m benchmarks.pointing output/demo-task2   (a model that make demo TASK=2 trained)

Of made-up ECGs whose finding the model gets right: is the first lead one of those that the finding
changes (and of the three that it changes most), is the first second one with the premature beat?
"""
import argparse
import zlib  # noqa: F401  before Paddle, see models/device.py

import pandas as pd

from models import best_model, build_model, device
from models.inference import plain_network
from models.weights import set_weights
from utils.answers import explanation, tasks
from utils.datasets.demo import make_record
from utils.ecg.records import LEADS
from utils.pictures.render import renderer_of
from utils.running import errors

SEED = 99991  # none that a demo is trained with
# What is asked about: group, case in utils.datasets.demo, column of its truth.csv, class of task 2.
FINDINGS = (('ST', 'ST', 'leads_ST', 10), ('T', 'T', 'leads_T', 9),
            ('bundle branch block', 'CRBBB', 'leads_CRBBB', 8),
            ('bundle branch block', 'other', 'leads_LBBB', 11),
            ('PVC', 'PVC', 'ectopic_seconds', 5), ('PAC', 'PAC', 'ectopic_seconds', 6))


def main():
    parser = argparse.ArgumentParser(prog='python -m benchmarks.pointing', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', help='a best_model of made-up ECGs, or a folder that holds it')
    parser.add_argument('--each', type=int, default=40, help='ECGs of each kind (default 40)')
    arguments = parser.parse_args()
    device.import_paddle()
    networks, config, kept = best_model.load_best(arguments.model)
    task = tasks.TASKS[config.task]
    trained, blind = (build_model(config.model.name, len(task.class_names), config.seed + add)
                      for add in (0, 1))
    set_weights(trained, networks[0], arguments.model)
    rows = []
    for finding in FINDINGS:
        rows += ask(finding, plain_network(trained), plain_network(blind), (config, kept, task),
                    arguments.each)
    table = pd.DataFrame(rows).groupby('finding', sort=False)
    print(table.mean().round(2).assign(ECGs=table.size()).to_string())
    return 0


def ask(finding, trained, blind, model, wanted):
    """Dicts, a row of the table each, of `wanted` ECGs whose finding the model gets right."""
    group, case, column, label = finding
    config, kept, task = model
    renderer, flat = renderer_of(config.render), explanation.flat_picture(config.render)
    limits = tasks.log_odds(kept['threshold']) * kept.get('temperature', 1.0)
    label, rows = (label if task.multi_label else 0), []
    wanted //= sum(group == other[0] for other in FINDINGS)
    for index in range(1, 40 * wanted):
        if len(rows) == wanted:
            break
        signal, truth = make_record(SEED, 1000 * FINDINGS.index(finding) + index, (case,))
        picture = renderer.draw(signal)
        margins = tasks.margins_of(trained(picture[None]), task)
        right = (margins >= limits).reshape(-1)[label] and truth[column]
        if right:
            explained = [explanation.explain(each, picture, flat, task)
                         for each in (trained, blind)]
            rows.append({'finding': group, **judge(truth[column].split(), explained, label)})
    return rows


def judge(changed, explained, label):
    """Whether the first one is among what was changed: of the model, of random weights, by chance.

    changed: lead names, the most changed first, or times of premature beats, s
    """
    leads = changed[0] in LEADS
    places = [LEADS.index(each) if leads else int(float(each)) for each in changed]
    first, blind = (int(each[0 if leads else 1][:, label].argmax()) for each in explained)
    count = len(LEADS) if leads else explanation.SECONDS
    row = {'model': first in places, 'random': blind in places,
           'chance': len(set(places)) / count}
    if leads:
        top = places[:3]
        row.update({'top 3: model': first in top, 'top 3: random': blind in top,
                    'top 3: chance': len(top) / count})
    return row


if __name__ == '__main__':
    errors.run(main)
