"""Tracing: same outputs, same names, trains as the original, refuses with the model's line."""

import copy
import pickle

import numpy as np
import pytest
import torch
from networks import NETWORKS, build
from torch import nn

from lilliput.core import TraceError
from lilliput.graph import Traced, trace


@pytest.mark.parametrize("name", NETWORKS)
def test_traced_network_is_the_network(name):
    model, example = build(name)
    traced = trace(model, example)
    assert torch.equal(traced(example), model(example))
    assert set(dict(traced.named_parameters())) == set(dict(model.named_parameters()))
    assert traced.dynamic_batch
    bigger = torch.cat([example, example, example])
    torch.testing.assert_close(traced(bigger), model(bigger))
    assert traced(example[:1]).shape[0] == 1


def test_is_idempotent_and_leaves_the_model_alone():
    model, example = build("residual")
    model.train()
    traced = trace(model, example)
    assert trace(traced, example) is traced
    assert model.training
    assert traced.training
    before = model.stem.weight.clone()
    with torch.no_grad():
        traced.tensor("stem.weight").zero_()
    assert torch.equal(model.stem.weight, before)


def test_train_and_eval_switch_batch_norm_and_dropout():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).eval()
    example = torch.randn(16, 4)
    traced = trace(model, example)
    reference = copy.deepcopy(model).train()
    traced.train()
    torch.manual_seed(1)
    expected = reference(example)
    torch.manual_seed(1)
    torch.testing.assert_close(traced(example), expected)
    torch.testing.assert_close(traced.tensor("1.running_mean"), reference[1].running_mean)
    traced.eval()
    torch.testing.assert_close(traced(example), reference.eval()(example))


def test_gradients_equal_the_original():
    model, example = build("attention")
    traced = trace(model, example)
    model(example).square().sum().backward()
    traced(example).square().sum().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(dict(traced.named_parameters())[name].grad, parameter.grad, atol=1e-4, rtol=1e-4)


def test_copies_and_pickles():
    model, example = build("residual")
    traced = trace(model, example)
    for other in (copy.deepcopy(traced), pickle.loads(pickle.dumps(traced))):
        assert isinstance(other, Traced)
        assert torch.equal(other(example), traced(example))
        assert other.example[0].shape == traced.example[0].shape


def test_tied_weights_stay_tied():
    model, example = build("gated")
    traced = trace(model, example)
    traced(example).sum().backward()
    assert sum(p.numel() for p in traced.parameters()) == sum(p.numel() for p in model.parameters())


def test_in_place_operators_become_pure():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            y += 1
            flat = y.mean((2, 3)).flatten(1)
            flat.relu_()
            return flat, torch.relu_(y)

    model, example = InPlace().eval(), torch.randn(2, 3, 4, 4)
    traced = trace(model, example)
    for a, b in zip(traced(example), model(example), strict=True):
        assert torch.equal(a, b)
    assert not [n for n in traced.graph.nodes if n.op == "call_function" and str(n.target).split(".")[1].endswith("_")]


def test_refusal_gives_reason_line_and_remedy():
    class Branching(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return -x

    with pytest.raises(TraceError, match=r"if x\.sum\(\) > 0.*Remedy") as caught:
        trace(Branching(), torch.randn(2, 3))
    assert "Branching" in str(caught.value)


def test_fixed_batch_is_noticed():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(2, -1) + torch.ones(2, 12)

    traced = trace(Fixed(), torch.randn(2, 3, 4))
    assert not traced.dynamic_batch


@pytest.mark.parametrize("writer", ["original", "copy"])
def test_a_write_reaches_one_network_only(writer: str) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))
    model[0].bias = nn.Parameter(torch.from_numpy(np.ones(4, np.float32)))  # memory that torch cannot share lazily
    traced = trace(model, torch.randn(2, 2, 8, 8))
    written, other = (model, traced) if writer == "original" else (traced, model)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with torch.no_grad():
        for tensor in written.state_dict().values():
            tensor.add_(1)
    after = other.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert all(not torch.equal(after[name], tensor) for name, tensor in written.state_dict().items())


def test_modules_that_evaluation_does_not_use_are_left_out():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.extra = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            x = self.body(x)
            return (x, self.extra(x)) if self.training else x

    traced = trace(Auxiliary(), torch.randn(2, 3))
    assert set(dict(traced.named_parameters())) == {"body.weight", "body.bias"}


def test_what_torch_exported_is_traced_too():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    example = torch.randn(2, 1, 8, 8)
    exported = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    traced = trace(exported, example)
    batch = torch.randn(5, 1, 8, 8)
    torch.testing.assert_close(traced.eval()(batch), model(batch))
    assert traced.dynamic_batch
    assert not torch.equal(traced.train()(batch), model(batch))  # its batch norms can be trained again
