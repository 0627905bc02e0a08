"""What all trained quantizers have in common: exact grids, resuming, copies, the exported model, refusals."""

import copy
import inspect
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from quantize_nets import arrays
from torch import nn
from torch.nn import functional as F

from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph.trace import trace
from lilliput.quantize import Aware, BitPlanes, Levels, Scheme, equip, fake_levels, settle_
from lilliput.quantize.calibrate import constant_names, quantizers
from lilliput.quantize.place import BATCH_NORM
from lilliput.quantize.recipes import learned
from lilliput.train import SGD, Fit, Hook, fit

FIT = Fit(epochs=2, batch_size=16, optimizer=SGD(lr=0.02))
TRAINED = [name for name in learned.__all__ if "fit" in inspect.signature(getattr(learned, name)).parameters]


class Small(nn.Module):
    """A residual block, a layer behind a pooling, one with a bias and no batch norm, one whose input takes both signs."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.norm2 = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.pooled, self.signed, self.head = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(x + self.norm2(self.inner(x)))
        x = self.signed(F.hardswish(self.pooled(F.max_pool2d(x, 2))))
        return self.head(F.adaptive_avg_pool2d(F.relu(x), 1).flatten(1))


@pytest.fixture(scope="module")
def data():
    return arrays(2, 8, 8)


@pytest.fixture(scope="module")
def small(data):
    torch.manual_seed(0)
    return fit(trace(Small(), data.example()), data, FIT, progress=False).model.eval()


class Run:
    """One recipe on the small network: equipped, and trained."""

    def __init__(self, name, model, data):
        self.name, self.data = name, data
        self.step = getattr(learned, name)(fit=FIT)
        self.network, self.notes = equip(model, data, self.step.scheme, estimator=self.step.estimator, rewrites=self.step.rewrites)
        self.trained = self.fit().model.eval()

    def fit(self, stop=-1, checkpoint=None):
        hooks = getattr(learned, self.name)(fit=FIT).hooks
        return fit(self.network, self.data, FIT, hooks=(Aware(), *hooks, Stop(stop)), checkpoint=checkpoint, progress=False)


@pytest.fixture(scope="module")
def run(small, data):
    made = {}

    def make(name):
        if name not in made:
            made[name] = Run(name, small, data)
        return made[name]

    return make


@pytest.mark.parametrize("name", TRAINED)
def test_weights_and_activations_settle_on_their_grids(name, run, data):
    trained = copy.deepcopy(run(name).trained)
    tensors, simulated, seen = dict(constant_names(trained)), 0, {}
    for quantizer in quantizers(trained):
        quantizer.register_forward_hook(lambda module, inputs, output: seen.__setitem__(module, (inputs[0], output)))
    with torch.no_grad():
        before = trained(data.example(8))
    inputs = dict(seen)
    for quantizer in quantizers(trained):
        if quantizer.simulation is None:
            continue
        simulated += 1
        name_of = tensors.get(quantizer)
        tensor = None if name_of is None else trained.tensor(name_of).detach()
        values = quantizer.settle(tensor)
        assert quantizer.simulation is None
        if values is not None:
            assert torch.equal(quantizer(values), values)
            trained.set_tensor(name_of, values)
        else:
            with torch.no_grad():
                assert torch.allclose(quantizer(inputs[quantizer][0]), inputs[quantizer][1], atol=1e-6)
    assert simulated >= 3 or name == "auxiliary_module"  # whose steps are those of LSQ
    with torch.no_grad():
        assert torch.allclose(trained(data.example(8)), before, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_folding_keeps_the_codes(name, run, data):
    model = copy.deepcopy(run(name).trained)
    with torch.no_grad():
        before = model(data.example(8))
    settle_(model)
    with torch.no_grad():
        after = model(data.example(8))
    # One step of the output's eight bits: a value half-way between two codes may go either way.
    assert (after - before).abs().max() <= 0.02 * before.abs().max()
    for quantizer, tensor in constant_names(model):
        if quantizer.grid.bits < 8 and name != "auxiliary_module":
            values = model.tensor(tensor).detach()
            assert torch.equal(quantizer(values), values)
            rows = values.flatten(1) if quantizer.grid.axis == 0 else values.movedim(quantizer.grid.axis or 0, 0).flatten(1)
            assert max(len(row.unique()) for row in rows) <= 2**quantizer.grid.bits
    left = [node.name for node in model.graph.nodes if node.target is BATCH_NORM]
    assert bool(left) == (name == "syq")


class Stop(Hook):
    def __init__(self, at):
        self.at = at

    def __repr__(self):
        return "Stop()"

    def step(self, state):
        if state.step == self.at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("name", TRAINED)
def test_resuming_gives_the_uninterrupted_run(name, run, tmp_path):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        run(name).fit(stop=3, checkpoint=path)
    resumed = run(name).fit(checkpoint=path).model
    wanted, got = run(name).trained.state_dict(), resumed.eval().state_dict()
    assert list(wanted) == list(got)
    assert [key for key, value in wanted.items() if not torch.equal(value, got[key])] == []


@pytest.mark.parametrize("name", TRAINED)
def test_copies_and_pickles_train_alike(name, run, data):
    network = copy.deepcopy(run(name).network).train()
    others = (copy.deepcopy(network), pickle.loads(pickle.dumps(network)))
    x = data.example(8)
    wanted = network(x)
    for other in others:
        assert other.training
        assert {id(p) for p in other.parameters()}.isdisjoint(id(p) for p in network.parameters())
        assert torch.equal(other(x), wanted)
        # Processes match their parameters by position.
        assert [key for key, _ in other.named_parameters()] == [key for key, _ in network.named_parameters()]
        assert set(other.state_dict()) == set(network.state_dict())


@pytest.mark.parametrize("name", TRAINED)
def test_ends_have_eight_bits(name, run):
    bits = {q.layer: q.grid.bits for q in quantizers(run(name).network) if q.weight}
    assert bits.pop("stem") == bits.pop("head") == 8
    assert len(bits) == 3
    assert all(b < 8 for b in bits.values())


@pytest.mark.parametrize("name", ["bnn", "lq_nets"])
def test_signs_of_both_kinds_and_poolings_are_exported_as_they_are_simulated(name, run, data, tmp_path):
    model = copy.deepcopy(run(name).trained)
    settle_(model)
    _assert_deployed(model, data, tmp_path)


def _assert_deployed(model, data, tmp_path):
    inputs = data.example(48)
    with torch.no_grad():
        simulated = model(inputs).numpy()
    deployed = Session(export(model, tmp_path / "model.onnx", data.example(4)))(inputs.numpy())
    step = np.diff(np.unique(simulated.round(6))).min()
    assert (np.abs(simulated - deployed) > 1.05 * step).mean() <= 0.02


def test_layers_without_integers_keep_their_levels_in_the_runtime(small, data, tmp_path):
    """ONNX Runtime would round float weights between quantized edges to int8 by itself."""
    grid = Levels(values=(-1.0, -0.013, 0.0, 0.3), axis=0)
    network, _ = equip(small, data, Scheme(weights=grid))
    settle_(network)
    _assert_deployed(network, data, tmp_path)


def test_bit_planes_by_hand():
    assert BitPlanes(bits=1).levels == (-1.0, 1.0)
    assert BitPlanes(bits=2).levels == (-1.0, -1 / 3, 1 / 3, 1.0)
    assert BitPlanes(bits=2, signed=False).levels == (0.0, 1 / 3, 2 / 3, 1.0)
    assert BitPlanes(bits=2).at(8).bits == 8
    x = torch.tensor([-0.7, 0.1, 0.9])
    grid = BitPlanes(bits=2)
    assert fake_levels(x, torch.tensor(1.0), grid.table, grid.thresholds, -1).tolist() == pytest.approx([-1, 1 / 3, 1])


def test_a_silenced_channel_of_signs_stays_silent(small, data):
    model = copy.deepcopy(small)
    with torch.no_grad():
        model.norm2.weight[2] = 0
        model.norm2.bias[2] = 0
    result = learned.bnn(fit=Fit(epochs=0))(model, data)
    quantizer = next(q for q in quantizers(result.model) if q.weight and q.layer == "inner")
    assert quantizer.scale[2].abs() < 1e-20 < quantizer.scale[0].abs()
