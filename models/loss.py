"""The loss that compares logits with labels."""
import numpy as np

LARGEST_WEIGHT = 20  # of a label of task 2 that is present, however rare it is


def weigh_classes(targets, kind, task):
    """How much a record of each class counts in the loss.

    targets: as tasks.read_reference(); kind: 'none' or 'balanced'
    Returns: None, or float32 array (classes,); for tasks 2 and 3 how much a label that is present
        counts
    """
    if kind == 'none':
        return None
    if task.multi_label:
        present = np.maximum(targets.sum(axis=0), 1)
        return np.clip((len(targets) - present) / present, 1, LARGEST_WEIGHT).astype(np.float32)
    counts = np.bincount(targets, minlength=len(task.class_names))
    return (len(targets) / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


def compute_loss(logits, targets, class_weights, smoothing, task):
    """Cross-entropy for task 1, binary cross-entropy over the classes for tasks 2 and 3.

    logits: float32 Tensor (n, classes); targets: as tasks.read_reference(); class_weights: as
    weigh_classes(); smoothing: float, the part of the label that is spread over all classes
    Returns: float32 Tensor without dimensions
    """
    import paddle
    import paddle.nn.functional as F
    classes = len(task.class_names)
    if task.multi_label:
        soft = (targets * (1 - smoothing) + 0.5 * smoothing).astype(np.float32)
        soft = paddle.to_tensor(soft)
        weights = 1.0 if class_weights is None else paddle.to_tensor(class_weights)
        # Spelt out: Paddle 2.6 weighs soft labels otherwise than Paddle 3.
        present = weights * soft * F.log_sigmoid(logits)
        losses = -(present + (1 - soft) * F.log_sigmoid(-logits))
        return (losses * paddle.to_tensor(task.importance)).mean()
    soft = np.eye(classes, dtype=np.float32)[targets] * (1 - smoothing) + smoothing / classes
    weights = np.ones(len(targets)) if class_weights is None else class_weights[targets]
    soft *= (weights / weights.sum())[:, None]
    return -(paddle.to_tensor(soft.astype(np.float32)) * F.log_softmax(logits)).sum()
