"""The integer reference: exact against the simulation, a step at most from ONNX Runtime, tensor by tensor."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tests.quantize.quantize_nets import NETS, arrays

from lilliput.deploy.onnx import export
from lilliput.deploy.reference import Conv, Reference, real
from lilliput.quantize import Integer, MinMax, Scheme, Static, Uniform, exact


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", ["residual", "preactivation", "volume"])
def test_the_simulation_is_exact_and_onnx_runtime_within_one_step(name, bits, tmp_path):
    network, shape = NETS[name]
    data = arrays(*shape)
    quantized = Static(scheme=Scheme(ranges=MinMax(), bits=Uniform(weights=bits)))(network().eval(), data).model
    path = export(quantized, tmp_path / "model.onnx", data.example(4))
    inputs = data.example(16)
    reference = Reference(path).values(inputs.numpy())
    with torch.no_grad():
        wanted = exact(quantized)(inputs.double()).numpy()
    assert np.abs(reference["output"] - wanted).max() <= 1e-6 * np.abs(wanted).max()
    # Every quantized tensor of the file, read off ONNX Runtime without its fusions.
    model = onnx.load(path)
    names = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    kinds = {i.name: i.data_type for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kinds[node.input[2]], None))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(names, {"input": inputs.numpy()})
    for tensor, got in zip(names, found, strict=True):
        assert np.abs(got.astype(int) - reference[tensor].astype(int)).max() <= 1, tensor


@pytest.mark.parametrize(("stride", "pad", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 4)])
def test_convolution_is_that_of_whole_numbers(stride, pad, dilation, groups):
    generator = np.random.default_rng(0)
    x, w = generator.integers(-255, 256, (2, 4, 7, 9)), generator.integers(-127, 128, (8, 4 // groups, 3, 3))
    got = Conv.eval(real(x, np.asarray(0.5)), real(w, np.linspace(0.1, 0.8, 8).reshape(-1, 1, 1, 1)), strides=[stride] * 2,
                    pads=[pad] * 4, dilations=[dilation] * 2, group=groups)
    whole = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(w), None, stride, pad, dilation, groups).numpy()
    assert np.array_equal(got, whole * (0.5 * np.linspace(0.1, 0.8, 8)).reshape(1, -1, 1, 1))


def test_grids_with_a_zero_point_and_without(tmp_path):
    data = arrays(2, 8, 8)
    scheme = Scheme(weights=Integer(symmetric=False, axis=0), activations=Integer(bits=8))
    quantized = Static(scheme=scheme)(NETS["residual"][0]().eval(), data).model
    path = export(quantized, tmp_path / "model.onnx", data.example(4))
    with torch.no_grad():
        wanted = exact(quantized)(data.example(16).double()).numpy()
    assert np.abs(Reference(path)(data.example(16).numpy()) - wanted).max() <= 1e-6 * np.abs(wanted).max()
