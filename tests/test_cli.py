"""The command line: golden behaviours, wrong inputs, speed of what should be instant."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lilliput.cli import app

runner = CliRunner()


def fails(*arguments: str) -> str:
    """The one line on stderr of a command that must fail with exit code 2."""
    result = runner.invoke(app, list(arguments))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_methods_as_json() -> None:
    rows = json.loads(runner.invoke(app, ["methods", "--json"]).stdout)
    assert len(rows) > 300
    assert all(set(row) == {"id", "family", "status", "cite", "axes"} for row in rows)
    prune = json.loads(runner.invoke(app, ["methods", "--family", "prune", "--status", "works", "--json"]).stdout)
    assert "prune.fpgm" in {row["id"] for row in prune}
    assert all(row["family"] == "prune" and row["status"] == "works" for row in prune)


def test_methods_as_a_table() -> None:
    text = runner.invoke(app, ["methods", "--family", "distill"]).stdout
    assert "distill.kd" in text


def test_profile_as_json_and_as_text() -> None:
    found = json.loads(runner.invoke(app, ["profile", "resnet20", "--json", "--layers"]).stdout)
    assert found["params"] == sum(row["params"] for row in found["layers"])
    assert 40e6 < found["macs"] < 42e6
    text = runner.invoke(app, ["profile", "resnet20", "--input-shape", "1x28x28"]).stdout
    assert "resnet20 on one input of 1 x 28 x 28" in text
    assert "macs" in text


@pytest.mark.parametrize(("arguments", "said"), [
    (["profile", "resnet21"], "did you mean resnet20"),
    (["profile", "resnet20", "--input-shape", "a"], "cannot read the input shape 'a'"),
    (["compress"], "give a recipe file, or --model and --data"),
    (["compress", "gone.yaml"], "cannot read the recipe gone.yaml"),
    (["compress", "gone.yaml", "--macs", "50%"], "give a recipe or flags, not both"),
    (["compress", "--model", "resnet8", "--data", "digits"], "nothing to do: give a limit"),
    (["compress", "--model", "resnet8", "--data", "digits", "--macs", "half"], "cannot read 'half'"),
    (["compress", "--model", "resnet9", "--data", "digits", "--macs", "50%"], "did you mean resnet8"),
    (["compress", "--model", "resnet8", "--data", "digit", "--macs", "50%"], "did you mean digits"),
    (["compress", "model.onnx", "--out", "x"], "cannot read the recipe model.onnx"),
    (["bench", "gone.onnx"], "there is no file gone.onnx"),
    (["report", "gone"], "gone is not a run folder"),
    (["methods", "--family", "prun"], "did you mean prune"),
    (["methods", "--status", "done"], "--status is works or planned"),
])
def test_wrong_inputs(arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in fails(*arguments)
    assert list(tmp_path.rglob("*")) == []


def small_model(folder: Path) -> Path:
    """y = relu(x w) as ONNX."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="product"), helper.make_node("Relu", ["p"], ["y"], name="relu")]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
                              [numpy_helper.from_array(np.ones((4, 3), np.float32), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), folder / "m.onnx")
    return folder / "m.onnx"


def test_bench_tells_kernels_and_scaling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lilliput.deploy.kernels.threads.cores", lambda: 2)
    path = str(small_model(tmp_path))
    row = json.loads(runner.invoke(app, ["bench", path, "--kernels", "--scaling", "--rounds", "6", "--json"]).stdout)["files"][0]
    assert [(kernel["op"], kernel["nodes"]) for kernel in row["kernels"]["kernels"]] == [("MatMul", ["product"]), ("Relu", ["relu"])]
    assert [one["threads"] for one in row["scaling"]] == [1, 2]
    text = runner.invoke(app, ["bench", path, "--kernels", "--scaling", "--rounds", "6"]).stdout
    assert "2 nodes in 2 kernels, 0 computed ahead or dropped" in text
    assert "stands for" in text
    assert "speed-up interval" in text
    plain = runner.invoke(app, ["bench", path, "--rounds", "6", "--json"])
    assert set(json.loads(plain.stdout)["files"][0]) & {"kernels", "scaling"} == set()


@pytest.mark.parametrize("arguments", [["profile"], ["compress", "--nope"], ["bench"], ["nope"], ["bench", "a.onnx", "--threads", "0"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["profile", "compress", "bench", "report", "methods", "demo"])
def test_help_teaches(command: str) -> None:
    result = runner.invoke(app, [command, "--help"])
    assert result.exit_code == 0
    if command != "demo":
        assert "Example" in result.stdout


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LILLIPUT_DEBUG", "1")
    result = runner.invoke(app, ["profile", "resnet21"])
    assert type(result.exception).__name__ == "UnknownNameError"


def test_ctrl_c_is_130_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(**_: object) -> None:
        raise KeyboardInterrupt("go on with: lilliput compress runs/demo")

    monkeypatch.setattr("lilliput.pipelines.demonstration.demo", stopped)
    result = runner.invoke(app, ["demo"])
    assert result.exit_code == 130
    assert "stopped; go on with: lilliput compress runs/demo" in result.stderr


def fastest(code: str) -> float:
    """Processor seconds of a fresh process, the least of three; the clock on the wall counts the neighbours too."""
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(times)


def test_import_is_instant_and_without_torch() -> None:
    assert fastest("import lilliput, sys; assert 'torch' not in sys.modules") < 0.3


@pytest.mark.parametrize("arguments", ["'--help'", "'methods'", "'methods', '--json'", "'--version'"])
def test_what_needs_no_torch_is_quick(arguments: str) -> None:
    code = f"import sys; sys.argv = ['lilliput', {arguments}]\nfrom lilliput.cli import main\n" \
           "try: main()\nexcept SystemExit as stop: assert not stop.code\nassert 'torch' not in sys.modules"
    assert fastest(code) < 0.5
