"""LiteRT files: integers throughout, our scales and codes, differences of a step; what cannot be done is refused by name."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.deploy.tflite.tflite_run import ours
from tests.quantize.quantize_nets import NETS, arrays
from torch import nn
from torch.nn import functional as F

from lilliput import zoo
from lilliput.core.errors import CorruptFileError, DataError, PreconditionError
from lilliput.data import from_splits
from lilliput.deploy import litert, onnx
from lilliput.deploy.c import lower
from lilliput.deploy.c.arithmetic import DoubleRounding, SingleRounding
from lilliput.deploy.litert.flatbuffer import File
from lilliput.deploy.litert.runtime import Kernels, Session, decode, encode
from lilliput.graph import trace
from lilliput.quantize import Integer, MinMax, Quantizer, Scheme, Static, minmax

converter = pytest.mark.skipif(importlib.util.find_spec("litert_torch") is None,
                               reason="litert-torch is not installed: make test-litert")
micro = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed: make test-litert")


class Activations(nn.Module):
    """Kernels with grids of their own, pooling that counts its padding, a gate."""

    def __init__(self):
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Linear(72, 6)

    def forward(self, x):
        x = F.silu(self.conv(x))
        x = x * torch.sigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return torch.softmax(self.head(F.avg_pool2d(x, 3, 3, 1).flatten(1)), 1)


class Float(nn.Module):
    """Layer norm has no integer kernel."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(self.linear(x))


def quantized(network, data, **scheme):
    torch.manual_seed(0)
    network = network()
    network(data.example(48))  # batch norms have seen data
    return Static(scheme=Scheme(ranges=MinMax(), **scheme))(network.eval(), data).model.eval()


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """Convolution, depthwise convolution, residual sum, pooling, concatenation, linear layer: both files."""
    folder, data = tmp_path_factory.mktemp("litert"), arrays(2, 8, 8)
    model = quantized(NETS["residual"][0], data)
    return (model, data, litert.export(model, folder / "net.tflite", data.example(8)), onnx.export(model, folder / "net.onnx", data.example(8)))


@converter
def test_file_is_integer_with_our_scales_and_codes(residual):
    model, _, path, _ = residual
    file = File.read(path)
    assert all(value.integer for operator in file.operators for value in (*operator.inputs, *operator.outputs) if value is not None)
    assert [value.kind for value in (*file.inputs, *file.outputs)] == ["INT8", "INT8"]
    assert file.inputs[0].shape == (1, 2, 8, 8)
    values = {value.name: value for value in file.values}
    quantizers = {name.removeprefix("quantizers."): module for name, module in model.named_modules() if isinstance(module, Quantizer)}
    names = {"input": "x", "output": "linear", "mean": "adaptive_avg_pool2d"} | {n: n for n in ("relu", "conv2d_1", "relu_1", "cat")}
    for mine, theirs in names.items():
        held = quantizers[theirs]
        assert values[mine].scale.tolist() == [held.scale.item()]
        assert values[mine].zero_point.tolist() == [held.zero_point.item() - 128]
    for layer, order in (("stem", (0, 2, 3, 1)), ("depthwise", (1, 2, 3, 0)), ("head", (0, 1))):
        held = next(module for module in quantizers.values() if module.layer == layer and module.weight)
        weight, bias = values[f"{layer}.weight"], values[f"{layer}.bias"]
        wanted = (held(model.tensor(f"{layer}.weight")) / held.scale.reshape(-1, *[1] * (len(order) - 1))).round()
        assert np.array_equal(weight.data, wanted.detach().permute(order).numpy())
        assert weight.scale.tolist() == held.scale.tolist()
        assert not weight.zero_point.any()
        source = next(op for op in file.operators if weight in op.inputs).inputs[0]
        scale = np.float32(source.scale[0]) * held.scale.numpy()
        assert bias.kind == "INT32"
        assert np.array_equal(bias.scale, scale)
        assert np.array_equal(bias.data, np.rint(model.tensor(f"{layer}.bias").detach().numpy() / scale))


@converter
@pytest.mark.parametrize("kernels", [Kernels.BUILTIN, Kernels.REFERENCE, pytest.param(Kernels.MICRO, marks=micro)])
def test_report_names_every_operator_and_each_is_within_a_step(residual, kernels):
    _, data, path, exported = residual
    rows = litert.difference(path, exported, data.example(16).numpy(), kernels=kernels)
    assert [row.operator for row in rows] == [operator.kind for operator in File.read(path).operators]
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MAX_POOL_2D", "CONCATENATION", "MEAN", "FULLY_CONNECTED"} <= {row.operator for row in rows}
    compared = [row for row in rows if row.edge is not None]
    assert {row.operator for row in rows} - {row.operator for row in compared} <= {"QUANTIZE"}
    assert max(row.largest for row in compared) <= 1
    assert rows[-1].carried <= 2
    exact = {row.operator: row for row in compared}
    assert all(exact[kind].differ == 0 for kind in ("TRANSPOSE", "MAX_POOL_2D", "CONCATENATION"))
    text = litert.table(rows)
    assert all(row.tensor in text for row in rows)
    assert len(text.splitlines()) == len(rows) + 1


# The four networks of MLPerf Tiny, small where that changes nothing but time.
TINY = {"resnet8": ({}, 10, (3, 16, 16)), "ds_cnn": ({}, 12, (1, 25, 10)), "mobilenet_v1": ({"width": 0.25}, 2, (3, 64, 64)), "autoencoder": ({}, 0, (640,))}


def once(program, codes):
    """The program's outputs as LiteRT's plain kernels round: linear layers once, all else as TFLite Micro does."""
    found = {port.buffer: port.placed(array).astype(np.int64) for port, array in zip(program.inputs, codes, strict=True)}
    found |= {buffer: array.astype(np.int64) for buffer, array in program.constants.items()}
    for step in program.steps:
        rounding = SingleRounding() if step.output.name.startswith("FULLY_CONNECTED") else DoubleRounding()
        found[step.output] = step.run([found[buffer] for buffer in step.inputs], rounding)
    return [found[port.buffer].reshape(-1)[port.positions] for port in program.outputs]


@converter
@micro
@pytest.mark.parametrize("name", list(TINY))
def test_both_interpreters_give_the_integer_reference_s_codes(name, tmp_path):
    options, classes, shape = TINY[name]
    random = np.random.default_rng(0)
    splits = {key: (random.normal(size=(24, *shape)).astype(np.float32), random.integers(0, 2, 24)) for key in ("train", "val", "test")}
    data = from_splits("noise", splits, num_classes=max(classes, 2))
    network = zoo.create(name, num_classes=classes, in_chans=shape[0], seed=0, options=options).train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    network(data.example(24))
    network = trace(network.eval(), data.example())
    path = litert.export(minmax(samples=16)(network, data).model.eval(), tmp_path / "net.tflite", data.example(2), tolerance=1.0)
    program, inputs = lower(path), splits["test"][0]
    for kernels, reference in ((Kernels.MICRO, ours), (Kernels.REFERENCE, once)):
        session = Session(path, kernels=kernels)
        theirs = encode(session(inputs), session.file.outputs[0]).astype(int)
        port = session.file.inputs[0]
        wanted = np.concatenate([reference(program, [encode(inputs[k: k + 1], port)])[0].reshape(1, -1) for k in range(len(inputs))]).astype(int)
        assert len(np.unique(wanted)) > 8
        assert np.array_equal(theirs.reshape(wanted.shape), wanted)


@converter
def test_report_sees_a_changed_operator(residual, tmp_path):
    _, data, path, exported = residual
    file = File.read(path)
    bias = next(value for value in file.values if value.name == "head.bias")
    tensor = file._graph.tensors[bias.index]
    file._model.buffers[tensor.buffer].data = np.frombuffer((bias.data + 5000).astype(np.int32).tobytes(), np.uint8)
    changed = file.write(tmp_path / "changed.tflite")
    before, after = (litert.difference(p, exported, data.example(8).numpy()) for p in (path, changed))
    assert before[:-1] == after[:-1]
    assert after[-1].largest > before[-1].largest + 10


@converter
def test_session_computes_what_the_simulation_does(residual):
    model, data, path, _ = residual
    session = Session(path)
    with torch.no_grad():
        wanted = model(data.example(48)).numpy()
    got = session(data.example(48).numpy())
    assert np.abs(got - wanted).max() <= 2.5 * session.file.outputs[0].scale[0]
    accuracy = 100 * float((got.argmax(1) == data.val.targets.numpy()).mean())
    assert session.evaluate(data.val) == pytest.approx(accuracy)
    assert session.size == path.stat().st_size
    with pytest.raises(DataError, match="it wants"):
        session(data.example(4)[:, :1].numpy())
    with pytest.raises(PreconditionError, match=r"Kernels\.BUILTIN"):
        session.values(data.example(1).numpy())


@converter
def test_kernels_with_grids_of_their_own(tmp_path):
    data = arrays(2, 8, 8)
    model = quantized(Activations, data)
    path = litert.export(model, tmp_path / "net.tflite", data.example(8))
    exported = onnx.export(model, tmp_path / "net.onnx", data.example(8))
    values = {value.name: value for value in File.read(path).values}
    assert (values["sigmoid"].scale.tolist(), values["sigmoid"].zero_point.tolist()) == ([1 / 256], [-128])
    rows = {row.tensor: row for row in litert.difference(path, exported, data.example(16).numpy())}
    assert {name for name, row in rows.items() if row.regridded} == {"sigmoid", "output"}
    assert "SOFTMAX (own grid)" in litert.table(list(rows.values()))
    # Padding is averaged on the grid of the input: nothing saturates.
    assert rows["avg_pool2d"].largest <= 2


@converter
def test_narrow_weights_go_into_bytes(tmp_path):
    data = arrays(2, 8, 8)
    path = litert.export(quantized(NETS["residual"][0], data, weights=Integer(bits=4, axis=0)), tmp_path / "net.tflite", data.example(8))
    weight = next(value for value in File.read(path).values if value.name == "stem.weight")
    assert weight.kind == "INT8"
    assert np.abs(weight.data).max() == 7


@converter
@pytest.mark.parametrize(("grids", "message"), [
    ({"activations": Integer(bits=4, signed=False, symmetric=False)}, r"codes from 0 to 15.*bits=8"),
    ({"activations": Integer(bits=8)}, r"codes from -127 to 127.*symmetric=False"),
    ({"weights": Integer(symmetric=False, axis=0)}, "weights have none|weights lie in"),
    ({"exclude": ("head",)}, r"stayed in floating point: .*FULLY_CONNECTED"),
])
def test_grids_that_int8_does_not_hold_are_refused(grids, message, tmp_path):
    data = arrays(2, 8, 8)
    with pytest.raises(PreconditionError, match=message):
        litert.export(quantized(NETS["residual"][0], data, **grids), tmp_path / "net.tflite", data.example(8))
    assert not list(tmp_path.iterdir())


@converter
def test_what_stays_in_floating_point_is_named(tmp_path):
    data = arrays(6)
    with pytest.raises(PreconditionError, match=r"quantize\.minmax"):
        litert.export(Float().eval(), tmp_path / "net.tflite", data.example(8))
    with pytest.raises(PreconditionError, match=r"layer_norm \(.*RSQRT"):
        litert.export(quantized(Float, data), tmp_path / "net.tflite", data.example(8))
    assert not list(tmp_path.iterdir())


@converter
def test_the_callers_network_stays_as_it_is(residual, tmp_path):
    model, data, _, _ = residual
    before, code = {k: v.clone() for k, v in model.state_dict().items()}, model.code
    litert.export(model, tmp_path / "again.tflite", data.example(8))
    assert model.code == code
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@converter
def test_damaged_files_are_refused(residual, tmp_path):
    path, data = tmp_path / "net.tflite", residual[2].read_bytes()
    for broken in (b"", b"no file", data[:200], data[:4] + b"XXXX" + data[8:]):
        path.write_bytes(broken)
        with pytest.raises(CorruptFileError):
            Session(path)
    with pytest.raises(FileNotFoundError):
        Session(tmp_path / "none.tflite")


@converter
def test_codes_round_half_to_even_and_saturate(residual):
    value = replace(File.read(residual[2]).inputs[0], scale=np.asarray([0.5], np.float32), zero_point=np.asarray([3]))
    codes = encode(np.asarray([0.25, 0.75, -0.25, 100.0, -100.0], np.float32), value)
    assert codes.tolist() == [3, 5, 3, 127, -128]
    assert decode(codes, value).tolist() == [0.0, 1.0, 0.0, 62.0, -65.5]


@pytest.mark.skipif(importlib.util.find_spec("litert_torch") is not None, reason="litert-torch is installed")
def test_without_the_extra_the_error_says_how_to_get_it(tmp_path):
    data = arrays(2, 8, 8)
    with pytest.raises(PreconditionError, match=r"pip install 'lilliput\[litert\]'"):
        litert.export(quantized(NETS["residual"][0], data), tmp_path / "net.tflite", data.example(8))
