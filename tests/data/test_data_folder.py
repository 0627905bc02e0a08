"""Folders of images."""

import sys

import numpy as np
import pytest
import torch

from lilliput.core import CorruptFileError, DataError, PreconditionError
from lilliput.data import CropFlip, folder, load

Image = pytest.importorskip("PIL.Image")


def write(path, size=(6, 5), mode="RGB", value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), value, dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def animals(root, count=10, **kind):
    for k, name in enumerate(("ant", "bee")):
        for i in range(count):
            write(root / name / f"{i:02}.png", value=10 * i + k, **kind)


def test_a_folder_is_split_with_its_proportions(tmp_path):
    animals(tmp_path)
    data = load(f"folder:{tmp_path}")
    assert (data.classes, data.num_classes, data.input_shape) == (("ant", "bee"), 2, (3, 5, 6))
    assert (len(data.train), len(data.val), len(data.test)) == (16, 2, 2)
    for split in (data.train, data.val, data.test):
        for x, y in split.batches(4):
            assert torch.equal((x[:, 0, 0, 0] * 255).round().long() % 10, y)
    assert sum(y.sum() for _, y in data.train.batches(4)) == 8


def test_split_folders_are_kept(tmp_path):
    for name, count in (("train", 10), ("valid", 2), ("test", 3)):
        animals(tmp_path / name, count, mode="L")
    data = load(f"folder:{tmp_path}")
    assert (len(data.train), len(data.val), len(data.test), data.input_shape) == (20, 4, 6, (1, 5, 6))


def test_relative_paths_are_found_under_root(tmp_path):
    animals(tmp_path / "zoo")
    assert load("folder:zoo", root=tmp_path).name == "zoo"


def test_gray_and_colour_mix_to_colour(tmp_path):
    animals(tmp_path, mode="L")
    write(tmp_path / "ant" / "x.png", mode="RGB")
    assert load(f"folder:{tmp_path}").input_shape == (3, 5, 6)


def test_sizes_must_agree_or_be_chosen(tmp_path):
    animals(tmp_path)
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "ant" / "wide.png")
    with pytest.raises(DataError, match=r"image_size="):
        load(f"folder:{tmp_path}")
    data = load(f"folder:{tmp_path}", image_size=8)
    assert data.input_shape == (3, 8, 8)
    everything = torch.cat([x for split in (data.train, data.val, data.test) for x, _ in split.batches(4)])
    assert (everything.mean((1, 2, 3)) * 255).max().round() == 200


def test_decoding_when_asked_gives_what_memory_gives(tmp_path, monkeypatch):
    animals(tmp_path, count=25)
    held = load(f"folder:{tmp_path}", augment=CropFlip(padding=1))
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    lazy = load(f"folder:{tmp_path}", augment=CropFlip(padding=1))
    assert isinstance(lazy.train.source, folder.Files)
    for how in ({"size": 7}, {"size": 7, "seed": 3, "epoch": 1, "rank": 1, "world": 2}):
        for (x, y), (u, v) in zip(held.train.batches(**how), lazy.train.batches(**how), strict=True):
            assert torch.equal(x, u)
            assert torch.equal(y, v)
    assert next(lazy.train.batches(3))[0].shape == (3, 3, 5, 6)
    before = lazy.digest
    write(tmp_path / "bee" / "05.png", value=99)
    assert load(f"folder:{tmp_path}").digest != before
    assert lazy.head(5).train.digest != lazy.train.digest


def test_bad_folders_name_the_trouble(tmp_path):
    with pytest.raises(DataError, match="is no folder"):
        load(f"folder:{tmp_path / 'none'}")
    with pytest.raises(DataError, match="no sub-folders"):
        load(f"folder:{tmp_path}")
    animals(tmp_path / "test", 1)
    with pytest.raises(DataError, match="none for train"):
        load(f"folder:{tmp_path}")
    animals(tmp_path / "train")
    write(tmp_path / "test" / "cat" / "1.png")
    with pytest.raises(DataError, match="'cat'"):
        load(f"folder:{tmp_path}")
    (tmp_path / "train" / "cow").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load(f"folder:{tmp_path}")


def test_damaged_images_are_named(tmp_path):
    animals(tmp_path)
    good = (tmp_path / "ant" / "01.png").read_bytes()
    for content in (b"", b"no image", good[:40], good[: len(good) // 2]):
        (tmp_path / "ant" / "01.png").write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"01\.png cannot be read"):
            load(f"folder:{tmp_path}")


def test_sixteen_bit_images_are_refused_rather_than_clipped(tmp_path):
    animals(tmp_path)
    Image.fromarray(np.full((5, 6), 40000, dtype=np.uint16)).save(tmp_path / "ant" / "deep.png")
    with pytest.raises(DataError, match="8-bit"):
        load(f"folder:{tmp_path}")


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    animals(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(PreconditionError, match=r"lilliput\[images\]"):
        load(f"folder:{tmp_path}")
