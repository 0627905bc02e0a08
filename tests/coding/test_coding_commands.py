"""`lilliput pack`, `unpack` and `inspect`."""

import json
from pathlib import Path

import numpy as np
import onnx
from click.testing import Result
from typer.testing import CliRunner

from lilliput.cli import app


def call(*arguments: str) -> Result:
    """One command."""
    return CliRunner().invoke(app, list(arguments))


def fails(*arguments: str) -> str:
    """What a command says that must fail."""
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    return refused.stderr


def test_packs_unpacks_and_inspects(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).choice(np.float32([-1, 0, 1]), (40, 40))
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [value("x", 1, [40, 40])], [value("y", 1, [40, 40])], [tensor])
    model = tmp_path / "model.onnx"
    model.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    packed = call("pack", str(model))
    assert packed.exit_code == 0
    assert "checked" in packed.stdout
    assert call("unpack", str(tmp_path / "model.lil"), "-o", str(tmp_path / "again.onnx")).exit_code == 0
    assert (tmp_path / "again.onnx").read_bytes() == model.read_bytes()
    line = json.loads(call("inspect", str(tmp_path / "model.lil"), "--json").stdout)["tensors"][0]
    assert (line["tensor"], line["symbols"], line["size"]) == ("w", "palette", 6400)
    assert line["bound"] <= line["bits"] < 1.1 * line["bound"]
    assert "no file" in fails("pack", str(tmp_path / "none.onnx"))
    assert "lilliput pack" in fails("inspect", str(model))
    assert "did you mean rans" in fails("pack", str(model), "--coder", "ranz")
