"""Every distillation row that works: the student learns from the teacher, who is left alone."""

import copy

import pytest
import torch

from lilliput import methods
from lilliput.graph import trace
from lilliput.train import SGD, Fit, evaluate, fit

ROWS = [row.id for row in methods.rows() if row.works and row.family == "distill"]
QUICK = Fit(epochs=3, batch_size=64, optimizer=SGD(lr=0.05))


@pytest.fixture(scope="module")
def student(digits):
    torch.manual_seed(3)
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10))
    return trace(layers, digits.example())


@pytest.mark.parametrize("name", ROWS)
def test_teacher_is_untouched_and_the_student_learns(name, student, trained, digits):
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    trained.zero_grad(set_to_none=True)
    result = methods.build(name)(teacher=trained, fit=QUICK)(student, digits)
    assert all(torch.equal(before[k], v) for k, v in trained.state_dict().items())
    assert all(p.grad is None for p in trained.parameters())
    assert evaluate(result.model, digits.val) > evaluate(student, digits.val) + 30
    assert result.report.entries[0].method == name
    again = methods.build(name)(teacher=trained, fit=QUICK)(student, digits).model.state_dict()
    assert all(torch.equal(again[k], v) for k, v in result.model.state_dict().items())


@pytest.mark.parametrize("name", ROWS)
def test_student_follows_the_teacher_more_than_one_trained_alone(name, student, trained, digits):
    """Agreement with the teacher's probabilities, which is what the loss asks for."""
    distilled = methods.build(name)(teacher=trained, fit=QUICK)(student, digits).model
    alone = fit(copy.deepcopy(student), digits, QUICK, progress=False).model
    inputs = torch.cat([x for x, _ in digits.val.batches(256)])
    with torch.no_grad():
        target = trained.eval()(inputs).div(4).softmax(1)
        gaps = [torch.nn.functional.kl_div(m.eval()(inputs).div(4).log_softmax(1), target, reduction="batchmean")
                for m in (distilled, alone)]
    assert gaps[0] < gaps[1]
