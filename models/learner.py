"""What a training changes: the network and its average, the optimizer, the scale of the loss."""
import os

from models import build_model, memory, ranks
from models import device as devices
from models.optimizer import make_optimizer, make_scaler
from models.pretrained import load_pretrained
from models.weights import Average, set_state
from utils.answers import tasks
from utils.pictures.render import settings_of


def make_learner(config, device, arrays):
    """Make them anew, or as they were when a checkpoint was saved.

    config: Config; device: as choose_device() returns it; arrays: of the checkpoint, as
        weights.state_arrays() made them, or None
    Returns: (average, optimizer, scaler, notes): weights.Average, whose model learns,
        paddle.optimizer.Optimizer, paddle.amp.GradScaler, list of str
    Raises: UserError where weights to begin with, or those of the checkpoint, do not fit
    """
    task, notes = tasks.TASKS[config.task], []
    model = build_model(config.model.name, len(task.class_names), config.seed)
    optimizer = make_optimizer(config.train, model)
    amp, precision = devices.choose_precision(config.train.amp, device)
    scaler = make_scaler(amp)
    devices.tune(device)
    if arrays is None:
        notes += load_pretrained(model, config.model.name, config.model.pretrained,
                                 settings_of(config.render), task)
    average = Average(model, build_model(config.model.name, len(task.class_names), config.seed),
                      config.train.ema)
    if arrays is not None:
        set_state(average, optimizer, scaler, arrays, os.path.join(config.output, 'last'))
    if config.train.iters <= config.train.warmup_iters:
        notes.append(f'warning: train.iters {config.train.iters} end within train.warmup_iters '
                     f'{config.train.warmup_iters}: the learning rate never gets to '
                     f'{config.train.learning_rate:g}')
    notes.append(f'{precision}; {ranks.world()} process(es)')
    return average, optimizer, scaler, notes + memory.notes(device, config, amp, ranks.world())
