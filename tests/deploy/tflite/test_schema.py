"""Numbers of the schema: against its own generated reader where that is installed, and what three real files say."""

from typing import get_type_hints

import numpy as np
import pytest
from tests.deploy.tflite.tflite_cases import CASES, network
from tests.deploy.tflite.tflite_run import REAL, real_model

from lilliput.deploy.tflite.names import OPERATORS, TYPES
from lilliput.deploy.tflite.options import OPTIONS, Activation, Padding
from lilliput.deploy.tflite.schema import parse

FACTS = {
    "pretrainedResnet_quant": (16, ((1, 32, 32, 3), 1.0, -128), {"CONV_2D": 9, "ADD": 3, "AVERAGE_POOL_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1, "SOFTMAX": 1}),
    "kws_ref_model": (13, ((1, 49, 10, 1), 0.5847029, 83), {"CONV_2D": 5, "DEPTHWISE_CONV_2D": 4, "AVERAGE_POOL_2D": 1, "RESHAPE": 1, "FULLY_CONNECTED": 1,
                                                          "SOFTMAX": 1}),
    "ad01_int8": (10, ((1, 640), 0.39101523, 89), {"FULLY_CONNECTED": 10})}


@pytest.fixture(scope="module")
def schema():
    return pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed: make test-litert")


def test_names_of_operators_and_types(schema):
    codes = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    assert [codes[k] for k in range(len(OPERATORS))] == list(OPERATORS)
    kinds = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    assert [kinds[k].upper() for k in range(len(TYPES))] == [name.upper() for name in TYPES]
    for ours, theirs in ((Padding, schema.Padding), (Activation, schema.ActivationFunctionType)):
        assert {member.name: member.value for member in ours} == {k: v for k, v in vars(theirs).items() if not k.startswith("_")}


@pytest.mark.parametrize("kind", OPTIONS)
def test_numbers_of_options(schema, kind):
    number, options = OPTIONS[kind]
    (name,) = (k for k, v in vars(schema.BuiltinOptions).items() if v == number)
    assert kind.replace("_", "") in ("MEAN", "AVERAGEPOOL2D", "MAXPOOL2D") or name.upper().removesuffix("OPTIONS") == kind.replace("_", "")
    # The generated reader finds field k at byte 4 + 2 k of a table's description.
    own = {"multiplier": "DepthMultiplier", "width": "FilterWidth", "height": "FilterHeight", "activation": "FusedActivationFunction",
           "dilation_w": "DilationWFactor", "dilation_h": "DilationHFactor", "parts": "NumSplits"}
    for field, hint in get_type_hints(options, include_extras=True).items():
        method = getattr(getattr(schema, name), own.get(field, "".join(part.capitalize() for part in field.split("_"))))
        assert 4 + 2 * hint.__metadata__[0] in method.__code__.co_consts, field


@pytest.mark.parametrize("name", ["conv", "depthwise_multiplier", "strided_slice", "mean_keep", "split", "leaky_relu"])
def test_both_readers_read_the_same(schema, name):
    data = CASES[name]()
    ours, theirs = parse(data), schema.ModelT.InitFromPackedBuf(data, 0).subgraphs[0]
    assert [t.shape for t in ours.tensors] == [tuple(int(n) for n in t.shape) for t in theirs.tensors]
    assert [op.inputs for op in ours.operators] == [tuple(int(i) for i in op.inputs) for op in theirs.operators]
    for mine, other in zip(ours.tensors, theirs.tensors, strict=True):
        if mine.quantization is not None:
            assert np.array_equal(mine.quantization.scales, other.quantization.scale)
            assert mine.quantization.axis == other.quantization.quantizedDimension


@pytest.mark.parametrize("name", REAL)
def test_real_files(name):
    model = parse(real_model(name).read_bytes())
    count, (shape, scale, zero), kinds = FACTS[name]
    assert len(model.operators) == count
    assert {kind: sum(op.kind == kind for op in model.operators) for kind in {op.kind for op in model.operators}} == kinds
    x = model.tensors[model.inputs[0]]
    assert (x.shape, x.kind) == (shape, "int8")
    assert (float(x.quantization.scales[0]), int(x.quantization.zeros[0])) == (pytest.approx(scale, rel=1e-6), zero)


def test_options_and_constants():
    model = parse(network())
    first, deep = model.operators[:2]
    assert (first.kind, first.options.stride_h, first.options.activation, first.options.padding) == ("CONV_2D", 2, Activation.RELU, Padding.SAME)
    assert (deep.options.multiplier, deep.options.activation) == (1, Activation.RELU6)
    weights = model.tensors[deep.inputs[1]]
    assert (weights.shape, weights.quantization.axis, weights.array.shape) == ((1, 3, 3, 8), 3, (1, 3, 3, 8))
    assert model.tensors[first.outputs[0]].array is None
