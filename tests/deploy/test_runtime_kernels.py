"""What a runtime made of a model, which kernels are faster, and times over threads."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from kernel_models import QUANTIZED, Builder, floats, integers
from onnx import TensorProto, helper

from lilliput.core.errors import CorruptFileError, DataError, PreconditionError
from lilliput.deploy import kernels
from lilliput.deploy.kernels import Kernel, choice, threads
from lilliput.deploy.kernels.attribution import Attribution, tag
from lilliput.deploy.kernels.floats import quantized_layers, with_floats
from lilliput.deploy.kernels.fusion import node_names
from lilliput.deploy.runtime import Session, noise
from lilliput.graph import latency
from lilliput.graph.latency import Comparison


def kernel_of(found: kernels.Fusions, node: str) -> Kernel:
    return next(kernel for kernel in found.kernels if node in kernel.nodes)


def covered_once(path: Path) -> kernels.Fusions:
    found = kernels.fusions(path, runs=2)
    nodes = [node for kernel in found.kernels for node in kernel.nodes] + list(found.removed)
    assert sorted(nodes) == sorted(node_names(onnx.load(path).graph))
    assert len(nodes) == len(set(nodes))
    return found


@pytest.mark.parametrize("write", [integers, floats])
def test_every_node_is_covered_once_or_named_as_removed(write: Callable[[Path], Path], tmp_path: Path) -> None:
    found = covered_once(write(tmp_path / "m.onnx"))
    assert sum(kernel.share for kernel in found.kernels) == pytest.approx(1)
    assert sum(kernel.seconds for kernel in found.kernels) == pytest.approx(found.seconds)
    assert all(kernel.seconds > 0 and kernel.provider == "CPUExecutionProvider" for kernel in found.kernels)
    assert found.runs == 2
    assert [k.seconds for k in found.slowest()] == sorted((k.seconds for k in found.kernels), reverse=True)


def test_a_convolution_with_relu_and_quantization_is_one_kernel(tmp_path: Path) -> None:
    found = covered_once(integers(tmp_path / "q.onnx"))
    first = kernel_of(found, "conv1")
    assert (first.op, first.layer) == ("QLinearConv", "first")
    assert first.ops == ("DequantizeLinear", "Conv", "Relu", "QuantizeLinear")
    assert first.nodes == ("x.dq", "conv1", "a", "a.q")
    assert first.sentence == "DequantizeLinear + Conv + Relu + QuantizeLinear"
    assert first.sentence in {row["sentence"] for row in found.to_dict()["kernels"]}
    residual = kernel_of(found, "sum")
    assert (residual.op, set(residual.nodes) - {"a.dq"}) == ("QLinearAdd", {"b.dq", "sum", "c", "c.q"})
    assert kernel_of(found, "head").op == "QGemm"
    assert {f"{layer}.{key}" for layer in ("first", "second", "head") for key in "wb"} == set(found.removed)


def test_a_float_convolution_takes_the_addition_and_activation_after_it(tmp_path: Path) -> None:
    found = covered_once(floats(tmp_path / "f.onnx"))
    assert {"conv2", "sum", "relu2"} <= set(kernel_of(found, "conv2").nodes)
    assert {"conv1", "relu1"} <= set(kernel_of(found, "conv1").nodes)
    assert kernel_of(found, "conv1") is not kernel_of(found, "conv2")
    assert kernel_of(found, "conv1").layer == "first"


def test_nodes_without_names_and_with_one_name_for_all(tmp_path: Path) -> None:
    plain = covered_once(integers(tmp_path / "q.onnx", named=False))
    assert kernel_of(plain, "conv1").op == "QLinearConv"
    model = onnx.load(tmp_path / "q.onnx")
    for node in model.graph.node:
        node.name = "lp3"
    onnx.save(model, tmp_path / "same.onnx")
    assert len(covered_once(tmp_path / "same.onnx").kernels) == len(plain.kernels)


def test_control_flow_counts_as_one_node(tmp_path: Path) -> None:
    def branch(name: str, op: str) -> onnx.GraphProto:
        node = helper.make_node(op, ["x"], [name], name="lp0")
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])])

    nodes = [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0), helper.make_node("Cast", ["sum"], ["yes"], to=TensorProto.BOOL),
             helper.make_node("If", ["yes"], ["y"], then_branch=branch("t", "Relu"), else_branch=branch("e", "Neg"))]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "if.onnx")
    found = covered_once(tmp_path / "if.onnx")
    assert kernel_of(found, "y").op == "If"
    assert kernel_of(found, "sum").op == "ReduceSum"


def test_attribution_by_hand() -> None:
    """A renamed kernel takes its epilogue; one that waits for another branch leaves the addition to it; a transpose takes nothing."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Conv", ["x", "w"], ["b"]), helper.make_node("Add", ["a", "b"], ["c"]),
             helper.make_node("Relu", ["c"], ["d"]), helper.make_node("Flatten", ["d"], ["e"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
                              [helper.make_tensor_value_info("e", TensorProto.FLOAT, [1])], [helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])])
    for index, node in enumerate(graph.node):
        node.name = tag(index)
    optimised = [helper.make_node("ReorderInput", ["x"], ["r"], name="ReorderInput"), helper.make_node("Conv", ["r", "w"], ["r1"], name="lp0_token_7"),
                 helper.make_node("Conv", ["r", "w", "", "r1"], ["r2"], name="b_nchwc"), helper.make_node("ReorderOutput", ["r2"], ["d"], name="out"),
                 helper.make_node("Flatten", ["d"], ["e"], name="lp4")]
    found = Attribution(graph)(optimised)
    assert found == [(), (0,), (1, 2, 3), (), (4,)]
    assert Attribution(graph).parts(optimised, found) == [None] * 5


def test_an_operator_that_the_runtime_takes_apart(tmp_path: Path) -> None:
    """GroupNormalization has no kernel of its own: many nodes compute it, and the last stands for it."""
    build = Builder()
    for name in ("scale", "bias"):
        build.constant(name, np.ones(4, np.float32))
    build.node("GroupNormalization", ["x", "scale", "bias"], "norm", num_groups=2)
    build.node("Neg", ["norm"], "y")
    found = covered_once(build.save(tmp_path / "g.onnx", {"x": [1, 4, 2, 2]}, "y", [1, 4, 2, 2]))
    parts = [kernel for kernel in found.kernels if not kernel.nodes]
    assert len(parts) > 3
    assert {(kernel.layer, kernel.sentence) for kernel in parts} == {("norm", "part of GroupNormalization")}
    assert kernel_of(found, "norm").ops == ("GroupNormalization",)
    assert kernel_of(found, "y").op == "Neg"


def test_slices_that_become_one_split(tmp_path: Path) -> None:
    """The runtime names the split by its last slice, and its outputs by the slices' names."""
    build = Builder()
    ends = [build.constant(f"{i}", np.array([i], np.int64)) for i in range(4)]
    for i in range(3):
        build.node("Slice", ["x", ends[i], ends[i + 1], ends[1]], f"part{i}")
    build.node("Sum", ["part0", "part1", "part2"], "y")
    found = covered_once(build.save(tmp_path / "s.onnx", {"x": [1, 3, 4]}, "y", [1, 1, 4]))
    assert kernel_of(found, "y").nodes == ("y",)
    assert {kernel_of(found, f"part{i}").op for i in range(3)} <= {"Split", "Slice"}


def damaged(name: str, folder: Path) -> Path:
    path = folder / f"{name}.onnx"
    if name == "text":
        path.write_bytes(b"no model")
    elif name == "unknown":
        build = Builder()
        build.nodes.append(helper.make_node("Nonsense", ["x"], ["y"], domain="strange"))
        graph = helper.make_graph(build.nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
                                  [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])])
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("strange", 1)], ir_version=9), path)
    elif name == "open":
        model = onnx.load(floats(path))
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        onnx.save(model, path)
    return path


@pytest.mark.parametrize(("name", "error", "said"), [
    ("text", CorruptFileError, "cannot be read as an ONNX model"), ("unknown", CorruptFileError, "cannot run"),
    ("open", PreconditionError, "leaves its input shape open"), ("gone", FileNotFoundError, "gone"),
])
def test_what_cannot_be_measured_says_why(name: str, error: type[Exception], said: str, tmp_path: Path) -> None:
    path = damaged(name, tmp_path)
    measures = [kernels.fusions, kernels.scaling, lambda file: kernels.choose(file, tmp_path / "out.onnx")]
    for measure in measures[: 2 if name == "unknown" else 3]:  # that one has no layers to choose for
        with pytest.raises(error, match=said):
            measure(path)
    assert not (tmp_path / "out.onnx").exists()


def test_a_sample_that_the_graph_refuses(tmp_path: Path) -> None:
    path = floats(tmp_path / "f.onnx")
    with pytest.raises(DataError, match="refuses a sample"):
        kernels.fusions(path, input_shape=(4, 8, 8))
    with pytest.raises(PreconditionError, match="at least one thread"):
        kernels.fusions(path, 0)


def test_float_kernels_give_the_same_codes_from_a_file_as_small(tmp_path: Path) -> None:
    path = integers(tmp_path / "q.onnx")
    model = onnx.load(path)
    layers = quantized_layers(model)
    assert layers == {"conv1": "first", "conv2": "second", "head": "head"}
    x = noise(path)["x"]
    wanted, scale = Session(path)(x), QUANTIZED["y"][0]
    for chosen in (set(layers), {"conv2"}, {"conv1", "head"}):
        mixed = with_floats(model, chosen)
        onnx.checker.check_model(mixed, full_check=True)
        onnx.save(mixed, tmp_path / "mixed.onnx")
        assert np.abs(Session(tmp_path / "mixed.onnx")(x) - wanted).max() <= scale * 1.001
        found = covered_once(tmp_path / "mixed.onnx")
        for node in layers:
            assert kernel_of(found, node).op.startswith("Q") == (node not in chosen), node
        assert (tmp_path / "mixed.onnx").stat().st_size < path.stat().st_size + 1500
    assert onnx.load(path) == model


def mocked(monkeypatch: pytest.MonkeyPatch, seconds: Mapping[str, float]) -> None:
    """Layers whose float kernels are measured as faster, and whole models that take the given times."""
    real = choice.profiled

    def profiled(model: onnx.ModelProto, *rest: object, **options: int) -> kernels.Fusions:
        found = real(model, *rest, **options)  # type: ignore[arg-type]
        slow = ("first",) if any(".float." in node.name for node in model.graph.node) else ("second", "head")
        rows = tuple(Kernel(**{**vars(k), "seconds": 1.0 if k.layer in slow else 0.01}) for k in found.kernels)
        return kernels.Fusions(**{**vars(found), "kernels": rows})

    def compare(functions: Mapping[str, Callable[[], object]], *, rounds: int) -> Comparison:
        for function in functions.values():
            function()
        return Comparison({name: tuple(seconds[name] * (1 + 0.01 * (r % 3)) for r in range(rounds)) for name in functions})

    monkeypatch.setattr(choice, "profiled", profiled)
    monkeypatch.setattr(latency, "compare", compare)


@pytest.mark.parametrize(("seconds", "kept", "chosen"), [
    ({"original": 1.0, "mixture": 0.8, "floats": 1.2}, True, {"second", "head"}),
    ({"original": 1.0, "mixture": 0.9, "floats": 0.7}, True, {"first", "second", "head"}),
    ({"original": 1.0, "mixture": 1.1, "floats": 1.2}, False, set()),
    ({"original": 1.0, "mixture": 1.0, "floats": 1.0}, False, set()),
])
def test_only_what_is_faster_is_written(seconds: dict[str, float], kept: bool, chosen: set[str], tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = integers(tmp_path / "q.onnx"), tmp_path / "out.onnx"
    before = path.read_bytes()
    mocked(monkeypatch, seconds)
    found = kernels.choose(path, out, rounds=9)
    assert found.kept is kept
    assert {row.layer for row in found.layers if row.floats} == chosen
    assert found.original.median == pytest.approx(1.01)
    assert found.candidate.median == pytest.approx(1.01 * min(seconds["mixture"], seconds["floats"]))
    assert (found.ratio.high < 1) is kept
    assert (out.read_bytes() == before) is not kept
    assert path.read_bytes() == before
    assert (found.size_before, found.size_after) == (len(before), out.stat().st_size)
    x = noise(path)["x"]
    assert np.abs(Session(out)(x) - Session(path)(x)).max() <= QUANTIZED["y"][0] * 1.001


def test_choosing_for_real_never_writes_what_is_not_faster(tmp_path: Path) -> None:
    path, out = integers(tmp_path / "q.onnx"), tmp_path / "out.onnx"
    found = kernels.choose(path, out, rounds=8)
    assert len(found.layers) == 3
    assert all(row.integer > 0 and row.floating > 0 for row in found.layers)
    assert found.kept == (found.ratio.high < 1)
    assert found.kept or out.read_bytes() == path.read_bytes()
    assert set(found.to_dict()) >= {"path", "layers", "original", "candidate", "ratio", "kept"}


def test_choosing_needs_quantized_layers_and_another_file(tmp_path: Path) -> None:
    path = floats(tmp_path / "f.onnx")
    with pytest.raises(PreconditionError, match="no layer with 8 bit weights"):
        kernels.choose(path, tmp_path / "out.onnx")
    with pytest.raises(PreconditionError, match="is the model itself"):
        kernels.choose(path, tmp_path / "." / "f.onnx")


def test_scaling_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"1": 0.8, "2": 0.5, "4": 0.4}
    monkeypatch.setattr(latency, "compare", lambda functions, rounds: Comparison({name: (times[name],) * rounds for name in functions}))
    rows = kernels.scaling(integers(tmp_path / "q.onnx"), (4, 1, 2), rounds=7)
    assert [row.threads for row in rows] == [1, 2, 4]
    assert [row.latency.median for row in rows] == [0.8, 0.5, 0.4]
    assert [row.throughput for row in rows] == pytest.approx([1.25, 2.0, 2.5])
    assert [row.speedup.median for row in rows] == pytest.approx([1.0, 1.6, 2.0])
    assert [row.efficiency.median for row in rows] == pytest.approx([1.0, 0.8, 0.5])


def test_scaling_for_real_has_a_row_for_every_number_of_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = threads.open_session
    monkeypatch.setattr(threads, "open_session", lambda path, count, options: opened.append(options.intra_op_num_threads) or real(path, count, options))
    path = integers(tmp_path / "q.onnx")
    rows = kernels.scaling(path, (1, 2), rounds=6)
    assert [row.threads for row in rows] == opened == [1, 2]
    assert all(row.latency.low <= row.latency.median <= row.latency.high for row in rows)
    monkeypatch.setattr(threads, "cores", lambda: 3)
    assert [row.threads for row in kernels.scaling(path, rounds=6)] == [1, 2, 3]
    for bad in ((), (0, 1), (1, 1)):
        with pytest.raises(PreconditionError, match="different numbers of threads"):
            kernels.scaling(path, bad)
