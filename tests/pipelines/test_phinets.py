"""PhiNets: counts by hand, and networks scaled to limits that their generated projects keep."""

import itertools
import subprocess

import pytest
import torch

from lilliput import data, quantize, zoo
from lilliput.core import BudgetError, PreconditionError
from lilliput.deploy.c import lower, to_c
from lilliput.deploy.onnx import export
from lilliput.graph import profile, trace
from lilliput.pipelines.phinets import Costs, Scaling, Task, between, formula, judged, scale
from lilliput.zoo.phinet import expansion, shapes

TASK = Task(shape=(1, 16, 16), num_classes=4, blocks=3)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_shapes_by_hand():
    # Widths 4, 2, 2, 2, 4; expansions 6 (1 + (0.5 - 1) i / 3) = 5, 4, 3.
    found = shapes(1 / 12, 0.5, 6.0, 3)
    assert [(s.inputs, s.hidden, s.outputs, s.stride, s.squeezed) for s in found] == [
        (4, 4, 2, 1, 0), (2, 10, 2, 2, 1), (2, 8, 2, 1, 1), (2, 6, 4, 2, 1)]
    assert [s.residual for s in found] == [False, False, True, False]


def test_parameters_and_macs_by_hand():
    model = zoo.phinet(num_classes=3, in_chans=1, alpha=1 / 12, beta=0.5, t_zero=6.0, blocks=3).eval()
    stem = 9 + 4 + 8
    first = 4 * 9 + 8 + 4 * 2 + 4
    second = 2 * 10 + 20 + 10 * 9 + 20 + 2 * 10 + 10 * 2 + 4
    third = 2 * 8 + 16 + 8 * 9 + 16 + 2 * 8 + 8 * 2 + 4
    fourth = 2 * 6 + 12 + 6 * 9 + 12 + 2 * 6 + 6 * 4 + 8
    assert sum(p.numel() for p in model.parameters()) == stem + first + second + third + fourth + 4 * 3 + 3
    # On 8 x 8: 4 x 4 pixels after the stem, 2 x 2 after block 1, one after block 3.
    macs = 16 * (9 + 4) + 16 * (4 * 9 + 4 * 2) + 16 * 20 + 4 * (90 + 20) + 20 + 4 * (16 + 72 + 16) + 16 + 4 * 12 + 54 + 24 + 12 + 12
    assert profile(model, torch.zeros(2, 1, 8, 8)).macs == macs
    assert formula((1 / 12, 0.5, 6.0), Task(shape=(1, 8, 8), num_classes=3, blocks=3)).macs == macs


def test_expansion_is_linear_in_depth():
    found = [expansion(6.0, 1.5, i, 7) for i in range(8)]
    assert (found[0], found[-1]) == (6.0, 9.0)
    assert all(abs((b - a) - 3 / 7) < 1e-9 for a, b in itertools.pairwise(found))


@pytest.mark.parametrize("options", [{"alpha": 0.02}, {"alpha": 0}, {"beta": -1.0}, {"t_zero": 0.2, "alpha": 0.05}, {"blocks": 2}])
def test_networks_without_channels_are_refused(options):
    with pytest.raises(PreconditionError):
        zoo.phinet(**options)


def test_the_formula_counts_macs_exactly():
    task = Task(shape=(3, 25, 40), num_classes=7)
    model = zoo.create("phinet", num_classes=7, in_chans=3, options={"alpha": 0.25, "beta": 0.7, "t_zero": 5.0}).eval()
    assert profile(model, torch.zeros(2, *task.shape)).macs == formula((0.25, 0.7, 5.0), task).macs


def test_what_joins_two_blocks_shares_memory_by_hand():
    # Apart from the first, from the second, or in place of both.
    assert between(100, 30, 500) == 500
    assert between(500, 30, 100) == 500
    assert between(100, 50, 100) == 150
    assert between(100, 90, 100) == 110


LIMITS = [{"macs": 40_000, "ram": 1_300, "flash": 24_000}, {"macs": 400_000, "ram": 2_500, "flash": 24_000},
          {"macs": 400_000, "ram": 5_000, "flash": 60_000}]


@pytest.fixture(scope="module")
def scaled():
    return [scale(TASK, **limits) for limits in LIMITS]


@pytest.mark.parametrize("i", range(len(LIMITS)))
def test_the_generated_project_keeps_the_limits(scaled, i, tmp_path):
    found, limits = scaled[i], LIMITS[i]
    noise = torch.randn(40, *TASK.shape, generator=torch.Generator().manual_seed(1))
    model = trace(found.network(seed=3).eval(), noise[:2])
    assert profile(model).macs == found.costs.macs <= limits["macs"]
    project = to_c(quantize.minmax(samples=32)(model, data.from_arrays("noise", noise, torch.arange(40) % 2)).model.eval(), tmp_path / "c")
    assert project.plan.arena == found.costs.ram <= limits["ram"]
    # Other weights: tables and multipliers that happen to be equal are stored once.
    assert project.flash <= limits["flash"] * 1.05
    assert found.costs.flash <= limits["flash"]
    # Most of what is scarce is used.
    assert max(found.costs.ram / limits["ram"], found.costs.flash / limits["flash"], found.costs.macs / limits["macs"]) > 0.8


def test_a_larger_limit_never_gives_less(scaled):
    used = [found.costs.macs * found.costs.ram * found.costs.flash for found in scaled]
    assert used == sorted(used)
    assert used[0] < used[-1]


def test_scaling_is_deterministic(scaled):
    assert scale(TASK, **LIMITS[0]) == scaled[0]
    assert isinstance(scaled[0], Scaling)


def test_impossible_limits_name_the_nearest():
    with pytest.raises(BudgetError, match=r"nearest has alpha=0\.05, beta=0\.5, t_zero=2\.0 with .* bytes of flash"):
        scale(TASK, flash=2_000, ram=100)
    with pytest.raises(PreconditionError, match="at least one limit"):
        scale(TASK)


def test_costs_name_themselves():
    assert str(Costs(macs=1_000, ram=20, flash=3_000)) == "1,000 MACs, 20 bytes of RAM and 3,000 bytes of flash"


def test_one_network_learns_quantizes_and_runs_as_c(tmp_path):
    digits = data.load("digits")
    model = zoo.create("phinet", num_classes=10, in_chans=1, seed=0, options={"t_zero": 3.0, "blocks": 3})
    model.train()(digits.example(8)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
    quantized = quantize.minmax(samples=64)(trace(model.eval(), digits.example()), digits).model.eval()
    project = to_c(export(quantized, tmp_path / "m.onnx", digits.example(8)), tmp_path / "c", target="host")
    assert lower(tmp_path / "m.onnx").macs == profile(model, digits.example(2)).macs
    done = subprocess.run(["make", "test"], cwd=project.folder, capture_output=True, text=True, check=False)
    assert "0 wrong codes" in done.stdout, done.stdout + done.stderr


def test_the_judge_measures(scaled):
    found = scaled[-1]
    assert judged((found.alpha, found.beta, found.t_zero), TASK) == found.costs
