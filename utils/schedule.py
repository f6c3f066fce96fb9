"""The learning rate as a pure function of the iteration. Knows nothing of Paddle."""
import math


def learning_rate(iteration, train):
    """Linear warm-up from 0, then cosine or polynomial (straight) decay to the end at the last iteration.

    iteration: int, counted from 1; train: config.Train
    Returns: float; base * (i - 1) / warmup up to the end of the warm-up, base right after it, end at the last iteration
    """
    if iteration <= train.warmup_iters:
        return train.learning_rate * (iteration - 1) / train.warmup_iters
    span = max(train.iters - train.warmup_iters - 1, 1)
    done = min((iteration - 1 - train.warmup_iters) / span, 1.0)
    left = 0.5 * (1 + math.cos(math.pi * done)) if train.decay == 'cosine' else 1 - done
    return train.end_learning_rate + (train.learning_rate - train.end_learning_rate) * left
