"""Signs (BNN) and scaled signs (XNOR-Net), by hand; networks for them."""

import pytest
import torch
from quantize_nets import arrays
from simulate import gradients, weight_quantizer
from torch import nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.graph.trace import trace
from lilliput.quantize import Binary, Integer, Quantizer, Uniform, equip
from lilliput.quantize.calibrate import constants, quantizers
from lilliput.quantize.recipes import bnn, xnor_net
from lilliput.quantize.simulations import Bounded, MeanSign, Sign, Unclamped
from lilliput.train import SGD, Fit, State


def _activation(estimator):
    quantizer = Quantizer(Binary(), layer="layer", weight=False)
    quantizer.set(Binary().parameters(torch.tensor(-3.0), torch.tensor(3.0)))
    estimator.equip_(quantizer, None)
    return quantizer


def test_signs_and_their_clipped_gradient():
    x = torch.tensor([-1.5, -1.0, -0.2, 0.0, 0.7, 1.0, 1.01])
    y, grad = gradients(_activation(Sign()), x, torch.arange(1.0, 8.0))
    assert y.tolist() == [-1, -1, -1, 1, 1, 1, 1]
    # Equation 4 of the paper: g 1[|x| <= 1].
    assert grad.tolist() == [0, 2, 3, 4, 5, 6, 0]


def test_weights_pass_their_gradient_and_are_bounded():
    w = torch.tensor([[0.3, -2.0], [-0.1, 0.0]])
    y, grad = gradients(weight_quantizer(Sign(), Binary(axis=0), w), w, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert y.tolist() == [[1, -1], [-1, 1]]
    assert grad.tolist() == [[1, 2], [3, 4]]


def test_the_hook_clamps_what_stands_behind_signs_only():
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.weight.mul_(100)
    data, step = arrays(2, 8, 8), bnn()
    network, _ = equip(model, data, step.scheme, estimator=step.estimator, rewrites=step.rewrites)
    Bounded().step(State(model=network, fabric=None, data=data, config=Fit(), total_steps=1))
    largest = {q.layer: float(w.abs().max()) for q, w in constants(network)}
    assert largest["2"] == 1
    assert min(largest["0"], largest["4"]) > 1


def test_scaled_signs_and_the_gradient_of_the_paper():
    # Two filters of two inputs each, two positions; centred over the inputs they are +-0.5, +-0.1 and +-1.2, 0.
    w = torch.tensor([[[0.6, 0.2], [-0.4, 0.0]], [[1.0, 0.3], [-1.4, 0.3]]])
    quantizer = weight_quantizer(MeanSign(), Binary(axis=0), w)
    centred = torch.tensor([[[0.5, 0.1], [-0.5, -0.1]], [[1.2, 0.0], [-1.2, 0.0]]])
    y, _ = gradients(quantizer, w)
    alpha = torch.tensor([0.3, 0.6])
    torch.testing.assert_close(y, alpha[:, None, None] * torch.tensor([[[1.0, 1], [-1, -1]], [[1, 1], [-1, 1]]]))
    # On a weight that is centred: dL/dw = g (1 / n + alpha 1[|w| < 1]), less its mean over the inputs, which centring takes off.
    g = torch.arange(8.0).reshape(2, 2, 2)
    _, grad = gradients(quantizer, centred, g)
    expected = g * (1 / 4 + alpha[:, None, None] * (centred.abs() < 1))
    torch.testing.assert_close(grad, expected - expected.mean(1, keepdim=True))


def test_depthwise_filters_and_linear_layers_have_scales():
    w = torch.tensor([[[[0.5, -0.1, 0.3]]], [[[0.2, 0.2, 0.2]]]])
    y, _ = gradients(weight_quantizer(MeanSign(), Binary(axis=0), w), w)
    torch.testing.assert_close(y, torch.tensor([[[[0.3, -0.3, 0.3]]], [[[0.2, 0.2, 0.2]]]]))
    w = torch.tensor([[1.0, 3.0]])
    y, _ = gradients(weight_quantizer(MeanSign(), Binary(axis=0), w), w)
    assert y.tolist() == [[-1, 1]]


def test_the_scale_of_a_filter_is_that_of_least_squared_error():
    torch.manual_seed(0)
    w = torch.randn(3, 1, 50)
    y, _ = gradients(weight_quantizer(MeanSign(), Binary(axis=0), w), w)
    error = (w - y).square().flatten(1).sum(1)
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert ((w - factor * y).square().flatten(1).sum(1) > error).all()


class Blocks(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(2 if i == 0 else 4, 4, 3, padding=1) for i in range(5))
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.convs[0](x)))
        x = x + self.convs[2](F.max_pool2d(F.relu6(self.convs[1](x)), 3, 1, 1))
        y = F.relu(self.convs[3](x))
        pooled = F.max_pool2d(y, 2, 1, padding=0)
        return self.head((F.adaptive_avg_pool2d(self.convs[4](pooled), 1) + F.adaptive_avg_pool2d(pooled, 1)).flatten(1))


def test_clamps_in_front_of_signs_go_and_others_stay():
    traced = trace(Blocks().eval(), torch.randn(2, 2, 8, 8))
    notes = Unclamped(bits=Uniform(weights=1, activations=1, ends=8))(traced, None)
    by_layer = {str(node.args[1].target): node for node in traced.graph.nodes if "conv2d" in str(node.target)}
    # Behind the first layer: the second reads its batch norm, the addition still the ReLU.
    assert "batch_norm" in by_layer["convs.1.weight"].args[0].name
    # Behind a pooling: the pooling reads the convolution.
    assert by_layer["convs.2.weight"].args[0].args[0] is by_layer["convs.1.weight"]
    assert sum("relu" in str(node.target) for node in traced.graph.nodes) == 2
    # A pooling that something else reads too keeps its clamp, and the note says so.
    assert len(notes) == 1
    assert notes[0].startswith("convs.4: its input is clamped")
    untouched = trace(Blocks().eval(), torch.randn(2, 2, 8, 8))
    assert Unclamped(bits=Uniform(weights=1, activations=1, ends=8), exclude=("convs.*",))(untouched, None) == []
    assert sum("relu" in str(node.target) for node in untouched.graph.nodes) == 3


@pytest.mark.parametrize("recipe", [bnn, xnor_net])
def test_inputs_of_binary_layers_take_both_signs(recipe):
    data = arrays(2, 8, 8)
    result = recipe(fit=Fit(epochs=1, batch_size=16, optimizer=SGD(lr=0.01)))(Blocks(), data)
    seen = {}
    for quantizer in quantizers(result.model):
        if isinstance(quantizer.grid, Binary) and not quantizer.weight:
            quantizer.register_forward_hook(lambda module, inputs, output: seen.__setitem__(module.layer, output))
    result.model(data.example(16))
    # The one behind a pooling that keeps its clamp is the exception that the note names.
    assert seen.pop("convs.4.input").unique().tolist() == [1]
    assert len(seen) == 3
    assert {layer: sorted(output.unique().tolist()) for layer, output in seen.items()} == {layer: [-1, 1] for layer in seen}


def test_refusals():
    with pytest.raises(PreconditionError, match="Binary"):
        weight_quantizer(Sign(), Integer(), torch.ones(2))
    with pytest.raises(PreconditionError, match="Sign"):
        _activation(MeanSign())
