"""Receptive fields against values by hand and against the gradient, which reaches exactly that far."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lilliput import zoo
from lilliput.core import PreconditionError
from lilliput.graph import trace
from lilliput.graph.receptive import receptive_fields


def last(model, example):
    """The field of the last image that has one."""
    return list(receptive_fields(trace(model, example)).values())[-1]


def test_a_worked_example():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, (3, 1), dilation=2))
    # 1 + 2 * 1 = 3, stride 2; 3 + 1 * 2 = 5, stride 4; 5 + 2 * 2 * 4 = 21 down, 5 across.
    found = last(model, torch.randn(2, 1, 32, 32))
    assert found.size == (21, 5)
    assert found.stride == (4, 4)


def test_mobilenet_v2_sees_491_pixels():
    # The stem 3, then kernels of 3 at strides 2 2 4 4, three at 8, seven at 16, three at 32: 3 + 2 (12 + 24 + 112 + 96).
    found = last(zoo.create("mobilenet_v2", num_classes=2, in_chans=3), torch.randn(2, 3, 64, 64))
    assert found.stride == (32, 32)
    assert found.size == (491, 491)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([1, 3, 5]), st.integers(1, 2), st.integers(1, 2)), min_size=1, max_size=4))
def test_the_gradient_reaches_as_far(layers):
    model = nn.Sequential(*(nn.Conv1d(1, 1, kernel, stride, dilation * (kernel // 2), dilation) for kernel, stride, dilation in layers))
    for parameter in model.parameters():
        nn.init.ones_(parameter)
    x = torch.randn(2, 1, 401, requires_grad=True)
    y = model(x)
    y[0, 0, y.shape[-1] // 2].backward()
    reached = x.grad[0, 0].nonzero().flatten()
    found = last(model, x.detach())
    assert int(reached.max() - reached.min()) + 1 == found.size[0]
    assert found.stride == (torch.tensor([stride for _, stride, _ in layers]).prod(),)


def test_sums_take_the_larger_and_global_pooling_ends_it():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.far, self.near, self.head = nn.Conv2d(1, 1, 5, padding=2), nn.Conv2d(1, 1, 1), nn.Linear(1, 2)

        def forward(self, x):
            return self.head((self.far(x) + self.near(x)).mean((2, 3)))

    traced = trace(Net(), torch.randn(2, 1, 16, 16))
    fields = receptive_fields(traced)
    assert max(field.size for field in fields.values()) == (5, 5)
    assert not any("linear" in node.name or "mean" in node.name for node in fields)


def test_text_has_none():
    with pytest.raises(PreconditionError, match="one image"):
        receptive_fields(trace(nn.Linear(3, 2), torch.randn(2, 3)))
