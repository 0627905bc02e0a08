"""Walks, partitions and layers as matrix products."""

import copy

import pytest
import torch
from quantize_nets import NETS, arrays
from torch import nn
from torch.nn import functional as F

from lilliput.core.errors import DataError
from lilliput.graph.products import as_rows, groups_of, is_supported, patches
from lilliput.graph.trace import trace
from lilliput.graph.walk import Walk, needed, sample_bytes
from lilliput.quantize import Scheme, prepare
from lilliput.quantize.calibrate import calibration_batches
from lilliput.quantize.operators import LAYERS
from lilliput.quantize.prepare import lowered
from lilliput.quantize.rounding.partition import blocks, layers
from lilliput.zoo import create


@pytest.mark.parametrize("family", NETS)
def test_a_walk_computes_what_the_network_does_and_keeps_little(family):
    build, shape = NETS[family]
    torch.manual_seed(0)
    traced, _ = prepare(build().eval(), arrays(*shape), Scheme())
    batches = list(torch.randn(3, 4, *shape))
    walk = Walk(traced, batches)
    out = walk.nodes[-1].all_input_nodes[0]
    for node in [n for n in walk.nodes if n.target in LAYERS]:
        walk.before(node)
        assert all(source in values for values in walk.values for source in node.all_input_nodes if source not in walk.constant)
        assert all(len(values) <= 6 for values in walk.values)
    for batch, result in zip(batches, walk.through(out), strict=True):
        assert torch.equal(result, traced(batch))


def test_a_change_counts_from_the_next_node_that_reads_it():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
    traced = copy.deepcopy(trace(model, torch.randn(2, 3)))
    x = torch.randn(5, 3)
    walk = Walk(traced, [x])
    first, second = [n for n in walk.nodes if n.target in LAYERS]
    walk.through(first)
    assert [n.name for n in needed(second, walk.values[0]) if n.op == "call_function"] == ["relu", second.name]
    for name in ("0.weight", "2.weight"):
        traced.set_tensor(name, torch.zeros_like(traced.tensor(name)))
    (result,) = walk.through(second)
    assert torch.equal(result, model[2].bias.expand(5, 2))


def test_fewer_samples_are_kept_where_there_is_no_room():
    data = arrays(2, 8, 8)
    traced, _ = lowered(NETS["residual"][0]().eval(), data)
    size = sample_bytes(traced)
    # The stem's result and its ReLU, 8 channels of 8 x 8 each, in float32.
    assert size == 4 * 2 * 8 * 64
    batches, notes = calibration_batches(traced, data, 40, room=int(2 * size * 10.5))
    assert sum(map(len, batches)) == 10
    assert "10 samples of 40" in notes[0]
    batches, notes = calibration_batches(traced, data, 40)
    assert sum(map(len, batches)) == 40
    assert not notes
    with pytest.raises(DataError, match="no samples"):
        calibration_batches(traced, arrays(2, 8, 8, samples=0), 4)


def _names(pieces):
    return [(piece.name, piece.start and piece.start.name, piece.end.name) for piece in pieces]


def test_blocks_lie_between_points_that_everything_passes():
    traced = trace(create("resnet8", num_classes=4, in_chans=2, seed=0), torch.zeros(2, 2, 16, 16)).eval()
    traced, _ = lowered(traced, arrays(2, 16, 16))
    found = blocks(traced)
    assert [len(piece.layers) for piece in found] == [1, 2, 3, 3, 1]
    assert [piece.name for piece in found[:2]] == ["conv1", "layer1.0.conv1 to layer1.0.conv2"]
    # Each begins where the one before ends, but for pooling.
    assert [piece.start.name for piece in found[1:4]] == [piece.end.name for piece in found[:3]]
    assert all(piece.end.name.startswith("relu") for piece in found[:4])
    single = layers(traced)
    assert len(single) == 10
    assert {piece.end.name for piece in single} >= {"relu", "linear"}
    assert all(len(piece.layers) == 1 and piece.start is None for piece in single)


def test_blocks_of_a_transformer_are_its_residual_branches():
    traced, _ = lowered(create("vit_tiny", num_classes=4, in_chans=2, seed=0, options={"image_size": 8, "dim": 16, "depth": 2, "heads": 2}),
                        arrays(2, 8, 8))
    found = blocks(traced)
    assert [piece.name for piece in found] == [
        "patch_embed", "blocks.0.attn.qkv to blocks.0.attn.proj", "blocks.0.mlp.fc1 to blocks.0.mlp.fc2",
        "blocks.1.attn.qkv to blocks.1.attn.proj", "blocks.1.mlp.fc1 to blocks.1.mlp.fc2", "head"]


def test_a_weight_that_two_layers_read_is_in_no_piece():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return F.linear(self.a(self.a(x)), self.b.weight)

    data = arrays(4)
    quantized, _ = prepare(Tied().eval(), data, Scheme())
    assert [piece.name for piece in layers(lowered(Tied().eval(), data)[0])] == ["b"]
    from lilliput.graph.weights import has_own_weight

    assert [has_own_weight(n) for n in quantized.graph.nodes if n.target in LAYERS] == [False, False, True]


CONVOLUTIONS = [nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 1), groups=2), nn.Conv2d(4, 8, 3, dilation=2, groups=4),
                nn.Conv1d(4, 2, 5, stride=2, padding=3), nn.Conv3d(2, 4, 2, groups=2), nn.Conv2d(4, 4, 3, padding="same", dilation=2, bias=False),
                nn.Linear(5, 3)]


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=str)
def test_a_layer_is_the_product_of_its_rows_and_patches(layer):
    shape = (5,) if isinstance(layer, nn.Linear) else (layer.in_channels, *[9] * (layer.weight.ndim - 2))
    x = torch.randn(3, *shape)
    traced = trace(layer, x)
    (node,) = [n for n in traced.graph.nodes if n.target in LAYERS]
    assert is_supported(node)
    rows, columns = as_rows(layer.weight, node), patches(node, x, tuple(layer.weight.shape[2:]))
    assert len(rows) == groups_of(node)
    product = rows @ columns.transpose(1, 2)  # groups, outputs, samples and positions
    out = layer(x) - (0 if layer.bias is None else layer.bias.reshape(-1, *[1] * (x.ndim - 2)))
    torch.testing.assert_close(product.flatten(0, 1), out.movedim(1, 0).flatten(1), rtol=1e-4, atol=1e-5)
