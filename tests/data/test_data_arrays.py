"""What arrays may be, and what is refused before anything is trained on it."""

import numpy as np
import pytest
import torch

from lilliput.core import DataError
from lilliput.data import from_arrays, from_splits

X = np.random.default_rng(0).normal(size=(40, 3, 4, 4))
Y = np.arange(40) % 4


def test_types_of_inputs_and_targets():
    data = from_arrays("x", X, Y.astype(np.uint8))
    x, y = next(data.train.batches(4))
    assert (x.dtype, y.dtype, data.num_classes, tuple(x.shape)) == (torch.float32, torch.int64, 4, (4, 3, 4, 4))
    x, y = next(from_arrays("gray", np.full((40, 5, 5), 255, np.uint8), Y[:, None]).train.batches(4))
    assert (tuple(x.shape), x.max().item(), tuple(y.shape)) == ((4, 1, 5, 5), 1.0, (4,))
    x, _ = next(from_arrays("tokens", np.full((40, 7), 70000), Y).train.batches(4))
    assert (x.dtype, x.max().item()) == (torch.int64, 70000)
    swapped = from_arrays("big-endian", X.astype(">f4"), Y.astype(">i2"))
    assert swapped.digest == from_arrays("native", X.astype("f4"), Y).digest
    assert from_arrays("tensors", torch.from_numpy(X).requires_grad_(), torch.from_numpy(Y)).digest == data.digest


def test_regression_has_no_classes():
    data = from_arrays("regression", X, X.reshape(40, -1)[:, :2])
    _, y = next(data.train.batches(4))
    assert (data.num_classes, y.dtype, tuple(y.shape)) == (0, torch.float32, (4, 2))


def test_given_splits_are_kept_and_missing_ones_held_out():
    data = from_splits("x", {"train": (X, Y), "test": (X[:5], Y[:5])})
    assert (len(data.train), len(data.val), len(data.test)) == (36, 4, 5)
    assert torch.equal(torch.cat([x for x, _ in data.test.batches(2)]), torch.from_numpy(X[:5]).float())


def bad(values, at, value):
    values = np.array(values, dtype=type(value) if isinstance(value, float) else None)
    values[at] = value
    return values


@pytest.mark.parametrize(("x", "y", "message"), [
    (bad(X, (17, 0, 0, 0), np.nan), Y, "1 samples, the first is number 17"),
    (bad(X, (3, 2, 1, 1), -np.inf), Y, "NaN or infinity"),
    (bad(X, (3, 2, 1, 1), 1e60), Y, "exceeds float32"),
    (X[:39], Y, "39 samples"),
    (X[:, 0, 0, 0], Y, "shape"),
    (X[:0], Y[:0], "empty"),
    (X[:, :0], Y, "shape"),
    (X.astype(object), Y, "numbers"),
    (X.astype(complex), Y, "numbers"),
    (X.astype(np.int16), Y, "int64"),
    ([[1, 2], [3]], [0, 1], "no array"),
    (X, bad(Y, 5, -1), "label -1 at sample 5"),
    (X, np.eye(4)[Y].astype(int), "argmax"),
    (X, np.array(list("abcd") * 10), "numbers"),
    (X, bad(Y, 5, np.nan), "NaN"),
    (X, np.float64(3), "one target"),
])
def test_bad_arrays_are_refused_with_a_reason(x, y, message):
    with pytest.raises(DataError, match=message):
        from_arrays("bad", x, y)


def test_labels_must_be_integers_in_range():
    with pytest.raises(DataError, match=r"label 3 at sample 3; 3 classes have labels 0 to 2"):
        from_arrays("x", X, Y, num_classes=3)
    with pytest.raises(DataError, match="must be integers"):
        from_arrays("x", X, Y.astype(float), num_classes=4)
    assert from_arrays("x", X, Y, num_classes=7).num_classes == 7


def test_splits_must_agree():
    with pytest.raises(DataError, match="test x"):
        from_splits("x", {"train": (X, Y), "test": (X[:, :2], Y)})
    with pytest.raises(DataError, match="val y"):
        from_splits("x", {"train": (X, Y), "val": (X, Y.astype(float))})
    with pytest.raises(DataError, match="needs the split 'train'"):
        from_splits("x", {"test": (X, Y)})


def test_sums_that_overflow_are_no_infinity():
    assert from_arrays("large", np.full((40, 2), 3e38), Y).num_classes == 4
