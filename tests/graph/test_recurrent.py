"""Recurrent layers unrolled: the same function, the same weights, one name for each value at every step."""

import copy
from collections import Counter

import pytest
import torch
from recurrent_nets import CELLS, NETS, Layers
from torch import nn

from lilliput.core.errors import PreconditionError
from lilliput.graph import profile, trace
from lilliput.graph.recurrent import edge_of, unroll_


def _unrolled(model, *shape):
    traced = copy.deepcopy(trace(model, torch.zeros(2, *shape)))
    unroll_(traced)
    return traced


@pytest.mark.parametrize("name", [*NETS, *CELLS])
def test_the_function_stays(name):
    torch.manual_seed(0)
    model = NETS[name](head=False).eval() if name in NETS else CELLS[name]().eval()
    traced = _unrolled(model, 4, 5)
    names = {str(node.target) for node in traced.graph.nodes if node.op == "call_function"}
    assert not any(part in target for target in names for part in ("lstm", "gru", "rnn"))
    x = torch.randn(3, 4, 5)
    torch.testing.assert_close(traced(x), model(x), rtol=1e-6, atol=1e-6)
    assert dict(traced.named_parameters()).keys() == dict(model.named_parameters()).keys()


def test_a_step_of_each_by_hand():
    for kind in (nn.LSTM, nn.GRU):
        model = Layers(kind, head=False)
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        traced = _unrolled(model, 2, 5)
        gates = traced.tensor("rnn.bias_ih_l0")
        with torch.no_grad():
            # Candidate tanh(1) with all gates half open: LSTM c = 0.5 tanh(1), then 0.5 c + 0.5 tanh(1); GRU h likewise.
            gates[12:18] = 1
        first, second = 0.5 * torch.tensor(1.0).tanh(), 0.75 * torch.tensor(1.0).tanh()
        wanted = torch.stack([first, second]) if kind is nn.GRU else 0.5 * torch.stack([first, second]).tanh()
        torch.testing.assert_close(traced(torch.randn(1, 2, 5))[0][0, :, 0], wanted)


def test_every_step_has_the_same_edges():
    counts = Counter(edge_of(node) for node in _unrolled(NETS["lstm"](), 7, 5).graph.nodes if edge_of(node))
    assert set(counts) == {f"rnn.l0.{role}" for role in (
        "state", "memory", "recurrent", "gates", "input_gate", "forget_gate", "candidate", "output_gate", "kept", "new", "squashed")}
    assert counts.pop("rnn.l0.state") == counts.pop("rnn.l0.memory") == 8  # the ones before the first step
    assert set(counts.values()) == {7}
    counts = Counter(edge_of(node) for node in _unrolled(CELLS["gru_cell"](), 7, 5).graph.nodes if edge_of(node))
    assert counts["cell.state"] == 8
    assert counts["cell.inputs"] == 7


def test_the_product_with_the_inputs_is_taken_once():
    traced = _unrolled(NETS["deep_lstm"](), 7, 5)
    linear = [node for node in traced.graph.nodes if node.target is torch.ops.aten.linear.default]
    assert len(linear) == 2 * (1 + 7) + 1


def test_dropout_between_layers_is_switched_by_training():
    torch.manual_seed(0)
    model, x = NETS["deep_lstm"](), torch.randn(2, 3, 5)
    for traced in (trace(model, x), _unrolled(model, 3, 5)):
        traced.train()
        assert not torch.equal(traced(x), traced(x))
        traced.eval()
        assert torch.equal(traced(x), traced(x))


def test_it_trains_and_gradients_are_torchs():
    torch.manual_seed(0)
    model, x = NETS["bidirectional_gru"](), torch.randn(2, 3, 5)
    traced = _unrolled(model, 3, 5)
    for network in (model, traced):
        network(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(dict(traced.named_parameters())[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_time_along_the_samples_is_refused():
    model = nn.LSTM(5, 6)
    with pytest.raises(PreconditionError, match=r"time steps.*batch_first=True"):
        _unrolled(model, 3, 5)


def test_a_transpose_in_front_is_fine():
    class Transposed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(5, 6)

        def forward(self, x):
            return self.rnn(x.transpose(0, 1))[0].transpose(0, 1)

    model, x = Transposed(), torch.randn(3, 4, 5)
    torch.testing.assert_close(_unrolled(model, 4, 5)(x), model(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [*NETS, *CELLS])
def test_macs_are_those_of_the_steps(name):
    model = (NETS | CELLS)[name]()
    assert profile(trace(model, torch.zeros(2, 4, 5))).macs == profile(_unrolled(model, 4, 5)).macs


def test_macs_by_hand():
    # Four gates of six outputs, on five inputs and six states, at seven steps; then the head.
    assert profile(NETS["lstm"](), torch.zeros(2, 7, 5)).macs == 7 * 4 * 6 * (5 + 6) + 6 * 4
    assert profile(CELLS["gru_cell"](), torch.zeros(2, 7, 5)).macs == 7 * 3 * 6 * (5 + 6) + 6 * 4
