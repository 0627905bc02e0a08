"""Falling precision and a guide in full precision, by hand."""

import copy

import pytest
import torch
from quantize_nets import arrays
from simulate import activation_quantizer, weight_quantizer
from torch import nn

from lilliput.core.errors import PreconditionError, RecipeError
from lilliput.quantize import BitPlanes, Quantizer, equip
from lilliput.quantize.calibrate import quantizers
from lilliput.quantize.recipes import two_stage
from lilliput.quantize.simulations import Guided, Stage, StagedLevels, Stages, TanhLevels
from lilliput.quantize.simulations.guided import Inner, attention, edges
from lilliput.train import SGD, Constant, Fit, Hook, fit

PLAN = (Stage(weights=6, activations=None), Stage(start=0.5, weights=3, activations=6), Stage(start=0.75, weights=3, activations=4))


def test_every_stage_has_its_own_levels():
    torch.manual_seed(0)
    w = torch.randn(50)
    quantizer = weight_quantizer(StagedLevels(stages=PLAN), BitPlanes(bits=3), w)
    for bits in (6, 3):
        quantizer.simulation.bits = bits
        assert torch.equal(quantizer(w), weight_quantizer(TanhLevels(), BitPlanes(bits=bits), w)(w))
    quantizer.simulation.bits = None
    assert torch.equal(quantizer(w), w)
    values = quantizer.eval().settle(w)
    assert torch.equal(quantizer(values), values)
    assert len(values.unique()) <= 8


def test_activations_are_clipped_at_the_calibrated_range():
    quantizer = activation_quantizer(StagedLevels(stages=PLAN), 4, 3.0)
    x = torch.tensor([-1.0, 0.31, 2.5, 9.0])
    assert quantizer(x).tolist() == pytest.approx([0, 0.4, 2.6, 3], abs=1e-5)
    quantizer.simulation.bits = 6
    assert quantizer(x).tolist() == pytest.approx([0, 7 * 3 / 63, 53 * 3 / 63, 3], abs=1e-5)
    assert quantizer.settle(None) is None
    assert quantizer(x).tolist() == pytest.approx([0, 0.4, 2.6, 3], abs=1e-5)


class Watch(Hook):
    def __init__(self):
        self.seen = []

    def step(self, state):
        bits = {(q.weight, q.simulation.bits) for q in quantizers(state.model) if q.simulation is not None}
        self.seen.append(sorted(bits, key=str))


def _network(data, estimator=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3),
                          nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    step = two_stage(weights=3, activations=4)
    network, _ = equip(model, data, step.scheme, estimator=estimator or step.estimator)
    return network


def test_the_hook_goes_through_the_stages():
    data, watch = arrays(2, 8, 8), Watch()
    estimator = two_stage(weights=3, activations=4).estimator
    estimator = type(estimator)(weights=StagedLevels(stages=PLAN), activations=StagedLevels(stages=PLAN))
    fit(_network(data, estimator), data, Fit(epochs=2, batch_size=12, optimizer=SGD(lr=0.01)), hooks=(Stages(stages=PLAN), watch), progress=False)
    assert watch.seen == [[(False, None), (True, 6)]] * 4 + [[(False, 6), (True, 3)]] * 2 + [[(False, 4), (True, 3)]] * 2


def test_attention_maps_by_hand():
    x = torch.tensor([[[[1.0, 0.0]], [[3.0, 2.0]]]])
    # Mean squares 5 and 2, over their length.
    torch.testing.assert_close(attention(x), torch.tensor([[5.0, 2.0]]) / 29**0.5)


class Note(Hook):
    """The distance of the attention maps in the last step."""

    def start(self, state):
        names = edges(state.model, 7)
        self.inner = [Inner(model, names) for model in (state.model, state.model.full_precision_guide)]

    def loss(self, state, outputs, loss):
        low, high = (inner.values for inner in self.inner)
        self.apart = sum(float((attention(low[name]) - attention(high[name])).square().sum(1).mean()) for name in low)
        return loss


def test_the_guide_starts_as_the_float_network_and_trains_beside():
    data = arrays(2, 8, 8)
    network = _network(data)
    seen = {}

    class Look(Hook):
        def start(self, state):
            seen["guide"] = copy.deepcopy(state.model.full_precision_guide.state_dict())
            assert not any(isinstance(m, Quantizer) for m in state.model.full_precision_guide.modules())

        def loss(self, state, outputs, loss):
            seen.setdefault("outputs", (outputs.detach(), state.model.full_precision_guide(state.inputs).detach(), loss.detach(), state.targets))
            return loss

        def step(self, state):
            seen["trained"] = copy.deepcopy(state.model.full_precision_guide.state_dict())

    trained = fit(network, data, Fit(epochs=1, batch_size=48, optimizer=SGD(lr=0.05), schedule=Constant()), hooks=(Guided(weight=0.0), Look()),
                  progress=False).model
    outputs, guide, loss, targets = seen["outputs"]
    cross = nn.functional.cross_entropy
    torch.testing.assert_close(loss, cross(outputs, targets) + cross(guide, targets))
    assert not torch.equal(seen["guide"]["0.weight"], seen["trained"]["0.weight"])
    assert not any("guide" in name for name, _ in trained.named_modules())
    assert not any(q._forward_pre_hooks for q in quantizers(trained))


def test_the_guide_pulls_attention_together():
    data = arrays(2, 8, 8)
    apart = []
    for weight in (0.0, 50.0):
        note = Note()
        fit(_network(data), data, Fit(epochs=12, batch_size=48, optimizer=SGD(lr=0.05), schedule=Constant()), hooks=(Guided(weight=weight), note),
            progress=False)
        apart.append(note.apart)
    assert apart[1] < 0.8 * apart[0]


def test_refusals():
    with pytest.raises(RecipeError, match="later"):
        Stages(stages=(Stage(start=0.2, weights=4, activations=4),))
    with pytest.raises(RecipeError, match="last stage"):
        Stages(stages=(Stage(weights=4, activations=None),))
    with pytest.raises(RecipeError, match="weight"):
        Guided(weight=-1)
    data = arrays(2, 8, 8)
    with pytest.raises(PreconditionError, match="bits"):
        fit(_network(data), data, Fit(epochs=1), hooks=(Guided(bits=2),), progress=False)
