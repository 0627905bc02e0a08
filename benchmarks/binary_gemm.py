"""Products of low-bit matrices beside ONNX Runtime's int8 and torch's fp32; one thread, all taking turns in one process.

    python -m benchmarks.binary_gemm --json benchmarks/results/binary_gemm.json [CASE ...]

`1024`: 1024 x 1024 x 1024, signs by signs, without and with packing the activations from fp32. ONNX Runtime has three ways to
int8 (MatMulInteger, QLinearMatMul, and Gemm between QuantizeLinear and DequantizeLinear), uint8 by int8, which is its fast
pair, constant weights that it packs beforehand; the bar is judged against the fastest. All write to memory that they are given.
`N bits`: bytes by N-bit weights, the same size; `N bits, one row`: 1 x 4096 by 4096 x 4096, where reading weights takes the
time. Results are checked against a product in fp32, which is exact for the integers here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.results import main
from lilliput.core.kernels import gemm_binary, gemm_low, pack_weights
from lilliput.core.signs import available, pack_signs
from lilliput.deploy.runtime import open_session
from lilliput.graph import latency

_SQUARE, _WIDE, _ROUNDS = 1024, 4096, 100
_BITS = {"4 bits": 4, "2 bits": 2, "1 bit": 1}
_CASES = ("1024", *_BITS, *(f"{name}, one row" for name in _BITS))
Call = Callable[[], object]


def row(case: str) -> dict[str, Any]:
    """Milliseconds of every candidate, and the share of each other's time that ours takes, with its interval."""
    rng = np.random.default_rng(0)
    name, _, batch = case.partition(", ")
    m, side = (1, _WIDE) if batch else (_SQUARE, _SQUARE)
    calls = _binary(rng, side) if case == "1024" else _low(rng, m, side, _BITS[name])
    calls |= int8_ways(rng, m, side) | _torch(m, side)
    with latency.pinned_threads(1):
        compared = latency.compare(calls, rounds=_ROUNDS, warmup=5)
    out: dict[str, Any] = {"case": case, "m": m, "n": side, "k": side, "threads": 1}
    out["ms"] = {name: round(1e3 * timing.median, 4) for name, timing in compared.timings.items()}
    for ours in (name for name in calls if name.startswith("ours")):
        ratios = {name: compared.ratio(ours, name) for name in calls if not name.startswith("ours")}
        out[f"{ours} takes"] = {name: [round(r.median, 4), round(r.low, 4), round(r.high, 4)] for name, r in ratios.items()}
    return out


def _binary(rng: np.random.Generator, side: int) -> dict[str, Call]:
    """Signs by signs: on every instruction set, and with packing on the fastest."""
    x, w = (rng.choice(np.array([-1, 1], np.float32), (side, side)) for _ in range(2))
    a, b, out = pack_signs(x), pack_signs(w), np.empty((side, side), np.int32)
    assert (gemm_binary(a, b) == x @ w.T).all()
    calls: dict[str, Call] = {"ours": lambda: gemm_binary(a, b, out=out),
                              "ours, packing": lambda: gemm_binary(pack_signs(x), b, out=out)}
    return calls | {f"ours, {path.name}": lambda p=path: gemm_binary(a, b, out=out, instructions=p)  # type: ignore[misc]
                    for path in available()[:-1]}


def _low(rng: np.random.Generator, m: int, side: int, bits: int) -> dict[str, Call]:
    """Bytes by weights of so many bits."""
    x = rng.integers(0, 256, (m, side), dtype=np.uint8)
    low = -2**(bits - 1)
    w = rng.choice([-1, 1], (side, side)) if bits == 1 else rng.integers(low, -low, (side, side))
    packed, out = pack_weights(w, bits), np.empty((m, side), np.int32)
    assert (gemm_low(x, packed) == x.astype(np.float32) @ w.T.astype(np.float32)).all()
    return {"ours": lambda: gemm_low(x, packed, out=out)}


def _torch(m: int, side: int) -> dict[str, Call]:
    x, w, out = torch.randn(m, side), torch.randn(side, side), torch.empty(m, side)
    return {"torch_fp32": lambda: torch.matmul(x, w, out=out)}


def int8_ways(rng: np.random.Generator, m: int, side: int) -> dict[str, Call]:
    """The three ways to an int8 product, each a session whose input and output are bound."""
    x = rng.integers(0, 256, (m, side), dtype=np.uint8)
    w = rng.integers(-127, 128, (side, side), dtype=np.int8)
    constants = {"w": w, "s": np.float32(0.05), "zx": np.uint8(128), "zw": np.int8(0)}
    node = helper.make_node
    ways = {
        "ort_matmul_integer": ([node("MatMulInteger", ["x", "w"], ["y"])], TensorProto.INT32),
        "ort_qlinear_matmul": ([node("QLinearMatMul", ["x", "s", "zx", "w", "s", "zw", "s", "zx"], ["y"])], TensorProto.UINT8),
        "ort_qdq_gemm": ([node("DequantizeLinear", ["x", "s", "zx"], ["dx"]), node("DequantizeLinear", ["w", "s", "zw"], ["dw"]),
                          node("Gemm", ["dx", "dw"], ["dy"]), node("QuantizeLinear", ["dy", "s", "zx"], ["y"])], TensorProto.UINT8),
    }
    return {name: _bound(nodes, kind, constants, x) for name, (nodes, kind) in ways.items()}


def _bound(nodes: list[onnx.NodeProto], kind: int, constants: dict[str, Any], x: np.ndarray) -> Call:
    import onnxruntime

    shape = [x.shape[0], constants["w"].shape[1]]
    used = {name for node in nodes for name in node.input} & set(constants)
    graph = helper.make_graph(nodes, "product", [helper.make_tensor_value_info("x", TensorProto.UINT8, list(x.shape))],
                              [helper.make_tensor_value_info("y", kind, shape)],
                              [numpy_helper.from_array(np.asarray(constants[name]), name) for name in sorted(used)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    session = open_session(model.SerializeToString(), 1)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    out = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, helper.tensor_dtype_to_np_dtype(kind).type)
    binding.bind_ortvalue_output("y", out)
    return lambda: session.run_with_iobinding(binding)


if __name__ == "__main__":
    main(row, _CASES, threads=1)
