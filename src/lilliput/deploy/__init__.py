"""The network in the form its place needs: ONNX and LiteRT, and sessions that run it."""

from lilliput.deploy import kernels, litert
from lilliput.deploy.half import to_half
from lilliput.deploy.onnx import export, read
from lilliput.deploy.onnx_profile import profile_onnx
from lilliput.deploy.patterned import pack_patterns
from lilliput.deploy.runtime import Session

__all__ = ["Session", "export", "kernels", "litert", "pack_patterns", "profile_onnx", "read", "to_half"]
