import pytest
import torch
from torch import nn

from lilliput.core.errors import PreconditionError
from lilliput.graph.fold import fold_batchnorm
from lilliput.graph.trace import trace


def _warm(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-2, 2, generator=generator)
                module.bias.data.normal_(0, 1, generator=generator)
    return model.eval()


CASES = {
    "conv1d": (nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6)), (4, 3, 9)),
    "conv2d grouped, no bias": (nn.Sequential(nn.Conv2d(4, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8)), (4, 4, 7, 7)),
    "depthwise": (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4)), (4, 4, 7, 7)),
    "conv3d": (nn.Sequential(nn.Conv3d(2, 5, 2), nn.BatchNorm3d(5, affine=False)), (4, 2, 4, 4, 4)),
    "transposed": (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, stride=2), nn.BatchNorm2d(6)), (4, 4, 5, 5)),
    "transposed grouped": (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2), nn.BatchNorm2d(6)), (4, 4, 5, 5)),
    "linear": (nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU()), (4, 5)),
}


@pytest.mark.parametrize("case", CASES)
def test_folding_is_exact_and_complete(case):
    model, shape = CASES[case]
    model, x = _warm(model), torch.randn(shape)
    traced = trace(model, x)
    before = {name: value.clone() for name, value in traced.state_dict().items()}
    folded = fold_batchnorm(traced)
    assert not any("batch_norm" in str(node.target) for node in folded.graph.nodes)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)
    assert {"0.weight", "0.bias"} == set(folded.state_dict())
    for name, value in traced.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_layer_that_others_read_is_not_folded():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y

    model, x = _warm(Two()), torch.randn(2, 2, 4, 4)
    folded = fold_batchnorm(trace(model, x))
    assert sum("batch_norm" in str(node.target) for node in folded.graph.nodes) == 1
    assert torch.equal(folded(x), model(x))


def test_a_shared_convolution_folds_once_for_each_norm():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.b(self.conv(self.a(self.conv(x))))

    model, x = _warm(Shared()), torch.randn(2, 3, 4, 4)
    folded = fold_batchnorm(trace(model, x))
    torch.testing.assert_close(folded(x), model(x), rtol=1e-5, atol=1e-5)


def test_linear_norm_over_the_wrong_dimension_stays():
    model = _warm(nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)))
    x = torch.randn(3, 4, 5)
    assert torch.allclose(fold_batchnorm(trace(model, x))(x), model(x), atol=1e-6)


def test_training_mode_is_refused():
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)).train()
    with pytest.raises(PreconditionError, match="eval"):
        fold_batchnorm(trace(model, torch.randn(2, 2, 4, 4)))
