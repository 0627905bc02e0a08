"""How activations lie in the arena: one byte to a code, or 4 or 2 bits where the model keeps them within 16 or 4 codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lilliput.core.errors import BudgetError, PreconditionError
from lilliput.deploy.c.plan import Plan, candidates, fewest, packed, plan
from lilliput.deploy.c.program import Program


class Activations(Protocol):
    """The plan of a program."""

    def __call__(self, program: Program, ram: int | None, pixels_at_once: int) -> Plan:
        """Within `ram` bytes where given; raises `BudgetError` where that cannot be."""
        ...


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """One byte to a code."""

    def __call__(self, program: Program, ram: int | None, pixels_at_once: int) -> Plan:
        """See `Activations`."""
        return plan(program, ram=ram, pixels_at_once=pixels_at_once)


@dataclass(frozen=True, kw_only=True)
class SubByte:
    """The least arena that 4 and 2 bits give, with as few values in them as it takes: each costs instructions. (capotondi2020cmixnn)

    Raises `PreconditionError` where no value of the program has so few codes.
    """

    def __call__(self, program: Program, ram: int | None, pixels_at_once: int) -> Plan:
        """See `Activations`."""
        if not candidates(program):
            raise PreconditionError("no value between two layers of this model is kept within 16 codes: quantize activations to 4 or 2 bits, or leave them "
                                    "in bytes")
        found = fewest(program, pixels_at_once=pixels_at_once)
        return plan(packed(program, found), ram=ram, pixels_at_once=pixels_at_once)


@dataclass(frozen=True, kw_only=True)
class AsNeeded:
    """Bytes while they fit; then 4 and 2 bits for as few values as it takes; then patches too, which multiply more."""

    def __call__(self, program: Program, ram: int | None, pixels_at_once: int) -> Plan:
        """See `Activations`."""
        found = {} if ram is None else fewest(program, enough=ram, pixels_at_once=pixels_at_once)
        if found:
            try:
                return plan(packed(program, found), ram=ram, pixels_at_once=pixels_at_once)
            except BudgetError:
                # Blocks take memory too: patches of bytes may still fit.
                pass
        return plan(program, ram=ram, pixels_at_once=pixels_at_once)
