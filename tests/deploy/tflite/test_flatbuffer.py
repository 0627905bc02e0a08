"""Damaged files: every one is refused with an error of ours, or read as another model; none crashes, hangs or fills the memory."""

import struct
import tracemalloc
from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.deploy.tflite.tflite_cases import CASES, bordered, network
from tests.deploy.tflite.tflite_run import REAL, real_model
from tests.deploy.tflite.tflite_writer import Number, flatbuffer

from lilliput.core.errors import CorruptFileError, LilliputError
from lilliput.deploy.c import lower
from lilliput.deploy.tflite import to_onnx
from lilliput.deploy.tflite.flatbuffer import Buffer

FUZZED = ("conv", "linear_rows", "strided_slice", "mean", "pad_value", "resize", "split", "transposed")


@cache
def files():
    return [network(), bordered(), *(CASES[name]() for name in FUZZED)]


def read(data):
    """Read, and lower what can be read."""
    try:
        model = to_onnx(bytes(data))
    except LilliputError:
        return False
    with suppress(LilliputError):
        lower(model)
    return True


@settings(max_examples=300, deadline=10000)
@given(st.data())
def test_flipped_bytes(data):
    file = bytearray(data.draw(st.sampled_from(files())))
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    read(file)


@settings(max_examples=300, deadline=10000)
@given(st.data())
def test_changed_words(data):
    """Offsets, counts and sizes: the words that a reader follows."""
    file = bytearray(data.draw(st.sampled_from(files())))
    value = data.draw(st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 4, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, len(file), len(file) - 4])))
    struct.pack_into("<I", file, 4 * data.draw(st.integers(0, len(file) // 4 - 1)), value)
    read(file)


@settings(max_examples=100, deadline=10000)
@given(st.data())
def test_cut_files(data):
    file = data.draw(st.sampled_from(files()))
    read(file[:data.draw(st.integers(0, len(file) - 1))])


@settings(max_examples=100, deadline=10000)
@given(st.binary(max_size=400))
def test_noise(data):
    assert not read(data)
    assert not read(b"\x1c\0\0\0TFL3" + data)


@pytest.mark.parametrize("name", REAL)
def test_damaged_real_files(name):
    whole = real_model(name).read_bytes()

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=20), st.integers(0, len(whole)))
    def damaged(changes, size):
        file = bytearray(whole)
        for place, value in changes:
            file[place] = value
        read(file)
        read(file[:size])

    damaged()


def test_a_file_that_repeats_itself_is_refused_soon():
    """Five thousand tensors, each with the same vector of five thousand numbers: a hundred megabytes, were they read."""
    file = bytearray(flatbuffer({0: Number("I", 3), 2: [{0: [{}] * 5000}]}))
    graph = to_graph(file)
    many, size = vector(file, graph, 0), 5000
    # All offsets of the vector lead to one table, a shape as long as the file.
    end = len(file)
    file += struct.pack("<HHHHi", 8, 8, 4, 0, 8) + struct.pack("<I", 4) + struct.pack("<I", size) + struct.pack("<I", 1) * size
    for k in range(size):
        place = many + 4 + 4 * k
        struct.pack_into("<I", file, place, end + 8 - place)
    tracemalloc.start()
    with pytest.raises(CorruptFileError):
        to_onnx(bytes(file))
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def vector(file, table, field):
    described = table - struct.unpack_from("<i", file, table)[0]
    place = table + struct.unpack_from("<H", file, described + 4 + 2 * field)[0]
    return place + struct.unpack_from("<I", file, place)[0]


def to_graph(file):
    root = struct.unpack_from("<I", file)[0]
    graphs = vector(file, root, 2)
    return graphs + 4 + struct.unpack_from("<I", file, graphs + 4)[0]


def test_numbers_tables_vectors_and_names():
    data = flatbuffer({0: Number("B", 7), 2: "name", 3: [{0: Number("i", -5)}, {1: Number("f", 0.5)}], 4: {0: Number("?", True)}})
    root = Buffer(data).root(b"TFL3")
    assert (root.number(0, "B", 0), root.number(1, "i", 9), root.number(40, "i", 9), root.text(2), root.text(1)) == (7, 9, 9, "name", "")
    first, second = root.tables(3)
    assert first.number(0, "i", 0) == -5
    assert second.number(1, "f", 0.0) == 0.5
    assert root.table(4).number(0, "?", False) is True
    assert root.table(5) is None
    assert root.tables(5) == ()
    assert root.numbers(5, "<i4") is None


def test_an_offset_out_of_the_file_is_refused():
    data = bytearray(flatbuffer({0: "name"}))
    root = Buffer(bytes(data)).root(b"TFL3")
    struct.pack_into("<I", data, root.start + root.offsets[0], 0x7FFFFFFF)
    with pytest.raises(CorruptFileError, match="outside of it"):
        Buffer(bytes(data)).root(b"TFL3").text(0)
