"""What output/last and output/best_model cost: seconds to write and to go on from, and bytes."""
import os
import time

import numpy as np

import train
from benchmarks.measure import alternate
from models import build_model
from utils import checkpoint, config, images, runtime
from utils.optimizers import make_optimizer
from utils.progress import Log


def compare(folder, arguments):
    """Yields: rows"""
    paddle = runtime.import_paddle()
    settings = config.Config(output=folder)
    model = build_model(arguments.model, 2, 0)
    optimizer, scaler = make_optimizer(settings.train, model), paddle.amp.GradScaler(enable=False)
    model(images.to_input(np.zeros((2, 64, 64), np.uint8))).mean().backward()
    optimizer.step()
    run = {**train.find_run(settings, False, {})[0], 'iteration': 1}
    best, last = train.best_folder(settings), train.last_folder(settings)

    def save_last():
        train.save_last(model, optimizer, scaler, run, {}, settings, Log(None))

    def go_on():
        state, _ = checkpoint.load_last(last)
        checkpoint.set_weights(model, state['weights'], last)
        checkpoint.check_optimizer(last, model, state['optimizer'])
        optimizer.set_state_dict(state['optimizer'])

    ways = {'saving output/last': save_last, 'going on from output/last': go_on,
            'saving output/best_model': lambda: checkpoint.save_best(best, checkpoint.weights_of(model), '', {})}
    for name, seconds in alternate(ways, arguments.runs, time.perf_counter).items():
        place = best if 'best' in name else checkpoint.list_last(last)[0]
        paths = [os.path.join(place, each) for each in os.listdir(place)] if os.path.isdir(place) else [place]
        size = sum(os.path.getsize(path) for path in paths) / 2**20
        yield f'{name:<44} {seconds:10.2f} s    {size:7.1f} MiB   {arguments.model}, AdamW'
