"""The state of every random generator that training may draw from, as tensors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

_NO_VALUE = float("nan")


def capture(device: torch.device) -> dict[str, Tensor]:
    """States of Python's, NumPy's and torch's global generators, and the device's."""
    version, words, spare = random.getstate()
    numpy: Any = np.random.get_state()
    state = {
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "python_spare": torch.tensor(_NO_VALUE if spare is None else spare, dtype=torch.float64),
        "numpy": torch.tensor([*numpy[1].tolist(), numpy[2], numpy[3]], dtype=torch.int64),
        "numpy_spare": torch.tensor(numpy[4], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def gather(state: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The states of all processes, stacked by rank on a new first dimension."""
    if not torch.distributed.is_initialized():
        return {name: value[None] for name, value in state.items()}
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        here = value.to(device)
        everywhere = [torch.empty_like(here) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(everywhere, here)
        out[name] = torch.stack(everywhere).cpu()
    return out


def restore(state: dict[str, Tensor], device: torch.device) -> None:
    """Put every generator where `capture` found it."""
    version, *words = state["python"].tolist()
    spare = float(state["python_spare"])
    random.setstate((version, tuple(words), None if spare != spare else spare))
    *keys, position, has_spare = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(keys, dtype=np.uint32), position, has_spare, float(state["numpy_spare"])))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
