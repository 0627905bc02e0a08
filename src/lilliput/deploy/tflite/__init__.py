"""LiteRT (`.tflite`) full-integer models of other tools, read as QDQ ONNX models."""

from lilliput.deploy.tflite.convert import is_tflite, read, to_onnx

__all__ = ["is_tflite", "read", "to_onnx"]
