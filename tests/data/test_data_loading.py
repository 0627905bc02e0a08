"""Named data sets: found, fetched with a checksum, split as documented."""

import functools
import gzip
import hashlib
import http.server
import threading
import time

import numpy as np
import pytest
import torch

from lilliput import data as ld
from lilliput.core import CorruptFileError, DataError, UnknownNameError
from lilliput.data import fetch as fetching
from lilliput.data.fetch import SYSTEM, Places, Remote, cache_dir, fetch

INSTALLED = any((share / "datasets" / "fashion-mnist" / "train-images-idx3-ubyte.gz").exists() for share in SYSTEM)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """No data set anywhere but under this folder."""
    monkeypatch.setattr(fetching, "SYSTEM", (tmp_path / "local", tmp_path / "share"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("LILLIPUT_DATA", raising=False)
    return tmp_path


def write_fashion(folder, train=120, test=10, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        x = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", x), (f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))):
            raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
            (folder / (name + suffix)).write_bytes(gzip.compress(raw) if suffix else raw)


def test_digits():
    data = ld.load("digits")
    x = torch.cat([x for split in (data.train, data.val, data.test) for x, _ in split.batches(500)])
    y = torch.cat([y for split in (data.train, data.val, data.test) for _, y in split.batches(500)])
    assert tuple(x.shape) == (1797, 1, 8, 8)
    assert (x.min().item(), x.max().item(), data.num_classes) == (0.0, 1.0, 10)
    assert y.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    seeded = torch.cat([b for b, _ in data.train.batches(64, seed=0)])
    assert torch.equal(seeded.sum((1, 2, 3)).sort()[0], x[: len(data.train)].sum((1, 2, 3)).sort()[0])
    assert ld.load("digits", holdout=ld.Holdout(val=0.1, test=0.1)).digest != data.digest


@pytest.mark.parametrize("place", ["env/fashion_mnist", "env", "local/datasets/fashion-mnist", "share/datasets/fashion-mnist",
                                   "cache/lilliput/fashion_mnist"])
def test_fashion_mnist_is_found(elsewhere, monkeypatch, place):
    monkeypatch.setenv("LILLIPUT_DATA", f"{elsewhere / 'nothing'}:{elsewhere / 'env'}")
    write_fashion(elsewhere / place)
    data = ld.load("fashion_mnist", download=False)
    assert (len(data.train), len(data.val), len(data.test), data.input_shape) == (110, 10, 10, (1, 28, 28))


def test_root_comes_first_and_unpacked_files_will_do(elsewhere):
    write_fashion(elsewhere / "cache/lilliput/fashion_mnist", train=240)
    write_fashion(elsewhere / "mine", train=120, suffix="")
    assert len(ld.load("fashion_mnist", root=elsewhere / "mine", download=False).train) == 110
    assert len(ld.load("fashion_mnist", download=False).train) == 220


def test_missing_data_names_folder_and_package(elsewhere):
    with pytest.raises(DataError, match=r"cache/lilliput/fashion_mnist.*LILLIPUT_DATA.*dataset-fashion-mnist"):
        ld.load("fashion_mnist", download=False)
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz"):
        ld.load("cifar10", download=False)


def test_unknown_names_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean fashion_mnist"):
        ld.load("fashion-mnist")
    assert ld.names() == ("cifar10", "digits", "fashion_mnist", "tinyshakespeare")


@pytest.mark.skipif(not INSTALLED, reason="needs Debian's dataset-fashion-mnist")
def test_fashion_mnist_whole(monkeypatch):
    monkeypatch.delenv("LILLIPUT_DATA", raising=False)
    data = ld.load("fashion_mnist", download=False)
    assert (len(data.train), len(data.val), len(data.test), data.num_classes) == (55000, 5000, 10000, 10)
    y = torch.cat([y for _, y in data.test.batches(1000)])
    assert y.bincount().tolist() == [1000] * 10
    assert y[:5].tolist() == [9, 2, 1, 1, 6]
    x = torch.cat([x for x, _ in data.train.batches(5000)])
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    best = min(_epoch_seconds(data.train, epoch) for epoch in range(3))
    assert best < 1.5, f"an epoch took {best:.2f} s"


def _epoch_seconds(split, epoch):
    start = time.perf_counter()
    assert sum(len(x) for x, _ in split.batches(128, seed=0, epoch=epoch)) == len(split)
    return time.perf_counter() - start


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}/"
        httpd.shutdown()


def remote(content, *urls):
    return Remote(file="f.bin", size=len(content), sha256=hashlib.sha256(content).hexdigest(), urls=urls)


def test_download_is_verified_kept_and_reused(elsewhere, server):
    folder, url = server
    content = np.random.default_rng(0).bytes(700_000)
    (folder / "f.bin").write_bytes(content)
    wanted = remote(content, url + "absent", url + "f.bin")
    path = fetch(wanted, Places(folders=("thing",)))
    assert path == cache_dir() / "thing" / "f.bin"
    assert path.read_bytes() == content
    (folder / "f.bin").unlink()
    assert fetch(wanted, Places(folders=("thing",))) == path


@pytest.mark.parametrize("served", [b"y" * 1000, b"x" * 999 + b"y", b"x" * 2000, b"x" * 1_000_000])
def test_wrong_content_is_never_kept(elsewhere, server, served):
    folder, url = server
    (folder / "f.bin").write_bytes(served)
    with pytest.raises(CorruptFileError, match="nothing was kept"):
        fetch(remote(b"x" * 1000, url + "f.bin"), Places(folders=("thing",)))
    assert not list(cache_dir().rglob("*.bin*"))


def test_offline_and_cut_off_downloads_say_what_to_do(elsewhere, server):
    folder, url = server
    (folder / "f.bin").write_bytes(b"x" * 10)
    wanted = remote(b"x" * 1000, "http://127.0.0.1:9/f.bin", url + "absent", url + "f.bin")
    with pytest.raises(DataError, match=r"(?s)cannot be downloaded.*404.*10 of 1000 bytes.*put f.bin .*thing.*package thing-data"):
        fetch(wanted, Places(folders=("thing",), package="thing-data"))
    assert not list(cache_dir().rglob("*.bin*"))


def test_unwritable_cache_is_named(elsewhere, server):
    folder, url = server
    (folder / "f.bin").write_bytes(b"x")
    (elsewhere / "cache").write_text("a file where the cache should be")
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        fetch(remote(b"x", url + "f.bin"), Places(folders=("thing",)))
