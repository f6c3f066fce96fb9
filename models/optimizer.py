"""The optimizer that config.train names, the learning rate as a function of the iteration, and the
scale of the loss in mixed precision.
"""
import math

NEVER = 2**31 - 1  # steps in a row that overflow, until Paddle itself would make the scale smaller


def make_optimizer(train, model):
    """AdamW or momentum; weight decay acts on weights, not on biases and BatchNorm's scales.

    train: settings.Train; model: paddle.nn.Layer
    Returns: paddle.optimizer.Optimizer with learning rate 0, which the loop sets at each iteration
    """
    import paddle
    clip = paddle.nn.ClipGradByGlobalNorm(train.clip_norm) if train.clip_norm else None
    parameters = [each for each in model.parameters() if not each.stop_gradient]
    if train.optimizer == 'adamw':
        decayed = {each.name for each in parameters if each.ndim > 1}
        return paddle.optimizer.AdamW(learning_rate=0.0, parameters=parameters, grad_clip=clip,
                                      weight_decay=train.weight_decay,
                                      apply_decay_param_fun=decayed.__contains__)
    for each in parameters:  # a group of its own would be clipped by itself
        if each.ndim <= 1:
            each.regularizer = paddle.regularizer.L2Decay(0.0)
    return paddle.optimizer.Momentum(learning_rate=0.0, momentum=0.9, parameters=parameters,
                                     weight_decay=train.weight_decay, grad_clip=clip)


def learning_rate(iteration, train):
    """Linear warm-up from 0, then cosine or polynomial (straight) decay to the last iteration.

    iteration: int, counted from 1; train: settings.Train
    Returns: float; base * (i - 1) / warm-up up to the end of the warm-up, base right after it
    """
    if iteration <= train.warmup_iters:
        return train.learning_rate * (iteration - 1) / train.warmup_iters
    span = max(train.iters - train.warmup_iters - 1, 1)
    done = min((iteration - 1 - train.warmup_iters) / span, 1.0)
    left = 0.5 * (1 + math.cos(math.pi * done)) if train.decay == 'cosine' else 1 - done
    return train.end_learning_rate + (train.learning_rate - train.end_learning_rate) * left


def make_scaler(enable):
    """What keeps gradients within the range of fp16: PaddlePaddle's GradScaler, see update_scale().

    Returns: paddle.amp.GradScaler, which does nothing where it is not enabled
    """
    import paddle
    return paddle.amp.GradScaler(enable=enable, decr_every_n_nan_or_inf=NEVER)


def load_scaler(scaler, arrays):
    """Give a scaler the state that another had.

    arrays: {key: numpy array} of its state_dict(); empty after training without mixed precision
    """
    if arrays:
        state = {key: value if value.ndim else value.item() for key, value in arrays.items()}
        scaler.load_state_dict({**state, 'decr_every_n_nan_or_inf': NEVER})


def update_scale(scaler):
    """What follows scaler.step(): after many good steps the scale doubles; where the step was
    skipped because a gradient was not finite, it halves.

    Paddle 2.6 and 3.3 would print the scale before they halve it, which NumPy from 2.4 on refuses.
    Returns: float, the new scale, where the step was skipped, else None
    """
    scaler.update()
    if not scaler.is_enable() or not scaler._decr_count:  # state_dict() waits for the device
        return None
    state = scaler.state_dict()
    scale = state['scale'] * state['decr_ratio']
    scaler.load_state_dict({**state, 'scale': scale, 'decr_count': 0})
    return scale.item()
