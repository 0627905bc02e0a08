"""LeNets as the pruning literature has them since Deep Compression [han2016deep].

`lenet5` is Caffe's variant of LeNet-5 [lecun1998gradient]: 20 and 50 maps, 500 hidden units, ReLU, max pooling, 431,080
parameters; the original has 6 and 16 maps, trained subsampling and 60 thousand parameters. `lenet_300_100` has
266,610.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.zoo.layers import head


class LeNet5(nn.Module):
    """Two 5x5 convolutions, each max-pooled by 2, and two linear layers."""

    def __init__(self, num_classes: int, in_chans: int, image_size: int) -> None:
        super().__init__()
        side = ((image_size - 4) // 2 - 4) // 2
        if side < 1:
            raise PreconditionError(f"lenet5 needs images of at least 16 pixels, not {image_size}")
        self.conv1 = nn.Conv2d(in_chans, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * side * side, 500)
        self.fc2 = head(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, image_size, image_size) -> (N, num_classes)`."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        scores: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return scores


class LeNet300100(nn.Module):
    """Linear layers of 300 and 100 units on the flattened image."""

    def __init__(self, num_classes: int, inputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = head(100, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_chans, image_size, image_size) -> (N, num_classes)`."""
        scores: Tensor = self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))
        return scores


def lenet5(num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> nn.Module:
    """LeNet-5 in Caffe's variant [lecun1998gradient]; raises `PreconditionError` for images below 16 pixels."""
    return LeNet5(num_classes, in_chans, image_size)


def lenet_300_100(num_classes: int = 10, in_chans: int = 1, image_size: int = 28) -> nn.Module:
    """LeNet-300-100 [lecun1998gradient]."""
    return LeNet300100(num_classes, in_chans * image_size * image_size)
