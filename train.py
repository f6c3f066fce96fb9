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
os.environ['MPLBACKEND'] = 'agg'  # one that is not there would end the import of matplotlib

import numpy as np
import pandas as pd

from models import build_model, checkpoint, ranks, to_input
from models import device as devices
from models.inference import plain_network, predict_logits, several_views
from models.loss import compute_loss, weigh_classes
from models.optimizer import learning_rate, make_optimizer
from models.pretrained import load_pretrained
from models.weights import Average, LastGood, set_state, state_arrays, weights_of
from utils.answers import calibration, metrics, tasks
from utils.ecg import records
from utils.pictures import loading
from utils.pictures.render import read_stamp, settings_of, shape_of
from utils.reports import plots
from utils.running import errors, files, machine, settings
from utils.running.background import Background
from utils.running.errors import Stopped, StopRequest, UserError
from utils.running.log import Chrono, clock, open_log

MOST_BAD = 5  # times in a row that the state of before is put back, before training is given up
EVALUATE_SECONDS = 20  # of training between two evaluations on a GPU, at least
MOST_CURVES = 12  # classes whose ROC is drawn
DRAW_SECONDS = 30  # between two drawings of the curves, at least
COLUMNS = ('iteration', 'epoch', 'learning_rate', 'train_loss', 'eval_loss', 'accuracy', 'f1',
           'auc')


@dataclass
class Progress:
    """How far a run is: plain values, JSON in the checkpoint.

    best: the best model's value, score, epoch and iteration; history: rows of history.csv
    losses: of the iterations since the last line of the log; skipped: iterations taken back
    bad: how often in a row; log_bytes: of train.log
    """
    iteration: int = 0
    best: Optional[dict] = None
    history: list = field(default_factory=list)
    losses: list = field(default_factory=list)
    skipped: int = 0
    bad: int = 0
    log_bytes: int = 0


@dataclass(frozen=True)
class Data:
    """Pictures and targets of both parts; of the validation pictures, those of this process.

    fingerprint: {setting: value} that a run must have as it was to go on
    """
    pictures: loading.Pictures
    targets: np.ndarray
    val_pictures: loading.Pictures
    val_targets: np.ndarray
    val_names: list
    epoch_iters: int
    workers: int
    fingerprint: dict
    notes: list


@dataclass
class Run:
    """All that a training is made of.

    losses: Tensors since the last line of the log; checked: the iteration after which all numbers
    were last looked at; evaluated, saved, drawn: when, as time.perf_counter() tells it
    """
    config: settings.Config
    arguments: object
    data: Data
    device: str
    progress: Progress
    log: object
    average: Average
    network: object
    optimizer: object
    scaler: object
    last_good: LastGood
    background: Background
    class_weights: Optional[np.ndarray]
    fresh: bool
    losses: list = field(default_factory=list)
    checked: int = 0
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
    try:
        with lock:
            for fold in range(config.train.folds):
                train_fold(config, arguments, device, words, fold)
            if first and config.train.folds > 1:
                join_folds(config, arguments)
            ranks.largest(0)  # wait for rank 0: the launcher ends all as soon as one has ended
            return 0
    except (RuntimeError, MemoryError, SystemError) as error:
        if not devices.is_out_of_memory(error):
            raise
        raise UserError(f'out of memory on {device} with train.batch_size '
                        f'{config.train.batch_size} and render.size {config.render.size}; what was '
                        'saved is whole: lower train.batch_size (half as many pictures take half '
                        'the memory), or draw smaller pictures with process.py -o render.size=320 '
                        '/ 显存或内存不足：请减小 train.batch_size 或 render.size，已保存的都完好') from None


def add_arguments(parser):
    parser.add_argument('--resume', action='store_true',
                        help='insist on going on from output/last; without it a run goes on if '
                             'there is one to go on from')


def config_of_fold(config, fold):
    """The settings of one fold: each has a folder of its own where there are several."""
    if config.train.folds == 1:
        return config
    output = os.path.join(config.output, 'folds', str(fold + 1))
    os.makedirs(output, exist_ok=True)
    return dataclasses.replace(config, output=output)


def train_fold(config, arguments, device, words, fold):
    """Train the network of one fold, or what is left of it."""
    import paddle
    # The guard lets each fold's parameters have the names they have in a process of its own.
    with Background() as background, paddle.utils.unique_name.guard():
        run = prepare(config_of_fold(config, fold), arguments, device, words, background, fold)
        if run.progress.iteration < config.train.iters:
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
            if iteration % config.log_interval == 0 or end_of_epoch:
                keep_finite(run)
        if iteration % config.log_interval == 0:
            log_training(run, epoch)
        if is_time_to_evaluate(run, end_of_epoch):
            with run.chrono.part('evaluation'):
                evaluate_and_keep(run, epoch)
        signum = ranks.largest(stop.signum)  # all stop at the same iteration, or some would wait
        if signum or is_time_to_save(run):
            with run.chrono.part('saving'):
                save(run)
        run.background.check()
        if signum:
            stop_run(run, signum)
    if ranks.rank() == 0:
        finish(run)
    errors.handle_signals()
    signum = ranks.largest(stop.signum)
    if signum:  # it came too late for this fold; there may be others
        raise Stopped(signum)


def load_data(config, arguments, fold):
    """Find the labelled pictures, check them and their labels, and part them.

    fold: int, counted from 0, the part of train.folds that validates
    Returns: Data
    Raises: UserError before anything is trained
    """
    task, root, world = tasks.TASKS[config.task], config.data.root, ranks.world()
    names = loading.list_pictures(root, 'train', settings_of(config.render),
                                 settings.command('process.py', arguments))
    reference = os.path.join(root, records.REFERENCE)
    targets = tasks.read_reference(reference, names, task)
    if not task.multi_label and len(np.unique(targets)) < 2:
        raise UserError(f'{reference}: all {len(names)} tags are {targets[0]}, expected some 0 '
                        '(normal) and some 1 (abnormal)')
    paths = np.array([os.path.join(root, 'train', f'{name}.png') for name in names])
    if config.train.folds > 1:
        sizes = [len(part) for part in np.array_split(names, config.train.folds)]
    else:
        held_out = loading.validation_size(len(names), config.data.validation_fraction)
        sizes, fold = [len(names) - held_out, held_out], 1
    part = loading.split(targets, sizes, loading.read_patients(root, names), config.seed)
    training, validation = np.flatnonzero(part != fold), np.flatnonzero(part == fold)
    epoch_iters = len(training) // config.train.batch_size
    if epoch_iters < 1 or config.train.batch_size % world:
        raise UserError(f'train.batch_size is {config.train.batch_size}, with {len(training)} '
                        f'training records and {world} process(es); expected at most as many as '
                        'records, and a multiple of the processes')
    shape, workers = shape_of(config.render), machine.workers_of(config.data.workers)
    cached = loading.fits_in_memory(config.data.cache, len(names) * world, shape)
    pixels_per_mv = config.render.size / len(records.LEADS) / config.render.mv_per_lead
    augmentation = config.augment, pixels_per_mv, config.seed
    own = paths[validation[ranks.part_of(len(validation))]]
    checksums = [read_stamp(path)['record'] for path in paths]
    identity = zlib.crc32(repr((names, checksums)).encode() + targets.tobytes())
    return Data(
        pictures=loading.Pictures(paths[training], shape, cached, augmentation),
        targets=targets[training], val_pictures=loading.Pictures(own, shape, cached),
        val_targets=targets[validation], val_names=[names[index] for index in validation],
        epoch_iters=epoch_iters, workers=workers,
        fingerprint={**settings.that_matter(config), 'fold': fold,
                     'data': f'{len(names)} records, checksum {identity:08x}'},
        notes=[f'{len(training)} records train, {len(validation)} validate; {epoch_iters} '
               f'iterations an epoch; {workers} reading thread(s); decoded pictures are '
               + ('kept in memory' if cached else 'read anew in each epoch')])


def prepare(config, arguments, device, words, background, fold):
    """Make all that a training needs, or take it up where an earlier one stopped.

    Returns: Run
    """
    import paddle
    data = load_data(config, arguments, fold)
    state, arrays, notes = find_checkpoint(config, arguments, data.fingerprint)
    progress = Progress(**state['progress']) if state else Progress()
    if not ranks.agree(zlib.crc32(repr((progress.iteration, data.fingerprint)).encode())):
        raise UserError(f'the {ranks.world()} processes do not have the same settings, pictures in '
                        f'{config.data.root} and newest checkpoint in {config.output}; on several '
                        'machines, both folders must be shared by all, or copied to all')
    task = tasks.TASKS[config.task]
    model = build_model(config.model.name, len(task.class_names), config.seed)
    optimizer = make_optimizer(config.train, model)
    amp = device != 'cpu' if config.train.amp == 'auto' else config.train.amp
    scaler = paddle.amp.GradScaler(enable=amp)
    if device != 'cpu':
        devices.tune_gpu(amp)
    if not state:
        notes += load_pretrained(model, config.model.name, config.model.pretrained,
                                 settings_of(config.render), task)
    average = Average(model, build_model(config.model.name, len(task.class_names), config.seed),
                      config.train.ema)
    last_good = LastGood(average, optimizer)
    if state:
        set_state(average, optimizer, scaler, arrays, os.path.join(config.output, 'last'))
        last_good.take(arrays)
    if config.train.iters <= config.train.warmup_iters:
        notes.append(f'warning: train.iters {config.train.iters} end within train.warmup_iters '
                     f'{config.train.warmup_iters}: the learning rate never gets to '
                     f'{config.train.learning_rate:g}')
    notes.append(f'mixed precision {"on" if amp else "off"}, {ranks.world()} process(es)')
    log = open_run_log(config, progress.log_bytes)
    for line in (words, settings.describe(config), *data.notes, *notes):
        log.info(line)
    return Run(
        config=config, arguments=arguments, data=data, device=device, progress=progress, log=log,
        average=average, network=paddle.DataParallel(model) if ranks.world() > 1 else model,
        optimizer=optimizer, scaler=scaler, last_good=last_good,
        background=background, fresh=state is None, checked=progress.iteration,
        class_weights=weigh_classes(data.targets, config.train.class_weights, task))


def find_checkpoint(config, arguments, fingerprint):
    """The newest whole checkpoint, for a run that goes on.

    Returns: (state, arrays, notes) as checkpoint.load_last(); state None for a fresh run
    Raises: UserError where a setting that matters has changed, or there is none to go on from
    """
    last = os.path.join(config.output, 'last')
    insist = arguments.resume or config.train.resume == 'extend'
    if config.train.resume == 'never' and not insist:
        return None, None, []
    state, arrays, notes = checkpoint.load_last(last)
    if state is None and insist:
        raise UserError(f'{last}: there is no checkpoint to go on from; start without --resume and '
                        '-o train.resume=extend')
    if state is None:
        return state, arrays, notes
    there = state['fingerprint']
    changed = [f'{key} {there.get(key, settings.before(key))} there, {value} now'
               for key, value in {**settings.REMOVED, **fingerprint}.items()
               if there.get(key, settings.before(key)) != value
               and not (key == 'train.iters' and config.train.resume == 'extend')]
    if changed:
        raise UserError(f'{last} is of a run with other settings: {"; ".join(changed)}; set them '
                        'back to go on, or start afresh with -o train.resume=never, or in another '
                        'folder with -o output=FOLDER; only train.iters can be raised, with -o '
                        'train.resume=extend / 设置与上次训练不同：改回原来的设置可接着训练；或用 -o '
                        'train.resume=never 重新训练，或用 -o output=FOLDER 换一个文件夹')
    iteration = state['iteration']
    if iteration < config.train.iters:
        rate = learning_rate(iteration + 1, config.train)
        notes.append(f'going on after iteration {iteration} of {config.train.iters}, from {last}, '
                     f'with learning rate {rate:.10f}; to start afresh instead: -o '
                     'train.resume=never')
    return state, arrays, notes


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
    batches = loading.read_batches(run.data.pictures, batches_left(run), run.data.workers)
    while True:
        with run.chrono.part('reading'):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def batches_left(run):
    """(epoch, indices) of each iteration that is left, this process's part of each batch."""
    data, config = run.data, run.config
    size, order_of = config.train.batch_size, None
    for iteration in range(run.progress.iteration, config.train.iters):
        epoch, at = divmod(iteration, data.epoch_iters)
        if order_of != epoch:
            order_of, order = epoch, loading.epoch_order(len(data.targets), config.seed, epoch)
        yield epoch, order[at * size:(at + 1) * size][ranks.rank()::ranks.world()]


def step(run, batch, pixels):
    """One iteration: forward, loss, backward, step. What is not finite is seen in keep_finite()."""
    import paddle
    run.progress.iteration += 1
    run.optimizer.set_lr(learning_rate(run.progress.iteration, run.config.train))
    with paddle.amp.auto_cast(enable=run.scaler.is_enable()):
        logits = run.network(to_input(pixels))
    loss = compute_loss(logits.astype('float32'), run.data.targets[batch], run.class_weights,
                        run.config.train.label_smoothing, run.task)
    run.scaler.scale(loss).backward()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.optimizer.clear_grad()
    run.average.follow(run.progress.iteration)
    run.losses.append(loss.detach())
    run.chrono.iterations += 1


def keep_finite(run):
    """Fetch the losses from the device, and look at all numbers: a network that holds NaN or
    infinite ones gets its last good state back, and its iterations since then count as skipped.
    """
    import paddle
    progress, since = run.progress, run.progress.iteration - run.checked
    if since == 0:
        return
    losses = ranks.mean(paddle.stack(run.losses)).numpy().ravel().tolist()
    progress.losses += losses
    run.losses = []
    run.checked = progress.iteration
    finite = ranks.largest(int(not run.last_good.is_finite())) == 0
    progress.bad = 0 if finite and np.isfinite(losses).any() else progress.bad + 1
    if finite:
        run.last_good.keep()
    elif run.last_good.put_back():
        progress.skipped += since
        run.log.info(f'the network was NaN or infinite: put back to {since} iterations before, '
                     f'{progress.skipped} skipped so far')
    if progress.bad == MOST_BAD or run.last_good.copies is None:
        raise_not_finite(run, 'the loss or the weights')


def raise_not_finite(run, what):
    rate = run.config.train.learning_rate
    raise UserError(f'{what} were not finite, up to iteration {run.progress.iteration}; the best '
                    f'and last models are from before: lower train.learning_rate ({rate:g}), or '
                    'try -o train.amp=false, then start afresh with -o train.resume=never')


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
    config, data, progress, task = run.config, run.data, run.progress, run.task
    keep_finite(run)
    ranks.average_statistics(run.average.network)
    devices.release_freed_memory()
    network = several_views(plain_network(run.average.network), config.predict.views)
    logits = predict_logits(network, data.val_pictures, config.predict.batch_size, data.workers)
    devices.release_freed_memory()
    logits = ranks.gather(logits, len(data.val_targets))
    if not np.isfinite(logits).all():
        raise_not_finite(run, 'answers of the network')
    margins = tasks.margins_of(logits, task)
    learnt, calibrated, note = learn_from(data.val_targets, margins, config)
    scores = learnt['validation']
    loss = compute_loss(paddle.to_tensor(logits), data.val_targets, None, 0.0, task)
    scores['loss'] = float(loss)
    run.log.info(f'[EVAL] epoch: {epoch + 1} avg accuracy: {scores["accuracy"]:.4f}, f1: '
                 f'{scores["f1"]:.4f}, auc: {scores["auc"]:.4f}, loss: {scores["loss"]:.4f}')
    progress.history.append(checkpoint.without_nan({
        'iteration': progress.iteration, 'epoch': epoch + 1, 'eval_loss': scores['loss'],
        'accuracy': scores['accuracy'], 'f1': scores['f1'], 'auc': scores['auc']}))
    metric = config.train.best_metric
    value = -scores[metric] if metric == 'loss' else scores[metric]
    if progress.best is None or not value <= progress.best['value']:
        progress.best = {'value': value, 'score': scores[metric], 'epoch': epoch + 1,
                         'iteration': progress.iteration}
        if ranks.rank() == 0:
            keep_best(run, learnt, margins, calibrated)
            run.log.info(note)
    run.evaluated = time.perf_counter()
    if ranks.rank() == 0 and run.evaluated - run.drawn > DRAW_SECONDS:
        draw(run)


def learn_from(targets, margins, config):
    """What records that were not trained on tell of how to decide.

    Returns: (learnt, calibrated, note): dict for metrics.json; the others as calibrate() has them
    """
    temperature, calibrated, note = calibration.calibrate(margins, targets, config.seed)
    thresholds = metrics.tune_thresholds(targets, margins / temperature)
    scores = metrics.score(targets, tasks.probabilities_of(margins / temperature), thresholds,
                           tasks.TASKS[config.task])
    learnt = {'temperature': np.asarray(temperature).tolist(), 'threshold': thresholds.tolist(),
              'validation': scores}
    return learnt, calibrated, note


def keep_best(run, learnt, margins, calibrated):
    """Have the model, all that prediction needs and a picture of its scores written."""
    import paddle
    config, data, task, best = run.config, run.data, run.task, run.progress.best
    scores = learnt['validation']
    kept = {'epoch': best['epoch'], 'iteration': best['iteration'], 'paddle': paddle.__version__,
            **learnt}
    table = tasks.validation_table(data.val_names, data.val_targets, margins, task)
    run.background.submit(checkpoint.save_best, run.best_folder, [weights_of(run.average.network)],
                          config, kept, table)
    title = (f'Best model: epoch {best["epoch"]}, F1 {scores["f1"]:.3f}, AUC {scores["auc"]:.3f}, '
             f'accuracy {scores["accuracy"]:.3f}')
    run.background.submit(draw_validation, config.output, data.val_targets, margins, calibrated,
                          learnt['threshold'], task, title)
    run.log.info(f'[EVAL] the best model so far is saved in {run.best_folder}')


def draw_validation(output, targets, margins, calibrated, thresholds, task, title):
    """Draw output/validation.png: the answers for records that were not trained on."""
    path = os.path.join(output, 'validation.png')
    both = [tasks.probabilities_of(each) for each in (margins, calibrated)]
    decisions = tasks.decide(both[1], np.asarray(thresholds), task)
    if task.multi_label:
        shown = slice(MOST_CURVES)
        plots.draw_validation_classes(targets[:, shown], [each[:, shown] for each in both],
                                      decisions[:, shown], task.class_names[shown], title, path)
    else:
        plots.draw_validation(targets, both, decisions, thresholds, title, path)


def join_folds(config, arguments):
    """Score all records out of fold, and put the networks of all folds into one best_model."""
    import paddle
    task, networks, tables = tasks.TASKS[config.task], [], []
    for fold in range(config.train.folds):
        folder = checkpoint.find_best(config_of_fold(config, fold).output)
        networks += checkpoint.load_best(folder)[0]
        tables.append(checkpoint.load_validation(folder, task))
    for number, table in enumerate(tables, 1):
        targets, margins = tasks.of_validation_table(table, task)
        auc = metrics.score(targets, tasks.probabilities_of(margins), 0.5, task)['auc']
        print(f'fold {number}: {len(table)} records, AUC {auc:.4f}')
    together = pd.concat(tables, ignore_index=True).sort_values('name')
    targets, margins = tasks.of_validation_table(together, task)
    files.write_table(os.path.join(config.output, 'out_of_fold.csv'), together)
    learnt, calibrated, note = learn_from(targets, margins, config)
    thresholds, scores = np.asarray(learnt['threshold']), learnt['validation']
    probabilities = tasks.probabilities_of(margins / np.asarray(learnt['temperature']))
    print(f'out of fold, {len(together)} records:\n{note}')
    for line in metrics.describe(targets, probabilities, thresholds, config.seed, task):
        print(line)
    kept = {'epoch': -1, 'iteration': config.train.iters, 'paddle': paddle.__version__, **learnt}
    folder = os.path.join(config.output, 'best_model')
    checkpoint.save_best(folder, networks, config, kept, together)
    draw_validation(config.output, targets, margins, calibrated, thresholds, task,
                    f'Out of fold, {config.train.folds} networks: F1 {scores["f1"]:.3f}, AUC '
                    f'{scores["auc"]:.3f}, accuracy {scores["accuracy"]:.3f}')
    print(f'{folder} holds the {len(networks)} networks; next: '
          + settings.command('predict.py', arguments, without=('train.resume',)))


def draw(run):
    """Have history.csv and curves.png written."""
    history = pd.DataFrame(run.progress.history, columns=list(COLUMNS))
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


def save(run):
    """Have all that a run needs to go on written into output/last; after the best model, so that
    a kill in between leads back here, not past it."""
    keep_finite(run)
    run.saved = time.perf_counter()
    if ranks.rank() > 0:
        return
    log_file = os.path.join(run.config.output, 'train.log')
    run.progress.log_bytes = os.path.getsize(log_file)
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
    checkpoint.find_best(run.config.output)  # refuses where it is gone
    longer = settings.command('train.py', run.arguments, 'train.resume=extend',
                              f'train.iters={2 * run.config.train.iters}')
    run.log.info(f'this run is finished ({run.progress.iteration} iterations); longer: {longer}; '
                 'anew: -o train.resume=never')
    run.log.info(describe_best(run))


if __name__ == '__main__':
    errors.run(main)
