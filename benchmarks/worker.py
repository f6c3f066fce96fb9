"""One network in a process of its own: for each line on stdin one iteration, answered with its time on stdout.

python -m benchmarks.worker paddle|export-fp32|export-bf16|torch|train.py train|predict SIZE BATCH MODEL
"""
import zlib  # noqa: F401  before Paddle, see utils/runtime.py

import os
import sys
import tempfile
import time

import numpy as np


def main():
    kind, what, size, batch, model = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    if kind == 'train.py':
        return of_train(size, batch, model)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size), dtype=np.uint8)
    iterate = of_torch(what, pixels) if kind == 'torch' else of_paddle(kind, what, pixels, model)
    for _ in sys.stdin:
        start = time.perf_counter()
        iterate()
        print(f'took {time.perf_counter() - start}', flush=True)


def of_train(size, batch, model):
    """Run train.py; where it asks for its learning rate, once an iteration, it is timed and waits for its turn."""
    import train
    start = None

    def learning_rate(iteration, settings, compute=train.learning_rate):
        nonlocal start
        if start is not None:
            print(f'took {time.perf_counter() - start}', flush=True)
        if not sys.stdin.readline():
            os._exit(0)
        start = time.perf_counter()
        return compute(iteration, settings)

    train.learning_rate = learning_rate
    overrides = [f'data.root={os.environ["PICTURES"]}', f'output={os.environ["PICTURES"]}/output', 'device=cpu',
                 f'render.size={size}', f'model.name={model}', 'model.pretrained=none', f'train.batch_size={batch}']
    sys.argv = ['train.py', *(part for item in overrides for part in ('-o', item))]
    train.main()


def of_paddle(kind, what, pixels, model_name):
    """A function that trains or predicts once with Paddle; the pictures are on the device when it trains."""
    from models import build_model
    from utils import config, images, inference, runtime, tasks
    from utils.optimizers import make_optimizer
    paddle = runtime.import_paddle()
    runtime.choose_device('cpu')
    task = tasks.TASKS[1]
    model = build_model(model_name, len(task.class_names), 0)
    if kind != 'paddle':
        return exported(model, kind.partition('-')[2], pixels)
    if what == 'predict':
        network = inference.plain_network(model)
        return lambda: network(pixels)
    optimizer = make_optimizer(config.Train(), model)
    optimizer.set_lr(1e-4)
    inputs, labels = images.to_input(pixels), paddle.to_tensor(np.arange(len(pixels)) % 2)
    model.train()

    def step():
        loss = paddle.nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        return float(loss)
    return step


def exported(model, precision, pixels):
    """A function that predicts once with the export that train.py would leave."""
    from utils import checkpoint, export
    with tempfile.TemporaryDirectory() as folder:
        best = os.path.join(folder, 'best_model')
        checkpoint.save_best(best, checkpoint.weights_of(model), '', {})
        model.eval()
        export.add_export(best, model)
        network = export.load_export(best, precision)
    return lambda: network(pixels)


def of_torch(what, pixels):
    """The same with PyTorch as its users would: channels_last where that is faster, no settings otherwise."""
    import torch

    from benchmarks.torch_resnet import resnet50
    model = resnet50(2)
    inputs = torch.from_numpy(np.repeat(pixels[:, None], 3, axis=1)).float() / 255
    if what == 'predict':
        model, inputs = model.eval().to(memory_format=torch.channels_last), \
            inputs.contiguous(memory_format=torch.channels_last)

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
