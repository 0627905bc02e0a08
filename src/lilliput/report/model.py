"""What a run folder says, ready to be shown: variants in order, each with the record of its step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lilliput.core.report import Entry

COSTS = ("params", "macs", "size", "latency")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of the run: the original (`step` 0) or what a step made of the one before.

    `metrics` holds finite numbers only, in the units of `core.report.Entry`; `entry` is the step's record.
    """

    step: int
    label: str
    method: str
    metrics: dict[str, float] = field(default_factory=dict)
    model: str = ""
    onnx: str = ""
    entry: Entry | None = None

    def interval(self) -> tuple[float, float] | None:
        """Bounds of the latency's interval in seconds, where both were measured."""
        low, high = self.metrics.get("latency_low"), self.metrics.get("latency_high")
        return None if low is None or high is None else (low, high)


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as the report shows it; built by `from_run`. `kernels` is what `kernels.json` says, where it does."""

    name: str
    created: str = ""
    lilliput: str = ""
    status: str = "running"
    seed: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    recipe_text: str = ""
    data_name: str = ""
    data_digest: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    warnings: tuple[str, ...] = ()
    kernels: dict[str, Any] = field(default_factory=dict)

    @property
    def original(self) -> Variant | None:
        """The network before the first step, where it was measured."""
        return next((variant for variant in self.variants if variant.step == 0), None)

    @property
    def final(self) -> Variant | None:
        """The last network, where any step finished."""
        return self.variants[-1] if self.variants and self.variants[-1].step > 0 else None

    @property
    def finished(self) -> bool:
        """Whether every step of the recipe ran."""
        return self.status == "done"

    def before(self, variant: Variant) -> Variant | None:
        """The network that the variant's step started from."""
        position = self.variants.index(variant)
        return self.variants[position - 1] if position else None
