"""Patterns and blocks: by hand what stays and what learns, and networks that keep both through training, quantization and shrinking."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lilliput import data, distill, prune, quantize
from lilliput.core import Budget, BudgetError, PreconditionError, chain
from lilliput.core.errors import RecipeError
from lilliput.core.sparse import pack_sparse
from lilliput.deploy import Session, export
from lilliput.deploy.patterned import pack_patterns
from lilliput.graph import trace
from lilliput.prune.gates import Gate
from lilliput.prune.semistructured import empty_blocks, follows, laid_back, rows
from lilliput.train import SGD, Fit, evaluate, fit
from lilliput.zoo.vit import vit_tiny

QUICK = Fit(epochs=2, batch_size=64, optimizer=SGD(lr=0.02, momentum=0.9))


@pytest.fixture(scope="module")
def transformer(digits):
    torch.manual_seed(0)
    model = trace(vit_tiny(in_chans=1, image_size=8, patch=2, dim=32, depth=2, heads=4), digits.example())
    return fit(model, digits, Fit(epochs=3, batch_size=64, optimizer=SGD(lr=0.05, momentum=0.9)), progress=False).model.eval()


def kept(unit, *scores, share=1.0):
    """What stays of layers with these scores, as ones and zeros of their shapes."""
    layers = [nn.Conv2d(s.shape[1], s.shape[0], s.shape[2:]) if np.ndim(s) == 4 else nn.Linear(s.shape[1], s.shape[0]) for s in scores]
    example = torch.zeros(2, *scores[0].shape[1:]) if scores[0].ndim == 4 else torch.zeros(2, scores[0].shape[1])
    plan = unit.plan(trace(nn.Sequential(*layers), example))
    return [mask.int().numpy() for mask in plan.masks(plan.keep(list(scores), np.full(len(scores), share))).values()]


def test_groups_run_along_the_channels_of_one_kernel_position_after_the_other():
    scores = np.zeros((1, 2, 1, 3))
    scores[0, :, 0, 0] = 1, 4  # first group: channels 0 and 1 here,
    scores[0, :, 0, 1] = 3, 2  # and 0 and 1 here
    scores[0, :, 0, 2] = 0, 0  # the rest is shorter than four: both stay
    (found,) = kept(prune.Patterned(pattern=prune.NM(n=2, m=4)), scores)
    assert found.tolist() == [[[[0, 1, 1]], [[1, 0, 1]]]]
    (found,) = kept(prune.Patterned(pattern=prune.NM(n=1, m=4)), scores)
    assert [found[0, :, 0, i].sum() for i in range(3)] == [1, 0, 1]


def test_rows_of_linear_layers_are_their_own():
    scores = np.array([[4.0, 3, 2, 1, 9], [1, 2, 3, 4, 0]])
    (found,) = kept(prune.Patterned(), scores)
    assert found.tolist() == [[1, 1, 0, 0, 1], [0, 0, 1, 1, 1]]
    # A third of what 1:4 takes away is one of four.
    (found,) = kept(prune.Patterned(pattern=prune.NM(n=1, m=4)), scores, share=1 / 3)
    assert found.tolist() == [[1, 1, 1, 0, 1], [0, 1, 1, 1, 1]]


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 9)) | st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3)),
       m=st.integers(2, 8), data=st.data())
def test_any_weight_keeps_exactly_its_pattern(shape, m, data):
    pattern = prune.NM(n=data.draw(st.integers(1, m - 1)), m=m)
    scores = np.random.default_rng(0).permutation(int(np.prod(shape))).reshape(shape).astype(float)
    (found,) = kept(prune.Patterned(pattern=pattern), scores)
    flat = rows(torch.from_numpy(found))
    assert follows(torch.from_numpy(found), pattern)
    for start in range(0, flat.shape[1], m):
        group = flat[:, start:start + m]
        assert (group.sum(1) == min(pattern.n, group.shape[1])).all()
    assert torch.equal(laid_back(flat, torch.Size(shape)), torch.from_numpy(found))


def test_blocks_add_up_their_scores_and_may_be_cut_at_the_edges():
    scores = np.array([[1.0, 1, 9, 0, 5], [1, 1, 0, 0, 0], [3, 0, 2, 2, 6]])
    # Blocks of two by two: 4, 9, 5 above and 3, 4, 6 below; half of six go: 3, 4, 4.
    (found,) = kept(prune.Block(rows=2, columns=2), scores, share=0.5)
    assert found.tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]]
    assert empty_blocks(torch.from_numpy(found), prune.Block(rows=2, columns=2)).tolist() == [[True, False, False], [True, True, False]]
    (found,) = kept(prune.Block(rows=2, columns=2), scores, share=1.0)
    assert found.tolist() == [[0, 0, 1, 1, 0], [0, 0, 1, 1, 0], [0] * 5]
    with pytest.raises(RecipeError, match="at least one row"):
        prune.Block(rows=0)


def gate(rule, weight, mask):
    made = Gate("w", weight, rule)
    made.mask.copy_(mask)
    return made


def test_sparse_refined_gradients_by_hand():
    weight, mask = torch.tensor([3.0, -1.0, 2.0, 0.5], requires_grad=True), torch.tensor([1.0, 0, 1, 0])
    passed = gate(prune.Refined(strength=0.1), weight, mask)(weight)
    assert passed.tolist() == [3, 0, 2, 0]
    (torch.tensor([10.0, 20, 30, 40]) @ passed).backward()
    # The masked ones hear the gradient too, and shrink by a tenth of themselves.
    torch.testing.assert_close(weight.grad, torch.tensor([10, 20 - 0.1, 30, 40 + 0.05]))


def test_movement_by_hand():
    weight, mask = torch.tensor([3.0, -1.0, 2.0, 0.5], requires_grad=True), torch.tensor([1.0, 0, 1, 0])
    moving = gate(prune.Movement(), weight, mask)
    optimizer = torch.optim.SGD(moving.parameters(), lr=0.5)
    gradient = torch.tensor([10.0, 20, -30, 40])
    for step in (1, 2):
        weight.grad = None
        optimizer.zero_grad()
        (gradient @ moving(weight)).backward()
        assert weight.grad.tolist() == [10, 0, -30, 0]
        optimizer.step()
        # Growing away from zero gains, a masked weight's wish to grow as well: s = -t * 0.5 * g w.
        assert moving.scores(weight).tolist() == [step * x for x in (-15.0, 10.0, 30.0, -10.0)]


def test_the_pattern_is_the_budget_and_one_that_is_given_must_allow_it():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.ReLU(), nn.Linear(40, 10))
    digits = data.load("digits")
    whole, left = 64 * 40 + 40 + 40 * 10 + 10, 32 * 40 + 40 + 20 * 10 + 10
    for budget in (None, Budget(params=left), Budget(params=0.9)):
        entry = prune.n_m(budget, fine_tune=Fit(epochs=1))(net, digits).report.entries[0]
        assert [row["sparsity"] for row in entry.layers] == [0.5, 0.5]
        assert entry.promised == {"params": left if budget is None or budget.params == left else 0.9 * whole}
        assert entry.measured == {"params": left}
    with pytest.raises(BudgetError, match=f"cannot be met: the least this network allows is {left}"):
        prune.n_m(Budget(params=left - 1))(net, digits)
    with pytest.raises(PreconditionError, match="limits no cost"):
        prune.block(Budget(max_drop=1))(net, digits)
    with pytest.raises(PreconditionError, match="limits no cost"):
        prune.Prune(method="prune.x", budget=None, criterion=prune.Magnitude(), unit=prune.Element())(net, digits)


def linear_names(model):
    return [name for name, p in model.named_parameters() if p.ndim == 2]


def test_transformers_learn_the_pattern_with_a_teacher_and_keep_it_as_packed_integers(transformer, digits, tmp_path):
    hooks = (distill.Distil(transformer),)
    step = chain(prune.n_m_attention(fine_tune=QUICK, hooks=hooks), quantize.minmax(samples=128))
    result = step(transformer, digits)
    pruned = prune.n_m_attention(fine_tune=QUICK, hooks=hooks)(transformer, digits).model
    assert len(names := linear_names(pruned)) == 9
    assert all(follows(pruned.tensor(name), prune.NM()) for name in names)
    assert all(float((pruned.tensor(name) == 0).float().mean()) == 0.5 for name in names)
    assert bool((pruned.tensor("patch_embed.weight") != 0).all())
    assert evaluate(result.model, digits.val) > evaluate(transformer, digits.val) - 5
    x = next(digits.val.batches(16))[0]
    plain = export(result.model.eval(), tmp_path / "plain.onnx", x)
    small = pack_patterns(plain, tmp_path / "small.onnx")
    np.testing.assert_array_equal(Session(small)(x.numpy()), Session(plain)(x.numpy()))


def test_patterns_are_taken_over_from_one_to_the_next():
    step = prune.n_m_attention(unit=prune.Patterned(pattern=prune.NM(n=1, m=4), linear_only=True))
    fractions = [step.schedule.ramp.fraction(t) for t in (0.0, 0.2, 0.5, 0.9)]
    assert fractions == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_transformer_in_blocks_runs_by_the_sparse_kernel_at_a_fraction_of_the_work(transformer, digits):
    result = prune.block(Budget(params=0.4), fine_tune=QUICK, unit=prune.Block(rows=16, columns=8))(transformer, digits)
    assert result.report.entries[0].measured["params"] <= 0.4 * sum(p.numel() for p in transformer.parameters())
    weight = result.model.tensor("blocks.0.mlp.fc1.weight").detach()
    stored = pack_sparse(weight.numpy())
    assert stored.density == pytest.approx(float((weight != 0).float().mean()), abs=1e-6)
    assert empty_blocks(weight, prune.Block(rows=16, columns=8)).mean() == pytest.approx(1 - stored.density, abs=1e-6)


class Perceptron(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(6, 8), nn.Linear(8, 3), activation

    def forward(self, x):
        return self.b(self.activation(self.a(x)))


def perceptron(activation):
    torch.manual_seed(0)
    traced = trace(Perceptron(activation).eval(), torch.zeros(2, 6))
    with torch.no_grad():
        traced.tensor("a.weight")[[1, 4]] = 0
        traced.tensor("a.bias")[1] = 0
        traced.tensor("b.weight")[:, 6] = 0
    return traced


def equal(one, other, x):
    with torch.no_grad():
        torch.testing.assert_close(one(x), other(x), atol=1e-5, rtol=1e-5)


def test_channels_that_make_nothing_or_that_nothing_reads_go():
    traced, x = perceptron(nn.ReLU()), torch.randn(5, 6)
    small = prune.without_empty_channels(traced)
    # The second is silent and the seventh unread; the fifth is a constant that is read.
    assert small.tensor("a.weight").shape == (6, 6)
    assert small.tensor("b.weight").shape == (3, 6)
    equal(small, traced, x)
    assert traced.tensor("a.weight").shape == (8, 6)


def test_what_would_change_the_outputs_stays():
    traced = perceptron(nn.Sigmoid())
    small = prune.without_empty_channels(traced)
    # A sigmoid of nothing is a half; only what nothing reads goes.
    equal(small, traced, torch.randn(5, 6))
    assert small.tensor("a.weight").shape == (7, 6)
    with torch.no_grad():
        traced.tensor("b.weight")[:, 6] = 1
    assert prune.without_empty_channels(traced).tensor("a.weight").shape == (8, 6)


def test_the_last_channel_stays():
    traced = perceptron(nn.ReLU())
    with torch.no_grad():
        traced.tensor("b.weight").zero_()
    small = prune.without_empty_channels(traced)
    assert small.tensor("a.weight").shape == (1, 6)
    equal(small, traced, torch.randn(5, 6))


def test_empty_heads_go_and_the_residual_stream_stays(transformer):
    import copy

    traced = copy.deepcopy(transformer)
    with torch.no_grad():
        traced.tensor("blocks.0.attn.proj.weight")[:, 8:16] = 0  # the second of four heads, of eight each
        for row in range(16, 24):  # the third head of the second block, its queries, keys and values
            for part in range(3):
                traced.tensor("blocks.1.attn.qkv.weight")[32 * part + row] = 0
                traced.tensor("blocks.1.attn.qkv.bias")[32 * part + row] = 0
        traced.tensor("blocks.1.mlp.fc1.weight")[:10] = 0
        traced.tensor("blocks.1.mlp.fc1.bias")[:10] = 0
    small = prune.without_empty_channels(traced)
    assert small.tensor("blocks.0.attn.qkv.weight").shape == small.tensor("blocks.1.attn.qkv.weight").shape == (72, 32)
    assert small.tensor("blocks.1.mlp.fc2.weight").shape == (32, 118)
    assert small.tensor("blocks.0.mlp.fc1.weight").shape == (128, 32)
    equal(small, traced, torch.randn(6, 1, 8, 8))
