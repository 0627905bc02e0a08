"""Products with block-sparse weights beside dense ones of torch and ONNX Runtime in fp32; one thread, all taking turns in one process.

    python -m benchmarks.block_sparse --json benchmarks/results/block_sparse.json [CASE ...]

`ROWSxCOLUMNS, SHARE`: blocks of that shape, of which SHARE per cent, drawn at random, are zero; 128 activations of 1024 (the tokens of a
transformer's layer) by 1024 x 1024 weights. `..., one row`: a single activation by 4096 x 4096, where reading weights takes the time.
`..., bytes`: the first, uint8 by int8, beside ONNX Runtime's three ways to int8 too. All write to memory that they are given; ONNX Runtime has the weights as constants, which it packs beforehand. Results are checked
against the product in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.binary_gemm import int8_ways
from benchmarks.results import main
from lilliput.core.signs import available
from lilliput.core.sparse import SparseWeights, gemm_sparse, pack_sparse
from lilliput.deploy.runtime import open_session
from lilliput.graph import latency

_TOKENS, _SIDE, _WIDE, _ROUNDS = 128, 1024, 4096, 60
_CASES = ("32x32, 50", "32x32, 75", "32x32, 90", "16x1, 75", "4x4, 75", "32x32, 75, one row", "32x32, 75, bytes")
Call = Callable[[], object]


def row(case: str) -> dict[str, Any]:
    """Milliseconds of every candidate, and the share of each other's time that ours takes, with its interval."""
    shape, share, *single = case.split(", ")
    rows, columns = (int(size) for size in shape.split("x"))
    m, side = (1, _WIDE) if single == ["one row"] else (_TOKENS, _SIDE)
    rng = np.random.default_rng(0)
    kept = rng.random((side // rows, side // columns)) >= int(share) / 100
    weights = (rng.standard_normal((side, side)) * np.kron(kept, np.ones((rows, columns)))).astype(np.float32)
    x = rng.standard_normal((m, side)).astype(np.float32)
    if single == ["bytes"]:
        calls, packed = _ours(rng.integers(0, 256, (m, side), dtype=np.uint8), np.clip(np.rint(40 * weights), -127, 127).astype(np.int8))
        calls |= int8_ways(rng, m, side)
    else:
        calls, packed = _ours(x, weights)
    calls |= {"torch_fp32": _torch(x, weights), "ort_fp32": _onnxruntime(x, weights)}
    with latency.pinned_threads(1):
        compared = latency.compare(calls, rounds=_ROUNDS, warmup=5)
    found: dict[str, Any] = {"case": case, "m": m, "n": side, "k": side, "threads": 1, "stored": round(packed.density, 4)}
    found["ms"] = {name: round(1e3 * timing.median, 4) for name, timing in compared.timings.items()}
    for ours in (name for name in calls if name.startswith("ours")):
        ratios = {name: compared.ratio(ours, name) for name in calls if not name.startswith("ours")}
        found[f"{ours} takes"] = {name: [round(r.median, 4), round(r.low, 4), round(r.high, 4)] for name, r in ratios.items()}
    return found


def _ours(x: np.ndarray, weights: np.ndarray) -> tuple[dict[str, Call], SparseWeights]:
    packed = pack_sparse(weights)
    out = gemm_sparse(x, packed)
    np.testing.assert_allclose(out, x.astype(np.float64) @ weights.T.astype(np.float64), rtol=1e-4, atol=1e-3)
    calls: dict[str, Call] = {"ours": lambda: gemm_sparse(x, packed, out=out)}
    return calls | {f"ours, {path.name}": lambda p=path: gemm_sparse(x, packed, out=out, instructions=p)  # type: ignore[misc]
                    for path in available()[1:-1]}, packed


def _torch(x: np.ndarray, weights: np.ndarray) -> Call:
    a, w, out = torch.from_numpy(x), torch.from_numpy(weights).t(), torch.empty(x.shape[0], weights.shape[0])
    return lambda: torch.matmul(a, w, out=out)


def _onnxruntime(x: np.ndarray, weights: np.ndarray) -> Call:
    import onnxruntime

    shape = [x.shape[0], weights.shape[0]]
    constant = numpy_helper.from_array(np.ascontiguousarray(weights.T), "w")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "product",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x.shape))],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)], [constant])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    session = open_session(model.SerializeToString(), 1)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    out = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
    binding.bind_ortvalue_output("y", out)
    return lambda: session.run_with_iobinding(binding)


if __name__ == "__main__":
    main(row, _CASES, threads=1)
