"""Whether a card holds a training, reckoned before its first iteration."""
import math

# MiB that the backward pass keeps of one picture of 640 x 640 pixels in fp32; half in fp16.
SAVED = {'resnet18': 160, 'resnet34': 239, 'resnet50': 658, 'resnet101': 978}
WORKING = 1.2  # times that, for gradients of activations and what lies between the blocks
FIXED = 1.5 * 2**10  # MiB: CUDA, cuDNN's working space, weights, their gradients and moments


def mib_of_picture(config, amp):
    """MiB of the card that each picture of a batch takes."""
    saved = SAVED[config.model.name] * (config.render.size / 640) ** 2
    return WORKING * saved * (0.5 if amp else 1)


def notes(device, config, amp, world):
    """What is to be said where the card is likely to be too small for the settings.

    device: as choose_device() returns it; config: Config; amp: bool; world: int, processes
    Returns: list of str
    """
    import paddle
    if device == 'cpu':
        return []
    there = paddle.device.cuda.get_device_properties(device).total_memory / 2**20
    each, batch = mib_of_picture(config, amp), config.train.batch_size
    needed = FIXED + each * batch / world
    if needed <= there:
        return []
    fits = max(0, math.floor((there - FIXED) / each)) * world
    remedy = f'-o train.batch_size={fits}' if fits else 'smaller pictures, or model.name=resnet18'
    return [f'warning: {config.model.name} with render.size {config.render.size} and '
            f'train.batch_size {batch} {"with" if amp else "without"} mixed precision needs about '
            f'{needed / 2**10:.0f} GiB on each GPU, {device} has {there / 2**10:.1f}; if memory '
            f'runs out: {remedy} / 显存可能不足：约需 {needed / 2**10:.0f} GiB，可用 {remedy}']
