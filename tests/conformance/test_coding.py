"""Every coding row that works: exact, near its bound, harmed by nothing; sparse formats to the bit of their formulae."""

import math

import numpy as np
import pytest

from lilliput import methods
from lilliput.coding import Cabac, count, entropy
from lilliput.coding.occupancy import Measured
from lilliput.coding.sparse import Format
from lilliput.core import CorruptFileError

ROWS = [row.id for row in methods.rows() if row.works and row.family == "coding"]
SPARSE = [name for name in ROWS if methods.get(name).group == "sparse"]
BYTES = [name for name in ROWS if name not in SPARSE and not isinstance(methods.build(name)(), Cabac)]
# What a code may take above the entropy of single symbols on a Laplacian of 16 levels, as a share.
ABOVE = {"coding.rans": 0.005, "coding.huffman": 0.03, "coding.arithmetic": 0.005, "coding.tunstall": 0.08}
RNG = np.random.default_rng(0)
SIZE = 40_000


def fibonacci(size):
    """Counts that make Huffman codes as long as there are symbols."""
    counts = [1, 1]
    while sum(counts) < size:
        counts.append(counts[-1] + counts[-2])
    return RNG.permutation(np.repeat(np.arange(len(counts)), counts))[:size]


SYMBOLS = {name: np.asarray(symbols).astype(np.uint8) for name, symbols in {
    "empty": [], "one": [7], "constant": [200] * 1000, "two": RNG.random(3000) < 0.5, "nearly constant": RNG.random(SIZE) < 0.0005,
    "uniform": RNG.integers(0, 256, 5000), "fibonacci": fibonacci(20_000), "runs": np.repeat(RNG.integers(0, 5, 60), 50), "in order": np.arange(5000) % 256,
    "laplacian": np.clip(np.round(RNG.laplace(scale=1.3, size=SIZE)), -8, 7) + 8}.items()}
# What words for sequences take depends on the order, which counts do not tell.
ORDERED = {("coding.tunstall", "runs"), ("coding.tunstall", "in order")}
TENSORS = {"matrix": (30, 40), "kernel": (8, 6, 3, 3), "vector": (50,), "empty": (0, 4), "narrow": (60, 1)}


def coded(coder, symbols):
    """Table and chunk."""
    table = coder.table(count(symbols))
    return table, coder.encode(symbols, table)


@pytest.mark.parametrize("kind", SYMBOLS)
@pytest.mark.parametrize("name", BYTES)
def test_decodes_to_what_was_encoded(name, kind):
    coder, symbols = methods.build(name)(), SYMBOLS[kind]
    table, chunk = coded(coder, symbols)
    out = np.full_like(symbols, 99)
    coder.decode(np.frombuffer(chunk, np.uint8), table, out)
    np.testing.assert_array_equal(out, symbols)
    if (name, kind) not in ORDERED:
        assert coder.bits(count(symbols), table) == pytest.approx(8 * len(chunk), rel=0.02, abs=64)


@pytest.mark.parametrize("name", BYTES)
def test_size_beside_the_bound(name):
    symbols = SYMBOLS["laplacian"]
    table, chunk = coded(methods.build(name)(), symbols)
    bound = entropy(count(symbols)) * symbols.size
    assert bound <= 8 * (len(table) + len(chunk)) <= (1 + ABOVE[name]) * bound + 8 * len(table) + 128


def test_huffman_is_within_a_bit_of_the_entropy():
    for symbols in SYMBOLS.values():
        if symbols.size:
            _, chunk = coded(methods.build("coding.huffman")(), symbols)
            assert 8 * len(chunk) <= (entropy(count(symbols)) + 1) * symbols.size + 8 * 16


@pytest.mark.parametrize("name", BYTES)
def test_damage_is_an_error_or_other_symbols(name):
    coder, symbols = methods.build(name)(), SYMBOLS["laplacian"][:600]
    table, chunk = coded(coder, symbols)
    out = np.empty_like(symbols)
    for size in range(len(chunk)):
        with pytest.raises(CorruptFileError):
            coder.decode(np.frombuffer(chunk[:size], np.uint8), table, out)
    for at in RNG.integers(0, len(chunk), 100):
        flipped = np.frombuffer(chunk, np.uint8).copy()
        flipped[at] ^= 1 << RNG.integers(8)
        try:
            coder.decode(flipped, table, out)
        except CorruptFileError:
            continue
        assert not np.array_equal(out, symbols)


@pytest.mark.parametrize("shape", [(0, 5), (1, 1), (1, 4000), (64, 64), (3, 1)])
@pytest.mark.parametrize("spread", [0.0, 0.4, 3.0, 1e8])
def test_integers_decode_to_what_was_encoded(shape, spread):
    coder = methods.build("coding.cabac")()
    drawn = np.random.default_rng(0).laplace(scale=spread, size=shape) if spread else np.zeros(shape)
    values = np.clip(np.round(drawn), -(2**31), 2**31 - 1).astype(np.int32)
    chunk = np.frombuffer(coder.encode(values), np.uint8)
    np.testing.assert_array_equal(coder.decode(chunk, shape), values)
    for size in range(0, chunk.size, max(chunk.size // 20, 1)):
        # A cut stream may be that of other integers, which the checksum of its chunk in a file finds.
        try:
            other = coder.decode(chunk[:size], shape)
        except CorruptFileError:
            continue
        assert not np.array_equal(other, values)


def test_contexts_go_below_the_entropy_of_single_symbols():
    # Rows of very different spread, as filters have: what single symbols cannot know, the neighbours tell.
    values = np.round(RNG.laplace(scale=np.geomspace(0.05, 5, 64)[:, None], size=(64, 500))).astype(np.int32)
    bound = entropy(np.unique(values, return_counts=True)[1]) * values.size
    assert 8 * len(methods.build("coding.cabac")().encode(values)) < 0.9 * bound


@pytest.mark.parametrize("shape", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("density", [0.0, 0.02, 0.4, 1.0])
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_formats_are_exact_and_as_large_as_their_formulae(name, density, shape):
    format: Format = methods.build(name)()
    values = np.where(RNG.random(shape) < density, RNG.normal(size=shape), 0).astype(np.float32)
    encoded = format.encode(values)
    assert format.decode(encoded).tobytes() == values.tobytes()
    assert encoded.bits == format.bits(Measured(values)) == sum(field.width * field.numbers.size for field in encoded.fields)
    present = int(np.count_nonzero(values))
    expected = {
        "coding.coo": present * sum(map(bits_for, shape)), "coding.coo_1d": present * bits_for(math.prod(shape)), "coding.bitmap": math.prod(shape),
        "coding.csr": present * bits_for(math.prod(shape[1:])) + (shape[0] + 1) * present.bit_length(),
        "coding.csc": present * bits_for(shape[0]) + (math.prod(shape[1:]) + 1) * present.bit_length()}
    assert encoded.bits == expected.get(name, encoded.bits)


def bits_for(size):
    """`ceil(log2 size)`."""
    return math.ceil(math.log2(size)) if size > 1 else 0
