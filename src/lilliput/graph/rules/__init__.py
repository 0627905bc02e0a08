"""Propagation rules: how channel labels pass through each operator."""

from lilliput.graph.rules import arithmetic, layers, movement
from lilliput.graph.rules.base import RULES, Propagation, argument, op_name, tensors

__all__ = ["RULES", "Propagation", "argument", "arithmetic", "layers", "movement", "op_name", "tensors"]
