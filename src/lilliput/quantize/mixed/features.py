"""What an agent sees of a layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from torch import fx

from lilliput.graph.arithmetic import macs
from lilliput.graph.shapes import fake_values
from lilliput.quantize.mixed.task import Array, Layer, Task
from lilliput.quantize.operators import LAYERS, TRANSPOSED


class Features(NamedTuple):
    """One row to each layer, every column scaled to [0, 1]; and the multiply-accumulates of one sample, `(layers,)`."""

    table: Array
    macs: Array


def features(task: Task) -> Features:
    """Depthwise or not, channels in and out, stride, kernel size, weights, size of the input, spread of the weights, index.

    All but the spread, which is Elthakeb's, are Wang's. (wang2019haq, elthakeb2018releq)
    """
    values = fake_values(task.network, task.network.example)
    readers: dict[str, fx.Node] = {}
    for node in task.network.graph.nodes:
        weight = node.args[1] if node.target in LAYERS else None
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            readers.setdefault(str(weight.target), node)
    rows, counts = [], []
    for index, layer in enumerate(task.layers):
        nodes = [readers[name] for name in layer.tensors]
        rows.append([*_row(nodes[0], layer, task, values), float(index)])
        counts.append(sum(macs(node, lambda n: tuple(values[n].shape)) for node in nodes) / max(values[nodes[0]].shape[0], 1))
    table = np.array(rows)
    low, high = table.min(0), table.max(0)
    return Features((table - low) / np.where(high > low, high - low, 1.0), np.array(counts, dtype=float))


def _row(node: fx.Node, layer: Layer, task: Task, values: Mapping[fx.Node, Any]) -> list[float]:
    name = next(iter(layer.tensors))
    weight = task.network.tensor(name)
    outputs, inputs = (weight.shape[1], weight.shape[0]) if node.target in TRANSPOSED else (weight.shape[0], weight.shape[1])
    linear = weight.ndim == 2
    stride = node.args[3] if not linear and len(node.args) > 3 else 0
    stride = float(stride[0]) if isinstance(stride, list | tuple) and stride else 0.0 if linear else 1.0
    read = values[node.args[0]]  # type: ignore[index]
    return [float(not linear and inputs == 1 and outputs > 1), float(inputs), float(outputs), stride,
            1.0 if linear else float(weight.shape[2]), float(layer.count), 1.0 if linear else float(np.prod(read.shape[2:])),
            float(weight.detach().double().std()) if weight.numel() > 1 else 0.0]
