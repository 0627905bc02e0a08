"""Text: windows that do not overlap, targets one further on, blocks that keep the order."""

import pytest
import torch

from lilliput import data as ld
from lilliput.core import CorruptFileError, DataError
from lilliput.data import text as texts

TEXT = "".join(chr(97 + (i * i) % 26) for i in range(1000))


def written(data, split):
    return ["".join(data.classes[i] for i in row) for x, _ in split.batches(7) for row in x.tolist()]


def test_windows_lie_end_to_end_and_targets_are_one_further_on():
    data = ld.from_text("squares", TEXT, context=16)
    assert (data.input_shape, data.num_classes, data.classes) == ((16,), len(set(TEXT)), tuple(sorted(set(TEXT))))
    assert "".join(written(data, data.train)) == TEXT[: 16 * len(data.train)]
    inputs, targets = next(data.train.batches(1000))
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(inputs[1:, 0], targets[:-1, -1])


def test_splits_are_blocks_of_the_text_in_order():
    data = ld.from_text("squares", TEXT, context=10, holdout=ld.Holdout(val=0.2, test=0.3))
    begins = {"train": 0, "val": 500, "test": 700}
    for name, begin in begins.items():
        split = getattr(data, name)
        assert "".join(written(data, split)) == TEXT[begin: begin + 10 * len(split)]
    # The last window of a block keeps its targets inside the block.
    assert (len(data.train), len(data.val), len(data.test)) == (49, 19, 29)


def test_a_stride_below_the_context_overlaps():
    data = ld.from_text("squares", TEXT, context=10, stride=3)
    assert written(data, data.val)[:3] == [TEXT[800 + 3 * i: 810 + 3 * i] for i in range(3)]


def test_batches_follow_the_contract():
    data = ld.from_text("squares", TEXT, context=8)
    ordered = torch.cat([x for x, _ in data.train.batches(9)])
    shuffled = torch.cat([x for x, _ in data.train.batches(9, seed=3)])
    assert not torch.equal(ordered, shuffled)
    assert sorted(ordered.tolist()) == sorted(shuffled.tolist())
    assert torch.equal(shuffled, torch.cat([x for x, _ in data.train.batches(4, seed=3)]))
    assert len(data.train.head(5)) == 5
    assert data.digest == ld.from_text("squares", TEXT, context=8).digest != ld.from_text("squares", TEXT[::-1], context=8).digest


def test_characters_beyond_a_byte_are_one_each(tmp_path):
    file = tmp_path / "greek.txt"
    file.write_bytes(("λόγος\r\n𝛼" * 200).encode())
    data = ld.load(f"text:{file}")
    assert data.name == "greek"
    assert data.classes == tuple(sorted(set("λόγος\r\n𝛼")))
    assert written(data, data.train)[0].startswith("λόγος\r\n𝛼λόγος")


def test_what_is_no_text_or_too_short_is_refused(tmp_path):
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00abc")
    with pytest.raises(CorruptFileError, match=r"bytes\.txt"):
        ld.load(f"text:{tmp_path / 'bytes.txt'}")
    with pytest.raises(DataError, match="does not exist"):
        ld.load(f"text:{tmp_path / 'absent.txt'}")
    with pytest.raises(DataError, match="val of 'short' has 20 of 200 characters, and a window with its targets takes 33"):
        ld.from_text("short", "ab" * 100, context=32)
    for wrong in ({"context": 0}, {"stride": 0}):
        with pytest.raises(DataError, match="from 1"):
            ld.from_text("squares", TEXT, **wrong)


def test_shakespeare_is_found_and_otherwise_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("lilliput.data.fetch.SYSTEM", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LILLIPUT_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"char-rnn/master/data/tinyshakespeare/input\.txt"):
        ld.load("tinyshakespeare", download=False)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "tinyshakespeare.txt").write_text(TEXT * 10)
    data = ld.load("tinyshakespeare", download=False)
    assert (data.name, data.input_shape, len(data.train)) == ("tinyshakespeare", (texts.CONTEXT,), 62)
