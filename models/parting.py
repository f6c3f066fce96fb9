"""The network that parts the rows of a sheet of ECG paper (utils/ecg/paper/parting.py).

A U-Net (Ronneberger et al. 2015) whose halves are added, not joined. OpenCV runs it, so that who
reads a sheet needs no Paddle: it is written as ONNX.
"""
import numpy as np

WIDTHS = (16, 32, 64, 96, 128)  # channels, from all pixels to a 16th of them
SEEN, SAID = 7, 12  # channels: four pixels of ink and three marks; four pixels of three rows
RARE = -3.0  # log-odds to begin with: hardly any pixel is a trace's
LEARNT_ON = 64  # pixels of a side that the file names; any multiple of 16 fits


def build_parting():
    """The network with random weights: paddle.nn.Layer, float32 (n, 7, height, width) -> log-odds,
    (n, 12, height, width); sides are multiples of 16."""
    from paddle import nn

    class Parting(nn.Layer):
        def __init__(self):
            super().__init__()
            pairs = list(zip(WIDTHS, WIDTHS[1:]))
            self.first = nn.Sequential(_block(SEEN, WIDTHS[0]), _block(WIDTHS[0], WIDTHS[0]))
            self.down = nn.LayerList([nn.Sequential(_block(one, two, 2), _block(two, two))
                                      for one, two in pairs])
            self.deep = _block(WIDTHS[-1], WIDTHS[-1])
            self.narrow = nn.LayerList([nn.Conv2D(two, one, 1) for one, two in pairs])
            self.up = nn.LayerList([_block(one, one) for one in WIDTHS[:-1]])
            self.last = nn.Sequential(_block(WIDTHS[0], WIDTHS[0]), nn.Conv2D(WIDTHS[0], SAID, 1))
            nn.initializer.Constant(RARE)(self.last[1].bias)

        def forward(self, x):
            levels = [self.first(x)]
            for down in self.down:
                levels.append(down(levels[-1]))
            x = self.deep(levels[-1])
            for level, narrow, up in list(zip(levels, self.narrow, self.up))[::-1]:
                x = nn.functional.interpolate(narrow(x), scale_factor=2, mode='nearest')
                x = up(x + level)
            return self.last(x)

    return Parting()


def _block(inside, outside, stride=1):
    from paddle import nn
    return nn.Sequential(nn.Conv2D(inside, outside, 3, stride, 1, bias_attr=False),
                         nn.BatchNorm2D(outside), nn.ReLU())


def to_onnx(network):
    """Write the network down as ONNX, with a sigmoid behind it: bytes; needs the package onnx."""
    from onnx import TensorProto, helper
    graph = _Graph()
    levels = [graph.blocks(network.first, 'seen')]
    for down in network.down:
        levels.append(graph.blocks(down, levels[-1]))
    x = graph.block(network.deep, levels[-1])
    for level, narrow, up in list(zip(levels, network.narrow, network.up))[::-1]:
        x = graph.add('Resize', [graph.convolve(narrow, x), '', graph.twice], mode='nearest',
                      coordinate_transformation_mode='asymmetric', nearest_mode='floor')
        x = graph.block(up, graph.add('Add', [x, level]))
    x = graph.convolve(network.last[1], graph.block(network.last[0], x))
    said = graph.add('Sigmoid', [x])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, count] + [LEARNT_ON] * 2)
            for name, count in (('seen', SEEN), (said, SAID))]
    whole = helper.make_graph(graph.nodes, 'parting', ends[:1], ends[1:], graph.weights)
    return helper.make_model(whole, opset_imports=[helper.make_opsetid('', 13)],
                             ir_version=8).SerializeToString()


class _Graph:
    """The nodes of an ONNX graph and their weights, one after the other."""

    def __init__(self):
        self.nodes, self.weights = [], []
        self.twice = self._keep(np.array([1, 1, 2, 2], np.float32))

    def _keep(self, values):
        from onnx import numpy_helper
        name = f'weight{len(self.weights)}'
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    def add(self, kind, inputs, **attributes):
        """Append a node; returns the name of what it gives."""
        from onnx import helper
        name = f'{kind.lower()}{len(self.nodes)}'
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def convolve(self, layer, x, norm=None):
        """Append a convolution; what a BatchNorm behind it does becomes part of its weights."""
        weight = layer.weight.numpy()
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.numpy()
        if norm is not None:
            scale = norm.weight.numpy() / np.sqrt(norm._variance.numpy() + norm._epsilon)
            weight = weight * scale[:, None, None, None]
            bias = (bias - norm._mean.numpy()) * scale + norm.bias.numpy()
        size = weight.shape[2]
        return self.add('Conv', [x, self._keep(weight), self._keep(bias)],
                        kernel_shape=[size, size], pads=[size // 2] * 4, strides=layer._stride)

    def block(self, layers, x):
        """Append a _block()."""
        return self.add('Relu', [self.convolve(layers[0], x, layers[1])])

    def blocks(self, several, x):
        for layers in several:
            x = self.block(layers, x)
        return x
