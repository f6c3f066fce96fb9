"""Several folds: each trains in a folder of its own, and together they are one model."""
import dataclasses
import os

import numpy as np
import pandas as pd

from models import best_model
from utils.answers import metrics, tasks, thresholds
from utils.answers.answer import Answer
from utils.reports import plots
from utils.running import files


def config_of_fold(config, fold):
    """The settings of one fold: each has a folder of its own where there are several.

    fold: int, counted from 0
    """
    if config.train.folds == 1:
        return config
    output = os.path.join(config.output, 'folds', str(fold + 1))
    os.makedirs(output, exist_ok=True)
    return dataclasses.replace(config, output=output)


def join_folds(config):
    """Score all records out of fold, and put the networks of all folds into one best_model.

    Returns: (folder, count): the best_model folder, how many networks it holds
    Raises: UserError where a fold's best_model is missing or damaged
    """
    import paddle
    task, networks, tables = tasks.TASKS[config.task], [], []
    for fold in range(config.train.folds):
        folder = best_model.find_best(config_of_fold(config, fold).output)
        weights, _, scores = best_model.load_best(folder)
        networks += weights
        tables.append(best_model.load_validation(folder, task))
    for number, table in enumerate(tables, 1):
        targets, margins = tasks.of_validation_table(table, task)
        auc = metrics.score(targets, tasks.probabilities_of(margins), 0.5, task)['auc']
        print(f'fold {number}: {len(table)} records, AUC {auc:.4f}')
    together = pd.concat(tables, ignore_index=True).sort_values('name')
    targets, margins = tasks.of_validation_table(together, task)
    files.write_table(os.path.join(config.output, 'out_of_fold.csv'), together)
    learnt, calibrated, note = thresholds.learn(targets, margins, task, config.seed)
    limits = np.asarray(learnt['threshold'])
    probabilities = tasks.probabilities_of(margins / np.asarray(learnt['temperature']))
    print(f'out of fold, {len(together)} records:\n{note}')
    for line in metrics.describe(targets, probabilities, limits, config.seed, task):
        print(line)
    kept = {'epoch': -1, 'iteration': scores['iteration'], 'paddle': paddle.__version__, **learnt}
    folder = os.path.join(config.output, 'best_model')
    best_model.save_best(folder, networks, config, kept, together)
    held_out = Answer(task, together['name'], tasks.probabilities_of(calibrated), limits, targets)
    plots.draw_validation(os.path.join(config.output, 'validation.png'),
                          f'Out of fold, {len(networks)} networks: '
                          + metrics.in_words(learnt['validation']),
                          held_out, tasks.probabilities_of(margins))
    return folder, len(networks)
