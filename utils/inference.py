"""Pictures -> logits -> probabilities, and the loss that compares logits with labels."""
import numpy as np

from utils import images


def plain_network(model):
    """A model as a function: uint8 array (n, size, size) -> logits, float32 array (n, classes).

    It runs without gradients and with BatchNorm's running statistics.
    model: paddle.nn.Layer, put into evaluation mode
    """
    import paddle

    def network(pixels):
        with paddle.no_grad():
            return model(images.to_input(pixels)).astype('float32').numpy()

    model.eval()
    return network


def predict_logits(network, pictures, batch_size, workers, on_batch=None):
    """Run a network over all pictures.

    network: function, uint8 array (n, size, size) -> logits float32 array (n, classes); pictures: images.Pictures
    batch_size, workers: int; on_batch: function(count) called after each batch, or None
    Returns: float32 array (n, classes)
    """
    batches = [np.arange(at, min(at + batch_size, len(pictures))) for at in range(0, len(pictures), batch_size)]
    logits = []
    for pixels in images.read_batches(pictures, batches, 0, workers):
        logits.append(network(pixels))
        if on_batch:
            on_batch(len(pixels))
    return np.concatenate(logits)


def probabilities_of(logits, task):
    """What the network says, as probabilities.

    logits: float32 array (n, classes); task: tasks.Task
    Returns: float64 array (n,) of "abnormal" for task 1 (softmax), (n, 12) for task 2 (sigmoid)
    """
    margin = logits.astype(np.float64) if task.multi_label else logits[:, 1].astype(np.float64) - logits[:, 0]
    return np.exp(-np.logaddexp(0, -margin))


def weigh_classes(targets, kind, task):
    """How much a record of each class counts in the loss.

    targets: as tasks.as_targets; kind: 'none' or 'balanced'
    Returns: None, or float32 array (classes,); for task 2 how much a label that is present counts, at most 20
    """
    if kind == 'none':
        return None
    if task.multi_label:
        present = np.maximum(targets.sum(axis=0), 1)
        return np.clip((len(targets) - present) / present, 1, 20).astype(np.float32)
    counts = np.bincount(targets, minlength=len(task.class_names))
    return (len(targets) / (len(counts) * np.maximum(counts, 1))).astype(np.float32)


def compute_loss(logits, targets, class_weights, smoothing, task):
    """Cross-entropy for task 1, binary cross-entropy over the classes for task 2.

    logits: float32 Tensor (n, classes); targets: numpy array, as tasks.as_targets; class_weights: as weigh_classes;
    smoothing: float, the part of the label that is spread over all classes
    Returns: float32 Tensor without dimensions
    """
    import paddle
    import paddle.nn.functional as F
    classes = len(task.class_names)
    if task.multi_label:
        soft = paddle.to_tensor((targets * (1 - smoothing) + 0.5 * smoothing).astype(np.float32))
        weights = 1.0 if class_weights is None else paddle.to_tensor(class_weights)
        # Spelt out: binary_cross_entropy_with_logits weighs soft labels otherwise in Paddle 2.6 than in 3.
        return -(weights * soft * F.log_sigmoid(logits) + (1 - soft) * F.log_sigmoid(-logits)).mean()
    soft = np.eye(classes, dtype=np.float32)[targets] * (1 - smoothing) + smoothing / classes
    weights = np.ones(len(targets)) if class_weights is None else class_weights[targets]
    soft *= (weights / weights.sum())[:, None]
    return -(paddle.to_tensor(soft.astype(np.float32)) * F.log_softmax(logits)).sum()
