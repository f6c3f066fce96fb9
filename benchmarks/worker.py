"""One network in its own process: for each line on stdin one iteration, answered with its time.

python -m benchmarks.worker paddle|fp32|bf16|torch|train.py train|predict SIZE BATCH MODEL
"""
import os
import sys
import time
import zlib  # noqa: F401  before Paddle, see models/device.py

import numpy as np


def main():
    kind, what, size, batch, model = sys.argv[1:]
    size, batch = int(size), int(batch)
    if kind == 'train.py':
        return of_train(size, batch, model)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size), dtype=np.uint8)
    iterate = of_torch(what, pixels) if kind == 'torch' else of_paddle(kind, what, pixels, model)
    for _ in sys.stdin:
        start = time.perf_counter()
        iterate()
        print(f'took {time.perf_counter() - start}', flush=True)


def of_train(size, batch, model):
    """Run train.py; where it asks for its next pictures, it is timed and waits for its turn."""
    import train
    from benchmarks.growth import options

    def read_pictures(run, read=train.read_pictures):
        start = None
        for batch in read(run):
            if start is not None:
                print(f'took {time.perf_counter() - start}', flush=True)
            if not sys.stdin.readline():
                os._exit(0)
            start = time.perf_counter()
            yield batch

    train.read_pictures = read_pictures
    root = os.environ['PICTURES']
    sys.argv = ['train.py', *options([
        f'data.root={root}', f'output={root}/output', 'device=cpu', f'render.size={size}',
        f'model.name={model}', 'model.pretrained=none', f'train.batch_size={batch}'])]
    train.main()


def of_paddle(kind, what, pixels, name):
    """A function that trains or predicts once; the pictures are on the device when it trains."""
    from models import build_model, device, inference, to_input
    from models.optimizer import make_optimizer
    from utils.answers import tasks
    from utils.running import settings
    paddle = device.import_paddle()
    device.choose_device('cpu')
    task = tasks.TASKS[1]
    model = build_model(name, len(task.class_names), 0)
    if what == 'predict':
        if kind == 'paddle':
            network = inference.plain_network(model)
        else:  # a limit far from all answers, so that bf16 asks nothing again
            network, notes = inference.fastest_network(
                [model], lambda logits: tasks.margins_of(logits, task), 20.0, 'cpu', kind, pixels)
            if not notes[0].startswith(f'oneDNN in {kind}'):
                sys.exit('; '.join(notes))
        return lambda: network(pixels)
    optimizer = make_optimizer(settings.Train(), model)
    optimizer.set_lr(1e-4)
    inputs, labels = to_input(pixels), paddle.to_tensor(np.arange(len(pixels)) % 2)
    model.train()

    def step():
        loss = paddle.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)
    return step


def of_torch(what, pixels):
    """The same with PyTorch as its users would: channels_last where that is faster."""
    import torch

    from benchmarks.torch_resnet import resnet50
    model = resnet50(2)
    inputs = torch.from_numpy(np.repeat(pixels[:, None], 3, axis=1)).float() / 255
    if what == 'predict':
        model = model.eval().to(memory_format=torch.channels_last)
        inputs = inputs.contiguous(memory_format=torch.channels_last)

        def predict():
            with torch.no_grad():
                return model(inputs).numpy()
        return predict
    labels = torch.arange(len(pixels)) % 2
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        return loss.item()
    return step


if __name__ == '__main__':
    main()
