"""Recurrent networks with quantizers: on every edge, one to each weight and to each value whatever its time step, deployed as simulated."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from quantize_nets import arrays
from test_placement import _float_edges
from torch import nn

from lilliput.core.errors import PreconditionError
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import open_session
from lilliput.quantize import (
    BiasQuantizer,
    Quantizer,
    SameQuantizer,
    Scheme,
    Uniform,
    exact,
    lsq,
    minmax,
    prepare,
    qat,
    smoothquant,
    static,
)
from lilliput.quantize import dynamic as dynamic_step
from lilliput.train import SGD, Fit, fit

sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))
from recurrent_nets import CELLS, NETS, Unrolled

FIT = Fit(epochs=4, batch_size=16, optimizer=SGD(lr=0.3))
ALL = NETS | CELLS


def _modules(quantized, kind=Quantizer):
    return [module for module in quantized.modules() if isinstance(module, kind)]


def _check_deployed(quantized, data, path):
    """ONNX Runtime computes what the simulation does, to a step of the output, and no product of it in floating point."""
    x = data.example(8)
    export(quantized, path, x)
    got = open_session(path, threads=1).run(None, {"input": x.numpy()})[0]
    step = next(module.scale for module in _modules(quantized) if module.layer == "head" and not module.weight)
    assert np.abs(got - exact(quantized)(x.double()).detach().numpy()).max() <= 1.01 * float(step)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(path.with_suffix(".optimized")), 3
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {node.op_type for node in onnx.load(path.with_suffix(".optimized")).graph.node}
    assert "QGemm" in names
    assert not names & {"MatMul", "Gemm", "FusedMatMul", "FusedGemm"}


@pytest.mark.parametrize("name", ALL)
def test_static_quantization_is_close_and_deployed_as_simulated(name, tmp_path):
    torch.manual_seed(0)
    data, model = arrays(4, 5), ALL[name]().eval()
    quantized = static()(model, data).model
    assert _float_edges(quantized) == []
    x = data.example(8)
    assert (quantized(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()
    _check_deployed(quantized, data, tmp_path / "net.onnx")


@pytest.mark.parametrize("recipe", [qat, lsq])
def test_training_with_quantization_learns_and_is_deployed_as_simulated(recipe, tmp_path):
    torch.manual_seed(0)
    data = arrays(4, 5, samples=256)
    # Targets that depend on every step.
    data.train.targets.copy_((data.train.inputs.sum((1, 2)) > 0).long())
    model = fit(NETS["lstm"](), data, replace(FIT, epochs=1), progress=False).model.eval()
    quantized = recipe(weights=8, activations=8, fit=FIT)(model, data).model.eval()
    before, after = ((network(data.train.inputs).argmax(1) == data.train.targets).float().mean() for network in (model, quantized))
    assert before < 0.85 < 0.9 < after
    _check_deployed(quantized, data, tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["lstm", "gru_cell"])
def test_one_quantizer_for_all_time_steps(name):
    names = {}
    for steps in (2, 6):
        quantized, _ = prepare(ALL[name]().eval(), arrays(steps, 5), Scheme())
        names[steps] = sorted((module.layer, module.weight) for module in _modules(quantized))
        assert len(_modules(quantized, BiasQuantizer)) == 3
        assert len(set(names[steps])) == len(names[steps])
    assert names[2] == names[6]
    assert [layer for layer, weight in names[2] if weight] == sorted(
        ["head", *({"lstm": ("rnn.weight_hh_l0", "rnn.weight_ih_l0"), "gru_cell": ("cell.weight_hh", "cell.weight_ih")}[name])])


def test_the_range_of_a_state_covers_every_step():
    torch.manual_seed(0)
    data, model = arrays(5, 5), CELLS["lstm_cell"]().eval()
    quantized, _ = prepare(model, data, Scheme())
    memory = next(module for module in _modules(quantized) if module.layer == "cell.memory")
    low, high, (state, cell) = 0.0, 0.0, (torch.zeros(48, 6), torch.zeros(48, 6))
    with torch.no_grad():
        for t in range(5):
            state, cell = model.cell(data.train.inputs[:, t], (state, cell))
            low, high = min(low, cell.min().item()), max(high, cell.max().item())
    assert memory.scale.item() * 255 == pytest.approx(high - low, rel=0.02)


def test_narrow_inputs_are_shared_over_time_too():
    for name in ("lstm", "gru_cell"):
        quantized, _ = prepare(ALL[name]().eval(), arrays(4, 5), Scheme(bits=Uniform(weights=4, activations=4)))
        names = [module.layer for module in _modules(quantized) if not module.weight]
        assert len(names) == len(set(names))
        assert sum(name.endswith("weight_hh.input") or name.endswith("weight_hh_l0.input") for name in names) == 1


def test_a_learned_first_state_shares_the_grid_of_the_later_ones(tmp_path):
    torch.manual_seed(0)
    data, model = arrays(4, 5), Unrolled(nn.GRUCell, learned=True).eval()
    quantized = static()(model, data).model
    assert _float_edges(quantized) == []
    states = [module for module in _modules(quantized) if module.layer == "cell.state"]
    assert len(states) == 1
    _check_deployed(quantized, data, tmp_path / "net.onnx")


def test_steps_put_side_by_side_stay_on_their_grid():
    quantized, _ = prepare(NETS["lstm"]().eval(), arrays(3, 5), Scheme())
    stack = next(node for node in quantized.graph.nodes if node.target is torch.ops.aten.stack.default)
    after = quantized.get_submodule(next(iter(stack.users)).target)
    assert isinstance(after, SameQuantizer)
    assert after.source.layer == "rnn.l0.state"


def test_a_recurrent_layer_can_be_excluded():
    quantized, notes = prepare(NETS["lstm"]().eval(), arrays(3, 5), Scheme(exclude=("rnn.*",)))
    assert [module.layer for module in _modules(quantized) if module.weight] == ["head"]
    assert sum("excluded" in note for note in notes) == 2


@pytest.mark.parametrize("recipe", [dynamic_step, smoothquant, minmax])
def test_other_recipes_take_recurrent_layers(recipe):
    torch.manual_seed(0)
    data, model = arrays(3, 5), NETS["bidirectional_gru"]().eval()
    x = data.example(8)
    quantized = recipe()(model, data).model
    assert (quantized(x) - model(x)).abs().max() < 0.05 * model(x).abs().max()


def test_time_along_the_samples_is_refused():
    with pytest.raises(PreconditionError, match="batch_first=True"):
        static()(nn.Sequential(nn.LSTM(5, 6)), arrays(3, 5))
