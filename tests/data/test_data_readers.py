"""Readers of untrusted bytes: they return what was written, or raise one of our errors."""

import contextlib
import gzip
import io
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lilliput.core import CorruptFileError, DataError
from lilliput.data import load
from lilliput.data.cifar import TEST, TRAIN, read_cifar10
from lilliput.data.idx import read_idx
from lilliput.data.npz import read_npz

reuse = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
images = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6))


def idx_bytes(array):
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def npz_bytes(compressed=True, **arrays):
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **arrays)
    return out.getvalue()


def cifar_bytes(counts, name="cifar-10-batches-bin"):
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    tables = {}
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for file, count in zip((*TRAIN, TEST), counts, strict=True):
            table = rng.integers(0, 256, (count, 3073), dtype=np.uint8)
            table[:, 0] %= 10
            tables[file] = table
            info = tarfile.TarInfo(f"{name}/{file}")
            info.size = table.size
            archive.addfile(info, io.BytesIO(table.tobytes()))
    return out.getvalue(), tables


@reuse
@given(images)
def test_idx_round_trip(tmp_path, array):
    for name, pack in (("a.gz", gzip.compress), ("a", bytes)):
        (tmp_path / name).write_bytes(pack(idx_bytes(array)))
        assert np.array_equal(read_idx(tmp_path / name, 3), array)


@reuse
@given(images, st.data())
def test_idx_refuses_every_truncation_and_extension(tmp_path, array, data):
    whole = idx_bytes(array)
    path = tmp_path / "a"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CorruptFileError, match="damaged"):
        read_idx(path, 3)
    path.write_bytes(whole + b"x")
    with pytest.raises(CorruptFileError, match="goes on"):
        read_idx(path, 3)
    packed = gzip.compress(whole)
    path = tmp_path / "a.gz"
    path.write_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])
    with pytest.raises(CorruptFileError):
        read_idx(path, 3)


@reuse
@given(st.binary(max_size=200))
def test_noise_is_no_file_of_any_kind(tmp_path, noise):
    for name, read in (("n.gz", lambda p: read_idx(p, 1)), ("n", lambda p: read_idx(p, 2)), ("n.npz", read_npz), ("n.tar.gz", read_cifar10)):
        (tmp_path / name).write_bytes(noise)
        with pytest.raises(CorruptFileError):
            read(tmp_path / name)


@pytest.mark.parametrize("claim", [(2**32 - 1, 2**32 - 1, 2**32 - 1), (60000, 100, 100)])
def test_idx_takes_no_memory_for_what_is_only_claimed(tmp_path, claim):
    path = tmp_path / "bomb"
    path.write_bytes(bytes([0, 0, 8, 3]) + np.array(claim, ">u4").tobytes() + bytes(100))
    tracemalloc.start()
    with pytest.raises(CorruptFileError):
        read_idx(path, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@reuse
@given(hnp.arrays(st.sampled_from(["<f4", ">f8", "u1", "<i8", "?"]), hnp.array_shapes(max_dims=3, max_side=4)), st.booleans())
def test_npz_round_trip(tmp_path, array, compressed):
    path = tmp_path / "a.npz"
    path.write_bytes(npz_bytes(compressed, a=array, b=np.asfortranarray(array)))
    read = read_npz(path)
    assert set(read) == {"a", "b"}
    for value in read.values():
        assert value.dtype == array.dtype
        assert value.shape == array.shape
        assert value.tobytes() == array.tobytes()


@reuse
@given(st.data())
def test_npz_survives_any_damage(tmp_path, data):
    whole = bytearray(npz_bytes(data.draw(st.booleans()), x=np.arange(60.0).reshape(20, 3), y=np.arange(20)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    path = tmp_path / "a.npz"
    path.write_bytes(whole[:cut] if data.draw(st.booleans()) else whole)
    with contextlib.suppress(CorruptFileError):
        read = read_npz(path)
        assert all(value.dtype.kind in "buif" and value.size < 1000 for value in read.values())


def test_npz_never_unpickles(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    path = tmp_path / "evil.npz"
    path.write_bytes(npz_bytes(x=np.array([Evil()], dtype=object), y=np.zeros(1)))
    with pytest.raises(CorruptFileError, match="not numbers"):
        load(str(path))
    assert not (tmp_path / "executed").exists()


def header(shape):
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (-1, 4), (0, 5), (2**62, 2**62)])
def test_npz_takes_no_memory_for_what_is_only_claimed(tmp_path, shape):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header(shape) + bytes(64))
    tracemalloc.start()
    with pytest.raises(CorruptFileError, match="announces shape"):
        read_npz(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


def test_npz_names_of_arrays(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    path = tmp_path / "set.npz"
    np.savez(path, x=x, y=y)
    data = load(str(path))
    assert (data.name, data.num_classes, len(data.train), len(data.val), len(data.test)) == ("set", 2, 32, 4, 4)
    np.savez(path, x_train=x, y_train=y, x_valid=x[:7], y_valid=y[:7], x_test=x[:9], y_test=y[:9])
    data = load("set.npz", root=tmp_path)
    assert (len(data.train), len(data.val), len(data.test)) == (40, 7, 9)
    for wrong in ({"images": x, "labels": y}, {"x": x}, {"x_train": x, "y_train": y, "x_test": x}):
        np.savez(path, **wrong)
        with pytest.raises(DataError, match="needed are x and y"):
            load(str(path))
    with pytest.raises(DataError, match="does not exist"):
        load(str(tmp_path / "none.npz"))


def test_cifar_round_trip_from_archive_and_folder(tmp_path):
    packed, tables = cifar_bytes([3, 1, 2, 1, 1, 4])
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(packed)
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    for place in (path, tmp_path / "cifar-10-batches-bin"):
        (x, y), (x_test, y_test) = read_cifar10(place)
        assert x.shape == (8, 3, 32, 32)
        assert np.array_equal(y[:3], tables[TRAIN[0]][:, 0])
        assert np.array_equal(x[3].ravel(), tables[TRAIN[1]][0, 1:])
        assert np.array_equal(x_test.reshape(4, -1), tables[TEST][:, 1:])
        assert np.array_equal(y_test, tables[TEST][:, 0])


@reuse
@example(3)
@given(st.integers(0, 10_000))
def test_cifar_refuses_every_truncation(tmp_path, kept):
    packed, _ = cifar_bytes([1] * 6)
    path = tmp_path / "c.tar.gz"
    path.write_bytes(packed[: kept % (len(packed) - 399)])
    with pytest.raises(CorruptFileError):
        read_cifar10(path)


def test_cifar_refuses_ragged_records_and_labels_out_of_range(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in (*TRAIN, TEST):
        (folder / name).write_bytes(bytes(3073))
    read_cifar10(folder)
    (folder / TEST).write_bytes(bytes(3072))
    with pytest.raises(CorruptFileError, match="no whole number"):
        read_cifar10(folder)
    (folder / TEST).write_bytes(bytes([10]) + bytes(3072))
    with pytest.raises(CorruptFileError, match="label 10"):
        read_cifar10(folder)
