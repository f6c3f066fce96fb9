"""What train.py's iteration costs beside its step: python -m benchmarks.iteration RESULT.json ...

What follows is train.py's own command line. The network has ResNet50's layers and next to no
channels, so that nothing counts but the interpreter, as on a fast card; its pictures are read
beforehand. TURN iterations of train.py, with all that they do, and as many bare steps take turns.
The result: {'loop': list of CPU seconds an iteration, one a turn; 'bare': the same}.
"""
import itertools
import json
import sys
import time
import zlib  # noqa: F401  before Paddle, see models/device.py

import train
from models import learner, to_input
from models.optimizer import make_optimizer

TURN = 20  # iterations: two lines of the log
READ = 8  # batches, which come again and again
NARROWER = 16  # times


def main():
    path = sys.argv.pop(1)
    times = {'loop': [], 'bare': []}
    learner.build_model = build_narrow
    train.read_pictures = take_turns(train.read_pictures, times)
    train.main()
    with open(path, 'w', encoding='utf-8') as file:
        json.dump(times, file)


def build_narrow(_, num_classes, seed):
    """In the place of models.build_model()."""
    import paddle
    from paddle.vision.models import resnet

    class Narrow(resnet.ResNet):
        def _make_layer(self, block, planes, *rest, **named):
            return super()._make_layer(block, planes // NARROWER, *rest, **named)

    paddle.seed(seed)
    network = Narrow(resnet.BottleneckBlock, 50, num_classes=num_classes)
    network.fc = paddle.nn.Linear(2048 // NARROWER, num_classes)
    return network


def take_turns(read_pictures, times):
    """train.read_pictures(), which in between times bare steps, and the loop that asks for more."""
    def reading(run):
        batches = list(itertools.islice(read_pictures(run), READ))
        step, start = bare_step(run, *batches[0][1:]), None
        for iteration in range(run.config.train.iters):
            if iteration % TURN == 0:
                now = time.thread_time()
                if start is not None:
                    times['loop'].append((now - start) / TURN)
                for _ in range(TURN):
                    step()
                start = time.thread_time()
                times['bare'].append((start - now) / TURN)
            yield batches[iteration % READ]
    return reading


def bare_step(run, batch, pixels):
    """What cannot be left out: forward, loss, backward, step of an optimizer."""
    import paddle
    network = build_narrow(None, len(run.task.class_names), 0)
    optimizer = make_optimizer(run.config.train, network)
    optimizer.set_lr(1e-4)
    inputs, labels = to_input(pixels), paddle.to_tensor(run.data.targets[batch])

    def step():
        paddle.nn.functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
    network.train()
    return step


if __name__ == '__main__':
    main()
