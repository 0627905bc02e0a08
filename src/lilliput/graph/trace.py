"""Tracing: any model that `torch.export` takes becomes a graph of ATen operators that trains, saves and shrinks."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim
from torch.fx import config as fx_config

from lilliput.core.errors import TraceError
from lilliput.graph.functional import functional_

aten = torch.ops.aten
# Position of the flag that tells training from evaluation in each operator that has one.
_TRAINING_ARG = {
    aten.batch_norm.default: 5,
    aten.instance_norm.default: 5,
    aten.dropout.default: 2,
    aten.feature_dropout.default: 2,
    aten.alpha_dropout.default: 2,
    aten.lstm.input: 6,
    aten.gru.input: 6,
    aten.rnn_tanh.input: 6,
    aten.rnn_relu.input: 6,
}
_META = "lilliput"
_NO_STACK_TRACES = "do_not_emit_stack_traces"  # of torch 2.13; earlier ones have no such setting


class Traced(fx.GraphModule):
    """A traced network: a plain `nn.Module` whose code is a graph of ATen operators.

    Parameters and buffers keep the names they had in the original model. `train()` and `eval()` switch the
    batch-norm, dropout and recurrent nodes, as they would in the original. Branches on `self.training` in the original
    were resolved for evaluation when it was traced (stochastic depth, for one, is gone).
    """

    @property
    def example(self) -> tuple[Tensor, ...]:
        """Zero inputs of the traced shapes and types (integers for integer inputs), with a batch of two."""
        return tuple(torch.zeros(shape, dtype=dtype) for shape, dtype in self.meta[_META]["inputs"])

    @property
    def dynamic_batch(self) -> bool:
        """Whether the first dimension of every input may vary."""
        return bool(self.meta[_META]["dynamic"])

    def __deepcopy__(self, memo: dict[int, Any]) -> Traced:
        with warnings.catch_warnings():
            # torch's own deprecation, inside its copy of the call signature; nothing a user could act on.
            warnings.simplefilter("ignore", FutureWarning)
            copied = super().__deepcopy__(memo)
        assert isinstance(copied, Traced)
        return copied

    def train(self, mode: bool = True) -> Traced:
        """Switch every batch-norm, dropout and recurrent node, then the submodules."""
        changed = False
        for node in self.graph.nodes:
            position = _TRAINING_ARG.get(node.target) if node.op == "call_function" else None
            if position is not None and node.args[position] is not mode:
                node.args = (*node.args[:position], mode, *node.args[position + 1 :])
                changed = True
        if changed:
            self.recompile()
        super().train(mode)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        from lilliput.graph.transfer import reduce

        return reduce(self)

    def tensor(self, name: str) -> Tensor:
        """The parameter or buffer of that dotted name."""
        owner, _, leaf = name.rpartition(".")
        value = getattr(self.get_submodule(owner), leaf)
        assert isinstance(value, Tensor)
        return value

    def set_tensor(self, name: str, value: Tensor) -> None:
        """Replace the parameter or buffer of that dotted name, keeping its kind and `requires_grad`."""
        owner, _, leaf = name.rpartition(".")
        module = self.get_submodule(owner)
        old = getattr(module, leaf)
        if isinstance(old, nn.Parameter):
            setattr(module, leaf, nn.Parameter(value.detach(), requires_grad=old.requires_grad))
        else:
            module.register_buffer(leaf, value.detach(), persistent=leaf not in module._non_persistent_buffers_set)


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection meanwhile: for work that makes very many small objects that live on, and has an end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _stack_traces_off() -> Iterator[None]:
    """Looking up the source line of every node, which nobody reads, takes a tenth of the time of tracing."""
    before = getattr(fx_config, _NO_STACK_TRACES, None)
    if before is not None:
        setattr(fx_config, _NO_STACK_TRACES, True)
    try:
        yield
    finally:
        if before is not None:
            setattr(fx_config, _NO_STACK_TRACES, before)


def as_inputs(example: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Positional inputs as a tuple."""
    return example if isinstance(example, tuple) else (example,)


def trace(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Traced:
    """Trace `model` with a dynamic batch; a model that is traced already is returned as it is.

    `example` is one input batch `(N, ...)`, or a tuple of them for several inputs; values do not matter. The
    caller's model is left as it was; the result owns copies of its tensors. Where the model fixes its batch
    size, the traced one does too (`Traced.dynamic_batch`). Modules that evaluation does not use (auxiliary heads)
    are left out.

    Raises `TraceError` with torch's reason and the model's line when `torch.export` refuses.
    """
    if isinstance(model, Traced):
        return model
    inputs = tuple(_at_least_two(x) for x in as_inputs(example))
    program, dynamic = export_program(model, inputs)
    module = program.module(check_guards=False)
    return assemble(module, module.graph, tuple((tuple(x.shape), x.dtype) for x in inputs), dynamic).train(model.training)


def assemble(root: nn.Module, graph: fx.Graph, inputs: tuple[tuple[tuple[int, ...], torch.dtype], ...], dynamic: bool) -> Traced:
    """A traced network from a module that holds the tensors and a graph over them; `inputs` are shapes and types."""
    functional_(graph)
    _drop_unused(root, graph)
    traced = Traced(root, graph)
    traced.meta[_META] = {"inputs": inputs, "dynamic": dynamic}
    _own_tensors(traced)
    return traced


def _drop_unused(root: nn.Module, graph: fx.Graph) -> None:
    """Forget modules none of whose tensors is used, under any name: `GraphModule` keeps what its graph names."""
    nodes = [n for n in graph.nodes if n.op == "get_attr"]
    owners = {str(n.target).rpartition(".")[0] for n in nodes if n.users}
    used = {id(_attribute(root, str(n.target))) for n in nodes if n.users}
    for node in nodes:
        name = str(node.target)
        if name.rpartition(".")[0] not in owners and id(_attribute(root, name)) not in used:
            graph.erase_node(node)


def _attribute(root: nn.Module, name: str) -> Any:
    owner, _, leaf = name.rpartition(".")
    return getattr(root.get_submodule(owner), leaf)


def export_program(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[torch.export.ExportedProgram, bool]:
    """`torch.export` in evaluation mode, and whether the batch is dynamic; raises `TraceError`."""
    training = {module: module.training for module in model.modules()}
    with suppress(NotImplementedError):  # what torch exported has one mode: its batch norms were fixed then
        model.eval()
    try:
        with collection_paused(), _stack_traces_off():
            try:
                shapes = tuple({0: Dim.DYNAMIC} if x.ndim else None for x in inputs)
                return torch.export.export(model, inputs, dynamic_shapes=(shapes,) if _variadic(model) else shapes), True
            except Exception as dynamic_error:
                try:
                    # The refused attempt marked its inputs as dynamic, so this one gets clean copies.
                    return torch.export.export(model, tuple(x.clone() for x in inputs)), False
                except Exception:
                    raise TraceError(_reason(model, dynamic_error, inputs)) from dynamic_error
    finally:
        for module, mode in training.items():
            module.training = mode


def _variadic(model: nn.Module) -> bool:
    import inspect

    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    return bool(kinds) and kinds[0] is inspect.Parameter.VAR_POSITIONAL


def _reason(model: nn.Module, error: Exception, inputs: tuple[Tensor, ...]) -> str:
    """Torch's own reason, and the last line of the model's own code on the way to it."""
    import inspect
    import traceback

    try:
        home = inspect.getfile(type(model))
    except TypeError:
        home = ""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == home]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""
    text = " ".join(str(error).split())
    whole = [str(x.dtype) for x in inputs if not (x.is_floating_point() or x.is_complex())]
    numbers = f" The example holds whole numbers ({whole[0]}): where the network takes real ones, pass x.float()." if whole else ""
    return (f"torch.export refuses {type(model).__name__}{where}. Its reason: {text[:600]}. "
            "Remedy: make the forward pass free of data-dependent Python control flow (torch.where, torch.cond), "
            f"or trace the part that is.{numbers}")


def _at_least_two(x: Tensor) -> Tensor:
    """`torch.export` specialises sizes 0 and 1, so the batch of an example must be at least two."""
    if not isinstance(x, Tensor):
        raise TraceError(f"example inputs must be tensors, not {type(x).__name__}")
    return x if x.ndim == 0 or x.shape[0] != 1 else torch.cat([x, x])


def own_copy(tensor: Tensor) -> Tensor:
    """A detached copy, made when one of the two is first written to where torch can do that (plain tensors on their own
    storage): most of what is traced is read once, shrunk, and gone."""
    plain = tensor.detach()
    if type(plain) is Tensor and plain.device.type == "cpu" and plain.untyped_storage().nbytes() == plain.numel() * plain.element_size():
        try:
            return torch._lazy_clone(plain)
        except (AttributeError, RuntimeError):  # memory that is not torch's own: a NumPy array, a mapped file
            pass
    return plain.clone()


def _own_tensors(traced: Traced) -> None:
    """Clone parameters and buffers, so that training the traced model leaves the original alone; keep ties."""
    seen: dict[int, Tensor] = {}
    for module in traced.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None:
                if id(parameter) not in seen:
                    seen[id(parameter)] = nn.Parameter(own_copy(parameter), parameter.requires_grad)
                module._parameters[name] = seen[id(parameter)]  # type: ignore[assignment]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = seen.setdefault(id(buffer), own_copy(buffer))
