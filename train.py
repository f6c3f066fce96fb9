"""Train the network on the labelled pictures: data.root/train/*.png -> output/best_model.

The same command goes on where an earlier run with the same settings stopped. On several GPUs:
python -m paddle.distributed.launch train.py
"""
import contextlib
import dataclasses
import math
import os
import sys
import time
import zlib  # before Paddle, see models/device.py
from dataclasses import dataclass, field
from typing import Optional

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # PYTHONSAFEPATH leaves it out

import numpy as np
import pandas as pd

from models import best_model, checkpoint, ranks, to_input
from models import device as devices
from models.folds import config_of_fold, join_folds
from models.inference import plain_network, predict_logits, several_views
from models.learner import make_learner
from models.loss import compute_loss, weigh_classes
from models.optimizer import learning_rate, update_scale
from models.training_data import TrainingData, batches_left, load_data, with_iterations
from models.weights import Average, is_finite, state_arrays, weights_of
from utils.answers import metrics, tasks, thresholds
from utils.answers.answer import Answer
from utils.pictures import loading
from utils.reports import plots
from utils.running import errors, files, settings
from utils.running.background import Background
from utils.running.errors import Stopped, StopRequest, UserError
from utils.running.log import Chrono, clock, open_log

EVALUATE_SECONDS = 20  # of training between two evaluations on a GPU, at least
DRAW_SECONDS = 30  # between two drawings of the curves, at least


@dataclass
class Progress:
    """How far a run is: plain values, JSON in the checkpoint.

    best: the best model's value, score, epoch and iteration; history: rows of history.csv
    losses: of the iterations since the last line of the log; skipped: iterations whose step
    overflowed in mixed precision; log_bytes: of train.log
    """
    iteration: int = 0
    best: Optional[dict] = None
    history: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    skipped: int = 0
    log_bytes: int = 0


@dataclass
class Run:
    """All that a training is made of.

    losses: Tensors since they were last fetched; evaluated, saved, drawn: when, as
    time.perf_counter() tells it
    """
    config: settings.Config
    arguments: object
    data: TrainingData
    device: str
    progress: Progress
    log: object
    average: Average
    network: object
    optimizer: object
    scaler: object
    background: Background
    class_weights: Optional[np.ndarray]
    fresh: bool
    losses: list = field(default_factory=list)
    chrono: Chrono = field(default_factory=Chrono)
    evaluated: float = field(default_factory=time.perf_counter)
    saved: float = field(default_factory=time.perf_counter)
    drawn: float = -math.inf

    @property
    def task(self):
        return tasks.TASKS[self.config.task]

    @property
    def last_folder(self):
        return os.path.join(self.config.output, 'last')

    @property
    def best_folder(self):
        return os.path.join(self.config.output, 'best_model')


def main():
    arguments, config = settings.parse_arguments(__doc__, add_arguments)
    devices.import_paddle()
    errors.handle_signals()
    device, words = devices.choose_device(config.device)
    ranks.connect(device)
    first = ranks.rank() == 0
    lock = files.lock_folder(config.output, 'output') if first else contextlib.nullcontext()
    remedy = (f'out of memory on {device} with train.batch_size {config.train.batch_size} and '
              f'render.size {config.render.size}; what was saved is whole: lower train.batch_size '
              '(half as many pictures take half the memory), or draw smaller pictures with '
              'process.py -o render.size=320 / 显存或内存不足：请减小 train.batch_size 或 '
              'render.size，已保存的都完好')
    with devices.out_of_memory_says(remedy), lock:
        for fold in range(config.train.folds):
            train_fold(config, arguments, device, words, fold)
        if first and config.train.folds > 1:
            folder, count = join_folds(config)
            print(f'{folder} holds the {count} networks; next: '
                  + settings.command('predict.py', arguments, without=('train.resume',)))
        ranks.largest(0)  # wait for rank 0: the launcher ends all as soon as one has ended
        return 0


def add_arguments(parser):
    parser.add_argument('--resume', action='store_true',
                        help='insist on going on from output/last; without it a run goes on if '
                             'there is one to go on from')


def train_fold(config, arguments, device, words, fold):
    """Train the network of one fold, or what is left of it."""
    import paddle
    # The guard lets each fold's parameters have the names they have in a process of its own.
    with Background() as background, paddle.utils.unique_name.guard():
        run = prepare(config_of_fold(config, fold), arguments, device, words, background, fold)
        if run.progress.iteration < run.config.train.iters:
            train(run)
        else:
            tell_finished(run)


def train(run):
    """What is left of the run: step, log, evaluate, save."""
    stop, config = StopRequest(), run.config.train
    run.network.train()
    for epoch, batch, pixels in read_pictures(run):
        with run.chrono.part('steps'):
            step(run, batch, pixels)
            iteration = run.progress.iteration
            end_of_epoch = iteration % run.data.epoch_iters == 0 or iteration == config.iters
            line_due = iteration % config.log_interval == 0
            if line_due or end_of_epoch:
                fetch_losses(run)
        if line_due:
            log_training(run, epoch)
        if is_time_to_evaluate(run, end_of_epoch):
            with run.chrono.part('evaluation'):
                evaluate_and_keep(run, epoch)
        run.background.check()
        # Several processes agree here and there only: each time they wait for one another.
        if line_due or iteration == config.iters or ranks.world() == 1:
            save_or_stop(run, stop)
    if ranks.rank() == 0:
        finish(run)
    errors.handle_signals()
    signum = ranks.largest(stop.signum)
    if signum:  # it came too late for this fold; there may be others
        raise Stopped(signum)


def prepare(config, arguments, device, words, background, fold):
    """Make all that a training needs, or take it up where an earlier one stopped.

    Returns: Run
    """
    import paddle
    data = load_data(config, fold, settings.command('process.py', arguments))
    config = with_iterations(config, data)
    state, arrays, notes = checkpoint.resume(config, arguments.resume, data.fingerprint)
    progress = Progress(**state['progress']) if state else Progress()
    if not ranks.agree(zlib.crc32(repr((progress.iteration, data.fingerprint)).encode())):
        raise UserError(f'the {ranks.world()} processes do not have the same settings, pictures in '
                        f'{config.data.root} and newest checkpoint in {config.output}; on several '
                        'machines, both folders must be shared by all, or copied to all')
    average, optimizer, scaler, more = make_learner(config, device, arrays)
    log = open_run_log(config, progress.log_bytes)
    for line in (words, settings.describe(config), *data.notes, *notes, *more):
        log.info(line)
    network = paddle.DataParallel(average.model) if ranks.world() > 1 else average.model
    weights = weigh_classes(data.targets, config.train.class_weights, tasks.TASKS[config.task])
    return Run(config=config, arguments=arguments, data=data, device=device, progress=progress,
               log=log, average=average, network=network, optimizer=optimizer, scaler=scaler,
               background=background, class_weights=weights, fresh=state is None)


def open_run_log(config, keep):
    """Clear what killed runs left, and open output/train.log, which goes on after `keep` bytes."""
    if ranks.rank() > 0:
        return open_log(None)
    files.recover_folder(os.path.join(config.output, 'best_model'))
    files.clear_partials(config.output)
    files.clear_partials(os.path.join(config.output, 'last'))
    return open_log(os.path.join(config.output, 'train.log'), keep)


def read_pictures(run):
    """(epoch, indices, pixels) of all iterations that are left, read ahead across the epochs."""
    left = batches_left(run.data, run.config, run.progress.iteration)
    batches = loading.read_batches(run.data.pictures, left, run.data.workers)
    while True:
        with run.chrono.part('reading'):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def step(run, batch, pixels):
    """One iteration: forward, loss, backward, step."""
    import paddle
    run.progress.iteration += 1
    run.optimizer.set_lr(learning_rate(run.progress.iteration, run.config.train))
    with paddle.amp.auto_cast(enable=run.scaler.is_enable()):
        logits = run.network(to_input(pixels))
    loss = compute_loss(logits.astype('float32'), run.data.targets[batch], run.class_weights,
                        run.config.train.label_smoothing, run.task)
    run.scaler.scale(loss).backward()
    run.scaler.step(run.optimizer)
    scale = update_scale(run.scaler)
    if scale is not None:
        tell_overflow(run, scale)
    run.optimizer.clear_grad()
    run.average.follow(run.progress.iteration)
    run.losses.append(loss.detach())
    run.chrono.iterations += 1


def tell_overflow(run, scale):
    """Mixed precision skipped a step, as it does now and then; where it skips all, the run ends."""
    run.progress.skipped += 1
    run.log.info(f'mixed precision overflowed in iteration {run.progress.iteration}, which is '
                 f'skipped; the loss scale is {scale:g} now ({run.progress.skipped} skipped so '
                 'far; a few are normal)')
    if scale < 1:
        raise_not_finite(run, 'the gradients')


def fetch_losses(run):
    """Fetch the losses from the device, and look at the weights and statistics: where one is NaN
    or infinite, the run ends. Before all that is saved, so what is saved is good.
    """
    import paddle
    if not run.losses:
        return
    run.progress.losses += ranks.mean(paddle.stack(run.losses)).numpy().ravel().tolist()
    run.losses = []
    if ranks.largest(int(not is_finite(run.average.model))):
        raise_not_finite(run, "weights or BatchNorm's statistics")


def raise_not_finite(run, what):
    """The one policy for numbers that are not finite, but for a step that GradScaler skips."""
    rate = run.config.train.learning_rate
    raise UserError(f'{what} were not finite, up to iteration {run.progress.iteration}; the best '
                    f'and last models are from before: lower train.learning_rate ({rate:g}), or '
                    'try -o train.amp=false, then start afresh with -o train.resume=never / '
                    '出现了 NaN 或无穷大：请减小 train.learning_rate，或用 -o train.amp=false，'
                    '再用 -o train.resume=never 重新训练；已保存的模型都完好')


def log_training(run, epoch):
    """Write the original's [TRAIN] line and a row of history, and begin a new window."""
    progress, chrono, config = run.progress, run.chrono, run.config.train
    finite = [loss for loss in progress.losses if math.isfinite(loss)]
    loss = float(np.mean(finite)) if finite else math.nan
    iteration, cost = progress.iteration, chrono.batch_cost
    rate, left = learning_rate(iteration, config), config.iters - iteration
    run.log.info(f'[TRAIN] epoch: {epoch + 1}, iter: {iteration}/{config.iters}, loss: {loss:.4f}, '
                 f'lr: {rate:.10f}, batch_cost: {cost:.4f}, reader_cost: {chrono.reader_cost:.5f}, '
                 f'ips: {config.batch_size / cost:.4f} samples/sec | ETA {clock(left * cost)}')
    if run.device == 'cpu' and len(progress.history) == 0 and left:
        run.log.info(f'on this CPU the run will take about {clock(left * cost)} more, evaluations '
                     'not counted; shorter with fewer or smaller iterations: -o train.iters=N, -o '
                     'train.batch_size=N, -o model.name=resnet18, or smaller pictures: -o '
                     'render.size=224 for process.py and train.py')
    progress.history.append({'iteration': iteration, 'epoch': epoch + 1, 'learning_rate': rate,
                             'train_loss': loss if finite else None})
    progress.losses = []
    chrono.restart()


def is_time_to_evaluate(run, end_of_epoch):
    """After train.eval_interval iterations; auto: after an epoch, on a GPU not too often."""
    iteration, config = run.progress.iteration, run.config.train
    if iteration == config.iters:
        return True
    if config.eval_interval != 'auto':
        return iteration % config.eval_interval == 0
    soon = run.device != 'cpu' and time.perf_counter() - run.evaluated < EVALUATE_SECONDS
    return end_of_epoch and ranks.largest(int(not soon)) == 1


def evaluate_and_keep(run, epoch):
    """Score the model on all validation records, keep it if it is the best so far."""
    import paddle
    config, targets, task = run.config, run.data.val_targets, run.task
    logits = evaluate(run)
    margins = tasks.margins_of(logits, task)
    learnt, calibrated, note = thresholds.learn(targets, margins, task, config.seed)
    scores = learnt['validation']
    scores['loss'] = float(compute_loss(paddle.to_tensor(logits), targets, None, 0.0, task))
    log_evaluation(run, epoch, scores)
    metric = config.train.best_metric
    value = -scores[metric] if metric == 'loss' else scores[metric]
    if run.progress.best is None or not value <= run.progress.best['value']:
        run.progress.best = {'value': value, 'score': scores[metric], 'epoch': epoch + 1,
                             'iteration': run.progress.iteration}
        if ranks.rank() == 0:
            keep_best(run, learnt, margins, calibrated)
            run.log.info(note)
    run.evaluated = time.perf_counter()
    if ranks.rank() == 0 and run.evaluated - run.drawn > DRAW_SECONDS:
        draw(run)


def evaluate(run):
    """What the averaged network says of all validation records: float32 array (n, classes)."""
    fetch_losses(run)
    ranks.average_statistics(run.average.network)
    devices.release_freed_memory()
    network = several_views(plain_network(run.average.network), run.config.predict.views)
    logits = predict_logits(network, run.data.val_pictures, run.config.predict.batch_size,
                            run.data.workers)
    devices.release_freed_memory()
    logits = ranks.gather(logits, len(run.data.val_targets))
    if not np.isfinite(logits).all():
        raise_not_finite(run, 'answers of the network')
    return logits


def log_evaluation(run, epoch, scores):
    """Write the original's [EVAL] line and a row of history."""
    run.log.info(f'[EVAL] epoch: {epoch + 1} avg accuracy: {scores["accuracy"]:.4f}, f1: '
                 f'{scores["f1"]:.4f}, auc: {scores["auc"]:.4f}, loss: {scores["loss"]:.4f}')
    run.progress.history.append(best_model.without_nan({
        'iteration': run.progress.iteration, 'epoch': epoch + 1, 'eval_loss': scores['loss'],
        'accuracy': scores['accuracy'], 'f1': scores['f1'], 'auc': scores['auc']}))


def keep_best(run, learnt, margins, calibrated):
    """Have the model, all that prediction needs and a picture of its scores written."""
    import paddle
    config, data, task, best = run.config, run.data, run.task, run.progress.best
    kept = {'epoch': best['epoch'], 'iteration': best['iteration'], 'paddle': paddle.__version__,
            **learnt}
    table = tasks.validation_table(data.val_names, data.val_targets, margins, task)
    run.background.submit(best_model.save_best, run.best_folder, [weights_of(run.average.network)],
                          config, kept, table)
    title = f'Best model: epoch {best["epoch"]}, {metrics.in_words(learnt["validation"])}'
    answer = Answer(task, data.val_names, tasks.probabilities_of(calibrated),
                    np.asarray(learnt['threshold']), data.val_targets)
    run.background.submit(plots.draw_validation, os.path.join(config.output, 'validation.png'),
                          title, answer, tasks.probabilities_of(margins))
    run.log.info(f'[EVAL] the best model so far is saved in {run.best_folder}')


def draw(run):
    """Have history.csv and curves.png written."""
    history = pd.DataFrame(run.progress.history, columns=list(plots.COLUMNS))
    run.background.submit(files.write_table, os.path.join(run.config.output, 'history.csv'),
                          history)
    run.background.submit(plots.draw_curves, history,
                          os.path.join(run.config.output, 'curves.png'))
    run.drawn = time.perf_counter()


def is_time_to_save(run):
    """After train.save_interval minutes, and at the end."""
    minutes = (time.perf_counter() - run.saved) / 60
    due = minutes > run.config.train.save_interval
    return run.progress.iteration == run.config.train.iters or ranks.largest(int(due)) == 1


def save_or_stop(run, stop):
    """Save where it is time or the user asked to stop, and stop; all processes at once."""
    signum = ranks.largest(stop.signum)
    if signum or is_time_to_save(run):
        with run.chrono.part('saving'):
            save(run)
    if signum:
        stop_run(run, signum)


def save(run):
    """Have all that a run needs to go on written into output/last; after the best model, so that
    a kill in between leads back here, not past it."""
    fetch_losses(run)
    run.saved = time.perf_counter()
    if ranks.rank() > 0:
        return
    run.progress.log_bytes = os.path.getsize(os.path.join(run.config.output, 'train.log'))
    state = {'iteration': run.progress.iteration, 'progress': dataclasses.asdict(run.progress),
             'fingerprint': run.data.fingerprint}
    arrays = state_arrays(run.average, run.optimizer, run.scaler)
    run.background.submit(checkpoint.save_last, run.last_folder, state, arrays, run.fresh)
    run.fresh = False


def stop_run(run, signum):
    """Wait until all is written, say how to go on, and end."""
    if ranks.rank() == 0:
        draw(run)
    run.background.wait()
    go_on = settings.command('train.py', run.arguments, 'train.resume=auto')
    run.log.info(f'stopped after iteration {run.progress.iteration}, all of it is in '
                 f'{run.last_folder}; go on with: {go_on}')
    if run.progress.best:
        run.log.info(describe_best(run))
    ranks.largest(0)  # wait for rank 0: the launcher ends all processes as soon as one has ended
    raise Stopped(signum)


def finish(run):
    """Wait until all is written, and say what is next."""
    draw(run)
    run.background.wait()
    run.log.info(f'finished after {run.chrono.shares()}; curves: {run.config.output}/curves.png')
    run.log.info(describe_best(run))


def describe_best(run):
    best = run.progress.best
    predict = settings.command('predict.py', run.arguments, without=('train.resume',))
    there = f'best {run.config.train.best_metric} {best["score"]:.4f} at epoch {best["epoch"]}, ' \
            f'in {run.best_folder}'
    return there if run.config.train.folds > 1 else f'{there}; next: {predict}'


def tell_finished(run):
    """The run that is asked for is finished already."""
    best_model.find_best(run.config.output)  # refuses where it is gone
    draw(run)  # a kill right after the last save has left the curves of before
    length = 'epochs' if run.config.train.epochs else 'iters'
    longer = settings.command('train.py', run.arguments, 'train.resume=extend',
                              f'train.{length}={2 * getattr(run.config.train, length)}')
    run.log.info(f'this run is finished ({run.progress.iteration} iterations); longer: {longer}; '
                 'anew: -o train.resume=never')
    run.log.info(describe_best(run))


if __name__ == '__main__':
    errors.run(main)
