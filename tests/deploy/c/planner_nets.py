"""Programs for tests of the memory planner, with random weights: the MLPerf Tiny models' shapes, and a MobileNetV2."""

import numpy as np

from lilliput.deploy.c.operators import Add, AveragePool, Buffer, Convolution, Softmax, Window
from lilliput.deploy.c.program import Port, Program


class Builder:
    """Layers one after the other; every call gives the new buffer."""

    def __init__(self, shape, seed=0):
        self.rng, self.steps = np.random.default_rng(seed), []
        self.input = self.buffer("input", shape)

    def buffer(self, name, shape):
        return Buffer(name=name, shape=tuple(shape), scale=0.05, zero=int(self.rng.integers(-20, 20)))

    def conv(self, x, filters, kernel=1, stride=1, *, groups=1, valid=False):
        """With TensorFlow's SAME padding, or none."""
        kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
        image = x.shape if len(x.shape) == 3 else (1, 1, x.size)
        total = [0 if valid else max((-(-n // stride) - 1) * stride + k - n, 0) for n, k in zip(image[:2], kernel, strict=True)]
        before = [t // 2 for t in total]
        window = Window(kernel=kernel, stride=(stride, stride), pads=(*before, total[0] - before[0], total[1] - before[1]))
        name = f"conv{len(self.steps)}"
        out = self.buffer(name, (*window.size(*image[:2]), filters) if len(x.shape) == 3 else (filters,))
        weights = self.rng.integers(-127, 128, (filters, *kernel, image[2] // groups))
        factors = self.rng.uniform(0.3, 0.6, filters) / (74 * np.sqrt(weights[0].size))
        self.steps.append(Convolution(inputs=(x,), output=out, layer=name, weights=weights, bias=self.rng.integers(-2000, 2000, filters),
                                      factors=factors, image=image, window=window, groups=groups, low=out.zero))
        return out

    def depthwise(self, x, stride=1, kernel=3):
        return self.conv(x, x.shape[2], kernel, stride, groups=x.shape[2])

    def add(self, a, b):
        out = self.buffer(f"add{len(self.steps)}", a.shape)
        self.steps.append(Add(inputs=(a, b), output=out, layer=out.name))
        return out

    def mean(self, x):
        out = Buffer(name=f"mean{len(self.steps)}", shape=(x.shape[2],), scale=x.scale, zero=x.zero)
        self.steps.append(AveragePool(inputs=(x,), output=out, layer=out.name, image=x.shape, window=Window(kernel=x.shape[:2])))
        return out

    def softmax(self, x):
        out = Buffer(name=f"softmax{len(self.steps)}", shape=x.shape, scale=1 / 256, zero=-128)
        self.steps.append(Softmax(inputs=(x,), output=out, layer=out.name))
        return out

    def program(self, output):
        return Program(inputs=(port(self.input),), outputs=(port(output),), steps=tuple(self.steps))


def port(buffer):
    return Port(name=buffer.name, buffer=buffer, positions=np.arange(buffer.size).reshape(1, *buffer.shape))


def resnet8():
    """Image classification."""
    net = Builder((32, 32, 3))
    x = net.conv(net.input, 16, 3)
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        y = net.conv(net.conv(x, channels, 3, stride), channels, 3)
        x = net.add(y, x if stride == 1 else net.conv(x, channels, 1, stride))
    return net.program(net.softmax(net.conv(net.mean(x), 10)))


def ds_cnn():
    """Keyword spotting."""
    net = Builder((49, 10, 1))
    x = net.conv(net.input, 64, (10, 4), 2)
    for _ in range(4):
        x = net.conv(net.depthwise(x), 64)
    return net.program(net.softmax(net.conv(net.mean(x), 12)))


def autoencoder():
    """Anomaly detection."""
    net = Builder((640,))
    x = net.input
    for width in (128, 128, 128, 128, 8, 128, 128, 128, 128, 640):
        x = net.conv(x, width)
    return net.program(x)


def mobilenet_v1():
    """Visual wake words: width 0.25."""
    net = Builder((96, 96, 3))
    x = net.conv(net.input, 8, 3, 2)
    for channels, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)):
        x = net.conv(net.depthwise(x, stride), channels)
    return net.program(net.softmax(net.conv(net.mean(x), 2)))


def mobilenet_v2(size=112, width=0.5, depth=7):
    """The first `depth` groups of blocks, of 7."""
    net = Builder((size, size, 3))
    scaled = lambda n: max(8, int(n * width + 4) // 8 * 8)  # noqa: E731
    x = net.conv(net.input, scaled(32), 3, 2)
    for expand, channels, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))[:depth]:
        for i in range(count):
            y = net.conv(x, expand * x.shape[2]) if expand > 1 else x
            y = net.conv(net.depthwise(y, stride if i == 0 else 1), scaled(channels))
            x = net.add(x, y) if i and y.shape == x.shape else y
    return net.program(net.softmax(net.conv(net.mean(x), 10)))
