"""Propagation rules: how channel labels pass through each operator."""

from lilliput.graph.rules import arithmetic, layers, movement
from lilliput.graph.rules.base import NORMS, RULES, Propagation, argument, op_name, scaled_norms, tensors

__all__ = ["NORMS", "RULES", "Propagation", "argument", "arithmetic", "layers", "movement", "op_name", "scaled_norms", "tensors"]
