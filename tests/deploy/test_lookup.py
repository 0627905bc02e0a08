"""Codes and tables in ONNX: as many bytes as they take, and the values that were stored."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lilliput.core.bits import packed_size
from lilliput.core.xxhash import xxh32_numbers
from lilliput.deploy import Session, export, lookup
from lilliput.deploy.runtime import open_session
from lilliput.graph import trace
from lilliput.quantize.codebook import Shared, Stage, share_
from lilliput.quantize.sharing import Frequencies, Hashed, KMeans, Normalised, Product, Residual, Weight


def exported(shared, path, bias=False):
    """A layer whose weight is `shared`, its responses to single ones and its file."""
    rows, columns = shared.shape[0], int(np.prod(shared.shape[1:]))
    dense = len(shared.shape) == 2
    layer = nn.Linear(columns, rows, bias=bias) if dense else nn.Conv2d(shared.shape[1], rows, shared.shape[2:], bias=bias)
    model = nn.Sequential(layer).eval()
    example = torch.eye(columns).reshape(-1, *shared.shape[1:])
    traced = trace(model, example)
    share_(traced, "0.weight", shared)
    found = Session(export(traced, path, example))(example.numpy())
    return found.reshape(columns, rows).T.reshape(shared.shape), stored(path)


def stored(path):
    """Bytes of every initializer by name."""
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return {name: array.nbytes for name, array in arrays.items()}


def payload(sizes):
    """Bytes of codes and tables: all that is not a few numbers for the operators."""
    return sum(size for name, size in sizes.items() if ".codes" in name or "table" in name)


def random_weight(*shape, **options):
    return Weight(shape=shape, rows=torch.randn(*shape, generator=torch.Generator().manual_seed(0)).flatten(1), **options)


@pytest.mark.parametrize("entries", [2, 300])
def test_file_holds_codes_of_just_enough_bits_and_the_table(entries, tmp_path):
    generator = torch.Generator().manual_seed(entries)
    codes = torch.randint(0, entries, (30, 21), generator=generator).int()
    shared = Shared(shape=(30, 21), stages=(Stage(table=torch.randn(entries, 1, generator=generator), codes=codes),))
    values, sizes = exported(shared, tmp_path / "m.onnx")
    assert np.array_equal(values, shared.values().numpy())
    width = (entries - 1).bit_length()
    planes = [plane for plane in (1, 2, 4, 8, 16) if width & plane]
    assert payload(sizes) == entries * 4 + sum(packed_size(630, plane) if plane < 8 else 630 * plane // 8 for plane in planes)
    assert payload(sizes) == pytest.approx(shared.bits / 8, abs=len(planes))
    # What is left are shapes and masks.
    assert sum(sizes.values()) - payload(sizes) < 200


def computed(make, kind=onnx.TensorProto.INT32):
    """What the nodes that `make` builds compute, in ONNX Runtime."""
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="network"), ir_version=10)
    build = lookup.Builder(model, "w")
    value = make(build)
    model.graph.extend(build.nodes)
    value.name = "found"
    model.graph.outputs.append(value)
    proto = ir.to_proto(model)
    proto.graph.output[0].type.tensor_type.elem_type = kind
    return open_session(proto.SerializeToString(), threads=1).run(None, {})[0]


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 70_000), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32))
def test_any_codes_survive(entries, rows, blocks, seed):
    codes = np.random.default_rng(seed).integers(0, entries, (rows, blocks))
    codes.flat[0], codes.flat[-1] = entries - 1, 0

    assert np.array_equal(computed(lambda build: lookup.packed(build, codes, entries)), codes)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**32))
def test_any_codes_of_several_books_survive(entries, rows, books, seed):
    codes = np.random.default_rng(seed).integers(0, entries, (rows, books)) + np.arange(books) * entries

    assert np.array_equal(computed(lambda build: lookup.packed(build, codes, entries * books)), codes)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(1, 70_000))
def test_arithmetic_of_the_hash_is_exact(seed, count):
    found = computed(lambda build: lookup.positions_hashed(build, seed, count), onnx.TensorProto.INT64)
    assert np.array_equal(found, xxh32_numbers(0, count, seed))


def test_books_are_stored_without_their_numbers(tmp_path):
    shared = Product(entries=4)(random_weight(64, 12, block=3))
    values, sizes = exported(shared, tmp_path / "m.onnx")
    assert np.array_equal(values, shared.values().numpy())
    assert payload(sizes) == 64 * 4 * 2 // 8 + 4 * 4 * 3 * 4 == shared.bits // 8


def test_residual_stages_and_blocks_of_kernels(tmp_path):
    shared = Residual(entries=16)(random_weight(16, 8, 3, 3, block=9))
    values, sizes = exported(shared, tmp_path / "m.onnx")
    assert values == pytest.approx(shared.values().numpy(), abs=1e-6)
    assert payload(sizes) == shared.bits // 8


def test_half_precision_tables_are_stored_as_such(tmp_path):
    shared = KMeans(entries=16)(random_weight(32, 12, block=3, stored=torch.float16))
    values, sizes = exported(shared, tmp_path / "m.onnx")
    assert np.array_equal(values, shared.values().numpy())
    assert payload(sizes) == 32 * 4 * 4 // 8 + 16 * 3 * 2 == shared.bits // 8


def test_half_precision_scales_too(tmp_path):
    shared = Normalised(codebooks=KMeans(entries=16))(random_weight(32, 12, block=3, stored=torch.float16))
    values, sizes = exported(shared, tmp_path / "m.onnx")
    assert values == pytest.approx(shared.values().numpy(), rel=1e-6)
    assert payload(sizes) + sum(size for name, size in sizes.items() if "scales" in name) == shared.bits // 8


@pytest.mark.parametrize("codebooks", [Hashed(compression=8.0, seed=5), Frequencies(compression=8.0, seed=5)])
def test_hashes_take_no_bytes(codebooks, tmp_path):
    shared = codebooks(random_weight(16, 8, 3, 3, start=70_000))
    values, sizes = exported(shared, tmp_path / "m.onnx", bias=False)
    assert values == pytest.approx(shared.values().numpy(), abs=1e-6)
    assert payload(sizes) == shared.bits // 8
    assert sum(sizes.values()) - payload(sizes) < 800


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places, self.head = nn.Embedding(20, 8, padding_idx=0), nn.Embedding(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.tokens(x) + self.places(torch.arange(6)))


def test_ordinary_embeddings_are_plain_lookups(tmp_path):
    model, x = Tokens().eval(), torch.randint(0, 20, (4, 6))
    path = export(model, tmp_path / "m.onnx", x)
    with torch.no_grad():
        assert Session(path)(x.numpy()) == pytest.approx(model(x).numpy(), abs=1e-5)
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert "BitShift" not in nodes
    assert all(node.domain == "" for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("channels", [1, 3])
def test_tables_between_quantized_activations_are_not_rounded_again(channels, tmp_path):
    """ONNX Runtime would round float weights to eight bits of its own: the first weight is a thousand times the others."""
    from tests.quantize.quantize_nets import arrays

    from lilliput.quantize import Share, minmax
    from lilliput.quantize.measure import exact

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 4)).eval()
    data = arrays(channels, 6, 6, samples=64)
    with torch.no_grad():
        net[0].weight[0] *= 1000
    model = minmax(samples=64)(Share(method="m", codebooks=KMeans(entries=8))(net, data).model, data).model.eval()
    inputs = data.train.inputs
    with torch.no_grad():
        wanted = exact(model)(inputs.double()).numpy()
    found = Session(export(model, tmp_path / "m.onnx", inputs))(inputs.numpy())
    step = np.diff(np.unique(wanted.round(6))).min()
    assert np.abs(found - wanted).max() <= 1.05 * step
    assert (np.abs(found - wanted) > step / 2).mean() < 0.05
