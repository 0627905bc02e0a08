import copy
import math

import pytest
import torch
from torch import nn
from train_toy import ToySplit, convnet, same_bits, toy

from lilliput.core.errors import DataError, PreconditionError
from lilliput.graph.trace import trace
from lilliput.train import CrossEntropy, evaluate, mean_squared_error, perplexity, recalibrate_batchnorm


def test_accuracy_by_hand_with_an_uneven_last_batch() -> None:
    split = ToySplit(torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 9.0], [1.0, 0.0]]), torch.tensor([0, 1, 1, 1, 0]))
    assert evaluate(nn.Identity(), split, batch_size=2) == 80.0


def test_accuracy_of_tokens_counts_every_position() -> None:
    scores = torch.tensor([[[2.0, 1.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]]])
    split = ToySplit(scores, torch.tensor([[0, 1], [1, 0], [0, 0]]))
    assert evaluate(nn.Identity(), split, batch_size=2) == pytest.approx(50.0)


def test_perplexity_by_hand() -> None:
    # The true tokens have probabilities 1/2, 1/4, 1 and 1/8: the mean of -log is (1 + 2 + 0 + 3) / 4 log 2.
    chances = torch.tensor([[[1 / 2, 1 / 2, 0.0], [1 / 4, 1 / 4, 1 / 2]], [[0.0, 0.0, 1.0], [1 / 8, 3 / 4, 1 / 8]]])
    split = ToySplit(chances.log().clamp(min=-1e4), torch.tensor([[0, 1], [2, 2]]))
    assert perplexity(nn.Identity(), split, batch_size=1) == pytest.approx(2**1.5, rel=1e-6)
    even = ToySplit(torch.zeros(5, 3, 7), torch.zeros(5, 3, dtype=torch.int64))
    assert perplexity(nn.Identity(), even, batch_size=2) == pytest.approx(7.0, rel=1e-6)
    hopeless = ToySplit(torch.tensor([[[2e3, 0.0]]]), torch.tensor([[1]]))
    assert perplexity(nn.Identity(), hopeless) == math.inf


def test_cross_entropy_of_tokens_is_that_of_all_of_them_in_a_row() -> None:
    scores, targets = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0)), torch.arange(12).reshape(4, 3) % 5
    torch.testing.assert_close(CrossEntropy()(scores, targets), CrossEntropy()(scores.reshape(12, 5), targets.reshape(12)))


def test_squared_error_by_hand() -> None:
    split = ToySplit(torch.tensor([[1.0, 2.0], [3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    assert mean_squared_error(nn.Identity(), split, batch_size=2) == pytest.approx(5 / 6)


def test_modes_are_as_before_and_nothing_changes() -> None:
    data, model = toy(), convnet().train()
    model[1].eval()
    before = copy.deepcopy(model)
    evaluate(model, data.test)
    assert [m.training for m in model.modules()] == [m.training for m in before.modules()]
    assert same_bits(model, before)
    for mode in (True, False):
        traced = trace(model, data.example()).train(mode)
        code = traced.code
        evaluate(traced, data.test)
        assert traced.code == code
        assert traced.training is mode


def test_what_cannot_be_evaluated_says_why() -> None:
    data = toy(classes=4)
    with pytest.raises(PreconditionError, match="3 outputs and the data a class 3"):
        evaluate(convnet(classes=3), data.test)
    with pytest.raises(DataError, match="empty"):
        evaluate(convnet(), ToySplit(data.test.inputs[:0], data.test.targets[:0]))
    with pytest.raises(PreconditionError, match="mean_squared_error"):
        evaluate(nn.Identity(), data.test)
    with pytest.raises(PreconditionError, match="2 outputs and the data a class 2"):
        perplexity(nn.Identity(), ToySplit(torch.zeros(2, 3, 2), torch.full((2, 3), 2)))


@pytest.mark.parametrize("traced", [False, True])
def test_recalibration_matches_torchs_cumulative_average(traced: bool) -> None:
    data, model = toy(n=60), convnet().eval()
    model[1].running_mean.fill_(7.0)
    model[1].running_var.fill_(float("inf"))
    reference = copy.deepcopy(model)
    reference[1].reset_running_stats()
    reference[1].momentum = None
    reference[1].train()
    with torch.no_grad():
        for inputs, _ in data.train.batches(20):
            reference(inputs)
    start = trace(model, data.example()) if traced else model
    fresh = recalibrate_batchnorm(start, data.train, batches=10, batch_size=20)
    state, expected = fresh.state_dict(), reference.state_dict()
    torch.testing.assert_close(state["1.running_mean"], expected["1.running_mean"])
    torch.testing.assert_close(state["1.running_var"], expected["1.running_var"])
    assert start.state_dict()["1.running_mean"][0] == 7.0
    assert not fresh.training
    torch.testing.assert_close(fresh(data.test.inputs), reference.eval()(data.test.inputs))
    momentum = fresh.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)[0].args[6] if traced else fresh[1].momentum
    assert momentum == 0.1


def test_recalibration_without_batch_norm_is_a_copy_and_single_samples_are_refused() -> None:
    data = toy()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    fresh = recalibrate_batchnorm(model, data.train)
    assert fresh is not model
    assert same_bits(fresh, model)
    with pytest.raises(PreconditionError, match="two samples"):
        recalibrate_batchnorm(convnet(), data.train, batch_size=1)
