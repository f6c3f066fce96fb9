"""What the processes of one training do together: one a GPU, started by paddle.distributed.launch.
One alone: nothing.

Every process takes its part of each batch, and paddle.DataParallel averages the gradients, so the
step is that of the whole batch. BatchNorm alone normalises with the part that its process has:
SyncBatchNorm exchanges in each of its layers, and exists on GPUs only. Before an evaluation the
running statistics are averaged, so that all processes evaluate, and rank 0 saves, one network.
"""
import os

import numpy as np


def connect(device):
    """Join the other processes that paddle.distributed.launch started, if it did.

    device: str, as choose_device() returned it, which Paddle would forget
    """
    import paddle
    if world() > 1:
        if device == 'cpu':
            os.environ['PADDLE_DISTRI_BACKEND'] = 'gloo'
        paddle.distributed.init_parallel_env()
        paddle.device.set_device(device)


def rank():
    """This process's number; the one that writes has 0."""
    import paddle
    return paddle.distributed.get_rank()


def world():
    """How many processes there are."""
    import paddle
    return paddle.distributed.get_world_size()


def mean(value):
    """The mean over the processes of a Tensor, which all must have in the same shape."""
    import paddle
    if world() == 1:
        return value
    paddle.distributed.all_reduce(value)
    return value / world()


def largest(number):
    """The largest of the processes' whole numbers."""
    import paddle
    if world() == 1:
        return number
    shared = paddle.to_tensor([number], dtype='int64')
    paddle.distributed.all_reduce(shared, paddle.distributed.ReduceOp.MAX)
    return int(shared.item())


def agree(number):
    """Whether all processes have the same whole number."""
    return largest(number) == -largest(-number)


def part_of(count):
    """Which of `count` items this process computes: equally many in each, so some perhaps twice.

    Returns: int array; gather() puts the results together again
    """
    padded = -(-count // world()) * world()
    return np.arange(padded)[rank()::world()] % count


def gather(rows, count):
    """The results of all items, each once and in order, from each process's part_of(count, ...).

    rows: array (m, ...) of this process
    Returns: array (count, ...), the same in every process
    """
    import paddle
    if world() == 1:
        return rows
    parts = []
    paddle.distributed.all_gather(parts, paddle.to_tensor(rows))
    together = np.stack([part.numpy() for part in parts], axis=1)
    return together.reshape(-1, *rows.shape[1:])[:count]


def average_statistics(model):
    """Give every process the mean of all processes' BatchNorm statistics."""
    import paddle
    if world() == 1:
        return
    statistics = [value for key, value in model.state_dict().items()
                  if key.endswith(('._mean', '._variance'))]
    together = mean(paddle.concat([value.flatten() for value in statistics]))
    parts = paddle.split(together, [value.size for value in statistics])
    for value, new in zip(statistics, parts):
        value.set_value(new.reshape(value.shape))
