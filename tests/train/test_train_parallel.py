import os
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from train_toy import convnet, plain, same_bits, toy

from lilliput.core.errors import LilliputError
from lilliput.graph.trace import trace
from lilliput.train import SGD, Checkpoint, Fit, Hook, State, fit
from lilliput.train import checkpoint as files


def config(devices: int) -> Fit:
    # 90 samples in batches of 32: the last one has 26, and with 25 left the two processes' shares would differ.
    return Fit(epochs=2, batch_size=32, optimizer=SGD(lr=0.05), devices=devices)


class Counter(Hook):
    """Adds a parameter, counts steps, and stops in a child on demand."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.steps, self.fail_at, self.connected = 0, fail_at, False

    def __repr__(self) -> str:
        return "Counter()"

    def start(self, state: State) -> None:
        state.model.register_parameter("gain", nn.Parameter(torch.ones(())))

    def connect(self, state: State, network: nn.Module) -> None:
        assert network.module is state.model
        self.connected = True

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        return loss + (state.model.gain - 2) ** 2

    def step(self, state: State) -> None:
        self.steps += 1
        if self.fail_at == state.step and state.fabric.global_rank == 1:
            raise LilliputError("the child had enough")


class Lingering(Counter):
    """Takes a minute to be forgotten in the child, as gloo's group may take forever."""

    def __init__(self, fail_at: int) -> None:
        super().__init__(fail_at)
        self.caller = os.getpid()

    def __del__(self) -> None:
        if os.getpid() != self.caller:
            time.sleep(60)


def test_a_child_that_fails_does_not_tidy_up_first() -> None:
    data, model, began = toy(n=89), convnet(), time.monotonic()
    with pytest.raises(LilliputError, match="the child had enough"):
        fit(model, data, config(2), hooks=[Lingering(2)])
    assert time.monotonic() - began < 50


@pytest.mark.parametrize("traced", [False, True])
def test_two_processes_give_what_one_does(traced: bool) -> None:
    data, model = toy(n=89), plain()
    model = trace(model, data.example()) if traced else model
    hook, threads = Counter(), torch.get_num_threads()
    alone = Counter()
    one = fit(model, data, config(1), hooks=[alone])
    two = fit(model, data, config(2), hooks=[hook])
    assert hook.steps == 6
    assert hook.connected
    assert not alone.connected
    assert type(two.model).__mro__[1:] == type(model).__mro__[1:]
    weights = dict(one.model.named_parameters())
    assert weights.keys() == dict(two.model.named_parameters()).keys()
    for name, parameter in two.model.named_parameters():
        torch.testing.assert_close(parameter, weights[name], rtol=1e-4, atol=1e-6)
    for a, b in zip(one.history, two.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=1e-4)
        assert a["val_loss"] == pytest.approx(b["val_loss"], rel=1e-4)
    assert torch.get_num_threads() == threads
    assert not torch.distributed.is_initialized()
    assert not {"MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK"} & set(os.environ)


def test_a_child_that_fails_is_reported_and_the_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    data, model, target = toy(n=89), convnet(), Checkpoint(path=tmp_path / "c.pt", every=1)
    whole = fit(model, data, config(2), hooks=[Counter()])
    with pytest.raises(LilliputError, match="process 1: LilliputError: the child had enough"):
        fit(model, data, config(2), hooks=[Counter(4)], checkpoint=target)
    assert 3 <= files.load(target.path)["step"] <= 5
    assert same_bits(fit(model, data, config(2), hooks=[Counter()], checkpoint=target).model, whole.model)
