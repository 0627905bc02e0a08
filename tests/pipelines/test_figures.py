"""`profile` and `bench`: known counts, and inputs that are no models."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from lilliput.core import CorruptFileError, PreconditionError, UnknownNameError
from lilliput.pipelines.figures import parse_shape, profile


def small_onnx(path: Path) -> Path:
    """conv 3->4 (3x3) on 8x8 with padding, then flatten and a 256->5 matrix product."""
    rng = np.random.default_rng(0)
    stored = [numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
              for name, shape in [("w", (4, 3, 3, 3)), ("b", (4,)), ("m", (256, 5))]]
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], name="conv"), helper.make_node("Flatten", ["c"], ["f"]),
             helper.make_node("MatMul", ["f", "m"], ["y"], name="head")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))
    return path


def test_counts_of_an_onnx_file(tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "small.onnx")
    found = profile(str(path))
    assert [row["macs"] for row in found.layers] == [64 * 4 * 27, 256 * 5]
    assert found.totals == {"params": 4 * 27 + 4 + 256 * 5, "macs": 64 * 4 * 27 + 256 * 5, "size": path.stat().st_size}


def test_counts_of_a_zoo_model_and_of_a_factory() -> None:
    found = profile("resnet8")
    assert found.input_shape == (3, 32, 32)
    assert profile("lilliput.zoo:resnet8", (3, 32, 32)).totals == found.totals
    assert sum(row["macs"] for row in found.layers) == found.totals["macs"]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x09" * 50])
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"bad\.onnx"):
        profile(str(tmp_path / "bad.onnx"))
    small = small_onnx(tmp_path / "small.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(small[: len(small) // 2])
    with pytest.raises(CorruptFileError):
        profile(str(tmp_path / "cut.onnx"))


@pytest.mark.parametrize(("reference", "error", "said"), [
    ("resnet21", UnknownNameError, "did you mean resnet20"),
    ("nowhere.at:all", PreconditionError, "does not import"),
    ("lilliput.zoo:resnett8", UnknownNameError, "did you mean resnet8"),
    ("lilliput.zoo:resnet8", PreconditionError, "--input-shape"),
    ("gone.pt2", PreconditionError, "there is no file gone.pt2"),
    ("gone.onnx", PreconditionError, r"there is no file gone.onnx"),
    ("weights.pth", PreconditionError, "weights without an architecture"),
])
def test_what_is_no_model(reference: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        profile(reference)


def test_shapes() -> None:
    assert parse_shape("3,224,224") == parse_shape("3x224x224") == parse_shape("3, 224, 224") == (3, 224, 224)
    for bad in ("", "3,,4", "a,b", "3,0,4", "-1,2", "9" * 9):
        with pytest.raises(PreconditionError, match="cannot read the input shape"):
            parse_shape(bad)
