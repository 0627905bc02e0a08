import contextlib
import os
import pickle
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from train_toy import convnet, same_bits, toy

from lilliput.core import describe
from lilliput.core.errors import CorruptFileError, PreconditionError
from lilliput.graph.trace import trace
from lilliput.train import AdamW, Checkpoint, Cosine, Fit, Hook, OneCycle, State, fit
from lilliput.train import checkpoint as files

CONFIG = Fit(epochs=3, batch_size=20, optimizer=AdamW(lr=0.01), schedule=OneCycle())  # 5 steps an epoch


class Noisy(Hook):
    """Draws from every generator, keeps state, adds a parameter: all that resuming must bring back."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.mean = stop_at, torch.zeros(())

    def __repr__(self) -> str:
        return "Noisy()"

    def start(self, state: State) -> None:
        state.model.register_parameter("gain", nn.Parameter(torch.ones(())))

    def batch(self, state: State, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        noise = random.gauss(0, 0.1) + np.random.randn() * 0.1
        return batch[0] + noise + 0.1 * torch.randn_like(batch[0]), batch[1]

    def loss(self, state: State, outputs: Tensor, loss: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * loss.detach()
        return loss * (1 + 0.1 * self.mean) + (state.model.gain - self.mean) ** 2

    def step(self, state: State) -> None:
        if state.step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    def state_dict(self) -> dict:
        return {"mean": self.mean}

    def load_state_dict(self, state: dict) -> None:
        self.mean = state["mean"]


def without_seconds(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


@pytest.mark.parametrize("stop_at", [0, 2, 4, 7, 12])
def test_ctrl_c_and_resume_give_the_uninterrupted_run_bit_for_bit(tmp_path: Path, stop_at: int) -> None:
    data, model = toy(), convnet()
    whole = fit(model, data, CONFIG, hooks=[Noisy()])
    path = tmp_path / "run" / "checkpoint.pt"
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(model, data, CONFIG, hooks=[Noisy(stop_at)], checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert files.load(path)["step"] == stop_at + 1
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    resumed = fit(model, data, CONFIG, hooks=[Noisy()], checkpoint=path)
    assert same_bits(resumed.model, whole.model)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    again = fit(model, data, CONFIG, hooks=[Noisy()], checkpoint=path)
    assert same_bits(again.model, whole.model)
    assert again.history == resumed.history


class KilledError(Exception):
    pass


class Crash(Noisy):
    """Ends the run without a chance to save, as a kill would."""

    def batch(self, state: State, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        if state.step == self.stop_at:
            raise KilledError
        return super().batch(state, batch)


def test_after_a_kill_the_run_goes_on_from_the_last_save(tmp_path: Path) -> None:
    data = toy()
    model = trace(convnet(), data.example())
    whole = fit(model, data, CONFIG, hooks=[Noisy()])
    target = Checkpoint(path=tmp_path / "c.pt", every=3)
    with pytest.raises(KilledError):
        fit(model, data, CONFIG, hooks=[Crash(8)], checkpoint=target)
    assert files.load(target.path)["step"] == 6
    assert same_bits(fit(model, data, CONFIG, hooks=[Noisy()], checkpoint=target).model, whole.model)
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path: Path) -> None:
    data, path = toy(), tmp_path / "c.pt"
    short = Fit(epochs=1, batch_size=32)
    fit(convnet(), data, short, checkpoint=path)
    before = path.read_bytes()
    with pytest.raises(PreconditionError, match="config"):
        fit(convnet(), data, Fit(epochs=1, batch_size=32, schedule=Cosine(warmup=0.1)), checkpoint=path)
    with pytest.raises(PreconditionError, match="model"):
        fit(convnet(seed=1), data, short, checkpoint=path)
    with pytest.raises(PreconditionError, match="data"):
        fit(convnet(), toy(seed=1), short, checkpoint=path)
    with pytest.raises(PreconditionError, match="hooks"):
        fit(convnet(), data, short, hooks=[Noisy()], checkpoint=path)
    assert path.read_bytes() == before


def test_a_hook_state_that_could_not_be_read_back_is_refused_when_saving(tmp_path: Path) -> None:
    class Odd(Hook):
        def state_dict(self) -> dict:
            return {"thing": {"inner": object()}}

    with pytest.raises(PreconditionError, match=r"checkpoint\['hooks'\]\['0'\]\['thing'\]\['inner'\] is a object"):
        fit(convnet(), toy(), Fit(epochs=1), hooks=[Odd()], checkpoint=tmp_path / "c.pt")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "c.pt"
    fit(convnet(width=2), toy(n=8), Fit(epochs=1), checkpoint=path)
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_is_found_or_harmless(saved: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.mktemp("damaged") / "c.pt"
    position = data.draw(st.integers(0, len(saved) - 1))
    if data.draw(st.booleans()):
        damaged = saved[:position]
    else:
        damaged = saved[:position] + bytes([saved[position] ^ (1 << data.draw(st.integers(0, 7)))]) + saved[position + 1 :]
    path.write_bytes(saved)
    whole = files.load(path)
    path.write_bytes(damaged)
    with contextlib.suppress(CorruptFileError):
        assert describe(files.load(path)) == describe(whole)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.pt"
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"c\.pt.*delete it"):
        fit(convnet(), toy(), CONFIG, checkpoint=path)


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    path, mark = tmp_path / "c.pt", tmp_path / "executed"
    torch.save({"format": "lilliput.checkpoint.1", "recipe": Bomb(str(mark))}, path)
    with pytest.raises(CorruptFileError):
        files.load(path)
    path.write_bytes(pickle.dumps(Bomb(str(mark))))
    with pytest.raises(CorruptFileError):
        files.load(path)
    torch.save({"format": "lilliput.checkpoint.1", "recipe": {}}, path)
    with pytest.raises(CorruptFileError, match="fields"):
        files.load(path)
    assert not mark.exists()


@pytest.mark.parametrize("spoil", [
    lambda p: p["rng"].update(torch=torch.zeros(1, 3, dtype=torch.uint8)),
    lambda p: p["rng"].update(python=torch.zeros(1, 626, dtype=torch.int64)),
    lambda p: p["rng"].update(numpy=torch.full((1, 626), -1)),
    lambda p: p["rng"].pop("torch"),
    lambda p: p["rng"].update(torch="text"),
    lambda p: p["model"].popitem(),
    lambda p: p["model"].update({"0.weight": torch.zeros(2)}),
    lambda p: p["optimizer"].pop("state"),
    lambda p: p.update(epoch=-1),
    lambda p: p.update(batch=-1),
    lambda p: p.update(step=10**6),
    lambda p: p.update(running={}),
    lambda p: p.update(history=["text"]),
])
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(tmp_path: Path, spoil) -> None:
    path = tmp_path / "c.pt"
    config = Fit(epochs=1)
    fit(convnet(), toy(), config, checkpoint=path)
    payload = torch.load(path, weights_only=True)
    spoil(payload)
    torch.save(payload, path)
    with pytest.raises(CorruptFileError, match="delete it"):
        fit(convnet(), toy(), config, checkpoint=path)
