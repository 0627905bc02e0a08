"""The contracts that every family shares. Nothing here imports torch."""

from lilliput.core.budget import Budget, parse_limit
from lilliput.core.errors import (
    BudgetError,
    CorruptFileError,
    DataError,
    LilliputError,
    PreconditionError,
    RecipeError,
    TraceError,
    UnknownNameError,
)
from lilliput.core.report import Entry, Report, describe
from lilliput.core.seeds import seed_everything
from lilliput.core.step import Chain, Result, Step, chain

__all__ = ["Budget", "BudgetError", "Chain", "CorruptFileError", "DataError", "Entry", "LilliputError",
           "PreconditionError", "RecipeError", "Report", "Result", "Step", "TraceError", "UnknownNameError",
           "chain", "describe", "parse_limit", "seed_everything"]
