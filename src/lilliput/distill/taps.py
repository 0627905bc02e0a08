"""Taps: inner values of a traced network, recorded while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn

from lilliput.core.errors import PreconditionError, UnknownNameError


class Tap(nn.Module):
    """Passes its input on and remembers it."""

    value: Tensor | None = None

    def forward(self, value: Tensor) -> Tensor:
        """The input."""
        self.value = value
        return value

    def __getstate__(self) -> dict[str, Any]:
        # An inner value of a graph can be neither copied nor sent.
        return {name: item for name, item in self.__dict__.items() if name != "value"}

    def __deepcopy__(self, memo: dict[int, Any]) -> Tap:
        return Tap().train(self.training)


class Taps:
    """Taps on named nodes of a traced network, inserted in place until `remove_`."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        self._model, self._taps = model, dict[str, Tap]()
        if names and not isinstance(model, fx.GraphModule):
            raise PreconditionError("knowledge of inner values needs a traced network: pass graph.trace(model, example)")
        for name in names:
            self._insert_(name)

    def values(self) -> dict[str, Tensor]:
        """The latest value of every node."""
        return {name: tap.value for name, tap in self._taps.items() if tap.value is not None}

    def remove_(self) -> None:
        """Give the network its graph back."""
        model = self._model
        for node in self._nodes():
            node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
            assert isinstance(model, fx.GraphModule)
            model.graph.erase_node(node)
            model.delete_submodule(str(node.target))
            model.recompile()
        self._taps.clear()

    def _nodes(self) -> list[fx.Node]:
        if not isinstance(self._model, fx.GraphModule):
            return []
        targets = {f"tap_{name}" for name in self._taps}
        return [node for node in self._model.graph.nodes if node.op == "call_module" and node.target in targets]

    def _insert_(self, name: str) -> None:
        model, tap = self._model, Tap()
        assert isinstance(model, fx.GraphModule)
        found = [node for node in model.graph.nodes if node.name == name and node.op != "output"]
        if not found:
            raise UnknownNameError("node", name, [node.name for node in model.graph.nodes if node.op == "call_function"])
        model.add_submodule(f"tap_{name}", tap)
        with model.graph.inserting_after(found[0]):
            node = model.graph.call_module(f"tap_{name}", (found[0],))
        found[0].replace_all_uses_with(node, delete_user_cb=lambda user: user is not node)
        model.recompile()
        self._taps[name] = tap
