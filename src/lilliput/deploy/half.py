"""Half precision: a float ONNX model with weights and arithmetic of 16 bits, inputs and outputs as they were."""

from __future__ import annotations

import logging
import warnings
from os import PathLike
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from lilliput.core.atomic import write_bytes
from lilliput.core.errors import PreconditionError
from lilliput.deploy.onnx import read
from lilliput.deploy.runtime import open_session

_MOST = float(np.finfo(np.float16).max)


def to_half(source: str | PathLike[str], path: str | PathLike[str]) -> Path:
    """Write a float model in half precision, about half as large; ONNX Runtime opens it before it counts as written.

    Weights are rounded to the nearest 16-bit float, and operators that a runtime has no such kernel for stay as they are.
    Raises `PreconditionError` for a weight beyond 65,504 and for quantized models, whose integers gain nothing.
    """
    model = read(source)
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise PreconditionError(f"{source} is quantized already, and smaller than in half precision; convert the float model")
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size and not np.abs(array).max() <= _MOST:
            raise PreconditionError(f"{tensor.name} has values beyond {_MOST:,.0f}, the most that half precision holds; rescale the layer, or keep "
                                    f"32 bits")
    from onnxruntime.transformers.float16 import convert_float_to_float16

    level = logging.getLogger().level
    try:
        logging.getLogger().setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = ir.from_proto(convert_float_to_float16(model, keep_io_types=True))
    finally:
        logging.getLogger().setLevel(level)
    # The converter appends its casts at the end.
    converted.graph.sort()
    data = ir.to_proto(converted).SerializeToString(deterministic=True)
    open_session(data, 1)
    write_bytes(path, data)
    return Path(path)
