"""Architectures: published parameter counts, other inputs and outputs, tracing, one training step."""

import copy
import itertools

import pytest
import torch
from torch import nn

from lilliput import zoo
from lilliput.core import PreconditionError, UnknownNameError
from lilliput.graph import trace


@pytest.fixture(autouse=True)
def one_thread():
    """Operators this small lose more by waiting for a second thread than they gain by it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def count(model):
    return sum(p.numel() for p in model.parameters())


def conv(i, o, k):
    return i * o * k * k + 2 * o  # with the scale and shift of its batch norm


def cifar_resnet(blocks):
    total = conv(3, 16, 3)
    for i, o in ((16, 16), (16, 32), (32, 64)):
        total += conv(i, o, 3) + conv(o, o, 3) + (conv(i, o, 1) if i != o else 0)
        total += (blocks - 1) * 2 * conv(o, o, 3)
    return total + 65 * 10


def vit(dim, depth, tokens, patch_values):
    block = 4 * dim + (dim + 1) * 3 * dim + (dim + 1) * dim + (dim + 1) * 4 * dim + (4 * dim + 1) * dim
    return (patch_values + 1) * dim + tokens * dim + depth * block + 2 * dim + (dim + 1) * 10


def decoder(vocabulary, context, dim, depth):
    block = 4 * dim + (dim + 1) * 3 * dim + (dim + 1) * dim + (dim + 1) * 4 * dim + (4 * dim + 1) * dim
    return (vocabulary + context) * dim + depth * block + 2 * dim + (dim + 1) * vocabulary


def unet_block(i, o):
    plain = 2 * i + (9 * i + 1) * o + 2 * o + (9 * o + 1) * o
    return plain + ((i + 1) * o if i != o else 0)


def unet(inputs, outputs, channels):
    total = (9 * inputs + 1) * channels[0] + unet_block(channels[-1], channels[-1]) + 2 * channels[0] + (9 * channels[0] + 1) * outputs
    for a, b in itertools.pairwise(channels):
        total += unet_block(a, a) + (9 * a + 1) * b + (9 * b + 1) * a + unet_block(2 * a, a)
    return total


@pytest.mark.parametrize(("name", "parameters"), [
    ("resnet18", 11_689_512),  # torchvision
    ("resnet50", 25_557_032),  # torchvision
    ("mobilenet_v2", 3_504_872),  # torchvision
    ("mobilenet_v1", 4_231_976),  # timm and the paper's 4.2 million
    ("ds_cnn", 24_908 - 1_152),  # MLPerf Tiny's model, less the moving statistics that Keras counts
    ("autoencoder", 269_992 - 2_064),  # the same
    ("lenet5", 431_080),  # Caffe
    ("lenet_300_100", 266_610),
    ("resnet8", cifar_resnet(1)),
    ("resnet20", cifar_resnet(3)),
    ("resnet56", cifar_resnet(9)),
    ("vit_tiny", vit(128, 6, 64, 48)),
    ("decoder", decoder(256, 128, 192, 6)),
    ("unet", unet(3, 1, [32, 64, 128])),
    ("vgg11", 9_225_984 - 2_752 + 5_130),  # torchvision's features with norms, less the biases of convolutions
    ("vgg16", 14_723_136 - 4_224 + 5_130),
    ("phinet", 30_917 + (38 + 1) * 10),  # the authors' code without its classifier
])
def test_published_parameter_counts(name, parameters):
    with torch.device("meta"):
        assert count(zoo.create(name)) == parameters


def test_resnet8_differs_from_mlperf_as_documented():
    # MLPerf Tiny's 78,666: less moving statistics, less a bias for every channel, plus the norms of the two projections.
    moving, biases, norms = 2 * (3 * 16 + 2 * 32 + 2 * 64), 3 * 16 + 3 * 32 + 3 * 64, 2 * (32 + 64)
    assert count(zoo.create("resnet8")) == 78_666 - moving - biases + norms


def test_names_follow_torchvision():
    keys = set(zoo.resnet18().state_dict())
    assert {"conv1.weight", "layer2.0.downsample.0.weight", "layer4.1.bn2.running_var", "fc.bias"} <= keys
    assert len(keys) == 122
    keys = set(zoo.resnet50().state_dict())
    assert {"layer1.0.downsample.1.bias", "layer3.5.conv3.weight"} <= keys
    assert len(keys) == 320
    keys = set(zoo.mobilenet_v2().state_dict())
    assert {"features.0.0.weight", "features.1.conv.1.weight", "features.17.conv.3.running_mean", "features.18.1.bias",
            "classifier.1.weight"} <= keys
    assert len(keys) == 314


def test_the_decoder_has_gpt2s_parameters_but_for_its_last_layer():
    with torch.device("meta"):
        model = zoo.create("decoder", num_classes=50257, in_chans=1024, options={"dim": 768, "depth": 12, "heads": 12})
    assert count(model) - count(model.head) == 124_439_808  # Hugging Face's gpt2, which shares the embedding


SMALL = {
    "autoencoder": ((20,), {}),
    "decoder": ((5,), {"dim": 32, "depth": 2, "heads": 2}),
    "ds_cnn": ((2, 49, 10), {"width": 0.25}),
    "lenet5": ((2, 20, 20), {"image_size": 20}),
    "lenet_300_100": ((2, 8, 8), {"image_size": 8}),
    "mobilenet_v1": ((2, 32, 32), {"width": 0.25, "small_input": True}),
    "mobilenet_v2": ((2, 32, 32), {"width": 0.25, "small_input": True}),
    "phinet": ((2, 16, 16), {"t_zero": 2.0}),
    "resnet8": ((2, 8, 8), {"width": 0.5}),
    "resnet18": ((2, 16, 16), {"small_input": True}),
    "resnet20": ((2, 12, 12), {"width": 0.5}),
    "resnet50": ((2, 16, 16), {"small_input": True}),
    "resnet56": ((2, 8, 8), {"width": 0.5}),
    "unet": ((2, 8, 8), {"width": 0.25}),
    "vgg11": ((2, 17, 16), {"width": 0.125}),
    "vgg16": ((2, 16, 16), {"width": 0.125}),
    "vit_tiny": ((2, 8, 8), {"image_size": 8, "dim": 32, "depth": 2, "heads": 2}),
}


def test_every_model_is_tested():
    assert set(SMALL) == set(zoo.names())


@pytest.mark.parametrize("name", zoo.names())
def test_traces_for_other_inputs_and_classes_and_trains(name):
    shape, options = SMALL[name]
    model = zoo.create(name, num_classes=7, in_chans=shape[0], seed=0, options=options).eval()
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    if zoo.input_dtype(name) == torch.int64:
        x = x.abs().mul(3).long().clamp(max=6)
    with torch.no_grad():
        expected = model(x)
    assert expected.shape == {"decoder": (3, 5, 7), "unet": (3, 7, 8, 8)}.get(name, (3, 7))
    traced = trace(model, x[:2])
    assert traced.dynamic_batch
    torch.testing.assert_close(traced(x), expected, rtol=1e-4, atol=1e-5)
    assert {n for n, _ in model.named_parameters()} <= {n for n, _ in traced.named_parameters()}
    traced.train()
    before = copy.deepcopy(dict(traced.named_parameters()))
    scores = traced(x).movedim(-1, 1) if name == "decoder" else traced(x)  # classes second, as torch wants them
    targets = torch.arange(3).reshape(3, *[1] * (scores.ndim - 2)).expand(3, *scores.shape[2:])
    nn.functional.cross_entropy(scores, targets).backward()
    torch.optim.SGD(traced.parameters(), lr=0.1).step()
    still = [n for n, p in traced.named_parameters() if p.grad is None or not torch.isfinite(p).all()]
    assert not still
    assert any(not torch.equal(before[n], p) for n, p in traced.named_parameters())


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("pixels", [28, 32])
def test_small_input_keeps_resolution(name, pixels):
    with torch.device("meta"):
        small, large = (zoo.create(name, num_classes=10, options={"small_input": s}).eval() for s in (True, False))
        seen = []
        for model in (small, large):
            last = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)][-1]
            last.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[-1]))
            model(torch.zeros(2, 3, pixels, pixels))
    assert seen == [4, 1]


def test_width_scales_channels_to_multiples_of_eight():
    with torch.device("meta"):
        # timm's figures for mobilenetv2_050 and mobilenetv2_140.
        assert round(count(zoo.mobilenet_v2(width=0.5)) / 1e6, 2) == 1.97
        assert round(count(zoo.mobilenet_v2(width=1.4)) / 1e6, 2) == 6.11
        # 1.3 million at 0.5 and 0.5 million at 0.25 [howard2017mobilenets, table 6].
        assert round(count(zoo.mobilenet_v1(width=0.5)) / 1e6, 1) == 1.3
        assert round(count(zoo.mobilenet_v1(width=0.25)) / 1e6, 1) == 0.5
        odd = [m.out_channels for m in zoo.mobilenet_v2(width=0.35).modules() if isinstance(m, nn.Conv2d) and m.out_channels % 8]
    assert not odd


@pytest.mark.parametrize("build", [
    lambda: zoo.vit_tiny(dim=30, heads=4),
    lambda: zoo.vit_tiny(image_size=30),
    lambda: zoo.lenet5(image_size=12),
    lambda: zoo.mobilenet_v1(width=0),
    lambda: zoo.resnet20(num_classes=0),
    lambda: zoo.decoder(num_classes=0),
    lambda: zoo.decoder(depth=0),
    lambda: zoo.decoder(dim=32, heads=5),
    lambda: zoo.unet(num_classes=0),
    lambda: zoo.unet(depth=0),
    lambda: zoo.create("resnet20", num_classes=-1),
    lambda: zoo.create("resnet20", in_chans=0),
    lambda: zoo.create("resnet20", num_classes=2.5),
])
def test_impossible_values_are_refused(build):
    with pytest.raises(PreconditionError):
        build()


def test_unknown_names_and_options_offer_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean resnet"):
        zoo.create("resnet19")
    with pytest.raises(UnknownNameError, match="did you mean width"):
        zoo.create("mobilenet_v2", options={"widht": 0.5})
