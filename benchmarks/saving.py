"""What output/last and output/best_model cost: seconds to write and to go on from, and bytes."""
import os
import time

import numpy as np
import pandas as pd

from benchmarks.measure import alternate
from models import best_model, build_model, checkpoint, device, to_input
from models.optimizer import make_optimizer
from models.weights import Average, set_state, set_weights, state_arrays, weights_of
from utils.running import settings


def compare(folder, arguments):
    """Yields: rows"""
    paddle = device.import_paddle()
    config = settings.Config()
    model = build_model(arguments.model, 2, 0)
    average = Average(model, build_model(arguments.model, 2, 0), config.train.ema)
    optimizer = make_optimizer(config.train, model)
    scaler = paddle.amp.GradScaler(enable=False)
    model(to_input(np.zeros((2, 64, 64), np.uint8))).mean().backward()
    optimizer.step()
    last, best = os.path.join(folder, 'last'), os.path.join(folder, 'best_model')

    def copy():
        return state_arrays(average, optimizer, scaler)

    def save_best():
        metrics = {'epoch': 1, 'iteration': 1, 'validation': {'f1': 0.0}}
        best_model.save_best(best, [weights_of(model)], config, metrics,
                             pd.DataFrame(columns=['name']))

    ways = {
        'copying the state, which the loop waits for': copy,
        'saving output/last': lambda: checkpoint.save_last(last, {'iteration': 1}, copy()),
        'going on from output/last': lambda: set_state(average, optimizer, scaler,
                                                       checkpoint.load_last(last)[1], last),
        'saving output/best_model': save_best,
        'loading output/best_model': lambda: set_weights(model, best_model.load_best(best)[0][0],
                                                         best)}
    for name, seconds in alternate(ways, arguments.runs, time.perf_counter).items():
        place = best if 'best' in name else last
        size = sum(os.path.getsize(os.path.join(place, each)) for each in os.listdir(place))
        yield f'{name:<44} {seconds:10.2f} s    {size / 2**20:7.1f} MiB   {arguments.model}, AdamW'
