"""The text of `NAME_train.c`: where things lie in the arena, records of constants, and calls forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.emit import float_text, identifier, numbers
from lilliput.deploy.c.operators import AveragePool, Buffer, Call, Convolution, Operator
from lilliput.deploy.c.plan import Plan
from lilliput.deploy.c.training.trainer import Trainer, masked

Array = NDArray[Any]
_TYPES = {"int8": "int8_t", "int32": "int32_t", "float32": "float"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """Where training works: offsets in the arena of scores, two gradients, biases, the tail's own arena, and of a mask for each of its steps."""

    backbone: Plan
    rest: Plan | None
    arena: int
    scores: int
    gradients: tuple[int, int]
    biases: int
    tail: int
    masks: tuple[int, ...]

    @classmethod
    def of(cls, trainer: Trainer, backbone: Plan, rest: Plan | None) -> Work:
        """Behind the features, or before them where that fits."""
        steps = rest.program.steps if rest is not None else ()
        # Gradients of outputs, from the last one on, lie in one place and the other in turn.
        maps = [max((4 * step.output.size for step in steps[::-1][turn::2]), default=0) for turn in (0, 1)]
        channels = max((step.weights.shape[0] for step in steps if isinstance(step, Convolution)), default=0)
        # Gradients of floats first, then what lies at any address.
        sizes = [4 * trainer.classifier.weights.shape[0], *maps, 4 * channels, _up(rest.arena) if rest is not None else 0,
                 *(-(-step.output.size // 8) if masked(step) else 0 for step in steps)]
        port = trainer.backbone.outputs[0].buffer
        features, total = backbone.offsets[port], _up(sum(sizes), 16)
        base = 0 if features >= total else _up(features + port.size, 16)
        starts = [base + at for at in accumulate(sizes, initial=0)]
        return cls(backbone=backbone, rest=rest, arena=max(backbone.arena, base + total), scores=starts[0], gradients=(starts[1], starts[2]),
                   biases=starts[3], tail=starts[4], masks=tuple(starts[5:-1]))


def _up(count: int, to: int = 4) -> int:
    return -(-count // to) * to


@dataclass(kw_only=True, eq=False)
class Source:
    """What the text is made of so far."""

    trainer: Trainer
    work: Work
    arrays: list[dict[str, Any]] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    backward: list[str] = field(default_factory=list)
    names: dict[tuple[str, bytes], str] = field(default_factory=dict)

    @classmethod
    def of(cls, trainer: Trainer, work: Work) -> Source:
        """All of it."""
        made = cls(trainer=trainer, work=work)
        head, scales = trainer.classifier, trainer.scales(trainer.classifier)
        made.array("head_weights", head.weights.astype(np.int8))
        made.array("head_bias", head.bias.astype(np.int32))
        made.array("head_scales", scales.astype(np.float32))
        made.array("head_bias_scales", (scales * head.inputs[0].scale).astype(np.float32))
        fields = {"features": head.weights[0].size, "classes": head.weights.shape[0], "scale": float_text(head.inputs[0].scale),
                  "zero": head.inputs[0].zero}
        made.records.append({"comment": head.layer.replace("*/", ""), "structure": "lp_head", "name": "head",
                             "fields": [f".{key} = {value}" for key, value in fields.items()]})
        made._steps()
        return made

    @property
    def steps(self) -> tuple[Operator, ...]:
        """The tail as it was planned."""
        return self.work.rest.program.steps if self.work.rest is not None else ()

    def kernels(self) -> list[str]:
        """Files of the integer kernels that the tail calls."""
        return sorted({f"lp_{call.kernel}.c" for step in self.steps for call in step.calls()})

    def values(self, name: str) -> dict[str, Any]:
        """What the templates need."""
        head = self.trainer.classifier
        changes = [{"name": step.layer.replace("*/", ""), "count": step.weights.shape[0]} for step in self.trainer.trained]
        back = f"(float *)(arena + {self.work.gradients[0]})" if self.steps else "0"
        codes = self.pointer(head.inputs[0])
        step = f"lp_train_head(&head, state->weights, state->bias, {codes}, {self.floats(self.work.scores)}, state->rate, {back});"
        return {"arena": self.work.arena, "classes": head.weights.shape[0], "features": head.weights[0].size, "state": self.trainer.start().size,
                "trained": changes, "arrays": self.arrays, "records": self.records, "rate": float_text(self.trainer.trainable.rate),
                "forward": self.forward, "backward": [step, *self.backward], "codes": codes, "scores": self.floats(self.work.scores), "name": name}

    def array(self, name: str, array: Array) -> str:
        """The C name of a constant array; equal arrays of one type are one."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.name, array.tobytes())
        if key not in self.names or name.startswith("head"):
            self.names[key] = name
            text = numbers(array) if array.dtype != np.float32 else "    " + ", ".join(float_text(float(x)) for x in array.reshape(-1))
            self.arrays.append({"type": _TYPES[array.dtype.name], "name": name, "count": array.size, "text": text})
        return self.names[key]

    def pointer(self, buffer: Buffer) -> str:
        """Codes of a buffer as an expression of C."""
        if self.work.rest is not None and buffer in self.work.rest.offsets:
            return f"arena + {self.work.tail + self.work.rest.offsets[buffer]}"
        return f"arena + {self.work.backbone.offsets[buffer]}"

    def floats(self, offset: int) -> str:
        """Floats of the arena."""
        return f"(float *)(arena + {offset})"

    def _steps(self) -> None:
        if not self.steps:
            return
        first = self.steps[0].inputs[0]
        self.forward.append(f"memcpy({self.pointer(first)}, arena + {self.work.backbone.offsets[first]}, {first.size});")
        trained = 0
        for i, step in enumerate(self.steps):
            self._back_record(i, step)
            for part, call in enumerate(step.calls()):
                name = f"s{i}_{part}"
                self._record(name, step, call)
                pointers = [*([self.pointer(step.inputs[0])] if call.reads is None or call.reads else []), self.pointer(step.output)]
                if call.scratch and step.scratch is not None:
                    pointers.append(self.pointer(step.scratch))
                self._call(i, name, call, pointers, trained if isinstance(step, Convolution) else None)
            if masked(step):
                self.forward.append(f"lp_train_mask(&b{i}, {self.pointer(step.output)}, (uint8_t *)arena + {self.work.masks[i]});")
            trained += isinstance(step, Convolution)
        self.backward = list(self._backward(trained))

    def _call(self, i: int, name: str, call: Call, pointers: list[str], trained: int | None) -> None:
        if trained is None:
            self.forward.append(f"lp_{call.kernel}(&{name}, {', '.join(pointers)});")
            return
        copy, bias = f"p{i}", f"(int32_t *)(arena + {self.work.biases})"
        self.forward += [f"lp_train_fold(&b{i}, state->change_{trained}, {bias});", f"lp_{call.structure} {copy} = {name};",
                         f"{copy}.bias = {bias};", f"lp_{call.kernel}(&{copy}, {', '.join(pointers)});"]

    def _backward(self, trained: int) -> Iterator[str]:
        here, there = (self.floats(offset) for offset in self.work.gradients)
        for i in reversed(range(len(self.steps))):
            step = self.steps[i]
            if masked(step):
                yield f"lp_train_apply(&b{i}, (const uint8_t *)arena + {self.work.masks[i]}, {here});"
            if isinstance(step, Convolution):
                trained -= 1
                yield f"lp_train_bias(&b{i}, {here}, state->change_{trained}, state->rate);"
            if i:
                yield f"lp_train_{'conv' if isinstance(step, Convolution) else 'mean'}(&b{i}, {here}, {there});"
                here, there = there, here

    def _record(self, name: str, step: Operator, call: Call) -> None:
        fields = [f".{key} = {self.array(identifier(f'{name}_{key}'), array)}" for key, array in call.arrays.items() if key != "bias"]
        fields += [f".{key} = {value}" for key, value in call.fields.items()]
        self.records.append({"comment": step.layer.replace("*/", ""), "structure": f"lp_{call.structure}", "name": name, "fields": fields})

    def _back_record(self, i: int, step: Operator) -> None:
        """The structure `lp_back` of a step."""
        assert isinstance(step, Convolution | AveragePool)
        height, width, channels = step.image
        rows, columns = step.window.size(height, width)
        fields: dict[str, Any] = {"in_h": height, "in_w": width, "in_c": channels, "out_h": rows, "out_w": columns, "out_c": channels, "low": step.low,
                                  "high": step.high, **step.window.fields()}
        if isinstance(step, Convolution):
            depth = step.weights.size // step.weights.shape[0] // (step.window.kernel[0] * step.window.kernel[1])
            weights = step.weights.astype(np.int8)
            weights = weights.reshape(step.groups, -1).T if step.depthwise else weights
            fields |= {"weights": self.array(f"s{i}_0_weights", weights), "scales": self.array(f"b{i}_scales", self.trainer.scales(step).astype(np.float32)),
                       "bias": self.array(f"b{i}_bias", step.folded), "units": self.array(f"b{i}_units", self.trainer.units(step)),
                       "out_c": step.weights.shape[0], "groups": step.groups, "dilation_h": step.window.dilation[0],
                       "dilation_w": step.window.dilation[1], "tap": channels if step.depthwise else depth,
                       "filter": 1 if step.depthwise else weights[0].size}
        else:
            fields["whole"] = int(step.whole)
        self.records.append({"comment": f"Gradients of {step.layer}".replace("*/", ""), "structure": "lp_back", "name": f"b{i}",
                             "fields": [f".{key} = {value}" for key, value in fields.items()]})
