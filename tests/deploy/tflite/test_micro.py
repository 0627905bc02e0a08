"""Programs lowered from LiteRT files give exactly TFLite Micro's codes: operator by operator, and for the models of MLPerf Tiny."""

import numpy as np
import pytest
from tests.deploy.tflite.tflite_cases import CASES, binary, mean, network, unary
from tests.deploy.tflite.tflite_run import REAL, differences, real_model

from lilliput.deploy.tflite import options as o

pytest.importorskip("tflite_micro", reason="tflite-micro is not installed: make test-litert")
# TFLite Micro has no GELU.
NAMES = [name for name in CASES if not name.startswith("gelu")]


def grids(count=12):
    g = np.random.default_rng(4)
    for _ in range(count):
        yield float(np.float32(2 ** g.uniform(-8, -2))), int(g.integers(-128, 128)), (float(np.float32(2 ** g.uniform(-7, -2))), int(g.integers(-128, 128)))


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_gives_its_codes(name):
    assert not differences(CASES[name]()).any()


def test_a_network_gives_its_codes():
    assert not differences(network(), 64).any()


@pytest.mark.parametrize(("kind", "options", "fixed"), [
    ("LOGISTIC", None, (1 / 256, -128)), ("TANH", None, (1 / 128, 0)), ("LEAKY_RELU", o.LeakyReluOptions(alpha=0.21), None), ("HARD_SWISH", None, None),
    ("RELU", None, None), ("QUANTIZE", None, None), ("SOFTMAX", o.SoftmaxOptions(beta=1.0), (1 / 256, -128))])
def test_functions_on_random_grids(kind, options, fixed):
    for scale, zero, out in grids():
        if kind == "HARD_SWISH" and scale / 128 > out[0]:
            continue
        assert not differences(unary(kind, scale=scale, zero=zero, out=fixed or out, options=options, shape=(1, 256)), 6).any(), (scale, zero, out)


def test_sums_products_and_means_on_random_grids():
    for scale, zero, out in grids(8):
        other = (scale * 1.7, -zero - 1)
        for kind in ("ADD", "SUB", "MUL"):
            assert not differences(binary(kind, grids=((scale, zero), other, out)), 4).any(), (kind, scale, zero, out)
        assert not differences(mean([1, 2], grids=((scale, zero), out)), 4).any(), (scale, zero, out)


@pytest.mark.parametrize("name", REAL)
def test_models_of_mlperf_tiny_give_its_codes(name):
    # In the autoencoder's last layer, scales multiplied in float32 would move a code in a hundred thousand across a tie.
    assert not differences(real_model(name).read_bytes(), 500 if name == "ad01_int8" else 8).any()
