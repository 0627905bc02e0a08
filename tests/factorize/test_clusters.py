"""CNNpack's coder: kernels near few patterns are found, codes decode exactly, sizes are those of its own Huffman codes."""

import math

import numpy as np
import pytest
from factorize_nets import Data, layers_of, plain

from lilliput import factorize
from lilliput.factorize.bases import Cosine
from lilliput.factorize.clusters import ClusterCoded, Clusters
from lilliput.factorize.coded import total_bits
from lilliput.factorize.rate import gamma_bits
from lilliput.factorize.sensitivity import Metric


def rng(seed=0):
    return np.random.default_rng(seed)


def source(weight, **options):
    return Clusters(**options)(weight, Metric(moments=np.eye(1)[None], rows=np.ones(1)))


def test_decoding_by_hand():
    coded = ClusterCoded(shape=(1, 2, 1, 2), step=0.5, centroids=np.array([[4, 0], [0, 8]], np.int32), members=np.array([0, 1], np.int32),
                         residuals=np.array([[1, 0], [0, -2]], np.int32))
    # In cosines (1 + 1, 0) and (0, 2 - 2), halved by the step: a constant, and nothing.
    np.testing.assert_allclose(coded.decode(), np.array([[[[1, 1]], [[0, 0]]]]) / math.sqrt(2), atol=1e-7)


def test_bits_by_hand():
    coded = ClusterCoded(shape=(2, 1, 1, 2), step=1.0, centroids=np.zeros((1, 2), np.int32), members=np.zeros(2, np.int32),
                         residuals=np.array([[0, 0], [0, 1]], np.int32))
    bits = coded.bits
    # Dense: two symbols, four codes of one bit; sparse rows: one value and one place, 2 x 2 bits of counts, two tables.
    assert bits["codes"] == 4
    members = gamma_bits(0) + gamma_bits(1) + 5
    assert bits["tables"] == members + gamma_bits(0) + gamma_bits(2) + 2 * 5 + 1
    assert bits["centroids"] == gamma_bits(0) + gamma_bits(1)
    assert bits["steps"] == 32


def test_sparse_rows_cost_less_where_nearly_all_is_zero():
    residuals = np.zeros((900, 9), np.int32)
    residuals[rng().integers(0, 900, 12), rng(1).integers(0, 9, 12)] = 1
    coded = ClusterCoded(shape=(30, 30, 3, 3), step=1.0, centroids=np.zeros((1, 9), np.int32), members=np.zeros(900, np.int32), residuals=residuals)
    assert total_bits(coded) < 0.2 * residuals.size


def test_kernels_near_few_patterns_share_centroids():
    patterns = rng().normal(size=(4, 3, 3))
    weight = patterns[rng(1).integers(0, 4, (16, 16))] + 0.02 * rng(2).normal(size=(16, 16, 3, 3))
    found = source(weight)
    alone = total_bits(found.coded(-3.0))
    found.settle_(-3.0)
    coded = found.coded(-3.0)
    assert len(coded.centroids) == 4
    assert total_bits(coded) < 0.5 * alone
    assert np.abs(coded.decode() - weight).max() < 0.2


def test_residuals_are_thresholded_rounded_and_clipped_in_cosines():
    weight = rng().normal(size=(8, 4, 3, 3))
    coded = source(weight, threshold=0.9, reach=2).coded(-1.0)
    basis = Cosine((3, 3)).matrix()
    rest = (weight.reshape(-1, 9) @ basis) / coded.step - coded.centroids[coded.members] / 4
    assert (coded.residuals[np.abs(rest) < 0.9] == 0).all()
    kept = np.abs(rest) >= 0.9
    np.testing.assert_array_equal(coded.residuals[kept], np.rint(rest[kept]).clip(-2, 2))
    assert np.abs(coded.residuals).max() == 2


def test_the_step_meets_its_bits_and_gives_its_codes():
    network, step = plain(), factorize.cnnpack(bits=5)
    result, coded = step(network, Data()), step.encode(network, None)
    entry = result.report.entries[0]
    assert entry.metrics["weight_bits"] <= 5
    for name, layer in layers_of(network).items():
        np.testing.assert_array_equal(result.model.tensor(layer.weight).numpy(force=True), coded[name].decode())
    assert all(row["output_error"] < 0.4 for row in entry.layers)


@pytest.mark.parametrize("shape", [(10, 64), (16, 8, 1, 1), (12, 1, 5, 5), (4, 6, 3)])
def test_any_shape(shape):
    weight = rng().normal(size=shape)
    found = source(weight)
    found.settle_(-4.0)
    coded = found.coded(-4.0)
    assert coded.decode().shape == shape
    assert np.abs(coded.decode() - weight).max() < 0.75 * coded.step * math.sqrt(math.prod(shape[2:])) + 1e-6
