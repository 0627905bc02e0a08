"""The network in the form its place needs: ONNX, and sessions that run it."""

from lilliput.deploy.onnx import export, read
from lilliput.deploy.onnx_profile import profile_onnx
from lilliput.deploy.runtime import Session

__all__ = ["Session", "export", "profile_onnx", "read"]
