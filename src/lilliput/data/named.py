"""The data sets that have a name: handwritten digits, Fashion-MNIST, CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lilliput.data.arrays import Pair, from_arrays, from_splits
from lilliput.data.base import Data
from lilliput.data.cifar import read_cifar10
from lilliput.data.fetch import Places, Remote, fetch
from lilliput.data.holdout import Holdout
from lilliput.data.idx import read_idx
from lilliput.data.transforms import Augmentation, CropFlip, Keep, Normalize, Transforms

VALIDATION = 5000
_FASHION = {
    "train-images-idx3-ubyte.gz": (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
    "train-labels-idx1-ubyte.gz": (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
    "t10k-images-idx3-ubyte.gz": (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
    "t10k-labels-idx1-ubyte.gz": (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
}
_FASHION_HOMES = ("https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
                  "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/")
_CIFAR10 = Remote(file="cifar-10-binary.tar.gz", size=170052171,
                  sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                  urls=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",))


def digits(holdout: Holdout | None = None, augment: Augmentation | None = None) -> Data:
    """1,797 handwritten digits, `(1, 8, 8)` floats in 0 to 1, that come with scikit-learn [alpaydin1998digits].

    By default 15% of each class validate and 20% test; no augmentation.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    return from_arrays(
        "digits", (raw.images / 16.0)[:, None].astype(np.float32), raw.target.astype(np.int64), num_classes=10,
        holdout=holdout or Holdout(val=0.15, test=0.2), transforms=Transforms(augment=augment or Keep()),
    )


def fashion_mnist(root: Path | None = None, augment: Augmentation | None = None, download: bool = True) -> Data:
    """70,000 articles of clothing, `(1, 28, 28)`, 10 classes [xiao2017fashion].

    The official 10,000 test; of a fixed permutation of the other 60,000 the last 5,000 validate. Training
    crops after padding by 2 pixels and flips.
    """
    places = Places(folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw"), root=root, package="dataset-fashion-mnist")
    paths = {}
    for file, (size, sha256) in _FASHION.items():
        remote = Remote(file=file, size=size, sha256=sha256, urls=tuple(home + file for home in _FASHION_HOMES))
        paths[file] = places.find(file, file.removesuffix(".gz")) or fetch(remote, places, download=download)
    images = {part: read_idx(paths[f"{part}-images-idx3-ubyte.gz"], 3) for part in ("train", "t10k")}
    labels = {part: read_idx(paths[f"{part}-labels-idx1-ubyte.gz"], 1) for part in ("train", "t10k")}
    splits = {**_validation(images["train"], labels["train"]), "test": (images["t10k"], labels["t10k"])}
    return from_splits(
        "fashion_mnist", splits, num_classes=10,
        classes=("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
        transforms=Transforms(normalize=Normalize(mean=(0.2860,), std=(0.3530,)), augment=augment or CropFlip(padding=2)),
    )


def cifar10(root: Path | None = None, augment: Augmentation | None = None, download: bool = True) -> Data:
    """60,000 colour images, `(3, 32, 32)`, 10 classes [krizhevsky2009cifar].

    The official 10,000 test; of a fixed permutation of the other 50,000 the last 5,000 validate. Training
    crops after padding by 4 pixels and flips.
    """
    places = Places(folders=("cifar10", "cifar-10", "CIFAR10"), root=root)
    train, test = read_cifar10(places.find("cifar-10-batches-bin") or fetch(_CIFAR10, places, download=download))
    normalize = Normalize(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
    return from_splits(
        "cifar10", {**_validation(*train), "test": test}, num_classes=10,
        classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
        transforms=Transforms(normalize=normalize, augment=augment or CropFlip(padding=4)),
    )


def _validation(images: np.ndarray, labels: np.ndarray) -> dict[str, Pair]:
    """The last 5,000 of a fixed permutation (or the last twelfth of fewer than 60,000) validate."""
    order = np.random.default_rng(0).permutation(len(images))
    held = min(VALIDATION, max(1, len(images) // 12))
    if len(labels) != len(images):
        return {"train": (images, labels)}
    return {"train": (images[order[:-held]], labels[order[:-held]]), "val": (images[order[-held:]], labels[order[-held:]])}
