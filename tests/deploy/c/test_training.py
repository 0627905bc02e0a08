"""Training on the device: gradients against autograd, C against numpy bit for bit, accuracy that comes back after a shift."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from training_nets import Small, chain

from lilliput import data, quantize
from lilliput.core import DataError, PreconditionError
from lilliput.deploy.c import Project, lower, to_c
from lilliput.deploy.c.emit import emit
from lilliput.deploy.c.operators import Convolution, Softmax, Table
from lilliput.deploy.c.plan import plan
from lilliput.deploy.c.program import Port, Program
from lilliput.deploy.c.targets import target
from lilliput.deploy.c.training import Trainable, Trainer, add_training, arithmetic, reference, train
from lilliput.deploy.onnx import export
from lilliput.graph import trace
from lilliput.train import SGD, Fit, fit

STEPS = 20


def written(program, folder, name):
    """The program's project."""
    found, chosen = plan(program), target(name)
    files = emit(found, folder, target=chosen)
    return Project(folder=folder, plan=found, target=chosen, files=tuple(files), constants=0, code=None)


def drawn(program, classes=5, count=STEPS):
    rng = np.random.default_rng(1)
    return ([rng.integers(-128, 128, program.inputs[0].buffer.shape, dtype=np.int8) for _ in range(count)], rng.integers(0, classes, count).tolist())


def test_the_exponential_is_near_the_real_one():
    x = np.concatenate([np.linspace(-87, 0, 20001), -np.geomspace(1e-8, 87, 2001)]).astype(np.float32)
    found, want = arithmetic.exponential(x), np.exp(x.astype(np.float64))
    assert np.abs(found / want - 1).max() < 4 * 2.0**-24
    assert arithmetic.exponential(np.float32([0, -100])).tolist() == [1, 0]


def test_a_step_by_hand():
    trainer = Trainer.of(chain(), Trainable(rate=0.5))
    state = trainer.start()
    state.weights[:], state.bias[:] = 0, 0
    codes = trainer.backbone(drawn(trainer.backbone)[0][0])[0]
    features = (codes.reshape(-1).astype(float) - 7) * np.float32(0.03)
    assert trainer.step_(state, codes, 2) == 0
    # Without weights every class has probability 1/5.
    want = -0.5 * (0.2 - np.eye(5)[2])
    np.testing.assert_allclose(state.bias, want, rtol=1e-6)
    np.testing.assert_allclose(state.weights, np.outer(want, features), rtol=1e-5, atol=1e-7)


def test_the_state_begins_as_the_program():
    program = chain()
    trainer, (samples, _) = Trainer.of(program, Trainable(biases=2)), drawn(program, count=6)
    for x in samples:
        found = trainer.scores(trainer.start(), trainer.backbone(x)[0])
        port = program.outputs[0]
        real = np.clip(found / port.buffer.scale, -128 - port.buffer.zero, 127 - port.buffer.zero) * port.buffer.scale
        assert np.abs(real - port.real(program(x)[0]).reshape(-1)).max() <= 0.51 * port.buffer.scale


def autograd(trainer, state, codes, label):
    """Gradients of the same computation by torch, float64: int8 values forward, linear layers between the limits backward."""
    features, found = trainer.forward(state, codes)
    steps, buffer = trainer.tail, trainer.backbone.outputs[0].buffer
    at = torch.from_numpy((codes.astype(float) - buffer.zero) * buffer.scale).reshape(buffer.shape).permute(2, 0, 1)[None]
    changes = [torch.zeros(s.weights.shape[0], dtype=torch.float64, requires_grad=True) for s in trainer.trained]
    waiting = iter(changes)
    for step, out in zip(steps, found, strict=True):
        limits = torch.ones(step.output.shape)
        if isinstance(step, Convolution):
            weights = torch.from_numpy(step.weights * trainer.scales(step)[:, None, None, None]).permute(0, 3, 1, 2)
            top, left, bottom, right = step.window.pads
            padded = F.pad(at, (left, right, top, bottom))
            computed = F.conv2d(padded, weights, next(waiting), step.window.stride, 0, step.window.dilation, step.groups)
            limits = torch.from_numpy((out > step.low) & (out < step.high)).reshape(step.output.shape)
        else:
            computed = F.avg_pool2d(at, step.window.kernel, step.window.stride)
        real = torch.from_numpy((out.astype(float) - step.output.zero) * step.output.scale).reshape(step.output.shape)
        passed = computed * limits.permute(2, 0, 1)[None]
        at = passed + (real.permute(2, 0, 1)[None] - passed).detach()
    weights, bias = (torch.from_numpy(part.astype(np.float64)).requires_grad_() for part in (state.weights, state.bias))
    flat = at.permute(0, 2, 3, 1).flatten(1)
    np.testing.assert_allclose(flat.detach().numpy().reshape(-1), features, rtol=1e-6)
    F.cross_entropy(F.linear(flat, weights, bias), torch.tensor([label])).backward()
    return [part.grad.numpy() for part in (weights, bias, *changes)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("biases", [0, 1, 4])
def test_gradients_are_those_of_autograd(seed, biases):
    program = chain(seed)
    trainer = Trainer.of(program, Trainable(biases=biases, rate=1.0))
    x = np.random.default_rng(seed + 9).integers(-128, 128, program.inputs[0].buffer.shape, dtype=np.int8)
    state, codes = trainer.start(), trainer.backbone(x)[0]
    want = autograd(trainer, state, codes, seed)
    before = [state.weights.copy(), state.bias.copy(), *(c.copy() for c in state.changes)]
    trainer.step_(state, codes, seed)
    assert len(want) == 2 + biases
    for old, new, gradient in zip(before, [state.weights, state.bias, *state.changes], want, strict=True):
        assert np.abs(gradient).max() > 0
        # Float32: sums of many products, and the difference loses what the weight has more.
        assert np.abs((old - new) - gradient).max() < 2e-6 * (np.abs(gradient).max() + np.abs(old).max())


def test_what_cannot_be_trained_is_named():
    program = chain()
    with pytest.raises(PreconditionError, match="leave the first layer"):
        Trainer.of(program, Trainable(biases=5))
    with pytest.raises(PreconditionError, match="end at the input; train 5 at most"):
        Trainer.of(program, Trainable(biases=6))
    port = program.outputs[0]
    table = Table(inputs=(program.steps[-2].output,), output=program.steps[-1].inputs[0], layer="swish", table=np.zeros(256, np.int64))
    broken = Program(inputs=program.inputs, outputs=(port,), steps=(*program.steps[:-2], table, program.steps[-1]))
    assert Trainer.of(broken).tail == ()
    with pytest.raises(PreconditionError, match=r"end at swish \(Table\); train 0 at most"):
        Trainer.of(broken, Trainable(biases=1))
    with pytest.raises(PreconditionError, match="linear layer"):
        Trainer.of(Program(inputs=program.inputs, outputs=(Port(name="o", buffer=table.output, positions=np.arange(8)),), steps=program.steps[:-1]))
    with pytest.raises(PreconditionError, match="rate"):
        Trainable(rate=0)
    with pytest.raises(DataError, match="none of the 5"):
        Trainer.of(program).step_(Trainer.of(program).start(), np.zeros((1, 1, 8), np.int8), 5)


def test_a_softmax_behind_the_classifier_is_left_out():
    program = chain()
    port, last = program.outputs[0], program.steps[-1]
    out = Port(name="p", buffer=type(port.buffer)(name="p", shape=port.buffer.shape, scale=1 / 256, zero=-128), positions=port.positions)
    softmax = Softmax(inputs=(last.output,), output=out.buffer, layer="softmax")
    trainer = Trainer.of(Program(inputs=program.inputs, outputs=(out,), steps=(*program.steps, softmax)))
    assert trainer.classifier.layer == "classifier"
    assert len(trainer.backbone.steps) == len(program.steps) - 1


@pytest.mark.parametrize("name", ["cortex-m4", "riscv32", "cortex-m0"])
@pytest.mark.parametrize("biases", [0, 4])
def test_emulated_processors_train_as_numpy_does(name, biases, tmp_path):
    program = chain()
    made = add_training(written(program, tmp_path, name), Trainable(biases=biases, rate=0.05))
    samples, labels = drawn(program)
    state, classes = reference(made, samples, labels)
    found = train(made, samples, labels)
    assert found.state == state.tobytes()
    assert found.found == classes
    assert found.instructions > 0
    assert made.state == len(found.state) == 4 * (1 + 5 * 8 + 5 + (8 + 6 + 4 + 4 if biases else 0))
    moved = made.trainer.start()
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip([state.weights, state.bias, *state.changes], [moved.weights, moved.bias, *moved.changes],
                                                            strict=True))


HOST = """
#include <stdio.h>
#include "model_train.h"
static int8_t arena[MODEL_TRAIN_ARENA_BYTES] __attribute__((aligned(16)));
int main(void)
{
    model_state state;
    uint8_t label;
    model_start(&state);
    while (fread(arena + MODEL_INPUT_OFFSET, 1, MODEL_INPUT_BYTES, stdin) == MODEL_INPUT_BYTES && fread(&label, 1, 1, stdin))
        model_train(arena, &state, label);
    return fwrite(&state, sizeof state, 1, stdout) != 1;
}
"""


@pytest.mark.parametrize("flags", ["-O0", "-O3 -march=native", "-O3 -march=native -ffp-contract=fast"])
def test_the_host_trains_as_numpy_does(flags, tmp_path):
    program = chain(2)
    made = add_training(written(program, tmp_path, "host"), Trainable(biases=4, rate=0.05))
    samples, labels = drawn(program)
    (tmp_path / "main.c").write_text(HOST)
    subprocess.run(["make", f"CFLAGS={flags}"], cwd=tmp_path, check=True, capture_output=True)
    subprocess.run(["cc", "-std=c99", "main.c", "libmodel.a", "-o", "main"], cwd=tmp_path, check=True)
    given = b"".join(x.tobytes() + bytes([label]) for x, label in zip(samples, labels, strict=True))
    out = subprocess.run(["./main"], cwd=tmp_path, input=given, capture_output=True, check=True).stdout
    assert out == reference(made, samples, labels)[0].tobytes()
    assert "0 wrong codes" in subprocess.run(["make", "test"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    digits, folder = data.load("digits"), tmp_path_factory.mktemp("training")
    torch.manual_seed(0)
    network = fit(trace(Small(), digits.example()), digits, Fit(epochs=8, batch_size=32, optimizer=SGD(lr=0.1)), progress=False).model.eval()
    quantized = quantize.minmax(samples=256)(network, digits).model.eval()
    return digits, Path(export(quantized, folder / "m.onnx", digits.example(8)))


def accuracy(trainer, state, codes, labels):
    return np.mean([int(np.argmax(trainer.scores(state, x))) == label for x, label in zip(codes, labels, strict=True)])


def test_accuracy_comes_back_after_a_shift(learned):
    """Inverted and dimmed images."""
    digits, path = learned
    port = (program := lower(path)).inputs[0]
    for biases, rate, count in ((0, 0.05, 600), (1, 0.05, 300)):
        trainer = Trainer.of(program, Trainable(biases=biases, rate=rate))
        (x, y), (tx, ty) = next(digits.train.batches(count, seed=0)), next(digits.test.batches(150))
        high = float(x.max())
        given, tested = ([trainer.backbone(port.codes(image[None].numpy()))[0] for image in 0.8 * (high - images)] for images in (x, tx))
        clean = [trainer.backbone(port.codes(image[None].numpy()))[0] for image in tx]
        state = trainer.start()
        assert accuracy(trainer, state, clean, ty.tolist()) > 0.85
        before = accuracy(trainer, state, tested, ty.tolist())
        for codes, label in zip(given, y.tolist(), strict=True):
            trainer.step_(state, codes, label)
        after = accuracy(trainer, state, tested, ty.tolist())
        assert after > before + 0.2


def test_training_works_in_the_memory_that_inference_leaves(learned, tmp_path):
    _, path = learned
    project = to_c(path, tmp_path / "c")
    made = add_training(project, Trainable(biases=1))
    header = (tmp_path / "c" / "model_train.h").read_text()
    assert f"MODEL_TRAIN_ARENA_BYTES {made.arena}" in header
    assert f"{made.state} bytes" in header
    assert made.ram == made.arena + made.state
    head = add_training(to_c(path, tmp_path / "d"), Trainable())
    assert head.arena <= head.inference + 64 + 128
    # What was written is a project that may be replaced.
    assert to_c(path, tmp_path / "c").plan.arena == project.plan.arena
