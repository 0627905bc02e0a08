"""Specs of models, as they are written on the command line."""

import sys

import pytest
import torch
from torch import nn

from lilliput import zoo
from lilliput.core import PreconditionError, UnknownNameError

MODULE = '''
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes=4, in_chans=3):
        super().__init__()
        self.layer = nn.Linear(in_chans, num_classes)

class Space:
    net = Net

def plain():
    return Net()

def keywords(*, pretrained=False, **others):
    return Net(**others)

def needy(teacher):
    return Net()

def wrong():
    return 3

built = Net(9, 9)
number = 3
'''


@pytest.fixture
def user(tmp_path, monkeypatch):
    (tmp_path / "user_models.py").write_text(MODULE)
    (tmp_path / "user_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "user_models"
    sys.modules.pop("user_models", None)


def shape(model):
    return tuple(model.layer.weight.shape)


def test_factories_are_passed_what_they_take(user):
    sizes = {"num_classes": 7, "in_chans": 2, "image_size": 28}
    assert shape(zoo.resolve("user_models:Net", **sizes)) == (7, 2)
    assert shape(zoo.resolve("user_models:Space.net", **sizes)) == (7, 2)
    assert shape(zoo.resolve("user_models:plain", **sizes)) == (4, 3)
    assert shape(zoo.resolve("user_models:keywords", **sizes)) == (7, 3)
    assert shape(zoo.resolve("user_models:keywords", num_classes=7, options={"in_chans": 5})) == (7, 5)
    assert shape(zoo.resolve("user_models:Net")) == (4, 3)
    assert shape(zoo.resolve("user_models:built", **sizes)) == (9, 9)


def test_what_cannot_be_resolved_says_why(user):
    with pytest.raises(UnknownNameError, match="did you mean resnet20"):
        zoo.resolve("resnet_20")
    with pytest.raises(UnknownNameError, match="did you mean plain"):
        zoo.resolve("user_models:plian")
    for spec, reason in (("user_absent:net", "does not import"), ("user_broken:net", "division by zero"), (":net", "does not import"),
                         ("user_models:needy", "teacher"), ("user_models:wrong", "returned a int"), ("user_models:number", "is a int")):
        with pytest.raises(PreconditionError, match=reason):
            zoo.resolve(spec)


def test_zoo_names_take_what_follows_from_the_data():
    net = zoo.resolve("lenet5", num_classes=3, in_chans=3, image_size=32)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    stem = next(m for m in zoo.resolve("mobilenet_v2", image_size=28, options={"width": 0.25}).modules() if isinstance(m, nn.Conv2d))
    assert (stem.stride, stem.out_channels) == ((1, 1), 8)
    stem = next(m for m in zoo.resolve("mobilenet_v1", image_size=224, options={"width": 0.25}).modules() if isinstance(m, nn.Conv2d))
    assert stem.stride == (2, 2)
    assert zoo.resolve("resnet8", image_size=32)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_seed_fixes_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = zoo.create("resnet8", seed=1), zoo.create("resnet8", seed=1), zoo.create("resnet8", seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


@pytest.mark.parametrize("name", zoo.names())
def test_input_shape_suits_the_model(name):
    with torch.device("meta"):
        model = zoo.create(name).eval()
        assert model(torch.zeros(2, *zoo.input_shape(name), dtype=zoo.input_dtype(name))).shape[0] == 2
