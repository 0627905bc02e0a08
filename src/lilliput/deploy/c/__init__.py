"""C code for microcontrollers from full-integer models."""

from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding
from lilliput.deploy.c.lowering import lower
from lilliput.deploy.c.program import Program

__all__ = ["DoubleRounding", "Program", "SingleRounding", "lower"]
