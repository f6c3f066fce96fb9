"""The network: a ResNet of paddle.vision.models with a head for the task's classes."""


def build_model(name, num_classes, seed):
    """Build the network with random weights.

    name: 'resnet18', 'resnet34', 'resnet50' or 'resnet101'; num_classes: int, outputs of the head; seed: int
    Returns: paddle.nn.Layer, float32 (n, 3, size, size) -> logits float32 (n, num_classes)
    """
    import paddle
    from paddle.vision import models
    paddle.seed(seed)
    return getattr(models, name)(num_classes=num_classes)
