"""Half precision: half the bytes, nearly the same values, and what cannot be converted is named."""

import numpy as np
import onnx
import pytest

from lilliput import data, quantize, zoo
from lilliput.core import PreconditionError
from lilliput.deploy import Session, export
from lilliput.deploy.half import to_half
from lilliput.graph import trace


@pytest.fixture(scope="module", params=["resnet8", "vit_tiny"])
def network(request):
    options = {"image_size": 8, "dim": 32} if request.param == "vit_tiny" else {}
    digits = data.load("digits")
    return trace(zoo.create(request.param, num_classes=10, in_chans=1, seed=0, options=options).eval(), digits.example()), digits


def test_half_the_bytes_and_nearly_the_same_values(network, tmp_path):
    model, digits = network
    whole = export(model, tmp_path / "float.onnx", digits.example(8))
    half = to_half(whole, tmp_path / "half.onnx")
    assert half.stat().st_size < 0.62 * whole.stat().st_size
    kinds = {tensor.data_type for tensor in onnx.load(half).graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    images = next(digits.test.batches(64))[0].numpy()
    wanted, found = Session(whole)(images), Session(half)(images)
    assert found.dtype == np.float32
    # Eleven bits a value, and errors of many layers.
    assert np.abs(found - wanted).max() <= 0.01 * np.abs(wanted).max()


def test_weights_that_do_not_fit_and_quantized_models_are_named(tmp_path):
    digits = data.load("digits")
    model = trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0).eval(), digits.example())
    path = export(model, tmp_path / "float.onnx", digits.example(8))
    proto = onnx.load(path)
    large = next(tensor for tensor in proto.graph.initializer if tensor.name == "fc.weight")
    large.CopyFrom(onnx.numpy_helper.from_array(np.full((10, 64), 1e5, np.float32), "fc.weight"))
    onnx.save(proto, tmp_path / "large.onnx")
    with pytest.raises(PreconditionError, match=r"fc\.weight.*65,504"):
        to_half(tmp_path / "large.onnx", tmp_path / "half.onnx")
    quantized = export(quantize.minmax(samples=32)(model, digits).model, tmp_path / "int8.onnx", digits.example(8))
    with pytest.raises(PreconditionError, match="quantized already"):
        to_half(quantized, tmp_path / "half.onnx")
    assert not (tmp_path / "half.onnx").exists()
