"""A trained model: its networks, and all that makes an answer of what they say."""
from dataclasses import dataclass

import numpy as np

from models import best_model, build_model
from models.weights import set_weights
from utils.answers import tasks
from utils.answers.answer import Answer
from utils.running import settings
from utils.running.errors import UserError


@dataclass(frozen=True)
class Trained:
    """A best_model, and with it everything that decides an answer.

    config: settings.Config that it was trained with; models: list of paddle.nn.Layer, whose mean
    answers; targets, margins: of the records that it was not trained on; thresholds, temperature:
    floats, or arrays (12,): probabilities, and what log-odds are divided by before
    """
    folder: str
    config: settings.Config
    task: tasks.Task
    models: list
    iteration: int
    thresholds: object
    temperature: object
    targets: np.ndarray
    margins: np.ndarray

    def answer(self, names, margins, truth, width=0.0):
        """answer.Answer for some log-odds, as tasks.margins_of() gives them."""
        return Answer(self.task, names, tasks.probabilities_of(margins / self.temperature),
                      self.thresholds, truth, width)

    @property
    def known(self):
        """The answer.Answer for the records that it was not trained on."""
        return self.answer(self.targets, self.margins, self.targets)


def load_trained(path, threshold):
    """Read a best_model folder, and build its networks.

    path: str, the folder or one that holds it; threshold: predict.threshold
    Returns: (Trained, words); words: one line on what it is
    Raises: UserError
    """
    networks, config, kept = best_model.load_best(path)
    folder, task = best_model.find_best(path), tasks.TASKS[config.task]
    if task.number == 3:
        raise UserError(f'{folder}: has learnt from made-up ECGs alone, expected a model of task 1 '
                        f'or 2; start from it: train.py -o model.pretrained={folder}')
    thresholds = read_thresholds(kept, threshold, folder, task)
    temperature = _read_temperature(kept, folder, task)
    models = [build_model(config.model.name, len(task.class_names), config.seed)
              for _ in networks]
    for model, weights in zip(models, networks):
        set_weights(model, weights, folder)
    validation = tasks.of_validation_table(best_model.load_validation(folder, task), task)
    words = (f'{folder}: task {task.number}, {len(models)} {config.model.name}, iteration '
             f'{kept["iteration"]}, validation F1 {kept["validation"]["f1"]:.4f}, threshold '
             f'{np.round(thresholds, 4).tolist()}')
    return Trained(folder, config, task, models, kept['iteration'], thresholds, temperature,
                   *validation), words


def read_thresholds(kept, wanted, folder, task):
    """The threshold that predict.threshold names: the one kept in best_model, or a number.

    Returns: float for task 1, float array (12,) for task 2
    """
    count = len(task.class_names) if task.multi_label else 1
    if wanted != 'auto':
        return np.full(count, wanted) if task.multi_label else wanted
    return _read_numbers(kept.get('threshold'), count, f'{folder}: the threshold')


def _read_temperature(kept, folder, task):
    """What the log-odds are divided by: float, or for task 2 also float array (12,); 1 of a model
    that has none, since it is of an earlier version."""
    temperature = kept.get('temperature', 1.0)
    count = len(task.class_names) if isinstance(temperature, list) and task.multi_label else 1
    return _read_numbers(temperature, count, f'{folder}: the temperature')


def _read_numbers(value, count, what):
    """A float above 0, or an array of `count` of them; `what` names it where it is neither."""
    numbers = np.asarray(value, dtype=object)
    if numbers.shape != (() if count == 1 else (count,)) or \
            not all(isinstance(each, float) and 0 < each < np.inf for each in numbers.flat):
        raise UserError(f'{what} in {best_model.METRICS} is {value}, expected {count} number(s); '
                        'copy the whole folder again, or train anew')
    return numbers.astype(float) if count > 1 else float(numbers)
