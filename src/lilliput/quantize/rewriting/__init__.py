"""Rewrites: changes of the float network that keep its function and make it easier to quantize."""

from lilliput.quantize.rewriting.equalize import AbsorbBias, Equalize
from lilliput.quantize.rewriting.migrate import Migrate
from lilliput.quantize.rewriting.split import SplitOutliers

__all__ = ["AbsorbBias", "Equalize", "Migrate", "SplitOutliers"]
