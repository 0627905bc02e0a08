"""Files of coded tensors: the ONNX file comes back bit by bit, every flipped byte is found, and nothing is believed before it is checked."""

from contextlib import suppress

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput import coding
from lilliput.core import CorruptFileError, LilliputError, PreconditionError, UnknownNameError

RNG = np.random.default_rng(0)
TENSORS = {
    "codes": RNG.integers(-8, 8, (4, 3, 3, 3)).astype(np.int8),
    "nibbles": RNG.integers(-8, 8, (7, 3)).astype(ml_dtypes.int4),
    "weights": RNG.normal(size=(20, 30)).astype(np.float32),
    "halves": RNG.normal(size=300).astype(ml_dtypes.bfloat16),
    "sparse": np.where(RNG.random(900) < 0.95, 0, RNG.normal(size=900)).astype(np.float32),
    "shared": RNG.choice(np.float32([-1, 0.5, 2]), (50, 9)),
    "constant": np.full((40, 40), 3, np.int64),
    "empty": np.zeros((0, 4), np.float16),
    "scalar": np.float32(2.5).reshape(()),
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "some.lil"
    coding.save(TENSORS, path)
    return path


def everything(path):
    """Every tensor of a file."""
    with coding.open(path) as read:
        return {name: read[name] for name in read}


def onnx_file(arrays):
    tensors = [onnx.helper.make_tensor(n, onnx.TensorProto.FLOAT, a.shape, a.tobytes(), raw=True) for n, a in arrays.items()]
    shape = list(arrays["w"].shape)
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [onnx.helper.make_tensor_value_info("x", 1, shape)],
                                   [onnx.helper.make_tensor_value_info("y", 1, shape)], tensors)
    return onnx.helper.make_model(graph).SerializeToString()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("coder", ["auto", "rans", "huffman", "tunstall", "arithmetic", "adaptive", "zstd", "stored", "cabac"])
def test_tensors_come_back(tmp_path, coder, threads):
    path = tmp_path / "some.lil"
    size = coding.save(TENSORS, path, coder=coder, threads=threads)
    assert path.stat().st_size == size
    with coding.open(path, threads=threads) as read:
        assert list(read) == list(TENSORS)
        for name, array in TENSORS.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name].astype(np.float64), array.astype(np.float64))


def test_many_chunks(tmp_path):
    big = {"w": np.random.default_rng(1).integers(0, 3, 3_000_000).astype(np.uint8)}
    coding.save(big, tmp_path / "big.lil", threads=2)
    with coding.open(tmp_path / "big.lil", threads=2) as read:
        assert len(read.records["w"].streams[0].chunks) >= 2
        np.testing.assert_array_equal(read["w"], big["w"])


def test_onnx_files_come_back_bit_by_bit(tmp_path):
    weights = np.random.default_rng(2).choice(np.float32([-1, 0, 1]), (64, 64))
    model = onnx_file({"w": weights, "small": np.zeros(3, np.float32), "twin": weights})
    size = coding.pack_onnx(model, tmp_path / "m.lil")
    with coding.open(tmp_path / "m.lil") as read:
        assert read.onnx() == model
        assert list(read) == ["w", "twin"]  # the small one stays with the graph
        np.testing.assert_array_equal(read["w"], weights)
    assert size < len(model) / 12


@pytest.mark.parametrize("tail", [b"", b"\xf2\x01\x00", b"\x08\x07"])
def test_what_a_writer_chose_is_kept(tmp_path, tail):
    """Unknown fields, and fields in another order than usual."""
    model = onnx_file({"w": np.ones((20, 20), np.float32)}) + tail
    coding.pack_onnx(model, tmp_path / "m.lil")
    with coding.open(tmp_path / "m.lil") as read:
        assert read.onnx() == model


def test_every_flipped_byte_is_found(saved):
    data = saved.read_bytes()
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << int(RNG.integers(8))
        saved.write_bytes(flipped)
        with pytest.raises(CorruptFileError, match=saved.name):
            everything(saved)


def test_every_truncation_is_found(saved):
    data = saved.read_bytes()
    for size in range(len(data)):
        saved.write_bytes(data[:size])
        with pytest.raises(CorruptFileError, match=r"some\.lil"):
            coding.open(saved)
    saved.write_bytes(data + b"\x00")
    with pytest.raises(CorruptFileError):
        coding.open(saved)


def test_the_error_names_the_tensor(saved):
    with coding.open(saved) as read:
        at = read.records["weights"].streams[0].chunks[0].offset
    data = bytearray(saved.read_bytes())
    data[at] ^= 1
    saved.write_bytes(data)
    with coding.open(saved) as read:
        np.testing.assert_array_equal(read["codes"], TENSORS["codes"])  # others can still be read
        with pytest.raises(CorruptFileError, match="tensor 'weights'"):
            read["weights"]


def test_sizes_are_checked_before_memory_is_taken(tmp_path):
    path = tmp_path / "zeros.lil"
    coding.save({"zeros": np.zeros(10**6, np.uint8)}, path)
    with coding.open(path, limit=10**5) as read, pytest.raises(CorruptFileError, match="pass limit="):
        read["zeros"]
    with coding.open(path) as read:
        assert not read["zeros"].any()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_do_harm(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "any.lil"
    path.write_bytes(data)
    with pytest.raises(CorruptFileError):
        coding.open(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_index_does_harm(tmp_path_factory, data):
    """Files whose checksums are right and whose index is not."""
    path = tmp_path_factory.mktemp("index") / "some.lil"
    coding.save({name: TENSORS[name] for name in ("codes", "sparse", "shared")}, path)
    raw = bytearray(path.read_bytes())
    offset = int.from_bytes(raw[16:24], "little")
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(offset, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw[12:16] = coding.checksum(bytes(raw[offset:])).to_bytes(4, "little")
    raw[32:36] = coding.checksum(bytes(raw[:32])).to_bytes(4, "little")
    path.write_bytes(raw)
    # Reading may also succeed, with another name for a tensor, say.
    with suppress(LilliputError), coding.open(path, limit=10**6) as read:
        for name in read:
            read[name]


def test_wrong_input(tmp_path):
    with pytest.raises(PreconditionError, match="no file"):
        coding.open(tmp_path / "none.lil")
    with pytest.raises(CorruptFileError, match="ONNX"):
        coding.pack_onnx(b"\x3a\x80\x80\x80\x80\x10no", tmp_path / "x.lil")
    with pytest.raises(UnknownNameError, match="rans"):
        coding.save(TENSORS, tmp_path / "x.lil", coder="ranz")
    coding.save(TENSORS, tmp_path / "x.lil")
    with coding.open(tmp_path / "x.lil") as read:
        with pytest.raises(UnknownNameError, match="codes"):
            read["code"]
        with pytest.raises(PreconditionError, match="no graph"):
            read.onnx()
