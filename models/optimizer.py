"""The optimizer that config.train names, and the learning rate as a function of the iteration."""
import math


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
