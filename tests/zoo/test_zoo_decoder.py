"""Language models: no token sees the next ones; token numbers through trace, file, ONNX Runtime and training."""

import pytest
import torch

from lilliput import data, zoo
from lilliput.deploy.onnx import export
from lilliput.deploy.runtime import Session
from lilliput.graph import profile, trace
from lilliput.graph.saving import load, save
from lilliput.train import AdamW, Fit, fit, perplexity

CONTEXT = 12


@pytest.fixture(scope="module")
def text():
    return data.from_text("fox", "the quick brown fox jumps over the lazy dog. " * 60, context=CONTEXT)


def network(text, **options):
    options = {"dim": 32, "depth": 2, "heads": 2, **options}
    return zoo.create("decoder", num_classes=text.num_classes, in_chans=CONTEXT, seed=0, options=options).eval()


@torch.no_grad()
def test_scores_depend_on_no_later_token(text):
    model, ids = network(text), text.example(3)
    scores = model(ids)
    changed = ids.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % text.num_classes
    torch.testing.assert_close(model(changed)[:, :7], scores[:, :7])
    assert not torch.allclose(model(changed)[:, 7], scores[:, 7])
    torch.testing.assert_close(model(ids[:, :5]), scores[:, :5])


@torch.no_grad()
def test_positions_matter(text):
    model = network(text)
    same = torch.zeros(1, CONTEXT, dtype=torch.int64)
    scores = model(same)[0]
    assert not torch.allclose(scores[2], scores[3], atol=1e-5)


@torch.no_grad()
def test_token_numbers_go_through_file_and_onnx_with_any_batch(text, tmp_path):
    model, ids = network(text), text.example(5)
    traced = trace(model, ids[:2])
    assert traced.dynamic_batch
    assert traced.example[0].dtype == torch.int64
    save(traced, tmp_path / "decoder.pt2")
    loaded = load(tmp_path / "decoder.pt2")
    torch.testing.assert_close(loaded(ids), model(ids))
    session = Session(export(loaded, tmp_path / "decoder.onnx", ids[:2]))
    for count in (1, 5):
        assert abs(session(ids[:count].numpy()) - model(ids[:count]).numpy()).max() < 1e-5


def test_profile_counts_linear_layers_and_attention(text):
    dim, tokens, vocabulary = 32, CONTEXT, text.num_classes
    block = tokens * (3 * dim * dim + dim * dim + 8 * dim * dim) + 2 * tokens * tokens * dim
    found = profile(network(text), text.example())
    assert found.macs == 2 * block + tokens * dim * vocabulary
    assert found.params == sum(p.numel() for p in network(text).parameters())


def test_it_learns(text):
    start = trace(network(text), text.example())
    config = Fit(epochs=6, batch_size=16, optimizer=AdamW(lr=5e-3))
    trained = fit(start, text, config, progress=False)
    assert perplexity(start.eval(), text.test) > 20
    assert perplexity(trained.model.eval(), text.test) < 4
    assert trained.history[-1]["val_accuracy"] > 60
