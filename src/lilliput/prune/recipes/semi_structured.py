"""Methods whose zeros follow a pattern: so many of every few weights, or whole blocks."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.criteria import Magnitude
from lilliput.prune.gating import Gated
from lilliput.prune.patterns import NM
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.schedules import Gradual, constant, linear
from lilliput.prune.semistructured import Block, Patterned
from lilliput.prune.step import FineTune, Prune
from lilliput.prune.straight_through import Movement, Refined
from lilliput.train import Fit, Hook


def n_m(budget: Budget | None = None, *, fine_tune: Fit = Fit(), unit: Patterned = Patterned(), rule: Refined = Refined(),
        checkpoint: Path | None = None) -> Prune:
    """The `n` largest of every `m` weights pass at each step, and what is masked learns on (Zhou 2021, `zhou2021srste`).

    The pattern says what goes; a budget is only checked. The paper's layers are those with groups of `m` input channels; here a group may
    reach from one position of a kernel to the next where the channels do not divide, and a row's rest keeps `min(n, rest)`.
    """
    return Prune(method="prune.n_m", budget=budget, criterion=Magnitude(), unit=unit,
                 schedule=Gated(rule=rule, ramp=Gradual(curve=constant)), recover=recovery(fine_tune), checkpoint=checkpoint)


def n_m_attention(budget: Budget | None = None, *, fine_tune: Fit = Fit(), hooks: tuple[Hook, ...] = (),
                  unit: Patterned = Patterned(linear_only=True), rule: Refined = Refined(), checkpoint: Path | None = None) -> Prune:
    """Linear layers, so a transformer's projections and feed-forward: `n` of `m` falls from `m` one by one while training, each pattern
    taking over the weights of the one before (Fang 2022, `fang2022nm`); then distillation and quantization (Yu 2023, `yu2023boost`).

    Distillation comes as a hook (`lilliput.distill`), quantization as a step after this one, whose symmetric integers keep zeros zero
    where weights do not train again. Yu's 2:4 comes at once, and patch embeddings too: `unit=Patterned()`. The papers' accelerator and
    its storage format are not part of it.
    """
    pattern: NM = unit.pattern
    ramp = Gradual(curve=linear, updates=pattern.m - pattern.n)
    return Prune(method="prune.n_m_attention", budget=budget, criterion=Magnitude(), unit=unit, schedule=Gated(rule=rule, ramp=ramp),
                 recover=FineTune(fit=fine_tune, hooks=hooks), checkpoint=checkpoint)


def block(budget: Budget, *, fine_tune: Fit = Fit(), unit: Block = Block(), ramp: Gradual = Gradual(), checkpoint: Path | None = None) -> Prune:
    """Blocks with the least movement of every layer go while training, along a cubic schedule (Lagunas 2021, `lagunas2021block`).

    The paper's masks are of scores above a threshold, with a penalty on the scores that decides how many; here the share that stays
    follows the schedule, as in hard movement pruning (`sanh2020movement`), so that a budget is met. `prune.without_empty_channels` then
    removes heads and channels that are empty.
    """
    return Prune(method="prune.block", budget=budget, criterion=Magnitude(), unit=unit, schedule=Gated(rule=Movement(), ramp=ramp),
                 recover=recovery(fine_tune), checkpoint=checkpoint)
