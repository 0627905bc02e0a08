"""Pruning, distillation and quantization act together in one training run."""

import torch

from lilliput import prune, quantize
from lilliput.core import Budget
from lilliput.distill.hook import Distil
from lilliput.prune.hooks import HoldMasks
from lilliput.train import SGD, Fit, evaluate, fit


def test_masks_teacher_and_quantizers_in_one_fit(trained, digits):
    sparse = prune.magnitude_global(Budget(params=0.4))(trained, digits).model
    network, _ = quantize.equip(sparse, digits, quantize.Scheme(), estimator=quantize.StraightThrough())
    masks = {n: p != 0 for n, p in network.named_parameters() if p.ndim > 1}
    teacher = {k: v.clone() for k, v in trained.state_dict().items()}
    seen = []

    class Loss(HoldMasks):
        def loss(self, state, outputs, loss):
            seen.append(float(loss.detach()))
            return loss

    hooks = (HoldMasks(masks), Distil(trained), Loss({}), quantize.Aware())
    result = fit(network, digits, Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.01)), hooks=hooks, progress=False).model.eval()
    weights = dict(result.named_parameters())
    assert sum(int((~m).sum()) for m in masks.values()) > 0.5 * sum(m.numel() for m in masks.values())
    assert all(bool((weights[n][~m] == 0).all()) for n, m in masks.items())
    assert all(torch.equal(teacher[k], v) for k, v in trained.state_dict().items())
    assert evaluate(result, digits.val) > evaluate(trained, digits.val) - 2
    assert all(torch.isfinite(torch.tensor(seen)))
