"""Paddle, which nothing else knows: the network, its training, its checkpoints, its answers.

Imports every room of utils. Here: the network, a ResNet of paddle.vision.models with a head for the
task's classes.
"""

IMAGENET_MEAN = 0.449  # of the three channels' (0.485, 0.456, 0.406), since ours are equal
IMAGENET_STD = 0.226


def build_model(name, num_classes, seed):
    """Build the network with random weights.

    name: 'resnet18', 'resnet34', 'resnet50' or 'resnet101'; num_classes: int, outputs of the head
    Returns: paddle.nn.Layer, float32 (n, 3, size, size) -> logits float32 (n, num_classes)
    """
    import paddle
    from paddle.vision import models
    paddle.seed(seed)
    return getattr(models, name)(num_classes=num_classes)


def to_input(pixels):
    """uint8 array (n, height, size) -> what the network takes, on the device; see normalise()."""
    import paddle
    return normalise(paddle.to_tensor(pixels))


def normalise(pixels):
    """Pictures as channels: rhythm, average beats (where there are none: rhythm), rhythm.

    pixels: uint8 Tensor (n, size, size), or (n, 2 * size, size) with the average beats below
    Returns: float32 Tensor (n, 3, size, size), as ImageNet's were
    """
    import paddle
    pixels = (pixels.astype('float32') / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    size = pixels.shape[2]
    pixels = pixels.reshape([-1, pixels.shape[1] // size, size, size])
    rhythm, beats = pixels[:, :1], pixels[:, -1:]
    return paddle.concat([rhythm, beats, rhythm], axis=1)
