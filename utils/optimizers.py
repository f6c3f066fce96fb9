"""The optimizer that config.train names, and its state as plain arrays."""
import numpy as np


def make_optimizer(train, model):
    """AdamW or momentum; weight decay acts on weights, not on biases and BatchNorm's scales.

    train: config.Train; model: paddle.nn.Layer
    Returns: paddle.optimizer.Optimizer with learning rate 0; the loop sets it with set_lr() at each iteration
    """
    import paddle
    clip = paddle.nn.ClipGradByGlobalNorm(train.clip_norm) if train.clip_norm else None
    parameters = [parameter for parameter in model.parameters() if not parameter.stop_gradient]
    spared = [parameter for parameter in parameters if parameter.ndim <= 1]
    if train.optimizer == 'adamw':
        names = {parameter.name for parameter in parameters} - {parameter.name for parameter in spared}
        return paddle.optimizer.AdamW(learning_rate=0.0, parameters=parameters, weight_decay=train.weight_decay,
                                      apply_decay_param_fun=names.__contains__, grad_clip=clip)
    for parameter in spared:  # not as a group of its own: Paddle would clip each group's gradient by itself
        parameter.regularizer = paddle.regularizer.L2Decay(0.0)
    return paddle.optimizer.Momentum(learning_rate=0.0, momentum=0.9, parameters=parameters,
                                     weight_decay=train.weight_decay, grad_clip=clip)


def numpy_state(state):
    """A state dict with numpy arrays in the place of tensors.

    state: dict, as optimizer.state_dict() or scaler.state_dict() return it
    """
    return {key: numpy_state(value) if isinstance(value, dict) else
            np.array(value.numpy()) if hasattr(value, 'numpy') else value for key, value in state.items()}
