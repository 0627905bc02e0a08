"""Methods that look at what removal saves where the network runs: budgets of latency, by tables of it."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.adaptation import Adaptation
from lilliput.prune.criteria import Magnitude
from lilliput.prune.fitting import Measure
from lilliput.prune.latency_aware import ByTable, Knapsack, LessCost
from lilliput.prune.latency_table import LatencyTable, Tabulation
from lilliput.prune.perturbation import GateTaylor, GroupTaylor
from lilliput.prune.recipes.basic import recovery
from lilliput.prune.schedules import Gradual, OneShot, linear
from lilliput.prune.step import Prune
from lilliput.prune.units import Channels
from lilliput.train import Fit

_UNSCALED = Channels(per_layer=False)


def halp(budget: Budget, *, fine_tune: Fit | None = None, table: LatencyTable | Tabulation = Tabulation(), unit: Channels = _UNSCALED,
         measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """The channels stay that matter most in all within the budget's latency, a knapsack by a table (Shen 2022, `shen2022halp`).

    Channels go in groups of `unit.round_to`, which the paper takes from the steps that latency has. With `fine_tune` they go in 30
    steps while it is trained. The paper's table is of layers, by their inputs and outputs at each step; here it is of coupled groups,
    made once, and what is measured corrects it. Without a limit on latency the table is of what the budget limits.
    """
    schedule = OneShot() if fine_tune is None else Gradual(updates=30)
    return Prune(method="prune.halp", budget=budget, criterion=GateTaylor(), unit=unit, schedule=schedule, recover=recovery(fine_tune),
                 allocation=ByTable(policy=Knapsack(), table=table), measure=measure, checkpoint=checkpoint)


def netadapt(budget: Budget, *, fine_tune: Fit = Fit(), adaptation: Adaptation = Adaptation(),
             table: LatencyTable | Tabulation = Tabulation(), measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """One group after the other loses filters of the least L2 norm, the one that costs accuracy least (Yang 2018, `yang2018netadapt`).

    `adaptation` says how far the cost falls with each step and how the candidates are trained, `fine_tune` how the last one is. The
    paper's table is of single layers; here it is of coupled groups in the whole network. It holds out part of the training data to choose
    by; here that is the validation split.
    """
    return Prune(method="prune.netadapt", budget=budget, criterion=Magnitude(2.0), unit=_UNSCALED, schedule=adaptation,
                 allocation=ByTable(policy=Knapsack(), table=table), recover=recovery(fine_tune), measure=measure,
                 checkpoint=checkpoint)


def vit_hessian(budget: Budget, *, fine_tune: Fit | None = None, policy: LessCost = LessCost(),
                table: LatencyTable | Tabulation = Tabulation(), measure: Measure | None = None, checkpoint: Path | None = None) -> Prune:
    """Coupled channels that change the loss least, for what they take, go over the whole network (NViT, Yang 2023, `yang2023nvit`).

    In a transformer they are those of the embedding, heads, and hidden neurons. Departs from the paper: it also prunes the widths of
    queries and keys, and of values, aligned over heads; here a head goes as a whole. With `fine_tune` they go in 30 steps while it is
    trained; the paper distils at the same time, which is a hook of `recover`. It ends in a rule for new networks, parameters
    redistributed among blocks: as we remember it, the first and the last blocks get less than those in between, and queries
    and keys less than values.
    """
    schedule = OneShot() if fine_tune is None else Gradual(curve=linear, updates=30)
    return Prune(method="prune.vit_hessian", budget=budget, criterion=GroupTaylor(), unit=_UNSCALED, schedule=schedule,
                 recover=recovery(fine_tune), allocation=ByTable(policy=policy, table=table), measure=measure, checkpoint=checkpoint)
