"""Budgets: what the user can afford, never how hard to prune.

A limit is a share of the original (`0.5`, `"50%"`) or an absolute amount (`41e6`, `"128K"`, `"20ms"`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from lilliput.core.errors import BudgetError, PreconditionError

Limit = float | int | str

_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "KB": 1024.0, "MB": 1024.0**2, "KIB": 1024.0, "MIB": 1024.0**2,
          "NS": 1e-9, "US": 1e-6, "MS": 1e-3, "S": 1.0, "PJ": 1e-12, "NJ": 1e-9, "UJ": 1e-6, "MJ": 1e-3, "J": 1.0}
_QUANTITY = re.compile(r"^\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*(%|[A-Za-z]*)\s*$")


def parse_limit(limit: Limit) -> tuple[float, bool]:
    """Return `(value, relative)`: `"50%"` and floats up to 1 are shares of the original, the rest absolute.

    >>> parse_limit("50%"), parse_limit(0.5), parse_limit("128KB"), parse_limit("20ms")
    ((0.5, True), (0.5, True), (131072.0, False), (0.02, False))

    Raises `BudgetError` for anything else, and for limits that are not positive.
    """
    if isinstance(limit, str):
        match = _QUANTITY.match(limit)
        unit = match.group(2).upper() if match else None
        if match is None or (unit != "%" and unit not in _UNITS):
            raise BudgetError(f"cannot read {limit!r}; write a share ('50%', 0.5) or an amount ('41M', '128KB', '20ms')")
        value, relative = float(match.group(1)), unit == "%"
        value = value / 100 if relative else value * _UNITS[str(unit)]
        relative = relative or (unit == "" and value <= 1 and "." in limit)
    else:
        value, relative = float(limit), isinstance(limit, float) and limit <= 1
    if not value > 0 or value == float("inf"):
        raise BudgetError(f"a limit must be positive and finite, not {limit!r}")
    return value, relative


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on a network: shares of the original or absolute amounts.

    `macs` and `params` count, `size` is bytes of the exported file, `latency` seconds and `energy` joules for one sample
    (`"3mJ"` are millijoules), `bits` the average width of a weight, never a share, `max_drop` percentage points of validation
    accuracy that may be lost.
    """

    macs: Limit | None = None
    params: Limit | None = None
    size: Limit | None = None
    latency: Limit | None = None
    energy: Limit | None = None
    bits: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        for name in self.costs():
            if name != "bits":
                parse_limit(getattr(self, name))
        if self.bits is not None and not 0 < self.bits <= 32:
            raise BudgetError(f"bits is an average width above 0 and up to 32, not {self.bits!r}")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise BudgetError(f"max_drop is percentage points between 0 and 100, not {self.max_drop!r}")

    def costs(self) -> tuple[str, ...]:
        """Names of the cost limits that are set, `max_drop` aside."""
        return tuple(f.name for f in fields(self) if f.name != "max_drop" and getattr(self, f.name) is not None)

    def targets(self, original: Mapping[str, float]) -> dict[str, float]:
        """Absolute limits, given the original's costs by the same names."""
        out: dict[str, float] = {}
        for name in self.costs():
            value, relative = (float(self.bits), False) if name == "bits" and self.bits else parse_limit(getattr(self, name))
            if relative and name not in original:
                raise PreconditionError(f"budget {name}={getattr(self, name)!r} is a share, so the original's {name} must be measured")
            out[name] = value * original[name] if relative else value
        return out
