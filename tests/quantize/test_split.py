"""LLM.int8: outlier features are multiplied in floating point, the rest as 8-bit integers, row by row."""

import numpy as np
import pytest
import torch
from quantize_nets import arrays
from torch import nn

from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.quantize import llm_int8
from lilliput.quantize.prepare import lowered
from lilliput.quantize.rewriting.split import SplitOutliers


class Norm(nn.Module):
    def __init__(self, dims=16, outliers=(3, 7)):
        super().__init__()
        self.norm, self.a, self.b, self.head = nn.LayerNorm(dims), nn.Linear(dims, 12), nn.Linear(dims, 12, bias=False), nn.Linear(12, 4)
        with torch.no_grad():
            self.norm.weight[list(outliers)] = 40

    def forward(self, x):
        y = self.norm(x)
        return self.head(torch.tanh(self.a(y) + self.b(y))).mean(1)


def _kept(marked):
    return SplitOutliers(keep=marked.append, samples=48)


def test_the_function_stays_and_the_outliers_are_found():
    torch.manual_seed(0)
    data, model, marked = arrays(5, 16), Norm().eval(), []
    traced, notes = lowered(model, data, rewrites=(_kept(marked),))
    assert notes == ["a: 2 of 16 input features reach 6 and stay in floating point", "b: 2 of 16 input features reach 6 and stay in floating point"]
    assert len(marked) == 2
    assert torch.equal(traced.tensor("a.outliers.weight"), model.a.weight[:, [3, 7]])
    assert traced.tensor("a.outliers.features").tolist() == [3, 7]
    assert traced.tensor("a.weight").shape == (12, 14)
    x = data.example(8)
    torch.testing.assert_close(traced(x), model(x), rtol=1e-5, atol=1e-5)


def test_outlier_columns_are_exact_and_the_others_integers():
    torch.manual_seed(0)
    data, model = arrays(5, 16), Norm().eval()
    result = llm_int8(samples=48)(model, data)
    (entry,) = result.report.entries
    assert entry.method == "quantize.llm_int8"
    assert "a.outliers stays in floating point: a rewrite keeps it so" in entry.notes
    assert {row["layer"] for row in entry.layers} == {"a", "b", "head"}
    a = next(n for n in result.model.graph.nodes if n.name.startswith("linear") and "a_weight" in str(n.args[1]) and "outliers" not in str(n.args[1]))
    assert "dynamic" in str(a.args[0])
    # What outliers contribute is computed with the very weights and values of the float network.
    with torch.no_grad():
        model.a.weight[:, [i for i in range(16) if i not in (3, 7)]] = 0
        model.b.weight.copy_(model.a.weight)
        model.a.bias.zero_()
    x = data.example(8)
    only = llm_int8(samples=48, exclude=("head",))(model, data).model
    torch.testing.assert_close(only(x), model(x), rtol=1e-5, atol=1e-6)


def test_outliers_do_not_disturb_the_rest():
    torch.manual_seed(0)
    data, model = arrays(5, 16), Norm().eval()
    x = data.train.inputs
    from lilliput.quantize.dynamic import Dynamic

    errors = [float((step(model, data).model(x) - model(x)).detach().square().mean()) for step in (Dynamic(rows=True), llm_int8(samples=48))]
    assert errors[1] < 0.1 * errors[0]


def test_no_outliers_and_nothing_but_outliers():
    data = arrays(5, 16)
    marked = []
    traced, notes = lowered(Norm(outliers=()).eval(), data, rewrites=(_kept(marked),))
    assert notes == ["no input feature of any linear layer reaches 6"]
    assert not marked
    traced, notes = lowered(Norm(outliers=range(16)).eval(), data, rewrites=(_kept(marked),))
    assert len(marked) == 2
    assert not any("index_select" in n.name for n in traced.graph.nodes)


@pytest.mark.parametrize("outliers", [(3, 7), (0,)])
def test_deployed_values_are_the_simulated_ones(outliers, tmp_path):
    torch.manual_seed(0)
    data, model = arrays(5, 16), Norm(outliers=outliers).eval()
    quantized, x = llm_int8(samples=48)(model, data).model, data.example(8)
    session = Session(export(quantized, tmp_path / "model.onnx", x))
    np.testing.assert_allclose(session(x.numpy()), quantized(x).detach().numpy(), rtol=0, atol=2e-3 * float(model(x).abs().max()))


def test_a_language_model_with_planted_outliers():
    from benchmarks.language import with_outliers

    from lilliput.graph import trace
    from lilliput.zoo import create

    torch.manual_seed(0)
    ids = torch.randint(0, 7, (64, 12))
    data = arrays(12)
    data = type(data)(type(data.train)(ids, ids), num_classes=7)
    model = trace(create("decoder", num_classes=7, in_chans=12, seed=0, options={"dim": 32, "depth": 2, "heads": 2}), data.example()).eval()
    planted = with_outliers(model, count=3)
    result = llm_int8(samples=64)(planted, data)
    notes = [note for note in result.report.entries[0].notes if "input features" in note]
    # Projections, MLPs and the head read a norm; of what comes out of attention and activation functions nothing is large.
    assert len(notes) == 5
    assert all(": 3 of 32" in note for note in notes)
    loss = [float(nn.functional.cross_entropy(net(ids).flatten(0, 1), ids.roll(-1, 1).flatten())) for net in (planted, result.model)]
    assert abs(loss[1] - loss[0]) < 1e-3
