"""PTQ-ViT: scales by similarity, attention by its order, bits by nuclear norms."""

import numpy as np
import pytest
import torch
from quantize_nets import arrays
from torch import nn

from lilliput.core.budget import Budget
from lilliput.core.errors import RecipeError
from lilliput.graph import trace
from lilliput.quantize import Integer, Quantizer, Scheme, Static, Uniform, ptq_vit
from lilliput.quantize.grids import Parameters
from lilliput.quantize.mixed.nuclear import NuclearNorm, _matrices
from lilliput.quantize.mixed.sensitivity import squared
from lilliput.quantize.mixed.task import Task, Widths
from lilliput.quantize.prepare import prepare
from lilliput.quantize.rounding.search import factors, take_best_
from lilliput.quantize.rounding.similarity import SimilaritySearch, feeds_softmax, products, ranking, similarity
from lilliput.zoo import create


def _vit():
    torch.manual_seed(0)
    model = create("vit_tiny", num_classes=4, in_chans=2, seed=0, options={"image_size": 8, "patch": 2, "dim": 16, "depth": 1, "heads": 2})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return trace(model, torch.zeros(2, 2, 8, 8)).eval(), arrays(2, 8, 8, samples=32)


def test_the_best_multiple_of_a_scale_is_taken():
    quantizer = Quantizer(Integer(bits=4), layer="x", weight=True)
    quantizer.set(Parameters(torch.tensor(1.0), torch.tensor(0, dtype=torch.int32), torch.tensor(False)))
    x = torch.linspace(-4.2, 4.2, 50)
    assert factors(0.5, 1.5, 3) == (1.0, 0.5, 1.0, 1.5)
    best = take_best_(quantizer, factors(0.1, 1.5, 15), lambda: float((quantizer(x) - x).square().sum()))
    assert best == pytest.approx(0.6)
    assert float(quantizer.scale) == pytest.approx(0.6)
    assert take_best_(quantizer, (1.0, 0.5, 2.0), lambda: 0.0) == 1.0
    with pytest.raises(RecipeError, match="positive"):
        factors(0, 1, 3)


def test_similarity_is_pearsons_correlation():
    a, b = torch.randn(5, 7), torch.randn(5, 7)
    assert similarity(a, b) == pytest.approx(float(np.corrcoef(a.flatten(), b.flatten())[0, 1]), abs=1e-6)
    assert similarity(a, 3 * a + 2) == pytest.approx(1)
    assert similarity(torch.ones(3), torch.ones(3)) == 1


def test_ranking_by_hand():
    wanted = torch.tensor([[0.0, 1.0, 2.0]])  # a deviation of 1
    assert ranking(wanted, wanted, 0.5) == 0
    # Differences to the wanted order: 1 - 0.8 = 0.2 lacks 0.3 of the margin; 0.8 to 2 and 1 to 2 do not. Each pair counts twice.
    assert ranking(torch.tensor([[0.8, 1.0, 2.0]]), wanted, 0.5) == pytest.approx(0.3 / 3, abs=1e-6)
    # The order of the first two is reversed: 0.5 + 0.2.
    assert ranking(torch.tensor([[1.0, 0.8, 2.0]]), wanted, 0.5) == pytest.approx(0.7 / 3, abs=1e-6)
    assert ranking(torch.randn(2, 3, 100, 200), torch.randn(2, 3, 100, 200), 0.0) > 0.1


def test_products_and_scores_are_found():
    model, data = _vit()
    quantized, _ = prepare(model, data, Scheme(), samples=16)
    matmuls = [n for n in quantized.graph.nodes if n.name.startswith("matmul")]
    assert [feeds_softmax(n) for n in matmuls] == [True, False]
    qkv = next(n for n in quantized.graph.nodes if n.op == "call_module" and str(n.args[0]) == "linear" and n.name.startswith("quantizers"))
    assert [n in products(quantized, qkv) for n in matmuls] == [True, True]  # as keys and as values


@pytest.mark.parametrize("bits", [4, 3])
def test_searched_scales_serve_better_than_extremes(bits):
    model, data = _vit()
    x = data.train.inputs
    scheme = Scheme(bits=Uniform(weights=bits, activations=bits))
    plain, found = (Static(scheme=scheme, roundings=r, samples=32)(model, data) for r in ((), (SimilaritySearch(),)))
    similar = [similarity(net.model(x).detach(), model(x).detach()) for net in (plain, found)]
    assert similar[1] > similar[0]
    (note,) = [note for note in found.report.entries[0].notes if "keep products similar" in note]
    assert int(note.split()[0]) >= 4


def test_the_table_of_nuclear_norms():
    model, data = _vit()
    task = Task.of(model, data, Static(), budget=Budget(bits=5.0), widths=Widths(weights=(4, 6, 8)), costs={})
    table = NuclearNorm(samples=8)(task)
    assert table.shape == (len(task.layers), 3)
    with torch.no_grad():
        head = torch.linalg.svdvals(model(data.train.head(8).inputs)[:, None]).sum() / 8  # one row to the sample: its length
    assert float(head) == pytest.approx(float(model(data.train.head(8).inputs).norm(dim=1).mean()), rel=1e-4)
    index = [layer.name for layer in task.layers].index("head")
    np.testing.assert_allclose(table[index], squared(task)[index] * float(head), rtol=1e-4)
    assert _matrices(torch.zeros(2, 3, 4, 5)).shape == (2, 3, 20)


def test_the_recipe_meets_its_budget():
    model, data = _vit()
    result = ptq_vit(Budget(bits=5.0), widths=Widths(weights=(4, 5, 6, 8)), samples=32)(model, data)
    (entry,) = result.report.entries
    assert entry.method == "quantize.ptq_vit"
    assert entry.metrics["bits"] <= 5.0
    assert len({row["weight_bits"] for row in entry.layers if "weight_bits" in row}) > 1
    assert any("keep products similar" in note for note in entry.notes)
    assert any("biases of" in note for note in entry.notes)


def test_networks_without_attention_are_searched_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 4)).eval()
    data = arrays(2, 8, 8)
    scheme = Scheme(bits=Uniform(weights=3, activations=4))
    plain, found = (Static(scheme=scheme, roundings=r, samples=32)(model, data).model for r in ((), (SimilaritySearch(weight=0),)))
    x = data.train.inputs
    assert similarity(found(x).detach(), model(x).detach()) > similarity(plain(x).detach(), model(x).detach())
