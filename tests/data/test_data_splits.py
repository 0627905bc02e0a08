"""Orders, shards, augmentation and digests: properties that training and evaluation rely on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.core import DataError
from lilliput.data import CropFlip, Data, Holdout, Keep, Normalize, Transforms, check, from_arrays, from_splits
from lilliput.data.order import Order


def numbered(count, augment=None, test=1):
    """Images whose every pixel is the number of the sample, so that a batch tells what it holds."""
    x = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 6, 6))
    y = np.arange(count) % 3
    transforms = Transforms(normalize=Normalize(std=(1 / 255,)), augment=augment or Keep())
    return from_splits("numbered", {"train": (x, y), "val": (x[:4], y[:4]), "test": (x[:test], y[:test])}, transforms=transforms)


def flatten(lists):
    return [item for part in lists for item in part]


def ids(batches):
    return [x[:, 0, 0, 0].round().int().tolist() for x, _ in batches]


@given(count=st.integers(1, 200), size=st.integers(1, 40), world=st.integers(1, 5), epoch=st.integers(0, 9))
def test_every_rank_takes_the_same_steps_and_together_they_see_everything(count, size, world, epoch):
    shards = [list(Order(seed=7, epoch=epoch, rank=r, world=world).batches(count, size)) for r in range(world)]
    assert {tuple(len(b) for b in shard) for shard in shards} == {tuple(len(b) for b in shards[0])}
    seen = np.concatenate([b for shard in shards for b in shard])
    assert set(seen.tolist()) == set(range(count))
    assert len(seen) - count < world


@given(count=st.integers(1, 200), size=st.integers(1, 40), world=st.integers(1, 5))
def test_without_a_seed_ranks_partition_the_samples_in_order(count, size, world):
    shards = [list(Order(rank=r, world=world).batches(count, size)) for r in range(world)]
    flat = [[i for b in shard for i in b.tolist()] for shard in shards]
    assert sorted(flatten(flat)) == list(range(count))
    assert all(shard == sorted(shard) for shard in flat)


def test_order_is_a_function_of_seed_and_epoch_alone():
    train = numbered(50).train
    first = ids(train.batches(8, seed=1, epoch=2))
    assert first == ids(train.batches(8, seed=1, epoch=2))
    assert flatten(first) == flatten(ids(train.batches(50, seed=1, epoch=2)))
    assert first != ids(train.batches(8, seed=1, epoch=3))
    assert first != ids(train.batches(8, seed=2, epoch=2))
    assert [len(b) for b in first] == [8, 8, 8, 8, 8, 8, 2]


def test_targets_follow_their_inputs():
    for x, y in numbered(50).train.batches(7, seed=3):
        assert torch.equal(x[:, 0, 0, 0].round().long() % 3, y)


def test_augmentation_of_a_sample_depends_neither_on_batch_size_nor_on_world():
    x = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), dtype=np.uint8)
    pair = (x, np.arange(30))
    data = from_splits("noise", {"train": pair, "val": pair, "test": pair}, transforms=Transforms(augment=CropFlip(padding=2)))

    def by_sample(**how):
        return {int(y): image for xs, ys in data.train.batches(**how) for image, y in zip(xs, ys, strict=True)}

    whole, small = by_sample(size=30, seed=5, epoch=1), by_sample(size=4, seed=5, epoch=1)
    shard = by_sample(size=4, seed=5, epoch=1, rank=1, world=2)
    assert all(torch.equal(whole[k], small[k]) for k in whole)
    assert len(shard) == 15
    assert all(torch.equal(whole[k], shard[k]) for k in shard)
    other = by_sample(size=30, seed=5, epoch=2)
    assert any(not torch.equal(whole[k], other[k]) for k in whole)
    plain = torch.cat([b for b, _ in data.train.batches(30)])
    torch.testing.assert_close(plain, torch.from_numpy(x).float() / 255)
    assert torch.equal(torch.cat([b for b, _ in data.val.batches(30, seed=5)]).sort(0)[0], plain.sort(0)[0])


@settings(max_examples=30)
@given(padding=st.integers(0, 4), channels=st.integers(1, 3), height=st.integers(2, 9), width=st.integers(2, 9), seed=st.integers(0, 99))
def test_crop_and_flip_equal_the_definition(padding, channels, height, width, seed):
    generator = np.random.default_rng(seed)
    batch = torch.from_numpy(generator.integers(1, 256, (5, channels, height, width), dtype=np.uint8))
    augment = CropFlip(padding=padding)
    draws = augment.draw(generator, 5)
    before = batch.clone()
    out = augment(batch, draws)
    padded = torch.nn.functional.pad(batch, [padding] * 4)
    for image, source, (row, column, flip) in zip(out, padded, draws.tolist(), strict=True):
        expected = source[:, row : row + height, column : column + width]
        assert torch.equal(image, expected.flip(2) if flip else expected)
    assert torch.equal(batch, before)


def test_all_crops_and_both_flips_are_drawn():
    draws = CropFlip(padding=1).draw(np.random.default_rng(0), 2000)
    _, counts = draws.unique(dim=0, return_counts=True)
    assert len(counts) == 18
    assert counts.min() > 60
    assert not CropFlip(padding=1, flip=False).draw(np.random.default_rng(0), 100)[:, 2].any()


def test_normalisation_per_channel():
    x = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = (x / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(Normalize(mean=mean, std=std)(x), expected)
    torch.testing.assert_close(Normalize(mean=(1.0,), std=(2.0,))(x.float()), (x.float() - 1) / 2)
    index = torch.tensor([[1, 2]])
    assert Normalize(mean=(1.0,), std=(2.0,))(index) is index
    with pytest.raises(DataError, match="3 channels"):
        Normalize(mean=mean, std=std)(x[:, :2])


def test_changing_a_batch_leaves_the_data_alone():
    data = from_arrays("floats", np.ones((20, 4), np.float32), np.arange(20) % 2)
    for x, y in data.train.batches(8):
        x.zero_()
        y.fill_(9)
    assert all(x.min() == 1 and y.max() == 1 for x, y in data.train.batches(8))


def test_digest_tells_content_and_split_apart():
    x, y = np.random.default_rng(0).normal(size=(40, 5)), np.arange(40) % 4
    digest = from_arrays("a", x, y).digest
    assert digest == from_arrays("another name", x, y).digest
    assert len(bytes.fromhex(digest)) == 32
    changed = x.copy()
    changed[3, 2] += 1e-3
    assert digest != from_arrays("a", changed, y).digest
    assert digest != from_arrays("a", x, (y + 1) % 4).digest
    assert digest != from_arrays("a", x, y, holdout=Holdout(seed=1)).digest


def test_head_takes_samples_from_all_over_and_keeps_the_original():
    data = numbered(200)
    small = data.head(20)
    chosen = flatten(ids(small.train.batches(64)))
    assert len(chosen) == 20
    assert chosen == sorted(chosen)
    assert max(chosen) > 120
    assert chosen == flatten(ids(data.head(20).train.batches(64)))
    assert (len(small.val), len(small.test), len(data.train)) == (4, 1, 200)
    assert small.digest != data.digest


def test_example_and_shape_come_from_validation():
    data = numbered(9)
    assert data.input_shape == (1, 6, 6)
    assert ids([(data.example(3), None)]) == [[0, 1, 2]]


@given(st.lists(st.integers(8, 30), min_size=1, max_size=5), st.integers(0, 3))
def test_holdout_is_a_stratified_partition(counts, seed):
    labels = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    holdout = Holdout(val=0.2, test=0.25, seed=seed)
    parts = holdout.divide(labels)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    for part, share in zip(parts, (0.55, 0.2, 0.25), strict=True):
        for k, n in enumerate(counts):
            assert abs(int((labels[part] == k).sum()) - share * n) < 2
    again = holdout.divide(labels)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("shares", [{"val": 0.0}, {"test": 1.0}, {"val": 0.6, "test": 0.5}])
def test_holdout_refuses_shares_that_leave_nothing(shares):
    with pytest.raises(DataError, match="shares"):
        Holdout(**shares)


def test_empty_splits_and_bad_orders_are_refused():
    data = numbered(9)
    with pytest.raises(DataError, match="leave none for val"):
        from_arrays("tiny", np.ones((3, 2)), [0, 1, 0])
    empty = data.train.select(np.array([], dtype=np.int64))
    with pytest.raises(DataError, match="val split of 'x' is empty"):
        Data(name="x", train=data.train, val=empty, test=data.test, num_classes=3)
    for how in ({"size": 0}, {"size": 2, "rank": 2, "world": 2}, {"size": 2, "seed": -1}):
        with pytest.raises(DataError):
            next(data.train.batches(**how))
    with pytest.raises(DataError):
        data.head(0)


def test_check_names_the_remedy():
    data = numbered(9)
    check(data, channels=1, outputs=3)
    check(data, outputs=1000)
    with pytest.raises(DataError, match=r"in_chans=1"):
        check(data, channels=3)
    with pytest.raises(DataError, match=r"num_classes=3"):
        check(data, outputs=2)
    last = np.zeros((20, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(DataError, match=r"transpose"):
        check(from_arrays("nhwc", last, np.arange(20) % 2), channels=3)
