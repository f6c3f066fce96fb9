"""Put a trained model into half the room, to be handed on: python -m models.publish output OUT

Its large tensors become float16, and it must still answer as before, on all pictures that validated
it.
"""
import argparse
import os

import numpy as np

from models import best_model, build_model, device
from models.inference import plain_network, predict_logits
from models.weights import set_weights
from utils.answers import tasks
from utils.pictures.loading import Pictures
from utils.pictures.render import shape_of
from utils.running import errors
from utils.running.errors import UserError

TOLERANCE = 0.001  # of a probability
LARGE = 2 ** 18  # numbers in a tensor; rounding the first layers' would change answers most
DIGITS = 4  # of the log-odds in validation.csv
BATCH = 32


def publish(source, out):
    """Write the model in `source` to the new folder `out`.

    source: str, a best_model folder or one that holds it, whose pictures are where they were
    Returns: float, the largest difference between its probabilities before and after
    Raises: UserError where `out` is there already, or the answers differ by more than TOLERANCE
    """
    if os.path.lexists(out):
        raise UserError(f'{out}: is there already; name a new folder')
    networks, config, metrics = best_model.load_best(source)
    task = tasks.TASKS[config.task]
    table = best_model.load_validation(best_model.find_best(source), task)
    halves = [{key: value.astype(np.float16 if value.size > LARGE else np.float32)
               for key, value in weights.items()} for weights in networks]
    paths = [os.path.join(config.data.root, 'train', f'{name}.png') for name in table['name']]
    pictures = Pictures(paths, shape_of(config.render), cached=False)
    before, after = (_answer(each, config, pictures) for each in (networks, halves))
    difference = float(np.abs(after - before).max())
    if not difference <= TOLERANCE:
        raise UserError(f'{source}: in float16 its probabilities differ by up to {difference:.4f}, '
                        f'expected at most {TOLERANCE}')
    best_model.save_best(out, halves, config, metrics, table.round(DIGITS))
    return difference


def _answer(networks, config, pictures):
    """The mean of the networks' answers: probabilities, float array (n, classes)."""
    task, logits = tasks.TASKS[config.task], []
    for weights in networks:
        model = build_model(config.model.name, len(task.class_names), config.seed)
        weights = {key: value.astype(np.float32) for key, value in weights.items()}
        set_weights(model, weights, 'the network in float16')
        logits.append(predict_logits(plain_network(model), pictures, BATCH, 1))
    return tasks.probabilities_of(tasks.margins_of(np.mean(logits, axis=0), task))


def main():
    parser = argparse.ArgumentParser('python -m models.publish',
                                     description=__doc__.splitlines()[0])
    parser.add_argument('source', metavar='SOURCE', help='what train.py wrote: output')
    parser.add_argument('out', metavar='OUT', help='a new folder')
    arguments = parser.parse_args()
    device.import_paddle()
    difference = publish(arguments.source, arguments.out)
    print(f'{arguments.out}: its probabilities differ by at most {difference:.1e}')


if __name__ == '__main__':
    errors.run(main)
