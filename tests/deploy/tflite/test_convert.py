"""LiteRT models as ONNX models: recorded codes of TFLite Micro, ONNX Runtime, borders, no copies, and what is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.deploy.tflite.tflite_cases import CASES, binary, bordered, convolution, moved, network, unary
from tests.deploy.tflite.tflite_run import REAL, ours, real_model, samples
from tests.deploy.tflite.tflite_writer import Op, T, model

from lilliput.core.errors import CorruptFileError, PreconditionError
from lilliput.deploy.c import lower
from lilliput.deploy.c.operators import Add, Move, Multiply
from lilliput.deploy.tflite import is_tflite, options, read, to_onnx
from lilliput.deploy.tflite.options import Activation
from lilliput.deploy.tflite.schema import parse

TINY = Path(__file__).parent / "tiny.tflite"


def runtime(proto):
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda codes: session.run(None, dict(zip([value.name for value in session.get_inputs()], codes, strict=True)))


def test_recorded_codes_of_tflite_micro():
    program = lower(TINY)
    rows = json.loads(TINY.with_suffix(".json").read_text())["rows"]
    assert len(rows) == 6
    for row in rows:
        image = np.array(row["image"], np.int8).reshape(program.inputs[0].shape)
        logits, scores = ours(program, [image])
        assert logits.reshape(-1).tolist() == row["logits"]
        assert scores.reshape(-1).tolist() == row["scores"]


@pytest.mark.parametrize("name", CASES)
def test_onnx_runtime_agrees_to_a_step(name):
    proto = to_onnx(CASES[name]())
    program, session = lower(proto), runtime(proto)
    for codes in samples(program, 4):
        for mine, theirs in zip(ours(program, codes), session(codes), strict=True):
            assert theirs.dtype == np.int8
            assert np.abs(mine.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("concat", "pad", "resize", "slice", "split", "strided", "transpose"))])
def test_layouts_cost_no_copies(name):
    assert not any(isinstance(step, Move) for step in lower(to_onnx(CASES[name]())))


def test_a_network_is_its_operators():
    steps = [type(step).__name__ for step in lower(to_onnx(network()))]
    assert steps == ["Convolution", "Convolution", "Convolution", "Add", "AveragePool", "Convolution", "Softmax"]


@pytest.mark.parametrize("name", REAL)
def test_models_of_mlperf_tiny_have_no_copies(name):
    path = real_model(name)
    program = lower(path)
    assert len(program.steps) == sum(operator.kind != "RESHAPE" for operator in parse(path.read_bytes()).operators)
    assert not any(isinstance(step, Move) for step in program)


def test_inputs_and_outputs_keep_names_shapes_and_grids():
    program = lower(TINY)
    assert [port.name for port in (*program.inputs, *program.outputs)] == ["image", "logits", "scores"]
    assert program.inputs[0].shape == (1, 9, 9, 2)
    assert (program.inputs[0].buffer.scale, program.inputs[0].buffer.zero) == (float(np.float32(0.031)), -14)
    assert (program.outputs[1].buffer.scale, program.outputs[1].buffer.zero) == (1 / 256, -128)


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_types_at_the_borders_become_int8(kind):
    program = lower(to_onnx(bordered(kind)))
    assert [port.name for port in (*program.inputs, *program.outputs)] == ["in", "out"]
    codes = np.arange(-3, 3, dtype=np.int8).reshape(1, 6)
    wanted = np.rint(256 / (1 + np.exp(-0.05 * (codes.astype(int) - 3)))) - 128
    assert ours(program, [codes])[0].tolist() == wanted.tolist()


def test_the_model_is_standard_onnx_and_survives_a_file(tmp_path):
    proto = to_onnx(network())
    assert {node.domain for node in proto.graph.node} == {""}
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, tmp_path / "model.onnx")
    x = next(samples(lower(proto), 1))
    assert [a.tolist() for a in ours(lower(tmp_path / "model.onnx"), x)] == [a.tolist() for a in ours(lower(proto), x)]


def test_content_not_the_name_says_what_a_file_is(tmp_path):
    for name, content in (("a.onnx", network()), ("b.tflite", to_onnx(network()).SerializeToString())):
        (tmp_path / name).write_bytes(content)
    assert is_tflite(tmp_path / "a.onnx")
    assert not is_tflite(tmp_path / "b.tflite")
    assert read(tmp_path / "a.onnx").SerializeToString() == read(tmp_path / "b.tflite").SerializeToString()


def test_a_constant_keeps_its_codes():
    for name, kind in (("add_constant", Add), ("mul_scalar", Multiply)):
        (step,) = (program := lower(to_onnx(CASES[name]()))).steps
        assert isinstance(step, kind)
        wanted = np.random.default_rng(5).integers(-128, 128, program.constants[step.inputs[1]].size)
        assert program.constants[step.inputs[1]].tolist() == wanted.tolist()


def test_a_limit_lies_on_the_code_of_tensorflow_lite():
    # 6 / 0.6 in float32 is a little more than 10, and 5 / 2 a tie: away from zero there, to even in ONNX.
    step = lower(to_onnx(convolution(activation=Activation.RELU6, out_zero=-100))).steps[0]
    assert (step.low, step.high) == (-100, -100 + 67)
    tied = model([T((1, 4), scale=0.5, zero=0), T((1, 4), scale=4.0, zero=0)], [Op("RELU6", (0,), (1,))], (0,), (1,))
    assert ours(lower(to_onnx(tied)), [np.full((1, 4), 127, np.int8)])[0].max() == 2  # 6 / 4 = 1.5


@pytest.mark.parametrize(("data", "error", "match"), [
    (lambda: unary("SOFTMAX", options=options.SoftmaxOptions(beta=2.0)), PreconditionError, r"SOFTMAX \(operator 0\) has beta 2.0; fold it"),
    (lambda: unary("TOPK_V2"), PreconditionError, r"TOPK_V2 \(operator 0\).*convert again, or run the model in LiteRT"),
    (lambda: bordered("int16"), PreconditionError, "full-integer"),
    (lambda: moved("RESHAPE", (1, 4, 5, 6), (1, 7, 6), [1, 7, 6]), CorruptFileError, "makes a tensor of shape"),
    (lambda: binary("ADD", activation=Activation.TANH), PreconditionError, "fused activation TANH"),
    (lambda: model([T((1, 4), "float32"), T((1, 4), "float32")], [Op("RELU", (0,), (1,))], (0,), (1,)), PreconditionError, "reads its input 't0' as float32"),
    (lambda: model([T((1, 4), scale=1.0), T((1, 4))], [Op("RELU", (0,), (1,))], (0,), (1,)), PreconditionError, "without a scale"),
    (lambda: model([T((1, 4), scale=1.0), T((1, 4), scale=1.0)], [Op("RELU", (1,), (0,))], (0,), (1,)), CorruptFileError, "before it is computed"),
    (lambda: model([T((1, 4), scale=1.0)], [], (0,), (0,), version=2), CorruptFileError, "schema version 2"),
    (lambda: model([T((1, 4), scale=-1.0)], [], (0,), (0,)), CorruptFileError, "scales that are not positive"),
    (lambda: model([T((1, 4), scale=1.0), T((1, 5), scale=1.0)], [Op("RELU", (0,), (1,))], (0,), (1,)), CorruptFileError, "contradicts itself"),
    (lambda: model([T((1, 4), scale=1.0), T((4, 1), scale=1.0), T((1, 4), scale=1.0)], [Op("RELU", (0,), (1,)), Op("RELU", (0,), (2,))], (0,), (2,)),
     CorruptFileError, "records the shape"),
])
def test_what_is_refused_says_where_and_why(data, error, match):
    with pytest.raises(error, match=match):
        to_onnx(data())


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        to_onnx(tmp_path / "none.tflite")
    with pytest.raises(FileNotFoundError):
        lower(tmp_path / "none.tflite")
