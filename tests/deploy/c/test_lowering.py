"""Networks lowered to whole numbers: near ONNX Runtime, equal to hand-made sums, no copies for layouts."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from lilliput import data, quantize, zoo
from lilliput.deploy import Session, export
from lilliput.deploy.c import SingleRounding, lower
from lilliput.deploy.c.operators import AveragePool, Convolution, Move, Softmax
from lilliput.graph import trace


class Image(nn.Module):
    """Concatenation, pooling, gates, a transposed convolution, padding, slices."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(1, 4, 1)
        self.gate, self.up = nn.Linear(12, 12), nn.ConvTranspose2d(12, 6, 2, stride=2)
        self.twice, self.most, self.mean = nn.Upsample(scale_factor=2), nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1)
        self.out = nn.Linear(6 * 4 * 4, 10)

    def forward(self, x):
        y = torch.cat([nn.functional.hardswish(self.a(x)), torch.sigmoid(self.b(x))], 1)
        y = y * torch.sigmoid(self.gate(y.mean((2, 3))))[:, :, None, None]
        y = self.mean(self.most(self.twice(self.up(self.most(y)))))
        y = nn.functional.pad(y, (1, 0, 0, 1))[:, :, :4, :4]
        return self.out(nn.functional.gelu(y).flatten(1))


class Tokens(nn.Module):
    """A constant added, both normalisations, SiLU, a mean over tokens."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.out = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.first, self.last = nn.LayerNorm(16), nn.RMSNorm(16)
        self.place = nn.Parameter(torch.randn(8, 16, generator=torch.Generator().manual_seed(0)) / 10)

    def forward(self, x):
        y = self.embed(x[:, 0]) + self.place
        y = y + nn.functional.silu(self.mix(self.first(y)))
        return self.out(self.last(y).mean(1))


class Signal(nn.Module):
    """One-dimensional convolutions, grouped, and a difference."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Conv1d(8, 12, 3, padding=1, stride=2), nn.Conv1d(12, 12, 3, groups=2, padding=1), nn.Linear(48, 10)

    def forward(self, x):
        y = torch.relu(self.a(x[:, 0]))
        return self.out((y - torch.tanh(self.b(y))).flatten(1))


class Sequence(nn.Module):
    """A recurrent layer, unrolled over the rows of the image."""

    def __init__(self, kind):
        super().__init__()
        self.cells, self.out = kind(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x):
        return self.out(self.cells(x[:, 0])[0][:, -1])


def networks():
    torch.manual_seed(0)
    return {"gru": Sequence(nn.GRU), "lstm": Sequence(nn.LSTM), "image": Image(), "tokens": Tokens(), "signal": Signal(), "resnet8": zoo.create("resnet8", num_classes=10, in_chans=1),
            "vit": zoo.create("vit_tiny", num_classes=10, in_chans=1, options={"image_size": 8, "dim": 32})}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    digits, folder = data.load("digits"), tmp_path_factory.mktemp("lowering")
    found = {}
    for name, network in networks().items():
        quantized = quantize.minmax(samples=128)(trace(network.eval(), digits.example()), digits).model.eval()
        found[name] = export(quantized, folder / f"{name}.onnx", digits.example(8))
    return found


@pytest.fixture(scope="module")
def images():
    return next(data.load("digits").test.batches(24))[0].numpy()


@pytest.mark.parametrize("name", ["gru", "lstm", "image", "tokens", "signal", "resnet8", "vit"])
@pytest.mark.parametrize("rounding", [None, SingleRounding()], ids=["double", "single"])
def test_codes_are_near_onnx_runtime(exported, images, name, rounding):
    program = lower(exported[name], rounding=rounding)
    found = np.concatenate([program.real(image[None])[0] for image in images])
    steps = np.abs(found - Session(exported[name])(images)) / program.outputs[0].buffer.scale
    # Single codes flip where a real sum lies near a tie, and untrained networks carry that on.
    assert np.median(steps) <= 1
    assert steps.max() <= (16 if name == "vit" else 4)


def test_channels_last_needs_no_copy(exported):
    for name in ("resnet8", "signal"):
        assert not [step for step in lower(exported[name]) if isinstance(step, Move)]


def test_attention_copies_no_head(exported):
    steps = list(lower(exported["vit"]))
    softmaxes = [step for step in steps if isinstance(step, Softmax)]
    # One copy to a block: the queries' slice, read through the table that scales it.
    assert len([step for step in steps if isinstance(step, Move)]) <= len(softmaxes) + 3


def test_single_rounding_is_nearer_the_simulation(exported, images):
    """Single rounding differs from the real product only in ties."""
    name, scale = "resnet8", lower(exported["resnet8"]).outputs[0].buffer.scale
    wanted = Session(exported[name])(images)
    off = {}
    for rounding in (None, SingleRounding()):
        program = lower(exported[name], rounding=rounding)
        off[rounding] = np.mean([np.abs(program.real(image[None])[0] - want) / scale > 0.5 for image, want in zip(images, wanted, strict=True)])
    assert off[SingleRounding()] <= off[None]


def model(nodes, shape, out, initializers, opset=21):
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, out)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)


def around(nodes):
    """Quantize `x` to 1/8 with zero 3, then the nodes from `xq` to `r`, then `y` at 1/4 with zero -5."""
    node = onnx.helper.make_node
    return [node("QuantizeLinear", ["x", "sx", "zx"], ["xc"]), node("DequantizeLinear", ["xc", "sx", "zx"], ["xq"]), *nodes,
            node("QuantizeLinear", ["r", "sy", "zy"], ["yc"]), node("DequantizeLinear", ["yc", "sy", "zy"], ["y"])]


GRIDS = {"sx": np.float32(1 / 8), "zx": np.int8(3), "sy": np.float32(1 / 4), "zy": np.int8(-5)}


def test_a_linear_layer_by_hand():
    node = onnx.helper.make_node
    weights = {"w": np.array([[1, 2], [-3, 4]], np.int8), "sw": np.array([0.5, 0.25], np.float32), "zw": np.zeros(2, np.int8),
               "b": np.array([8, -16], np.int32), "sb": np.array([1 / 16, 1 / 32], np.float32)}
    nodes = around([node("DequantizeLinear", ["w", "sw", "zw"], ["wq"], axis=0), node("DequantizeLinear", ["b", "sb"], ["bq"], axis=0),
                    node("Gemm", ["xq", "wq", "bq"], ["r"], transB=1)])
    program = lower(model(nodes, [1, 2], [1, 2], GRIDS | weights))
    (step,) = program.steps
    assert isinstance(step, Convolution)
    # Codes 13 and -7 are 10 and -10 above zero: sums 8 + 10 - 20 = -2 and -16 - 30 - 40 = -86; factors 1/8 0.5 / (1/4) = 1/4 and 1/8.
    (found,) = program(np.array([[13, -7]], np.int8))
    # -0.5 goes away from zero, -10.75 to the nearest.
    assert found.reshape(-1).tolist() == [-5 - 1, -5 - 11]
    assert program.real(np.array([[10 / 8, -10 / 8]]))[0].reshape(-1).tolist() == [-0.25, -2.75]


def test_an_average_on_one_grid_rounds_half_away_and_counts_what_is_inside():
    node = onnx.helper.make_node
    nodes = around([node("AveragePool", ["xq"], ["r"], kernel_shape=[2, 2], pads=[0, 0, 1, 1], strides=[1, 1], count_include_pad=0)])
    grids = GRIDS | {"sy": GRIDS["sx"], "zy": GRIDS["zx"]}
    program = lower(model(nodes, [1, 1, 2, 2], None, grids))
    assert isinstance(program.steps[0], AveragePool)
    (found,) = program(np.array([[1, 2], [3, -4]], np.int8))
    # Means 0.5, -1, -0.5, -4.
    assert found.reshape(-1).tolist() == [1, -1, -1, -4]


def test_unsigned_codes_move_down():
    node = onnx.helper.make_node
    grids = {"sx": np.float32(1), "zx": np.uint8(128), "sy": np.float32(1), "zy": np.uint8(0)}
    program = lower(model(around([node("Relu", ["xq"], ["r"])]), [1, 4], [1, 4], grids))
    assert (program.inputs[0].buffer.zero, program.outputs[0].buffer.zero) == (0, -128)
    assert program.real(np.array([[-3.0, 0, 5, 127]]))[0].tolist() == [[0, 0, 5, 127]]


def test_an_input_is_laid_out_as_its_first_reader_wants_it():
    node = onnx.helper.make_node
    weights = {"w": np.ones((2, 3, 1, 1), np.int8), "sw": np.float32(1), "zw": np.int8(0)}
    nodes = around([node("DequantizeLinear", ["w", "sw", "zw"], ["wq"]), node("Conv", ["xq", "wq"], ["r"])])
    program = lower(model(nodes, ["n", 3, 2, 2], None, GRIDS | weights))
    port = program.inputs[0]
    codes = port.codes(np.arange(12, dtype=np.float64).reshape(1, 3, 2, 2) / 8)
    assert (codes.reshape(2, 2, 3) == np.arange(12).reshape(3, 2, 2).transpose(1, 2, 0) + 3).all()
    assert len(program.steps) == 1
