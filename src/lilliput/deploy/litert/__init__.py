"""LiteRT: a quantized network as a full-integer `.tflite` file, the interpreters that run it, and what they do differently."""

from lilliput.deploy.litert.differences import Difference, difference, table
from lilliput.deploy.litert.export import export
from lilliput.deploy.litert.runtime import Kernels, Session

__all__ = ["Difference", "Kernels", "Session", "difference", "export", "table"]
