"""A trained model: its networks, and all that makes an answer of what they say."""
from dataclasses import dataclass
from typing import Optional

import numpy as np

from models import best_model, build_model
from models.weights import set_weights
from utils.answers import calibration, metrics, tasks
from utils.answers.answer import Answer
from utils.answers.findings import Found
from utils.answers.thresholds import tune_thresholds
from utils.running import settings
from utils.running.errors import UserError


@dataclass(frozen=True)
class Rule:
    """How log-odds become an answer to a task.

    thresholds, temperature: floats, or arrays (classes,): probabilities, and what log-odds are
    divided by before
    """
    task: tasks.Task
    thresholds: object
    temperature: object

    def probabilities(self, margins):
        """Probabilities of some log-odds, as tasks.margins_of() gives them."""
        return tasks.probabilities_of(margins / self.temperature)


@dataclass(frozen=True)
class Trained:
    """A best_model, and with it everything that decides an answer.

    config: settings.Config that it was trained with; models: list of paddle.nn.Layer, whose mean
    answers; rule: Rule of the task that it is asked; targets, margins: of the records that it was
    not trained on
    head, findings: of a model of task 3 that is asked another one: what its logits are multiplied
    with to answer that, float32 array (classes of task 3, classes), and the Rule of task 3
    """
    folder: str
    config: settings.Config
    models: list
    iteration: int
    rule: Rule
    targets: np.ndarray
    margins: np.ndarray
    head: Optional[np.ndarray] = None
    findings: Optional[Rule] = None

    @property
    def task(self):
        return self.rule.task

    def asked(self, logits):
        """The models' logits as those of the task that is asked: float32 array (n, classes)."""
        return logits if self.head is None else logits @ self.head

    def margins_of(self, logits):
        """The models' logits as log-odds of the task that is asked, see tasks.margins_of()."""
        return tasks.margins_of(self.asked(logits), self.task)

    def answer(self, names, logits, truth, width):
        """The answer.Answer to some ECGs; logits: float32 array (n, classes), of its models."""
        findings = self.findings and Found(self.findings.probabilities(logits),
                                           self.findings.thresholds)
        return Answer(self.task, names, self.rule.probabilities(self.margins_of(logits)),
                      self.rule.thresholds, truth, width, findings)

    @property
    def known(self):
        """The answer.Answer for the records that it was not trained on."""
        return Answer(self.task, self.targets, self.rule.probabilities(self.margins),
                      self.rule.thresholds, self.targets)

    def describe(self):
        """One line on what it is."""
        scores = metrics.score(self.targets, self.known.probabilities, self.rule.thresholds,
                               self.task)
        return (f'{self.folder}: task {self.config.task}, {len(self.models)} '
                f'{self.config.model.name}, iteration {self.iteration}; on {len(self.targets)} '
                f'validation records F1 {scores["f1"]:.4f}, AUC {scores["auc"]:.4f} for task '
                f'{self.task.number}, threshold {np.round(self.rule.thresholds, 4).tolist()}')


def load_trained(path, asked, threshold):
    """Read a best_model folder, and build its networks.

    path: str, the folder or one that holds it; asked: int, the task that a model of task 3 is
        asked, which has learnt the others with it; threshold: predict.threshold
    Returns: Trained
    Raises: UserError
    """
    networks, config, kept = best_model.load_best(path)
    folder, learnt = best_model.find_best(path), tasks.TASKS[config.task]
    thresholds = read_thresholds(kept, folder, learnt)
    temperature = _read_temperature(kept, folder, learnt)
    models = [build_model(config.model.name, len(learnt.class_names), config.seed)
              for _ in networks]
    for model, weights in zip(models, networks):
        set_weights(model, weights, folder)
    targets, margins = tasks.of_validation_table(best_model.load_validation(folder, learnt), learnt)
    model = folder, config, models, kept['iteration']
    if learnt.number != 3 or asked == 3:
        rule = Rule(learnt, _chosen(threshold, thresholds), temperature)
        return Trained(*model, rule, targets, margins)
    task, head = tasks.TASKS[asked], tasks.head_of_start(tasks.TASKS[asked])
    targets = tasks.targets_of_findings(targets, task)
    margins = tasks.margins_of(margins @ head, task)
    return Trained(*model, _learn_rule(task, targets, margins, threshold, config.seed), targets,
                   margins, head, Rule(learnt, thresholds, temperature))


def _learn_rule(task, targets, margins, threshold, seed):
    """The Rule for what a model of task 3 says of another task, by its validation records."""
    temperature = calibration.calibrate(margins, targets, seed)[0]
    thresholds = tune_thresholds(targets, margins / temperature)
    return Rule(task, _chosen(threshold, thresholds), temperature)


def _chosen(wanted, kept):
    """The thresholds that predict.threshold names: the `kept` ones, or a number for all."""
    return kept if wanted == 'auto' else np.full(np.shape(kept), float(wanted))[()]


def read_thresholds(kept, folder, task):
    """The thresholds in metrics.json, a dict: float for task 1, float array (classes,) for others.

    Raises: UserError
    """
    count = len(task.class_names) if task.multi_label else 1
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
