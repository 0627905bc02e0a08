"""Dynamic quantization: ranges found when the network runs, by batch or by row."""

import copy

import numpy as np
import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn

from lilliput.core.errors import PreconditionError, UnknownNameError
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph.saving import load, save
from lilliput.quantize import Quantizer, dynamic, is_quantized
from lilliput.quantize.dynamic import Dynamic, DynamicQuantizer
from lilliput.quantize.dynamic_op import dynamic_quantize


def test_a_batch_by_hand():
    x = torch.tensor([[-1.0, 0.0, 0.49], [2.0, 0.004, 1.55]])
    # s = 3 / 255, z = 85.
    s = 3 / 255
    expected = torch.tensor([[-85, 0, 42], [170, 0, 132]]) * s
    torch.testing.assert_close(dynamic_quantize(x, False), expected)
    torch.testing.assert_close(dynamic_quantize(torch.tensor([1.0, 2.0]), False), torch.tensor([1.0, 2.0]), atol=1 / 255, rtol=0)
    assert torch.equal(dynamic_quantize(torch.zeros(3), False), torch.zeros(3))


def test_rows_by_hand():
    x = torch.tensor([[-127.0, 0.4, 63.6], [0.254, 0.0, 0.001], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(dynamic_quantize(x, True), torch.tensor([[-127.0, 0.0, 64.0], [0.254, 0.0, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("rows", [False, True])
def test_the_operator_is_sound(rows):
    x = torch.randn(3, 4, requires_grad=True)
    torch.library.opcheck(dynamic_quantize, (x, rows), test_utils=("test_schema", "test_faketensor"))
    (dynamic_quantize(x, rows) * 2).sum().backward()
    assert torch.equal(x.grad, torch.full((3, 4), 2.0))
    assert (dynamic_quantize(x, rows) - x).abs().max() <= 0.51 * (x.max() - x.min()) / 255 + (0.01 if rows else 0)


@pytest.mark.parametrize("family", NETS)
@pytest.mark.parametrize("rows", [False, True])
def test_deployed_values_are_the_simulated_ones(family, rows, tmp_path):
    build, shape = NETS[family]
    torch.manual_seed(0)
    data, model = arrays(*shape), build().eval()
    before = copy.deepcopy(model.state_dict())
    result = Dynamic(rows=rows)(model, data)
    x = data.example(6)
    with torch.no_grad():
        simulated, reference = result.model(x), model(x)
    assert 0 < float((simulated - reference).square().mean()) < 0.01 * float(reference.square().mean())
    session = Session(export(result.model, tmp_path / "model.onnx", x))
    off = np.abs(session(x.numpy()) - simulated.numpy())
    # Float arithmetic may move a value across half a step; on almost all samples it does not.
    assert off.max() <= 2e-2 * float(reference.abs().max())
    assert np.median(off.max(-1)) <= 1e-5 * float(reference.abs().max())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    save(result.model, tmp_path / "model.pt2")
    assert torch.equal(load(tmp_path / "model.pt2")(x), simulated)
    assert is_quantized(result.model)


def test_the_operators_of_onnx_do_the_same_arithmetic(tmp_path):
    model, data = nn.Sequential(nn.Linear(6, 3)).eval(), arrays(6)
    import onnx

    for rows, wanted in ((False, {"DynamicQuantizeLinear", "DequantizeLinear"}), (True, {"ReduceMax", "Round", "DequantizeLinear"})):
        path = export(Dynamic(rows=rows)(model, data).model, tmp_path / "model.onnx", data.example())
        graph = onnx.load(path).graph
        assert wanted <= {node.op_type for node in graph.node}
        assert {np.dtype(onnx.helper.tensor_dtype_to_np_dtype(i.data_type)) for i in graph.initializer if "weight.codes" in i.name} == {np.dtype("int8")}


def test_rows_are_not_rounded_once_more_by_the_runtime(tmp_path):
    torch.manual_seed(0)
    for shape in ((96,), (3, 96)):
        model, data = nn.Sequential(nn.Linear(96, 8)).eval(), arrays(*shape)
        data.train.inputs[..., 40:] *= 0.01  # a block of smaller values would have steps of its own
        quantized, x = Dynamic(rows=True)(model, data).model, data.example(48)
        session = Session(export(quantized, tmp_path / "model.onnx", x))
        np.testing.assert_allclose(session(x.numpy()), quantized(x).detach().numpy(), rtol=0, atol=1e-5)


def test_ranges_are_those_of_the_batch():
    model, data = nn.Sequential(nn.Linear(4, 4)).eval(), arrays(4)
    x = data.example(4)
    batch, rows = (Dynamic(rows=r)(model, data).model for r in (False, True))
    louder = torch.cat([x, 50 * x])
    assert not torch.equal(batch(louder)[:4], batch(x))
    assert torch.equal(rows(louder)[:4], rows(x))


def test_one_quantizer_for_all_who_read_the_same():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x) + self.b(x) + self.a(torch.relu(x))

    result = dynamic()(Shared().eval(), arrays(4))
    modules = list(result.model.modules())
    assert sum(isinstance(m, DynamicQuantizer) for m in modules) == 2
    assert sum(isinstance(m, Quantizer) for m in modules) == 2
    (entry,) = result.report.entries
    assert entry.method == "quantize.dynamic"
    assert [(row["layer"], row["weight_bits"], row["activation_bits"]) for row in entry.layers] == [("a", 8, 8), ("b", 8, 8)]
    kept = dynamic(exclude=("b",))(Shared().eval(), arrays(4))
    assert kept.report.entries[0].notes == ("b stays in floating point: excluded",)
    with pytest.raises(UnknownNameError, match="exclude"):
        dynamic(exclude=("c",))(Shared().eval(), arrays(4))
    with pytest.raises(PreconditionError, match="nothing to do"):
        dynamic(exclude=("*",))(Shared().eval(), arrays(4))
    with pytest.raises(PreconditionError, match="quantized already"):
        dynamic()(result.model, arrays(4))
