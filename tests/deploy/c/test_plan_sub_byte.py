"""Values in 4 and 2 bits: which can lie so, how much memory that saves, as few as a limit takes, and the same codes."""

import subprocess
from dataclasses import replace

import numpy as np
import onnx
import pytest
from planner_nets import Builder
from typer.testing import CliRunner

from lilliput import data, zoo
from lilliput.cli import app
from lilliput.core.errors import BudgetError, PreconditionError
from lilliput.deploy import Session, export
from lilliput.deploy.c import AsNeeded, Bytes, Code, Limits, Packed, Plain, SubByte, harness, lower, run, to_c
from lilliput.deploy.c.emit import emit, layout
from lilliput.deploy.c.operators import AveragePool, Buffer, Convolution, MaxPool, Move, Softmax, Table, Window
from lilliput.deploy.c.operators.move import Copy
from lilliput.deploy.c.plan import candidates, faults, fewest, lifetimes, packed, plan, table
from lilliput.deploy.c.plan.sub_byte import spans
from lilliput.deploy.c.storage import store
from lilliput.deploy.c.targets import TARGETS
from lilliput.deploy.c.training import Trainable
from lilliput.deploy.c.training.trainer import Trainer
from lilliput.graph import trace
from lilliput.quantize.bits import Uniform
from lilliput.quantize.posttraining import Static
from lilliput.quantize.scheme import Scheme

node = onnx.helper.make_node


class Few(Builder):
    """Layers whose activations have `bits` bits, from the zero point on."""

    bits = 4

    def conv(self, x, filters, *arguments, **options):
        before = next((int(s.high - s.low + 1) for s in self.steps if s.output is x and isinstance(s, Convolution)), 16)
        out = super().conv(x, filters, *arguments, **options)
        size = self.steps[-1].weights[0].size
        self.steps[-1] = self.limited(self.steps[-1], bias=self.rng.integers(-40 * before, 40 * before, filters),
                                      factors=self.rng.uniform(1, 2, filters) * 2.0**self.bits / (20 * before * np.sqrt(size)))
        return out

    def add(self, *arguments):
        out = super().add(*arguments)
        self.steps[-1] = self.limited(self.steps[-1])
        return out

    def limited(self, step, **changes):
        limits = {} if self.bits == 8 else {"low": step.output.zero, "high": step.output.zero + 2**self.bits - 1}
        return replace(step, **{"low": -128, **limits, **changes})


def residual():
    """A small residual network: widths of 4 bits, then of 2; the output keeps 8."""
    net = Few((12, 12, 3))
    x = net.conv(net.input, 16, 3)
    x = net.add(net.conv(net.conv(x, 16, 3), 16, 3), x)
    net.bits = 2
    x = net.conv(net.depthwise(x), 32, stride=2)
    x = net.conv(x, 32, 3)
    net.bits = 8
    return net.program(net.conv(net.mean(x), 10))


def sample(program, seed=1):
    return [np.random.default_rng(seed).integers(-128, 128, port.buffer.shape) for port in program.inputs]


def test_what_is_packed_and_what_it_takes():
    made = residual()
    found = candidates(made)
    assert {buffer.name: bits for buffer, bits in found.items()} == {
        "conv0": 4, "conv1": 4, "conv2": 4, "add3": 4, "conv4": 2, "conv5": 2, "conv6": 2, "mean7": 2}
    narrow = packed(made, found)
    sizes = {step.output.name: step.output.bytes for step in narrow.steps}
    assert sizes == {"conv0": 1152, "conv1": 1152, "conv2": 1152, "add3": 1152, "conv4": 576, "conv5": 288, "conv6": 288, "mean7": 8, "conv8": 10}
    assert narrow.steps[0].output.base == narrow.steps[0].output.zero


def test_the_codes_are_the_same_and_the_arena_is_smaller():
    made = residual()
    plain, found = plan(made, overlap=False), plan(packed(made, candidates(made)), overlap=False)
    # Three images of 12 x 12 x 16 live at once, in 2,304 bytes each or in 1,152; the block of 8 pixels takes 3 x 10 x 16 and 8 x 16 bytes.
    assert (plain.arena, found.arena) == (3 * 2304, 3 * 1152 + 480 + 128)
    x = sample(made)
    assert (found.program(*x)[0] == made(*x)[0]).all()
    assert len(np.unique(made.values(*x)[made.steps[6].output])) == 4
    for narrow in (found, plan(found.program)):
        assert faults(narrow, samples=[x]) == []


@pytest.mark.parametrize("storage", [Plain(), Packed()])
def test_the_least_arena_takes_few_of_them(storage):
    made = store(residual(), storage)
    every = plan(packed(made, candidates(made)))
    chosen = fewest(made)
    assert set(chosen) < set(candidates(made))
    found = plan(packed(made, chosen))
    assert found.arena <= every.arena < 0.75 * plan(made).arena
    for buffer in chosen:
        assert plan(packed(made, {b: w for b, w in chosen.items() if b is not buffer})).arena > found.arena


def test_a_limit_takes_as_few_as_it_needs():
    made = residual()
    most, least = plan(made).arena, plan(packed(made, fewest(made))).arena
    assert fewest(made, enough=most) == {}
    between = fewest(made, enough=(most + least) // 2)
    assert 0 < len(between) <= len(fewest(made, enough=least))
    assert plan(packed(made, between)).arena <= (most + least) // 2
    assert fewest(made, enough=least // 2) == candidates(made)


def test_a_limit_that_only_packing_meets():
    made = residual()
    limit = plan(packed(made, candidates(made))).arena
    with pytest.raises(BudgetError, match="more than the"):
        plan(made, ram=limit, patches=False)
    assert AsNeeded()(made, limit, 2).arena <= limit
    assert any(step.output.bits < 8 for step in AsNeeded()(made, limit, 2).program.steps)
    assert not any(step.narrow for step in AsNeeded()(made, None, 2).program.steps)
    assert not any(step.narrow for step in Bytes()(made, None, 2).program.steps)
    with pytest.raises(BudgetError):
        AsNeeded()(made, 100, 2)


def test_patches_of_packed_values(tmp_path):
    """A first stage in patches of 4-bit codes, which are put together, cropped and filled."""
    made = residual()
    x = sample(made)
    narrow = packed(made, candidates(made))
    found = plan(narrow, patches=True)
    assert found.patches is not None
    assert any(step.narrow and isinstance(step, Move) for step in found.program.steps)
    assert faults(found, samples=[x]) == []
    assert (found.program(*x)[0] == made(*x)[0]).all()
    emit(found, tmp_path, samples=[x])
    done = subprocess.run(["make", "-s", "test", "CFLAGS=-O0 -fsanitize=address,undefined"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1 samples, 0 wrong codes", done.stderr


def test_wrong_widths_are_named():
    made = residual()
    first, last = made.steps[0].output, made.steps[-1].output
    for bits, says in (({first: 2}, "codes from .* and 2 bits hold 4"), ({first: 3}, "2 or 4"), ({last: 4}, "input or output"),
                       ({made.inputs[0].buffer: 4}, "input or output"), ({Buffer(name="other", shape=(1,), scale=1.0, zero=0): 4}, "of the program")):
        with pytest.raises(PreconditionError, match=says):
            packed(made, bits)
    net = Few((4, 4, 8))
    soft = net.program(net.conv(net.softmax(net.conv(net.input, 8)), 8))
    assert candidates(soft) == {}
    with pytest.raises(PreconditionError, match=r"Softmax.*knows bytes only"):
        packed(soft, {soft.steps[0].output: 4})
    with pytest.raises(PreconditionError, match="no value between two layers"):
        SubByte()(soft, None, 2)


def image(name, *shape, scale=1.0):
    return Buffer(name=name, shape=shape, scale=scale, zero=0)


def spans_of(step, low, high):
    return step.span([(low, high)] * len(step.inputs))


def test_spans_follow_from_operators():
    x, y = image("x", 4, 4, 2), image("y", 4, 4, 2)
    rows = np.arange(-128, 128)
    assert spans_of(Table(inputs=(x,), output=y, layer="", table=np.abs(rows // 16)), -20, 40) == (0, 2)
    window = Window(kernel=(2, 2), stride=(2, 2))
    pool = {"inputs": (x,), "layer": "", "image": (4, 4, 2), "window": window}
    assert spans_of(MaxPool(**pool, output=image("y", 2, 2, 2), low=0), -3, 4) == (0, 4)
    outside = Window(kernel=(2, 2), stride=(2, 2), pads=(2, 2, 2, 2))
    assert spans_of(MaxPool(**{**pool, "window": outside}, output=image("y", 4, 4, 2)), -3, 4) == (-128, 4)
    assert spans_of(AveragePool(**pool, output=image("y", 2, 2, 2)), -3, 4) == (-3, 4)
    assert spans_of(AveragePool(**pool, output=image("y", 2, 2, 2, scale=0.5)), -3, 4) == (-128, 127)
    assert spans_of(Softmax(inputs=(x,), output=y, layer=""), 0, 1) == (-128, 127)
    copy = Copy(source=0, shape=(8,), strides_in=(1,), strides_out=(1,))
    assert spans_of(Move(inputs=(x,), output=y, layer="", copies=(copy,), fill=-9), -3, 4) == (-9, 4)
    assert spans_of(Move(inputs=(x,), output=y, layer="", copies=(copy,)), -3, 4) == (-128, 127)


def test_spans_hold_for_every_input():
    made = residual()
    found = spans(made)
    for seed in range(3):
        for buffer, codes in made.values(*sample(made, seed)).items():
            assert found[buffer][0] <= codes.min()
            assert codes.max() <= found[buffer][1]


def test_the_verifier_sees_a_packed_input_overwritten():
    made = residual()
    found = plan(packed(made, candidates(made)), overlap=False)
    step = found.program.steps[2]
    close = {**found.offsets, step.output: found.offsets[step.inputs[0]]}
    assert any("overwritten" in fault for fault in faults(type(found)(program=found.program, offsets=close, arena=found.arena, bound=0)))


def test_the_memory_map_says_how_values_lie():
    made = residual()
    found = plan(packed(made, candidates(made)))
    lines = table(found).splitlines()
    assert any(line.endswith("conv4 (2 bits)") and " 576 " in line for line in lines)
    assert not any("bits" in line for line in lines if "input" in line or "blocks" in line)
    assert len(lifetimes(found.program)) == len(found.offsets)


# From a network.


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def model(digits, tmp_path_factory):
    """A ResNet of 4-bit weights and activations, but for the ends."""
    network = trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0).eval(), digits.example())
    scheme = Scheme(bits=Uniform(weights=4, activations=4, ends=8), others=4)
    return export(Static(scheme=scheme, samples=32)(network, digits).model, tmp_path_factory.mktemp("sub_byte") / "model.onnx", digits.example(4))


def test_an_exported_network_tells_its_widths(model, digits):
    made = lower(model)
    found = candidates(made)
    inner = [step.output for step in made.steps if isinstance(step, Convolution) or step.layer.startswith("Add")][:-1]
    assert set(inner) <= set(found)
    assert set(found.values()) == {4}
    real = digits.example(4).numpy()
    wanted = Session(model)(real)
    near = np.stack([made.real(real[i: i + 1])[0][0] for i in range(4)])
    # A sum beside a tie makes a sixteenth of a range.
    assert np.abs(near - wanted).mean() <= 0.15 * np.abs(wanted).max()


@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_a_project_of_packed_activations(model, digits, tmp_path, target):
    plain = to_c(model, tmp_path / "plain", target=target, code=Code(activations=Bytes(), storage=Plain()))
    project = to_c(model, tmp_path / "packed", target=target, code=Code(activations=SubByte(), storage=Plain()))
    assert project.plan.arena < 0.75 * plain.plan.arena
    assert {row["bits"] for row in project.rows()} == {4, 8}
    if target == "host":
        done = subprocess.run(["make", "-s", "test", "CFLAGS=-O1 -fsanitize=address,undefined"], cwd=project.folder, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "2 samples, 0 wrong codes", done.stderr
    elif harness.missing(TARGETS[target]) is None:
        trials = [run(made, [[digits.example(1).numpy()]]) for made in (plain, project)]
        assert [trial.wrong for trial in trials] == [0, 0]
        assert (trials[0].outputs[0][0] == trials[1].outputs[0][0]).all()


def test_the_command_packs_where_memory_is_short(model, tmp_path):
    plain = to_c(model, tmp_path / "plain", target="host").plan.arena
    for options, packs in ((["--ram", str(plain * 6 // 7)], True), (["--activations", "plain"], False)):
        found = CliRunner().invoke(app, ["deploy", str(model), "--target", "host", "-o", str(tmp_path / "c"), *options])
        assert found.exit_code == 0, found.output
        assert ("sub_byte" in found.output) == packs
    assert "--activations is needed, packed or plain" in CliRunner().invoke(app, ["deploy", str(model), "--activations", "few"]).output
    with pytest.raises(BudgetError):
        to_c(model, tmp_path / "none", target="host", limits=Limits(ram=200))


def test_training_asks_for_bytes():
    made = residual()
    assert Trainer.of(made, Trainable(biases=0)).tail == ()
    inner = packed(made, {step.output: bits for step in made.steps[:-2] if (bits := candidates(made).get(step.output))})
    assert Trainer.of(inner, Trainable(biases=0)).backbone.steps[0].narrow
    with pytest.raises(PreconditionError, match="activations=Bytes"):
        Trainer.of(packed(made, candidates(made)), Trainable(biases=0))


def few(kind=None, first=(), codes="x"):
    """A model of two convolutions: the value between has codes of a type of few bits, or of uint8; `first` stands before all else."""
    random = np.random.default_rng(0)
    made = [onnx.numpy_helper.from_array(np.float32(0.1), "s"), onnx.numpy_helper.from_array(np.uint8(100), "z"),
            onnx.helper.make_tensor("zb", getattr(onnx.TensorProto, kind or "UINT8"), [], [1]), onnx.numpy_helper.from_array(np.int8(0), "zw"),
            onnx.numpy_helper.from_array(np.float32(-1), "least"), onnx.numpy_helper.from_array(np.float32(0.5), "most"),
            *(onnx.numpy_helper.from_array(random.integers(-7, 8, shape).astype(np.int8), f"w{i}") for i, shape in enumerate(((4, 2, 3, 3), (3, 4, 1, 1))))]
    nodes = [*first, node("QuantizeLinear", [codes, "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"]),
             node("DequantizeLinear", ["w0", "s", "zw"], ["v0"]), node("DequantizeLinear", ["w1", "s", "zw"], ["v1"]),
             node("Conv", ["d", "v0"], ["a"], pads=[1] * 4), node("QuantizeLinear", ["a", "s", "zb"], ["qb"]), node("DequantizeLinear", ["qb", "s", "zb"], ["b"]),
             node("Conv", ["b", "v1"], ["c"]), node("QuantizeLinear", ["c", "s", "z"], ["qo"]), node("DequantizeLinear", ["qo", "s", "z"], ["y"])]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1, 2, 5, 4])], [value("y", 1, [1, 3, 5, 4])], made)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 25)], ir_version=11)


def near(proto, x):
    """The program of a model, whose values are within a step of the model's."""
    program = lower(proto)
    wanted = onnx.reference.ReferenceEvaluator(proto).run(None, {"x": x})[0]
    assert np.abs(program.real(x)[0] - wanted).max() <= 0.1001
    return program


X = np.random.default_rng(1).normal(0, 3, (1, 2, 5, 4)).astype(np.float32)


@pytest.mark.parametrize(("kind", "bits", "low"), [("UINT4", 4, -128), ("INT4", 4, -8), ("UINT2", 2, -128), ("INT2", 2, -2)])
def test_types_of_few_bits_set_limits(kind, bits, low):
    """QDQ models of other tools: the type of the codes says how many there are."""
    program = near(few(kind), X)
    (between,) = candidates(program)
    assert candidates(program)[between] == bits
    assert spans(program)[between] == (low, low + 2**bits - 1)
    assert layout(program.inputs[0]) == "5 x 4 x 2, rows, columns, channels"


def test_an_input_of_few_codes():
    """A clip before the first quantizer: callers write any byte, and a table brings it within limits, channels last at once."""
    program = near(few(first=[node("Clip", ["x", "least", "most"], ["clipped"])], codes="clipped"), X)
    assert [type(step) for step in program.steps] == [Table, Convolution, Convolution]
    assert candidates(program) == {program.steps[0].output: 4}
    assert spans(program)[program.steps[0].output] == (-38, -23)
    proto = few("UINT4")
    proto.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT4
    proto.graph.node[0].CopyFrom(node("Identity", ["x"], ["unused"]))
    proto.graph.node[1].CopyFrom(node("DequantizeLinear", ["x", "s", "zb"], ["d"]))
    with pytest.raises(PreconditionError, match="callers write bytes"):
        lower(proto)
