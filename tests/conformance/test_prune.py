"""Every pruning row that works: budget met within 1%, smaller or sparse as promised, zeros kept, deterministic."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.masked import masked_output

from lilliput import methods, prune, zoo
from lilliput.core import Budget, BudgetError, PreconditionError
from lilliput.graph import Coupling, profile, shrink, trace
from lilliput.graph.cost import Cost
from lilliput.prune.decision import computed
from lilliput.prune.hooks import apply_masks_
from lilliput.prune.units import Channels, Element
from lilliput.train import SGD, Fit, evaluate
from lilliput.train.agents import DDPG

ROWS = [row.id for row in methods.rows() if row.works and row.family == "prune"]
QUICK = Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.02))
TRAINS = {"prune.network_slimming": {"train": QUICK, "fine_tune": QUICK}, "prune.sfp": {"fine_tune": QUICK},
          "prune.magnitude_gradual": {"fine_tune": QUICK}}
# While they are trained; masks move, and rounds go by, in a few steps.
TRAINS |= {f"prune.{name}": {"fine_tune": QUICK}
           for name in ("str", "dst", "continuous_sparsification", "dnw", "dns", "dpf", "growing_regularisation")}
TRAINS |= {f"prune.{name}": {"fine_tune": QUICK, "rewiring": replace(getattr(prune, name)(Budget(params=0.5)).schedule, interval=5)}
           for name in ("rigl", "dsr", "sparse_momentum")}
TRAINS["prune.lottery_ticket"] = {"fine_tune": QUICK, "rewinding": prune.Rewinding(rounds=2, to=1)}
TRAINS |= {"prune.n_m": {"fine_tune": QUICK}, "prune.n_m_attention": {"fine_tune": QUICK},
           "prune.block": {"fine_tune": QUICK, "unit": prune.Block(rows=16, columns=4)}}
TRAINS["prune.scp"] = {"train": prune.SoftChannels(fit=QUICK)}
TRAINS |= {"prune.gal": {"train": QUICK}, "prune.three_d": {"collect": None, "samples": prune.Samples(shares=(0.5,), sides=3)}}
TRAINS["prune.netadapt"] = {"fine_tune": QUICK, "adaptation": prune.Adaptation(first=0.2, samples=256)}
TRAINS |= {"prune.prune_from_scratch": {"train": prune.FrozenGates(fit=QUICK), "fine_tune": QUICK}, "prune.dhp": {"fine_tune": QUICK},
           "prune.aster": {"fine_tune": QUICK, "schedule": prune.SensitivityFeedback(updates=6)}}
# Samples enough for a network of this size.
TRAINS["prune.kwon_post_training"] = {"samples": 512}
# Agents that have learnt next to nothing by then.
TRAINS |= {"prune.amc": {"allocation": prune.LayerRatios(agent=DDPG(hidden=(32, 32), warmup=3), episodes=6)},
           "prune.purl": {"allocation": prune.DeviationThresholds(episodes=2)}, "prune.runtime_neural_pruning": {"fine_tune": QUICK}}


# What goes is said by a pattern, exactly, and not by a budget.
PATTERNS = ("prune.n_m", "prune.n_m_attention")
# Each sample goes without other channels: nothing is smaller, and the budget is an average.
DYNAMIC = ("prune.runtime_neural_pruning",)
# Before any training: these are for networks as they are created.
AT_START = ("prune.snip", "prune.grasp", "prune.force")
WHOLE = Fit(epochs=4, batch_size=64, optimizer=SGD(lr=0.05))


def build(name, budget, **options):
    return methods.build(name)(budget, **{**TRAINS.get(name, {}), **options})


def structured(name):
    return name not in DYNAMIC and isinstance(build(name, Budget(params=0.5)).unit, Channels | prune.Structures)


@pytest.mark.parametrize("name", [n for n in ROWS if n not in (*PATTERNS, *DYNAMIC)])
def test_meets_the_budget_and_says_so(name, trained, digits):
    key = "macs" if structured(name) else "params"
    result = build(name, Budget(**{key: 0.5}))(trained, digits)
    entry = result.report.entries[0]
    original = getattr(profile(trained), key)
    if structured(name):
        actual = getattr(profile(result.model), key)
    else:
        weights = dict(result.model.named_parameters())
        actual = sum(int((p != 0).sum()) for p in weights.values()) + sum(int((p == 0).sum()) for p in weights.values() if p.ndim == 1)
    assert 0.99 * 0.5 * original <= actual <= 0.5 * original
    assert entry.measured[key] == pytest.approx(actual, rel=1e-3)
    assert entry.promised[key] == pytest.approx(0.5 * original)
    assert entry.method == name
    assert "0x" not in entry.recipe


@pytest.mark.parametrize("name", [n for n in ROWS if n in PATTERNS])
def test_patterns_hold_in_every_group_and_the_report_says_what_they_leave(name, trained, digits):
    step = build(name, None)
    result = step(trained, digits)
    entry, pattern = result.report.entries[0], step.unit.pattern
    for row in entry.layers:
        weight = result.model.tensor(f"{row['layer']}.weight").detach()
        rows = (weight if weight.ndim == 2 else weight.movedim(1, -1)).flatten(1).numpy()
        for start in range(0, rows.shape[1], pattern.m):
            group = rows[:, start:start + pattern.m]
            assert ((group != 0).sum(1) == min(pattern.n, group.shape[1])).all()
    zeros = sum(int((p == 0).sum()) for p in result.model.parameters() if p.ndim > 1)
    assert entry.layers
    assert entry.measured["params"] == entry.promised["params"] == profile(trained).params - zeros
    assert entry.method == name
    assert "0x" not in entry.recipe


@pytest.mark.parametrize("name", [n for n in ROWS if structured(n)])
def test_small_dense_network_equals_the_masked_one(name, trained, digits):
    step = build(name, Budget(macs=0.5))
    plan = step.unit.plan(trained)
    scores = plan.scores(step.criterion, prune.statistics.gather(trained, digits, step.criterion.needs), trained)
    keep = plan.keep(scores, np.full(len(scores), 0.4))
    small, example = plan.apply(keep, trained), digits.example(4)
    if isinstance(step.unit, prune.Structures):
        silent = copy.deepcopy(trained)
        apply_masks_(silent, plan.masks(keep))
        masked = silent(example)
    else:
        flags = plan.coupling.keep({g.name: k for g, k in zip(plan.groups, keep, strict=True)})
        masked = masked_output(plan.coupling, flags, example)
    torch.testing.assert_close(small(example), masked, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in trained.parameters())


@pytest.mark.parametrize("name", [n for n in ROWS if not structured(n) and n not in DYNAMIC])
def test_masked_weights_stay_zero_through_fine_tuning(name, trained, digits):
    begins = name in AT_START
    network = trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0), digits.example()) if begins else trained
    budget = None if name in PATTERNS else Budget(params=0.3)
    result = build(name, budget, fine_tune=WHOLE if begins else QUICK)(network, digits)
    sparsity = {row["layer"]: row["sparsity"] for row in result.report.entries[0].layers}
    for layer, share in sparsity.items():
        weight = result.model.tensor(f"{layer}.weight")
        assert float((weight == 0).float().mean()) == pytest.approx(share, abs=1e-6)
    assert evaluate(result.model, digits.val) > 80


@pytest.mark.parametrize("name", [n for n in ROWS if n in DYNAMIC])
def test_a_sample_gives_what_a_network_without_its_masked_channels_gives(name, trained, digits):
    result = build(name, Budget(macs=0.5))(trained, digits)
    entry, original = result.report.entries[0], profile(trained).macs
    backbone = copy.deepcopy(trained)
    backbone.load_state_dict({k: v for k, v in result.model.state_dict().items() if not k.startswith("policy.")})
    coupling = Coupling(backbone)
    cost, (inputs, _) = Cost(coupling), next(digits.val.batches(len(digits.val)))
    chosen = {f"{layer}.weight": flags.numpy() for layer, flags in computed(result.model, inputs).items()}
    with torch.no_grad():
        outputs, macs = result.model(inputs), 0.0
        for sample in range(len(inputs)):
            keep = coupling.keep_all()
            for group in coupling.groups:
                for slot in group.slots:
                    if slot.role == "out" and slot.tensor in chosen:
                        keep[group.components[slot.unit]] = chosen[slot.tensor][sample]
            macs += cost(keep)["macs"] / len(inputs)
            if sample < 8:
                small = shrink(coupling, keep)
                assert profile(small).macs == pytest.approx(cost(keep)["macs"])
                torch.testing.assert_close(small(inputs[sample:sample + 1]), outputs[sample:sample + 1], atol=1e-5, rtol=1e-5)
    macs += profile(result.model).macs - original  # the policy's own
    assert 0.99 * 0.5 * original <= macs <= 0.5 * original
    assert entry.measured["macs"] == pytest.approx(macs)
    assert entry.promised["macs"] == pytest.approx(0.5 * original)
    assert entry.method == name
    assert "0x" not in entry.recipe
    assert any("a dense one computes all" in note for note in entry.notes)


@pytest.mark.parametrize("name", ROWS)
def test_deterministic_and_the_original_is_left_alone(name, trained, digits):
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    budget = None if name in PATTERNS else Budget(macs=0.5) if name in DYNAMIC else Budget(params=0.5)
    first, second = (build(name, budget)(trained, digits).model.state_dict() for _ in range(2))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert all(torch.equal(before[k], v) for k, v in trained.state_dict().items())


@pytest.mark.parametrize("name", ROWS)
def test_impossible_budgets_say_what_could_be_met(name, trained, digits):
    with pytest.raises(BudgetError, match=r"cannot be met: the least this network allows is \d"):
        build(name, Budget(params=1e-4))(trained, digits)
    with pytest.raises(BudgetError, match="already"):
        build(name, Budget(params="10M"))(trained, digits)
    with pytest.raises(PreconditionError, match="limits no cost"):
        build(name, Budget(max_drop=1.0))(trained, digits)


def test_several_limits_hold_together(trained, digits):
    counted = profile(trained)
    model = prune.l1_norm(Budget(macs=0.6, params=0.3))(trained, digits).model
    assert profile(model).macs <= 0.6 * counted.macs
    assert profile(model).params <= 0.3 * counted.params


def test_measured_budgets_are_met_by_the_measurement(trained, digits):
    seen = []

    def size(model):
        seen.append(sum(p.numel() * 4 for p in model.parameters()))
        return float(seen[-1])

    result = prune.fpgm(Budget(size=0.5), measure={"size": size})(trained, digits)
    assert size(result.model) <= 0.5 * seen[0]
    with pytest.raises(PreconditionError, match="latency budget needs a measurement"):
        prune.fpgm(Budget(latency="1ms"))(trained, digits)


def test_counts_round_to_a_multiple_and_patterns_exclude(trained, digits):
    unit = Channels(round_to=8, exclude=("layers.0*",))
    result = prune.l1_norm(Budget(macs=0.6), unit=unit)(trained, digits)
    for row in result.report.entries[0].layers:
        assert row["channels_after"] % 8 == 0 or row["channels_after"] == row["channels_before"]
    kept = Coupling(trained)
    whole = [g for g in kept.groups if any(layer.startswith("layers.0") for layer in g.layers)]
    small = result.model
    for group in whole:
        for slot in group.slots:
            if slot.role == "out":
                assert small.tensor(slot.tensor).shape[slot.dim] == trained.tensor(slot.tensor).shape[slot.dim]


def test_training_schedules_need_training_and_quantized_networks_are_refused(trained, digits):
    from lilliput import quantize

    with pytest.raises(PreconditionError, match="pass fine_tune"):
        replace(prune.sfp(Budget(macs=0.5)), recover=None)(trained, digits)
    quantized = quantize.static(samples=64)(trained, digits).model
    with pytest.raises(PreconditionError, match="prune first, then quantize"):
        prune.fpgm(Budget(macs=0.5))(quantized, digits)


def test_norm_scales_need_batch_norm(digits):
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 20), torch.nn.ReLU(), torch.nn.Linear(20, 10))
    with pytest.raises(PreconditionError, match="no batch norm"):
        prune.network_slimming(Budget(macs=0.5), train=QUICK)(trace(plain, digits.example()), digits)


def test_element_excludes_layers(trained, digits):
    result = prune.magnitude_global(Budget(params=0.5), unit=Element(exclude=("fc*", "head*", "classifier*", "linear*")))(trained, digits)
    dense = {n for n, p in result.model.named_parameters() if p.ndim == 2}
    assert all(bool((result.model.tensor(n) != 0).all()) for n in dense)


def test_sensitivity_is_the_rise_of_the_loss_with_one_group_gone(trained, digits):
    step = prune.l1_norm(Budget(macs=0.6))
    result = step(trained, digits)
    rows = {row["layer"]: row for row in result.report.entries[0].layers}
    assert all("sensitivity" in row for row in rows.values() if row["channels_after"] < row["channels_before"])
    plan = step.unit.plan(trained)
    scores = plan.scores(step.criterion, prune.Stats(), trained)
    keep = plan.everything()
    keep[0] = plan.keep(scores, np.full(len(scores), 0.5))[0]
    from lilliput.prune.sensitivity import sensitivity

    rises = sensitivity(plan, keep, trained, digits, batches=1)
    inputs, targets = next(digits.val.head(128).batches(128))
    with torch.no_grad():
        losses = [float(torch.nn.functional.cross_entropy(m.eval()(inputs), targets)) for m in (plan.apply(keep, trained), trained)]
    assert rises[0] == pytest.approx(losses[0] - losses[1], rel=1e-3, abs=1e-5)
    assert rises[1:] == [0.0] * (len(rises) - 1)
