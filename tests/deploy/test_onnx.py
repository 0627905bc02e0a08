"""Exported networks compute what torch computes, in clean files; damaged and hostile files are refused."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor, nn

import lilliput.quantize.op  # noqa: F401 (defines lilliput::fake_quantize)
from lilliput.core.errors import CorruptFileError, DataError, PreconditionError
from lilliput.deploy import Session, export, profile_onnx, read
from lilliput.graph.trace import trace

fuzz = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Fake(nn.Module):
    """A fixed quantizer."""

    def __init__(self, qmin: int, qmax: int, scale: Tensor, zero_point: int = 0, axis: int = -1) -> None:
        super().__init__()
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", torch.full(scale.shape, zero_point, dtype=torch.int32))
        self.limits, self.axis = (qmin, qmax), axis

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.lilliput.fake_quantize(x, self.scale, self.zero_point, *self.limits, self.axis)


class Net(nn.Module):
    """Convolutions, a residual sum, pooling and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x)).relu()
        x = x + self.second(x)
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Quantized(nn.Module):
    """The same with simulated quantization on every edge."""

    def __init__(self, weights: tuple[int, int] = (-127, 127), activations: tuple[int, int] | None = (0, 255)) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.Linear(8, 5)
        for name in ("first", "second", "head"):
            weight = getattr(self, name).weight.detach()
            setattr(self, f"{name}_q", Fake(*weights, weight.abs().flatten(1).amax(1) / max(weights[1], 1), axis=0))
        low, high = activations or (0, 255)
        for name, size, zero in (("a", 1.0, 0), ("b", 1.47, 0), ("c", 3.03, high // 2), ("d", 4.13, high // 3), ("e", 2.0, high // 2)):
            setattr(self, name, Fake(low, high, torch.tensor(size / high), zero) if activations else nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(nn.functional.conv2d(self.a(x), self.first_q(self.first.weight), self.first.bias, padding=1).relu())
        y = self.c(nn.functional.conv2d(x, self.second_q(self.second.weight), self.second.bias, padding=1, groups=2))
        x = self.b(nn.functional.adaptive_avg_pool2d(self.d(x + y), 1).flatten(1))
        return self.e(nn.functional.linear(x, self.head_q(self.head.weight), self.head.bias))


def samples(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network() -> Net:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model(torch.randn(16, 3, 8, 8))
    return model.eval()


@cache
def exported() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        return export(network(), Path(folder) / "net.onnx", samples()).read_bytes()


@cache
def quantized() -> bytes:
    import tempfile

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        return export(Quantized().eval(), Path(folder) / "net.onnx", samples()).read_bytes()


def written(folder: Path, data: bytes) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(data)
    return path


def fused(path: Path, folder: Path) -> Counter[str]:
    """Operators after ONNX Runtime's own rewriting."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "fused.onnx"), 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "fused.onnx").graph.node)


def test_any_batch_gives_torchs_output(tmp_path: Path) -> None:
    session = Session(written(tmp_path, exported()))
    for count in (1, 2, 7):
        np.testing.assert_allclose(session(samples(count).numpy()), network()(samples(count)).detach().numpy(), atol=1e-5)


def test_the_file_is_clean(tmp_path: Path) -> None:
    model = read(written(tmp_path, exported()))
    assert [value.name for value in model.graph.input] == ["input"]
    assert [value.name for value in model.graph.output] == ["output"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["BatchNormalization"] == 0
    assert kinds["Conv"] == 2
    assert {node.name for node in model.graph.node} >= {"conv2d", "conv2d_1", "relu"}
    assert {t.name for t in model.graph.initializer} >= {"first.weight", "second.weight", "head.weight", "head.bias"}
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not model.functions
    weights = sum(4 * p.numel() for p in network().parameters())
    assert len(exported()) < weights + 2500


def test_export_leaves_the_callers_model_alone(tmp_path: Path) -> None:
    model = trace(network(), samples()).train()
    code, before = model.code, {name: value.clone() for name, value in model.state_dict().items()}
    export(model, tmp_path / "net.onnx", samples())
    assert model.training
    assert model.code == code
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_quantized_networks_run_on_integer_kernels(tmp_path: Path) -> None:
    path = written(tmp_path, quantized())
    kinds = fused(path, tmp_path)
    assert kinds["QLinearConv"] == 2
    assert kinds["QLinearAdd"] == 1
    assert kinds["QLinearGlobalAveragePool"] == 1
    assert kinds["QGemm"] == 1
    assert not kinds.keys() & {"Conv", "Gemm", "Add", "Relu", "FusedConv"}


def test_deployed_integers_are_the_simulated_ones(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, session = Quantized().eval(), Session(written(tmp_path, quantized()))
    x = samples(64)
    with torch.no_grad():
        steps = (session(x.numpy()) - model(x).numpy()) / float(model.e.scale)
    assert np.abs(steps).max() <= 1.01, "one step of rounding is all that integer rescaling may differ by"
    assert (np.abs(steps) < 0.01).mean() > 0.95
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in read(tmp_path / "net.onnx").graph.initializer}
    scale = model.first_q.scale[:, None, None, None]
    np.testing.assert_array_equal(stored["first.weight.codes"], torch.round(model.first.weight.detach() / scale).numpy())
    assert stored["first.weight.codes"].dtype == np.int8
    assert stored["first.bias.codes"].dtype == np.int32
    np.testing.assert_allclose(stored["first.bias.scale"], (model.a.scale * model.first_q.scale).numpy(), rtol=1e-6)
    np.testing.assert_allclose(stored["first.bias.codes"] * stored["first.bias.scale"], model.first.bias.detach().numpy(), atol=float(stored["first.bias.scale"].max()) / 2 * 1.001)


@pytest.mark.parametrize(("weights", "activations", "kind", "opset"), [
    ((-8, 7), (0, 255), TensorProto.INT4, 21), ((-7, 7), None, TensorProto.INT4, 21), ((-2, 1), None, TensorProto.INT2, 25),
    ((-1, 1), (0, 255), TensorProto.INT4, 21), ((-127, 127), (0, 15), TensorProto.INT8, 21),
])
def test_narrow_codes_are_packed(tmp_path: Path, weights: tuple[int, int], activations: tuple[int, int] | None, kind: int, opset: int) -> None:
    torch.manual_seed(0)
    model = Quantized(weights, activations).eval()
    path = export(model, tmp_path / "net.onnx", samples(), tolerance=1.0 if activations else 1e-3)
    back = read(path)
    tensor = next(t for t in back.graph.initializer if t.name == "first.weight.codes")
    assert tensor.data_type == kind
    assert back.opset_import[0].version == opset
    bits = {TensorProto.INT2: 2, TensorProto.INT4: 4, TensorProto.INT8: 8}[kind]
    assert len(tensor.raw_data) == model.first.weight.numel() * bits // 8


def test_a_linear_layer_on_sequences_keeps_integers(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)
            self.a, self.w = Fake(0, 255, torch.tensor(1 / 255)), Fake(-127, 127, self.layer.weight.detach().abs().amax(1) / 127, axis=0)
            self.out = Fake(0, 255, torch.tensor(4 / 255), 128)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(nn.functional.linear(self.a(x), self.w(self.layer.weight), self.layer.bias))

    model, x = Tokens().eval(), torch.rand(2, 5, 6)
    path = export(model, tmp_path / "net.onnx", x)
    assert not any(node.op_type == "Transpose" for node in read(path).graph.node)
    np.testing.assert_allclose(Session(path)(torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0)).numpy()),
                               model(torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(0))).detach().numpy(), atol=4 / 255 * 1.01)


def test_divergence_is_an_error_that_names_the_output_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(PreconditionError, match="'output' differs"):
        export(network(), tmp_path / "net.onnx", samples(64), tolerance=1e-12)
    assert list(tmp_path.iterdir()) == []


def test_uncalibrated_scales_are_refused(tmp_path: Path) -> None:
    class Moving(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.lilliput.fake_quantize(x, x.mean() / 255, torch.zeros((), dtype=torch.int32), 0, 255, -1)

    with pytest.raises(PreconditionError, match="constant"):
        export(Moving(), tmp_path / "net.onnx", samples())


def test_profile_counts_layers_by_hand(tmp_path: Path) -> None:
    profile = profile_onnx(written(tmp_path, exported()))
    macs = {"conv2d": 8 * 64 * 27, "conv2d_1": 8 * 64 * 36, "linear": 40}
    rows = {row.layer: row for row in profile.rows if row.macs}
    assert sorted(row.macs for row in rows.values()) == sorted(macs.values())
    assert rows["conv2d"].params == 8 * 27 + 8
    assert profile.macs == sum(macs.values())
    assert profile.params == sum(p.numel() for p in network().parameters()) - 8, "the folded norm leaves one bias where it had gain and shift"
    assert profile.size == len(exported())
    assert profile_onnx(written(tmp_path, quantized())).params == 8 * 27 + 8 + 8 * 36 + 8 + 45
    assert profile_onnx(written(tmp_path, quantized())).macs == profile.macs


@fuzz
@given(st.floats(0, 1, exclude_max=True))
def test_truncation_is_refused(tmp_path: Path, where: float) -> None:
    with pytest.raises(CorruptFileError, match=r"net\.onnx"):
        Session(written(tmp_path, exported()[: int(where * len(exported()))]))


@fuzz
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_flipped_bytes_open_or_are_refused(tmp_path: Path, where: float, flip: int) -> None:
    data = bytearray(exported())
    data[int(where * len(data))] ^= flip
    path = written(tmp_path, bytes(data))
    try:
        read(path)
        profile_onnx(path)
    except CorruptFileError:
        return


@fuzz
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorruptFileError):
        Session(written(tmp_path, data))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "missing.bin", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    (tmp_path / "model").mkdir()
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    path = written(tmp_path / "model", helper.make_model(graph).SerializeToString())
    with pytest.raises(CorruptFileError, match="folder"):
        Session(path)


def test_sessions_tell_what_they_want(tmp_path: Path) -> None:
    session = Session(written(tmp_path, exported()), threads=2)
    assert session.size == len(exported())
    with pytest.raises(DataError, match=r"input: tensor\(float\)"):
        session(np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(DataError, match="takes 1"):
        session(np.zeros(1, np.float32), np.zeros(1, np.float32))
    with pytest.raises(PreconditionError, match="thread"):
        Session(tmp_path / "net.onnx", threads=0)
    with pytest.raises(FileNotFoundError):
        Session(tmp_path / "absent.onnx")


def test_accuracy_is_the_share_of_right_answers(tmp_path: Path) -> None:
    class Split:
        def __init__(self, labels: Tensor) -> None:
            self.labels = labels

        def __len__(self) -> int:
            return len(self.labels)

        def batches(self, size: int):
            for start in range(0, len(self), size):
                yield samples(10)[start : start + size], self.labels[start : start + size]

    session = Session(written(tmp_path, exported()))
    answers = network()(samples(10)).argmax(1)
    answers[:3] = (answers[:3] + 1) % 5
    assert session.evaluate(Split(answers), batch_size=4) == pytest.approx(70.0)
    with pytest.raises(DataError, match="empty"):
        session.evaluate(Split(answers[:0]))
