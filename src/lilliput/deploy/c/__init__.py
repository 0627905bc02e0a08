"""C code for microcontrollers from full-integer models."""

from lilliput.deploy.c.activations import AsNeeded, Bytes, SubByte
from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding
from lilliput.deploy.c.beside import beside_micro
from lilliput.deploy.c.lowering import lower
from lilliput.deploy.c.program import Program
from lilliput.deploy.c.project import Code, Limits, Project, read_samples, run, to_c
from lilliput.deploy.c.storage import Coded, Packed, Plain

__all__ = ["AsNeeded", "Bytes", "Code", "Coded", "DoubleRounding", "Limits", "Packed", "Plain", "Program", "Project", "SingleRounding", "SubByte", "beside_micro",
           "lower", "read_samples", "run", "to_c"]
