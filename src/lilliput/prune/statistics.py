"""Statistics that criteria ask for, gathered in one pass over data."""

from __future__ import annotations

import copy
from collections.abc import Set
from itertools import islice

import torch
from torch import Tensor
from torch.nn import functional as F

from lilliput.core.errors import PreconditionError
from lilliput.graph import Traced
from lilliput.prune.criteria import Stats
from lilliput.train import Dataset


def gather(traced: Traced, data: Dataset | None, needs: Set[str], *, batches: int = 8, batch_size: int = 64, seed: int = 0) -> Stats:
    """Gather the named statistics on `batches` batches of the training split.

    `squared_product` is `E_b[(w dL_b/dw)^2]` for every parameter, `L_b` the mean cross entropy of batch `b`. Raises
    `PreconditionError` when a statistic needs data and none was given.
    """
    unknown = set(needs) - {"squared_product"}
    if unknown:
        raise PreconditionError(f"no such statistic: {', '.join(sorted(unknown))}; known: squared_product")
    if not needs:
        return Stats(seed=seed)
    if data is None:
        raise PreconditionError("this criterion needs gradients on data: pass data=")
    return Stats(squared_product=_squared_products(traced, data, batches, batch_size, seed), seed=seed)


def _squared_products(traced: Traced, data: Dataset, batches: int, batch_size: int, seed: int) -> dict[str, Tensor]:
    model = copy.deepcopy(traced).eval()
    names = dict(model.named_parameters())
    sums = {name: torch.zeros_like(p) for name, p in names.items()}
    count = 0
    for inputs, targets in islice(data.train.batches(batch_size, seed=seed), batches):
        model.zero_grad(set_to_none=True)
        outputs = model(inputs)
        loss = F.cross_entropy(outputs, targets) if data.num_classes else F.mse_loss(outputs, targets)
        torch.autograd.backward(loss)
        for name, p in names.items():
            if p.grad is not None:
                sums[name] += (p.detach() * p.grad).square()
        count += 1
    return {name: total / count for name, total in sums.items()}
