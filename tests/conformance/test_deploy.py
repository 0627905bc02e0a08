"""The conformance of deployment: the artefact gives the integer reference's codes on the host and on an emulated Arm core."""

import subprocess

import numpy as np
import pytest

from lilliput import methods, quantize, zoo
from lilliput.data import from_splits
from lilliput.deploy.c import Bytes, Code, Limits, SubByte, harness, lower, run, to_c
from lilliput.deploy.c.plan import faults, plan
from lilliput.deploy.c.targets import TARGETS
from lilliput.deploy.onnx import export
from lilliput.deploy.redistribute import Redistribute
from lilliput.graph import trace
from lilliput.quantize.bits import Bits
from lilliput.quantize.posttraining import Static
from lilliput.quantize.scheme import Scheme
from lilliput.train import SGD, Fit, evaluate

# The four networks of MLPerf Tiny, small where that changes nothing but time.
NETWORKS = {
    "image classification": ("resnet8", {}, 10, (3, 32, 32)), "keyword spotting": ("ds_cnn", {}, 12, (1, 49, 10)),
    "visual wake words": ("mobilenet_v1", {"width": 0.25}, 2, (3, 96, 96)), "anomaly detection": ("autoencoder", {}, 0, (640,)),
}


@pytest.fixture(scope="module", params=list(NETWORKS))
def model(request, tmp_path_factory):
    name, options, classes, shape = NETWORKS[request.param]
    random = np.random.default_rng(0)
    splits = {key: (random.normal(size=(8, *shape)).astype(np.float32), random.integers(0, max(classes, 2), 8)) for key in ("train", "val", "test")}
    data = from_splits("noise", splits, num_classes=max(classes, 2))
    network = trace(zoo.create(name, num_classes=classes, in_chans=shape[0], seed=0, options=options).eval(), data.example())
    path = tmp_path_factory.mktemp("deploy") / "model.onnx"
    return export(quantize.minmax(samples=8)(network, data).model.eval(), path, data.example(2)), splits["test"][0][:1]


def test_the_host_gives_the_reference_s_codes(model, tmp_path):
    project = to_c(model[0], tmp_path / "c", target="host")
    done = subprocess.run(["make", "-s", "test", "CFLAGS=-O2 -fsanitize=address,undefined"], cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2 samples, 0 wrong codes", done.stderr


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_an_emulated_core_gives_the_reference_s_codes_and_is_measured(model, tmp_path, target):
    absent = harness.missing(TARGETS[target])
    if absent:
        pytest.skip(absent)
    project = to_c(model[0], tmp_path / "c", target=target)
    trial = run(project, [[model[1]]])
    assert trial.wrong == 0
    assert trial.instructions > 0.05 * lower(model[0]).macs
    assert 0 < trial.stack < 4096
    assert project.code is not None
    assert project.flash > project.code > 500


def widths(layers):
    """8, 4 and 2 bits in turn, of weights and of activations; 8 at the ends."""
    inner = {layer: Bits((8, 4, 2)[i % 3], (4, 2, 8)[i // 3 % 3]) for i, layer in enumerate(layers)}
    return inner | {layers[0]: Bits(8, 8), layers[-1]: Bits(8, 8)}


@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_mixed_widths_of_weights_and_activations_give_the_reference_s_codes(tmp_path, target):
    random = np.random.default_rng(0)
    splits = {key: (random.normal(size=(8, 3, 32, 32)).astype(np.float32), random.integers(0, 10, 8)) for key in ("train", "val", "test")}
    data = from_splits("noise", splits, num_classes=10)
    network = trace(zoo.create("resnet8", num_classes=10, in_chans=3, seed=0).eval(), data.example())
    quantized = Static(scheme=Scheme(bits=widths, others=4), samples=8)(network, data).model.eval()
    # A step of two bits is a third of the range.
    path = export(quantized, tmp_path / "model.onnx", data.example(2), tolerance=1.0)
    plain, packed = (to_c(path, tmp_path / f"c{i}", target=target, code=Code(activations=how)) for i, how in enumerate((Bytes(), SubByte())))
    assert packed.plan.arena < 0.7 * plain.plan.arena
    assert {step.stored.fields["bits"] if getattr(step, "stored", None) else 8 for step in packed.plan.program.steps if step.macs} == {8, 4, 2}
    assert {step.output.bits for step in packed.plan.program.steps} == {8, 4, 2}
    if target == "host":
        done = subprocess.run(["make", "-s", "test", "CFLAGS=-O2 -fsanitize=address,undefined"], cwd=packed.folder, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "2 samples, 0 wrong codes", done.stderr
    elif harness.missing(TARGETS[target]) is None:
        trial, whole = (run(made, [[splits["test"][0][:1]]]) for made in (packed, plain))
        assert trial.wrong == 0
        assert (trial.outputs[0][0] == whole.outputs[0][0]).all()
        assert trial.instructions > 0


def test_memory_is_planned_within_what_lives_at_once(model):
    program = lower(model[0])
    plain, shared = plan(program, overlap=False), plan(program)
    assert plain.bound <= plain.arena
    assert shared.arena <= plain.arena
    assert not faults(shared)


def test_a_redistributed_mobilenet_runs_in_a_quarter_of_the_memory(tmp_path):
    random = np.random.default_rng(0)
    splits = {key: (random.normal(size=(4, 3, 224, 224)).astype(np.float32), np.arange(4) % 2) for key in ("train", "val", "test")}
    data = from_splits("noise", splits, num_classes=2)
    network = trace(zoo.create("mobilenet_v2", num_classes=2, in_chans=3, seed=0).eval(), data.example())
    changed = Redistribute()(network, data).model
    path = export(quantize.minmax(samples=4)(changed, data).model.eval(), tmp_path / "model.onnx", data.example(2), tolerance=1.0)
    program = lower(path)
    whole = plan(program)
    project = to_c(path, tmp_path / "c", target="host", limits=Limits(ram=whole.arena // 4))
    assert project.plan.arena <= whole.arena // 4
    assert program.macs < project.plan.program.macs < 1.05 * program.macs
    done = subprocess.run(["make", "-s", "test", "CFLAGS=-O2"], cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2 samples, 0 wrong codes", done.stderr


def test_a_redistributed_network_learns_what_it_knew(digits, trained):
    changed = Redistribute(stride=2, fit=Fit(epochs=6, batch_size=64, optimizer=SGD(lr=0.05)))(trained, digits).model
    assert evaluate(changed, digits.test) >= evaluate(trained, digits.test) - 2


@pytest.mark.parametrize("name", [row.id for row in methods.family("deploy").rows if row.works])
def test_rows_name_what_exists(name):
    assert callable(methods.build(name))
