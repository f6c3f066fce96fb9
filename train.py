"""Train the network on the labelled pictures: data.root/train/*.png and trainreference.csv -> output/best_model.

The same command goes on where an earlier run with the same settings stopped. On several GPUs:
python -m paddle.distributed.launch train.py
"""
import zlib  # before Paddle, see utils/runtime.py

import math
import os
import time
from dataclasses import dataclass

import numpy as np

from models import build_model
from models.pretrained import load_pretrained
from utils import checkpoint
from utils import config as settings
from utils import errors, export, files, images, metrics, plots, ranks, records, runtime, tasks
from utils.errors import Stopped, UserError
from utils.inference import compute_loss, plain_network, predict_logits, probabilities_of, weigh_classes
from utils.lock import lock_folder
from utils.optimizers import make_optimizer, numpy_state
from utils.progress import Log, Timer, clock
from utils.render import read_stamp, settings_of
from utils.schedule import learning_rate
from utils.signals import StopRequest

MAX_BAD_LOSSES = 5  # in a row, before training is given up
TIMED_ITERATIONS = 2  # on a CPU, after which the whole run's time is foretold
# What may change from a run to its resumption: it does not touch what is learnt, or only says where things are.
FREE_SETTINGS = ('device', 'output', 'data.source', 'data.root', 'data.workers', 'data.cache', 'train.amp',
                 'train.log_interval', 'train.save_interval', 'train.resume', 'predict.batch_size',
                 'predict.threshold', 'predict.precision', 'predict.answer_format', 'predict.answer')


def main():
    arguments, config = settings.parse_arguments(__doc__, add_arguments)
    paddle = runtime.import_paddle()
    errors.handle_signals()
    device, reason = runtime.choose_device(config.device)
    if paddle.distributed.get_world_size() > 1:
        ranks.connect(device)
    os.makedirs(config.output, exist_ok=True)
    try:
        if paddle.distributed.get_rank() > 0:
            return train(config, arguments.resume, device, reason)
        with lock_folder(config.output, 'output'):
            return train(config, arguments.resume, device, reason)
    except (RuntimeError, MemoryError, SystemError) as error:
        if not runtime.is_out_of_memory(error):
            raise
        raise UserError(f'out of memory on {device} with train.batch_size {config.train.batch_size} and render.size '
                        f'{config.render.size}; what was saved is whole: lower train.batch_size (half as many pictures '
                        'take half the memory), or draw smaller pictures with process.py -o render.size=...') from None


def add_arguments(parser):
    parser.add_argument('--resume', action='store_true',
                        help='insist on going on from output/last; without it a run goes on if there is one to go on from')


def train(config, insist_on_resume, device, reason):
    import paddle
    stop = StopRequest()
    rank, world = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    task = tasks.TASKS[config.task]
    data = load_data(config, task, rank, world)
    run, notes = find_run(config, insist_on_resume, data.fingerprint)
    matters = [item for item in data.fingerprint.items() if item[0] not in FREE_SETTINGS]
    if not ranks.agree(zlib.crc32(repr((run['iteration'], matters)).encode())):
        raise UserError(f'the {world} processes do not have the same settings, pictures in {config.data.root} and newest '
                        f'checkpoint in {last_folder(config)}; on several machines, both folders must be shared by all, '
                        'or copied to all from the first')
    log = open_log(config, run, rank)
    for line in (runtime.describe(device, reason), settings.describe(config), *notes, *data.notes):
        log.info(line)

    # Model, optimizer, precision.
    model = build_model(config.model.name, len(task.class_names), config.seed)
    if run['iteration'] == 0:
        for line in load_pretrained(model, config.model.name, config.model.pretrained, settings_of(config.render)):
            log.info(line)
    else:
        checkpoint.set_weights(model, run.pop('weights'), last_folder(config))
    if run['iteration'] >= config.train.iters:
        if not os.path.isdir(best_folder(config)):
            raise UserError(f'{last_folder(config)}: this run is finished, and {best_folder(config)} is gone; train anew '
                            'with: python train.py -o train.resume=never')
        if rank == 0:
            export_best(config, task, log)
        log.info(f'this run is finished ({config.train.iters} iterations); predict with: python predict.py; to train '
                 'anew: python train.py -o train.resume=never')
        return 0
    optimizer = make_optimizer(config.train, model)
    amp = device != 'cpu' if config.train.amp == 'auto' else config.train.amp
    if device != 'cpu':
        runtime.tune_gpu(amp)
    scaler = paddle.amp.GradScaler(enable=amp)
    if run['iteration']:
        checkpoint.check_optimizer(last_folder(config), model, run['optimizer'])
        optimizer.set_state_dict(run.pop('optimizer'))
        scaler_state = run.pop('scaler')
        if scaler_state:  # empty after training without AMP, as on a CPU
            scaler.load_state_dict(scaler_state)
    network = paddle.DataParallel(model) if world > 1 else model
    class_weights = weigh_classes(data.train_targets, config.train.class_weights, task)
    log.info(f'mixed precision {"on" if amp else "off"}, {world} process(es)')

    statistics = finite_statistics(model, None)
    timer, first, saved = Timer(), run['iteration'], time.perf_counter()
    while run['iteration'] < config.train.iters:
        epoch, batches = rest_of_epoch(run['iteration'], data.epoch_iters, len(data.train_targets), config, rank, world)
        network.train()
        timer.ask()
        for batch, pixels in zip(batches, images.read_batches(data.train_pictures, batches, epoch, data.workers)):
            timer.got()

            # Step.
            run['iteration'] += 1
            iteration, lr = run['iteration'], learning_rate(run['iteration'], config.train)
            optimizer.set_lr(lr)
            with paddle.amp.auto_cast(enable=amp):
                logits = network(images.to_input(pixels))
            loss = compute_loss(logits.astype('float32'), data.train_targets[batch], class_weights,
                                config.train.label_smoothing, task)
            scaler.scale(loss).backward()
            loss = ranks.mean(loss.detach())
            if amp or math.isfinite(float(loss + sum_of_squares(model))):  # with AMP the scaler looks, and skips the step
                scaler.step(optimizer)
                scaler.update()
            else:
                loss = math.nan
            optimizer.clear_grad()
            run['losses'].append(loss)
            timer.done()

            # Log.
            end_of_epoch = iteration % data.epoch_iters == 0 or iteration == config.train.iters
            if iteration == first + TIMED_ITERATIONS < config.train.iters and device == 'cpu':
                tell_time(log, timer.batch_cost, iteration, config)
            if iteration % config.train.log_interval == 0 or end_of_epoch:
                check_losses(run, lr, config)
                statistics = finite_statistics(model, statistics)
            if iteration % config.train.log_interval == 0:
                log_training(log, run, epoch, lr, timer, config)

            # Evaluate, save. The best model first: a kill in between leads back here, not past it.
            before = time.perf_counter()
            if end_of_epoch:
                evaluate_and_keep(model, data, run, epoch, lr, config, task, rank, log)
            signum = ranks.largest(stop.signum)  # all processes stop at the same iteration, or some would wait for ever
            due = before - saved > config.train.save_interval * 60
            if rank == 0 and (end_of_epoch or due or signum):
                statistics = finite_statistics(model, statistics)
                save_last(model, optimizer, scaler, run, data.fingerprint, config, log)
                saved = time.perf_counter()
                timer.pause(saved - before)
            if signum:
                log.info(how_to_go_on(run, config))
                ranks.largest(0)  # wait for rank 0's save: the launcher ends all processes as soon as one has ended
                raise Stopped(signum)
            network.train()
            timer.ask()
    if rank > 0:
        return 0
    export_best(config, task, log)
    log.info(f'finished; {describe_best(run, config)}; curves: {config.output}/curves.png; next: python predict.py')
    return 0


@dataclass(frozen=True)
class TrainingData:
    """Pictures and targets of both parts; of the validation pictures, those that this process evaluates.

    fingerprint: {setting: value} that a resumed run must match
    """
    train_pictures: images.Pictures
    train_targets: np.ndarray
    val_pictures: images.Pictures
    val_targets: np.ndarray
    val_names: list
    epoch_iters: int
    workers: int
    fingerprint: dict
    notes: list


def load_data(config, task, rank, world):
    """Find the labelled pictures, check them and their labels, and part them into training and validation.

    Raises: UserError before anything is trained
    """
    names = images.list_pictures(config.data.root, 'train', settings_of(config.render), 'python process.py')
    reference = os.path.join(config.data.root, records.REFERENCE)
    targets = tasks.read_reference(reference, names, task)
    if not task.multi_label and len(np.unique(targets)) < 2:
        raise UserError(f'{reference}: all {len(names)} tags are {targets[0]}, expected some 0 (normal) and some 1 '
                        '(abnormal)')
    paths = np.array([os.path.join(config.data.root, 'train', f'{name}.png') for name in names])
    train, val = images.split(targets, config.data.validation_fraction, config.seed)
    epoch_iters = len(train) // config.train.batch_size
    if epoch_iters < 1 or config.train.batch_size % world:
        raise UserError(f'train.batch_size is {config.train.batch_size}, with {len(train)} training records and {world} '
                        'process(es); expected at most as many as records, and a multiple of the processes')
    workers = runtime.usable_cores() if config.data.workers == 'auto' else config.data.workers
    cached = images.fits_in_memory(config.data.cache, len(names) * world, config.render.size)
    pixels_per_mv = config.render.size / len(records.LEADS) / config.render.mv_per_lead
    stamps = [read_stamp(path)['record'] for path in paths]
    data_id = zlib.crc32(repr((names, stamps)).encode() + targets.tobytes())
    notes = [f'{len(train)} records train, {len(val)} validate; {epoch_iters} iterations an epoch',
             f'{workers} reading thread(s), no shared memory needed; decoded pictures are '
             + ('kept in memory' if cached else 'read anew in each epoch')]
    return TrainingData(
        images.Pictures(paths[train], config.render.size, cached, (config.augment, pixels_per_mv, config.seed)),
        targets[train], images.Pictures(paths[val[ranks.part_of(len(val), rank, world)]], config.render.size, cached),
        targets[val],
        [names[i] for i in val], epoch_iters, workers,
        {**settings.flatten(config), 'data': f'{len(names)} records, checksum {data_id:08x}'}, notes)


def find_run(config, insist, fingerprint):
    """The state of an earlier run to go on from, or of a fresh one.

    Returns: (run, notes); run: dict as checkpoint.STATE names it, without fingerprint, or, of a fresh run, with fresh in
        the place of weights, optimizer and scaler; notes: list of str
    Raises: UserError where a setting that matters has changed, or --resume finds nothing
    """
    fresh = {'iteration': 0, 'best': None, 'history': [], 'losses': [], 'skipped': 0, 'bad': 0, 'log_bytes': 0,
             'fresh': True}
    if config.train.resume == 'never' and not insist:
        return fresh, []
    last = last_folder(config)
    run, notes = checkpoint.load_last(last)
    if run is None:
        if insist:
            raise UserError(f'--resume: there is no checkpoint in {last} to go on from; run without --resume to start')
        return fresh, notes
    there = run.pop('fingerprint')
    changed = [f'{key} {there.get(key)} there, {value} now' for key, value in fingerprint.items()
               if key not in FREE_SETTINGS and there.get(key) != value]
    if changed:
        raise UserError(f'{last} is of a run with other settings: {"; ".join(changed)}; set them back to go on, or start '
                        'afresh with -o train.resume=never, or in another folder with -o output=FOLDER')
    notes.append(f'going on after iteration {run["iteration"]} of {config.train.iters}, from {last}; to start afresh '
                 'instead: -o train.resume=never')
    return run, notes


def open_log(config, run, rank):
    """Clear what killed runs left, and open output/train.log; a resumed run's log goes on without doubled lines."""
    if rank > 0:
        return Log(None, screen=False)
    last, best = last_folder(config), best_folder(config)
    checkpoint.recover_folder(best)
    files.clear_partials(config.output)
    files.clear_partials(last)
    return Log(os.path.join(config.output, 'train.log'), keep=run['log_bytes'])


def rest_of_epoch(iteration, epoch_iters, count, config, rank, world):
    """What is left of the epoch that the next iteration is in.

    Returns: (epoch, batches); epoch: int from 0; batches: list of int arrays, this process's part of each batch
    """
    epoch, done = divmod(iteration, epoch_iters)
    order = images.epoch_order(count, config.seed, epoch)
    size, until = config.train.batch_size, min(epoch_iters, done + config.train.iters - iteration)
    return epoch, [order[at * size:(at + 1) * size][rank::world] for at in range(done, until)]


def sum_of_squares(model):
    """Of all gradients, a Tensor; it is finite if all of them are, which a finite loss alone does not promise."""
    import paddle
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return paddle.add_n([(gradient * gradient).sum() for gradient in gradients])


def finite_statistics(model, before):
    """A copy of BatchNorm's running statistics; where they are not finite, the ones of before are put back.

    A batch whose step is skipped has already spoilt them, and no later batch would mend a NaN.
    before: what this function returned last, or None
    """
    tensors = ranks.statistics_of(model)
    copy = [np.array(tensor.numpy()) for tensor in tensors]
    if before is None or all(np.isfinite(values).all() for values in copy):
        return copy
    for tensor, values in zip(tensors, before):
        tensor.set_value(values)
    return before


def check_losses(run, lr, config):
    """Fetch the losses since the last line from the device; give up when too many in a row are not finite."""
    run['losses'] = [float(loss) for loss in run['losses']]
    bad = bad_in_a_row(run)
    if bad >= MAX_BAD_LOSSES:
        raise UserError(f'the loss or its gradients have not been finite for {bad} iterations in a row, up to iteration '
                        f'{run["iteration"]}, learning rate {lr:g}; their steps were skipped and the best and last models '
                        f'are from before: lower train.learning_rate ({config.train.learning_rate:g}), or try -o '
                        'train.amp=false, then start afresh with -o train.resume=never')


def bad_in_a_row(run):
    """How many of the newest losses are not finite, those before the last line of the log included."""
    for bad, loss in enumerate(reversed(run['losses'])):
        if math.isfinite(loss):
            return bad
    return run['bad'] + len(run['losses'])


def log_training(log, run, epoch, lr, timer, config):
    """Write the original's [TRAIN] line and a row of history, and begin a new window."""
    finite = [loss for loss in run['losses'] if math.isfinite(loss)]
    skipped = len(run['losses']) - len(finite)
    loss = float(np.mean(finite)) if finite else float('nan')
    iteration, cost = run['iteration'], timer.batch_cost
    log.info(f'[TRAIN] epoch: {epoch + 1}, iter: {iteration}/{config.train.iters}, loss: {loss:.4f}, lr: {lr:.10f}, '
             f'batch_cost: {cost:.4f}, reader_cost: {timer.reader_cost:.5f}, '
             f'ips: {config.train.batch_size / cost:.4f} samples/sec | '
             f'ETA {clock((config.train.iters - iteration) * cost)}')
    if skipped:
        run['skipped'] += skipped
        log.info(f'skipped {skipped} step(s) whose loss was not finite, {run["skipped"]} so far')
    run['history'].append({'iteration': iteration, 'epoch': epoch + 1, 'learning_rate': lr, 'train_loss': loss})
    run['bad'], run['losses'] = bad_in_a_row(run), []
    timer.restart()


def evaluate_and_keep(model, data, run, epoch, lr, config, task, rank, log):
    """Score the model on all validation records, keep it if it is the best so far, draw the curves."""
    import paddle
    ranks.average_statistics(model)
    runtime.release_freed_memory()
    logits = predict_logits(plain_network(model), data.val_pictures, config.predict.batch_size, data.workers)
    runtime.release_freed_memory()
    logits = ranks.gather(logits, len(data.val_targets))
    if not np.isfinite(logits).all():
        raise_not_finite('an answer of the network', run, config)
    if rank > 0:
        return
    probabilities = probabilities_of(logits, task)
    thresholds = metrics.tune_thresholds(data.val_targets, probabilities) if task.multi_label else 0.5
    scores = metrics.score(data.val_targets, probabilities, thresholds, task)
    scores['loss'] = float(compute_loss(paddle.to_tensor(logits), data.val_targets, None, 0.0, task))
    log.info(f'[EVAL] epoch: {epoch + 1} avg accuracy: {scores["accuracy"]:.4f}, f1: {scores["f1"]:.4f}, '
             f'auc: {scores["auc"]:.4f}, loss: {scores["loss"]:.4f}')
    row = {'iteration': run['iteration'], 'epoch': epoch + 1, 'learning_rate': lr, 'eval_loss': scores['loss'],
           'accuracy': scores['accuracy'], 'f1': scores['f1'], 'auc': scores['auc']}
    run['history'].append({key: value for key, value in row.items() if value == value})
    metric = config.train.best_metric
    value = -scores[metric] if metric == 'loss' else scores[metric]
    if run['best'] is None or value > run['best']['value'] or math.isnan(run['best']['value']):
        run['best'] = {'value': value, 'epoch': epoch + 1, 'iteration': run['iteration'], 'score': scores[metric]}
        keep_best(model, data, run, scores, thresholds, probabilities, config, task)
        log.info(f'[EVAL] the best model so far is saved in {best_folder(config)}')
    write_history(run['history'], config.output)
    plots.draw_curves(run['history'], os.path.join(config.output, 'curves.png'))


def keep_best(model, data, run, scores, thresholds, probabilities, config, task):
    """Put the model and all that prediction needs into output/best_model, and draw its validation picture."""
    import paddle
    weights = checkpoint.weights_of(model)
    if checkpoint.first_not_finite(weights):
        raise_not_finite(f'the tensor {checkpoint.first_not_finite(weights)}', run, config)
    kept = {'epoch': run['best']['epoch'], 'iteration': run['iteration'], 'paddle': paddle.__version__,
            'threshold': thresholds.tolist() if task.multi_label else thresholds,
            'validation': scores, 'validation_records': data.val_names}
    checkpoint.save_best(best_folder(config), weights, settings.to_yaml(config), checkpoint.without_nan(kept))
    title = (f'Best model: epoch {run["best"]["epoch"]}, F1 {scores["f1"]:.3f}, AUC {scores["auc"]:.3f}, '
             f'accuracy {scores["accuracy"]:.3f}')
    path = os.path.join(config.output, 'validation.png')
    if task.multi_label:
        plots.draw_validation_classes(data.val_targets, probabilities, scores['class_f1'], task.class_names, title, path)
    else:
        decisions = tasks.decide(probabilities, thresholds, task)
        plots.draw_validation(data.val_targets, probabilities, decisions, thresholds, title, path)


def export_best(config, task, log):
    """Put a program for fast prediction into output/best_model, if there is none yet."""
    folder = best_folder(config)
    if not os.path.isdir(folder) or export.has_export(folder):
        return
    try:
        model = build_model(config.model.name, len(task.class_names), config.seed)
        checkpoint.set_weights(model, checkpoint.load_best(folder)[0], folder)
        export.add_export(folder, model)
        log.info(f'{folder} now holds an export for fast prediction on CPUs')
    except Exception as error:  # the model is saved, and an export is only speed: no reason to fail
        log.info(f'no export for fast prediction, predict.py will take the plain network: {error}')


def save_last(model, optimizer, scaler, run, fingerprint, config, log):
    """Write all that a resumed run needs into output/last."""
    weights = checkpoint.weights_of(model)
    if checkpoint.first_not_finite(weights):
        raise_not_finite(f'the tensor {checkpoint.first_not_finite(weights)}', run, config)
    alone = run.pop('fresh', False)
    run['losses'] = [float(loss) for loss in run['losses']]
    state = {**run, 'weights': weights, 'optimizer': numpy_state(optimizer.state_dict()),
             'scaler': numpy_state(scaler.state_dict()), 'fingerprint': fingerprint, 'log_bytes': log.size()}
    checkpoint.save_last(last_folder(config), state, run['iteration'], alone)


def raise_not_finite(what, run, config):
    raise UserError(f'{what} is NaN or infinite after iteration {run["iteration"]}; this model is not saved, the best and '
                    f'last ones are from before: lower train.learning_rate ({config.train.learning_rate:g}), then start '
                    'afresh with -o train.resume=never')


def write_history(history, output):
    """Write the scores and losses so far to output/history.csv."""
    columns = ('iteration', 'epoch', 'learning_rate', 'train_loss', 'eval_loss', 'accuracy', 'f1', 'auc')
    files.write_csv(os.path.join(output, 'history.csv'),
                    [columns] + [[row.get(column, '') for column in columns] for row in history])


def tell_time(log, batch_cost, iteration, config):
    """On a CPU, say after the first iterations how long the run will take and what makes it short."""
    left = (config.train.iters - iteration) * batch_cost
    log.info(f'on this CPU the run will take about {clock(left)} more, evaluations not counted; shorter with fewer or '
             f'smaller iterations: -o train.iters=N (now {config.train.iters}), -o train.batch_size=N (now '
             f'{config.train.batch_size}), -o model.name=resnet18, or smaller pictures: -o render.size=224 for '
             'process.py and train.py')


def how_to_go_on(run, config):
    """What to say when a signal stopped the run."""
    but = ' without -o train.resume=never' if config.train.resume == 'never' else ''
    line = f'stopped after iteration {run["iteration"]}, all of it is in {last_folder(config)}: the same command{but} goes on'
    return line + (f'; {describe_best(run, config)}, predict with it: python predict.py' if run['best'] else '')


def describe_best(run, config):
    best = run['best']
    return f'best {config.train.best_metric} {best["score"]:.4f} at epoch {best["epoch"]}, in {best_folder(config)}'


def best_folder(config):
    return os.path.join(config.output, 'best_model')


def last_folder(config):
    return os.path.join(config.output, 'last')


if __name__ == '__main__':
    errors.run(main)
