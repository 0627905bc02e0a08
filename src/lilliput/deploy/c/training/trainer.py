"""A program divided for training on the device: frozen steps, a tail whose biases move, and a classifier in float32; and its step in numpy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.core.errors import DataError, PreconditionError
from lilliput.deploy.c.operators import AveragePool, Buffer, Convolution, Operator, Softmax
from lilliput.deploy.c.operators.base import HIGH, LOW
from lilliput.deploy.c.program import Port, Program
from lilliput.deploy.c.training import arithmetic
from lilliput.deploy.c.training.arithmetic import F32

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Trainable:
    """What moves on the device: weights and biases of the classifier, and biases of the `biases` convolutions before it; at `rate` at first."""

    biases: int = 0
    rate: float = 0.01

    def __post_init__(self) -> None:
        if self.biases < 0 or not 0 < self.rate < 1e6:
            raise PreconditionError(f"biases is a number of layers and rate lies above zero, not {self.biases} and {self.rate}")


@dataclass(kw_only=True, eq=False)
class State:
    """What training moves, all float32: the classifier `(K, F)` and `(K,)`, and how far each trained bias `(C,)` has come from the program's."""

    rate: np.float32
    weights: Array
    bias: Array
    changes: list[Array]

    def tobytes(self) -> bytes:
        """As the C structure has it."""
        return b"".join(np.asarray(part, F32).tobytes() for part in (self.rate, self.weights, self.bias, *self.changes))

    @property
    def size(self) -> int:
        """Bytes."""
        return 4 * (1 + self.weights.size + self.bias.size + sum(change.size for change in self.changes))


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:
    """Training on the device as TinyTL has it: biases and the classifier move, all other weights stay (cai2020tinytl).

    A bias' gradient is the sum of its output's gradient over pixels, so no activations are stored for it, only a bit for every code of
    the trained convolutions: whether it lies between the limits of its activation or of int8. Codes at a limit pass no gradient. Forward,
    the trained layers stay int8: their kernels read biases that are rounded from the program's and the change so far. Left out of the
    paper are its lite residual modules and group normalisation.

    Float32, not fixed point: gradients span many orders of magnitude, and a step is exact all the same, since every sum has a given
    order and the exponential is a polynomial (`arithmetic`).
    """

    backbone: Program
    tail: tuple[Convolution | AveragePool, ...]
    classifier: Convolution
    trainable: Trainable = Trainable()

    @classmethod
    def of(cls, program: Program, trainable: Trainable = Trainable()) -> Trainer:
        """Divide a program. Raises `PreconditionError` where it does not end in a linear layer, or in too few layers that gradients pass."""
        if len(program.outputs) != 1:
            raise PreconditionError(f"training needs a program with one output, not {len(program.outputs)}")
        makers, readers = {step.output: step for step in program.steps}, program.readers()
        last = makers.get(program.outputs[0].buffer)
        if isinstance(last, Softmax):
            last = makers.get(last.inputs[0])
        if not isinstance(last, Convolution) or not last.pointwise or last.image[:2] != (1, 1) or (last.low, last.high) != (LOW, HIGH):
            raise PreconditionError("training needs a program that ends in a linear layer without activation, or softmax behind it: the classifier")
        tail: list[Convolution | AveragePool] = []
        at = last.inputs[0]
        while sum(isinstance(step, Convolution) for step in tail) < trainable.biases:
            step = makers.get(at)
            if not isinstance(step, (Convolution, AveragePool)) or len(readers[at]) != 1 or step.inputs[0] in program.constants:
                where = f"{step.layer} ({type(step).__name__})" if step is not None else "the input"
                raise PreconditionError(f"biases of {trainable.biases} layers: gradients pass convolutions and average pools in a row, and end at {where}; "
                                        f"train {sum(isinstance(s, Convolution) for s in tail)} at most")
            tail.insert(0, step)
            at = step.inputs[0]
        if last.narrow or any(step.narrow for step in tail):
            raise PreconditionError("training reads the codes of the last layers byte by byte, and some lie in fewer bits: generate the project with "
                                    "Code(activations=Bytes())")
        dropped = {*tail, last, makers[program.outputs[0].buffer]}
        steps = tuple(step for step in program.steps if step not in dropped)
        if not steps:
            raise PreconditionError("biases of all layers are to be trained; leave the first layer as it is")
        backbone = replace(program, steps=steps, outputs=(_port(at),))
        return cls(backbone=backbone, tail=tuple(_plain(step) for step in tail), classifier=_convolution(last), trainable=trainable)

    @property
    def rest(self) -> Program:
        """The tail as a program of its own."""
        return Program(inputs=self.backbone.outputs, outputs=(_port(self.classifier.inputs[0]),), steps=self.tail, rounding=self.backbone.rounding)

    @property
    def trained(self) -> tuple[Convolution, ...]:
        """The convolutions whose biases move."""
        return tuple(step for step in self.tail if isinstance(step, Convolution))

    def scales(self, step: Convolution) -> Array:
        """Scales of the weights of each filter, float64, from the factors of rescaling."""
        found: Array = step.factors * step.output.scale / step.inputs[0].scale
        return found

    def units(self, step: Convolution) -> Array:
        """Steps of the bias in 1, float32."""
        found: Array = (1 / (self.scales(step) * step.inputs[0].scale)).astype(F32)
        return found

    def start(self) -> State:
        """The state as the program has it."""
        head = self.classifier
        scales = self.scales(head)
        weights = head.weights.reshape(head.weights.shape[0], -1).astype(F32) * scales.astype(F32)[:, None]
        bias = head.bias.astype(np.int32).astype(F32) * (scales * head.inputs[0].scale).astype(F32)
        return State(rate=F32(self.trainable.rate), weights=weights, bias=bias, changes=[np.zeros(s.weights.shape[0], F32) for s in self.trained])

    def forward(self, state: State, codes: Array) -> tuple[Array, list[Array]]:
        """Real features `(F,)` of the codes that the backbone gives, and codes behind each step of the tail."""
        values, found, trained = codes.astype(np.int64), [], iter(state.changes)
        for step in self.tail:
            if isinstance(step, Convolution):
                step = replace(step, bias=step.bias + arithmetic.moved(next(trained), self.units(step)))
            values = step.run([values], self.backbone.rounding)
            found.append(values)
        buffer = self.classifier.inputs[0]
        return (values.reshape(-1) - buffer.zero).astype(F32) * F32(buffer.scale), found

    def scores(self, state: State, codes: Array) -> Array:
        """The classifier's scores, float32, of the codes that the backbone gives."""
        return arithmetic.scores(state.weights, state.bias, self.forward(state, codes)[0])

    def step_(self, state: State, codes: Array, label: int) -> int:
        """One step of gradient descent on the cross-entropy of a sample, in place: the class found before it."""
        if not 0 <= label < state.bias.size:
            raise DataError(f"label {label} is none of the {state.bias.size} classes")
        features, found = self.forward(state, codes)
        scores = arithmetic.scores(state.weights, state.bias, features)
        gradient = arithmetic.gradient(scores, label)
        back = arithmetic.through_head(state.weights, gradient)
        step = state.rate * gradient
        state.weights = state.weights - step[:, None] * features
        state.bias = state.bias - step
        for change, total in zip(state.changes, self.bias_gradients(back, found), strict=True):
            change -= state.rate * total
        return int(np.argmax(scores))

    def bias_gradients(self, back: Array, found: list[Array]) -> list[Array]:
        """Gradients of the trained biases from that of the features and the codes behind each step of the tail."""
        return list(self._walk(back, found))[::-1]

    def _walk(self, back: Array, found: list[Array]) -> Iterator[Array]:
        for i in reversed(range(len(self.tail))):
            step = self.tail[i]
            if masked(step):
                codes = found[i].reshape(-1)
                back = np.where((codes > step.low) & (codes < step.high), back, F32(0))
            if isinstance(step, Convolution):
                yield arithmetic.over_pixels(back.reshape(-1, step.weights.shape[0]))
                back = arithmetic.through_convolution(step, self.scales(step).astype(F32), back) if i else back
            else:
                back = arithmetic.through_mean(step, back)


def masked(step: Operator) -> bool:
    """Whether codes at a step's limits end gradients: those of all convolutions, and of pools with an activation."""
    return isinstance(step, Convolution) or (isinstance(step, AveragePool) and (step.low, step.high) != (LOW, HIGH))


def _port(buffer: Buffer) -> Port:
    return Port(name=buffer.name, buffer=buffer, positions=np.arange(buffer.size).reshape(1, *buffer.shape))


def _convolution(step: Convolution) -> Convolution:
    """The convolution itself, with int8 weights and an output of its own."""
    members = {f.name: getattr(step, f.name) for f in fields(Convolution) if f.name not in ("scratch", "stored")}
    return Convolution(**members)


def _plain(step: Convolution | AveragePool) -> Convolution | AveragePool:
    return _convolution(step) if isinstance(step, Convolution) else step
