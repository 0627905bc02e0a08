"""Profile: counts computed by hand."""

import pytest
import torch
from networks import build
from torch import nn

from lilliput import zoo
from lilliput.core import PreconditionError
from lilliput.graph import profile, trace


def test_convolution_by_hand():
    # 3x3, 3 -> 8 channels on 10x10, padding 1: 10*10*8*3*9 MACs; access HW(Cin+Cout) + k^2 Cin Cout (Ma 2018).
    counted = profile(nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.zeros(2, 3, 10, 10))
    assert (counted.macs, counted.params) == (21600, 216)
    assert counted.flops == 43200
    assert counted.access == 100 * (3 + 8) + 9 * 3 * 8
    assert counted.peak_memory == 4 * 100 * (3 + 8)
    assert counted.weight_bytes == 864


def test_linear_attention_and_depthwise_by_hand():
    assert profile(nn.Linear(7, 5), torch.zeros(2, 3, 7)).macs == 3 * 7 * 5
    assert profile(nn.Conv2d(6, 6, 3, groups=6), torch.zeros(2, 6, 5, 5)).macs == 9 * 6 * 9
    counted = profile(*build("attention"))
    attention = next(row for row in counted.layers if "attention" in row.op)
    assert attention.macs == 4 * 5 * 5 * (6 + 6)  # heads x tokens^2 x (query-key width + value width)


def test_does_not_depend_on_the_batch():
    model, example = build("mobile")
    assert profile(model, example).totals() == profile(model, torch.cat([example] * 4)).totals()


def test_peak_counts_a_skip_connection_and_shares_views():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1, bias=False)

        def forward(self, x):
            return (x + self.conv(self.conv(x))).flatten(1)

    # x, the first result and the second are alive together; flatten is a view. 4*8*8 floats each.
    assert profile(Skip(), torch.zeros(2, 4, 8, 8)).peak_memory == 3 * 4 * 4 * 64


def test_layers_are_named_after_their_modules_and_add_up():
    model, example = build("residual")
    counted = profile(trace(model, example))
    named = {row.layer: row for row in counted.layers if row.params}
    assert set(named) == {"stem", "bn", "a", "b", "fc"}
    assert sum(row.params for row in counted.layers) == counted.params == sum(p.numel() for p in model.parameters())


def test_needs_an_example():
    with pytest.raises(PreconditionError, match="pass example="):
        profile(nn.Linear(2, 2))


def test_a_network_in_training_whose_maps_end_as_one_pixel():
    model = zoo.create("vgg11", in_chans=1, seed=0, options={"width": 0.125})
    example = torch.zeros(2, 1, 28, 28)
    assert profile(model.train(), example).macs == profile(model.eval(), example).macs
