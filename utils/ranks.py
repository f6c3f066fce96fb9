"""What the processes of one training do together: one a GPU, started by paddle.distributed.launch. One alone: nothing.

Every process takes its part of each batch, and paddle.DataParallel averages the gradients, so the step is that of the
whole batch. BatchNorm alone differs: it normalises with the part that its process has, as is usual, because to do it
with the whole batch (SyncBatchNorm) takes an exchange in each of its layers and exists on GPUs only. Parts of under
about 16 pictures make its statistics noisy, so let train.batch_size grow with the number of processes. Before an evaluation
the running statistics are averaged, so that all processes evaluate, and rank 0 saves, one and the same network.
"""
import os

import numpy as np


def connect(device):
    """Join the other processes that paddle.distributed.launch started.

    device: str, as runtime.choose_device returned it, which Paddle would forget
    """
    import paddle
    if device == 'cpu':
        os.environ['PADDLE_DISTRI_BACKEND'] = 'gloo'
    paddle.distributed.init_parallel_env()
    paddle.device.set_device(device)


def mean(value):
    """The mean over the processes of a Tensor, which all must have in the same shape."""
    import paddle
    world = paddle.distributed.get_world_size()
    if world == 1:
        return value
    paddle.distributed.all_reduce(value)
    return value / world


def largest(number):
    """The largest of the processes' whole numbers."""
    import paddle
    if paddle.distributed.get_world_size() == 1:
        return number
    shared = paddle.to_tensor([number], dtype='int64')
    paddle.distributed.all_reduce(shared, paddle.distributed.ReduceOp.MAX)
    return int(shared.item())


def agree(number):
    """Whether all processes have the same whole number."""
    return largest(number) == -largest(-number)


def part_of(count, rank, world):
    """Which of `count` items this process computes: equally many in each process, so some may be computed twice.

    Returns: int array; gather() puts the results together again
    """
    padded = -(-count // world) * world
    return np.arange(padded)[rank::world] % count


def gather(rows, count):
    """The results of all items, each once and in order, from the results of each process's part_of(count, ...).

    rows: array (m, ...) of this process
    Returns: array (count, ...), the same in every process
    """
    import paddle
    if paddle.distributed.get_world_size() == 1:
        return rows
    parts = []
    paddle.distributed.all_gather(parts, paddle.to_tensor(rows))
    return np.stack([part.numpy() for part in parts], axis=1).reshape(-1, *rows.shape[1:])[:count]


def statistics_of(model):
    """BatchNorm's running means and variances: list of Tensors."""
    return [value for key, value in model.state_dict().items() if key.endswith(('._mean', '._variance'))]


def average_statistics(model):
    """Give every process the mean of all processes' BatchNorm statistics, so that they evaluate the same network.

    model: paddle.nn.Layer
    """
    import paddle
    if paddle.distributed.get_world_size() == 1:
        return
    statistics = statistics_of(model)
    if statistics:
        together = mean(paddle.concat([value.flatten() for value in statistics]))
        for value, new in zip(statistics, paddle.split(together, [value.size for value in statistics])):
            value.set_value(new.reshape(value.shape))
