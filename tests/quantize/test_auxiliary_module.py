"""The auxiliary module in full precision: its form, its gradients, and that it leaves nothing."""

import pytest
import torch
from quantize_nets import arrays
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import equip
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.recipes import auxiliary_module
from lilliput.quantize.simulations import Assisted
from lilliput.quantize.simulations.auxiliary import Auxiliary
from lilliput.train import SGD, Fit, Hook, fit


def _network(data):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU(),
                          nn.Conv2d(5, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 4))
    step = auxiliary_module()
    return equip(model, data, step.scheme, estimator=step.estimator)[0]


def test_adaptors_add_up_where_positions_change():
    torch.manual_seed(0)
    module = Auxiliary([3, 5], 4, 2, 2).eval()
    first, second = torch.randn(2, 3, 6, 6), torch.randn(2, 5, 3, 3)
    total = nn.functional.adaptive_avg_pool2d(module.adaptors[0](first).relu(), 3)
    total = (module.adaptors[1](second) + total).relu()
    torch.testing.assert_close(module([first, second]), module.head(total.mean((2, 3))))
    flat = Auxiliary([3, 5], 4, 2, 0).eval()
    a, b = torch.randn(2, 3), torch.randn(2, 5)
    torch.testing.assert_close(flat([a, b]), flat.head((flat.adaptors[1](b) + flat.adaptors[0](a).relu()).relu()))


def test_gradients_reach_a_layer_without_passing_the_roundings_after_it():
    """With activations that pass no gradient, nothing comes through the network; through the module it does."""
    data = arrays(2, 8, 8)
    seen = {}

    class Cut(Hook):
        def gradients(self, state):
            grad = state.model.tensor("0.weight").grad
            seen["first"] = 0.0 if grad is None else float(grad.abs().max())

    for name, hooks in (("plain", ()), ("assisted", (Assisted(),))):
        network = _network(data)
        for quantizer in quantizers(network):
            if not quantizer.weight and quantizer.grid.bits < 8:
                quantizer.register_forward_hook(lambda module, inputs, output: output.detach())
        fit(network, data, Fit(epochs=1, batch_size=48, optimizer=SGD(lr=0.01)), hooks=(*hooks, Cut()), progress=False)
        seen[name] = seen.pop("first")
    assert seen["plain"] == 0
    assert seen["assisted"] > 0


def test_the_loss_is_the_weighted_sum_and_nothing_stays():
    data = arrays(2, 8, 8)
    network, seen = _network(data), {}

    class Before(Hook):
        def loss(self, state, outputs, loss):
            seen["plain"] = loss.detach()
            return loss

    class After(Hook):
        def loss(self, state, outputs, loss):
            seen["whole"] = loss.detach()
            seen["names"] = [name for name, _ in state.model.named_parameters() if "auxiliary" in name]
            return loss

    fitted = fit(network, data, Fit(epochs=1, batch_size=48, optimizer=SGD(lr=0.01)), hooks=(Before(), Assisted(weight=0.5), After()), progress=False)
    assert seen["whole"] > seen["plain"]
    # Cross entropy of four classes, at the start near log 4.
    assert (seen["whole"] - seen["plain"]).item() == pytest.approx(0.5 * 1.386, rel=0.3)
    assert seen["names"]
    assert set(dict(fitted.model.named_parameters())) == set(dict(network.named_parameters()))
    assert not any(q._forward_pre_hooks for q in quantizers(fitted.model))


def test_refusals():
    for options in ({"weight": -1}, {"width": 0}):
        with pytest.raises(RecipeError, match="auxiliary"):
            Assisted(**options)
    data = arrays(2, 8, 8)
    with pytest.raises(PreconditionError, match="bits"):
        fit(_network(data), data, Fit(epochs=1), hooks=(Assisted(bits=1),), progress=False)
