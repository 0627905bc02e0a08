"""From a file to a folder of C: what is written, what is refused, and that the compiled program gives the reference's codes."""

import contextlib
import json
import subprocess

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.deploy.c.test_lowering import GRIDS, around, model
from typer.testing import CliRunner

from lilliput import data, quantize, zoo
from lilliput.cli import app
from lilliput.core import BudgetError, LilliputError, PreconditionError
from lilliput.core.errors import DataError, UnknownNameError
from lilliput.deploy import export
from lilliput.deploy.c import Code, Coded, Limits, Packed, Plain, SingleRounding, harness, lower, read_samples, run, to_c
from lilliput.deploy.c.emit import emit
from lilliput.deploy.c.plan import greedy
from lilliput.deploy.c.targets import TARGETS
from lilliput.graph import trace

node = onnx.helper.make_node


@pytest.fixture(scope="module")
def quantized():
    digits = data.load("digits")
    return quantize.minmax(samples=64)(trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0).eval(), digits.example()), digits).model.eval()


@pytest.fixture(scope="module")
def resnet(quantized, tmp_path_factory):
    return export(quantized, tmp_path_factory.mktemp("project") / "resnet8.onnx", data.load("digits").example(8))


def test_the_folder_builds_and_passes_its_own_test(resnet, tmp_path):
    project = to_c(resnet, tmp_path / "firmware", target="host", code=Code(name="digits"))
    assert {path.name for path in project.folder.iterdir()} == set(project.files)
    flags = "CFLAGS=-O2 -Wall -Wextra -Wpedantic -Werror -fsanitize=address,undefined"
    done = subprocess.run(["make", "-s", "test", flags], cwd=project.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "2 samples, 0 wrong codes"), done.stderr
    header = (project.folder / "digits.h").read_text()
    assert f"#define DIGITS_ARENA_BYTES {project.plan.arena}" in header
    assert "8 x 8 x 1, rows, columns, channels" in header or "8 x 8" in header
    assert "float" not in (project.folder / "digits.c").read_text()
    assert "malloc" not in "".join(path.read_text() for path in project.folder.glob("*.c") if not path.name.endswith("_test.c"))


def test_a_quantized_network_needs_no_file(quantized, tmp_path):
    assert to_c(quantized, tmp_path / "a", target="host").plan.arena > 0


@pytest.mark.parametrize("name", [name for name, target in TARGETS.items() if target.board])
def test_emulated_processors_give_the_same_codes(resnet, tmp_path, name):
    absent = harness.missing(TARGETS[name])
    if absent:
        pytest.skip(absent)
    project = to_c(resnet, tmp_path / "firmware", target=name)
    images = next(data.load("digits").test.batches(2))[0].numpy()
    trial = run(project, [[image[None]] for image in images])
    assert (trial.samples, trial.wrong) == (2, 0)
    assert 0.2e6 < trial.instructions < 2e7
    assert trial.stack < 4096


def test_single_rounding_reaches_the_processor(resnet, tmp_path):
    project = to_c(resnet, tmp_path / "firmware", target="host", code=Code(rounding=SingleRounding()))
    done = subprocess.run(["make", "-s", "test"], cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "2 samples, 0 wrong codes"
    assert "#define LP_SINGLE_ROUNDING" in (project.folder / "lp.h").read_text()


def test_a_project_for_another_processor_says_where_its_test_runs(resnet, tmp_path):
    project = to_c(resnet, tmp_path / "firmware", target="cortex-m55")
    done = subprocess.run(["make", "-s", "test"], cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "lilliput deploy --run" in done.stderr


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """ResNet-8 with weights of 4 bits but for the ends."""
    digits = data.load("digits")
    network = trace(zoo.create("resnet8", num_classes=10, in_chans=1, seed=0).eval(), digits.example())
    return export(quantize.minmax(samples=64, weights=4)(network, digits).model.eval(), tmp_path_factory.mktemp("narrow") / "m.onnx", digits.example(8))


def test_few_bits_take_less_flash_and_give_the_same_codes(narrow, tmp_path):
    taken = {}
    for storage in (Plain(), Packed(), Coded()):
        project = to_c(narrow, tmp_path / repr(storage), target="host", code=Code(storage=storage))
        done = subprocess.run(["make", "-s", "test", "CFLAGS=-O2 -fsanitize=address,undefined"], cwd=project.folder, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "2 samples, 0 wrong codes"
        taken[type(storage)] = sum(step.weight_bytes for step in project.plan.program)
    assert taken[Packed] <= 0.52 * taken[Plain]
    assert taken[Coded] < taken[Packed]


@pytest.mark.parametrize("name", ["cortex-m0", "cortex-m4", "cortex-m55"])
def test_decoded_weights_on_processors(narrow, tmp_path, name):
    absent = harness.missing(TARGETS[name])
    if absent:
        pytest.skip(absent)
    image = next(data.load("digits").test.batches(1))[0].numpy()
    for storage in (Packed(), Coded()):
        assert run(to_c(narrow, tmp_path / repr(storage), target=name, code=Code(storage=storage)), [[image]]).wrong == 0


def test_limits_say_by_how_much(resnet, tmp_path):
    with pytest.raises(BudgetError, match=r"more than the 600 given.*layer1"):
        to_c(resnet, tmp_path / "a", limits=Limits(ram=600))
    with pytest.raises(BudgetError, match=r"more than the 20,480 of flash; the largest layer is Conv layer3\.0\.conv2"):
        to_c(resnet, tmp_path / "a", limits=Limits(flash=20 * 1024))
    assert not (tmp_path / "a").exists()


def test_folders_of_others_are_left_alone(resnet, tmp_path):
    folder = tmp_path / "firmware"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(PreconditionError, match=r"thesis\.txt"):
        to_c(resnet, folder, target="host")
    (folder / "thesis.txt").unlink()
    to_c(resnet, folder, target="host", code=Code(name="first"))
    # Made anew over itself, without what the new one has not.
    assert not (to_c(resnet, folder, target="host", code=Code(name="second")).folder / "first.c").exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(PreconditionError, match=r"notes\.txt"):
        to_c(resnet, folder, target="host")


def test_names_are_c_names_and_targets_exist(resnet, tmp_path):
    with pytest.raises(PreconditionError, match="C name"):
        to_c(resnet, tmp_path / "a", target="host", code=Code(name="../evil"))
    with pytest.raises(UnknownNameError, match="cortex-m4"):
        to_c(resnet, tmp_path / "a", target="cortex-m44")
    with pytest.raises(PreconditionError, match="no file"):
        to_c(tmp_path / "nothing.onnx", tmp_path / "a")


WEIGHTS = {"w": np.ones((4, 2, 1, 1), np.int8), "sw": np.float32(1), "zw": np.int8(0)}
LAYER = [node("DequantizeLinear", ["w", "sw", "zw"], ["wq"])]


def bad_models():
    conv = [*LAYER, node("Conv", ["xq", "wq"], ["r"])]
    image = [1, 2, 4, 4]
    yield "float island", model(around([*LAYER, node("Conv", ["xq", "wq"], ["m"]), node("Conv", ["m", "wq2"], ["r"])]), image, None,
                                GRIDS | WEIGHTS | {"wq2": np.ones((4, 4, 1, 1), np.float32)}), "before it is quantized|float weights"
    yield "dynamic axis", model(around(conv), [1, 2, "h", 4], None, GRIDS | WEIGHTS), "axis 2.*not fixed"
    yield "batch", model(around(conv), [3, 2, 4, 4], None, GRIDS | WEIGHTS), "batch of 3"
    yield "operator", model(around([node("Det", ["xq"], ["r"])]), [1, 4, 4], [1], GRIDS), "Det"
    yield "volume", model(around([node("DequantizeLinear", ["w", "sw", "zw"], ["wq"]), node("Conv", ["xq", "wq"], ["r"])]), [1, 2, 3, 3, 3], None,
                          GRIDS | WEIGHTS | {"w": np.ones((4, 2, 1, 1, 1), np.int8)}), "3 axes"
    yield "codes of 16 bits", model(around(conv), image, None, GRIDS | WEIGHTS | {"zx": np.int16(0)}), "int16"
    yield "empty", model(around([node("Relu", ["xq"], ["r"])]), [1, 0], None, GRIDS), "not fixed|no elements"
    yield "float input", model([*LAYER, node("Conv", ["x", "wq"], ["r"]), *around([])[-2:]], image, None, GRIDS | WEIGHTS), "quantized"
    yield "float output", model([*around(conv)[:-2], node("Identity", ["r"], ["y"])], image, None, GRIDS | WEIGHTS), "output y"
    yield "scales", model(around(conv), image, None, GRIDS | WEIGHTS | {"sy": np.float32(0)}), "calibrate"
    yield "infinite", model(around(conv), image, None, GRIDS | WEIGHTS | {"sw": np.float32(np.inf)}), "calibrate"
    yield "sums", model(around([*LAYER, node("DequantizeLinear", ["b", "sb"], ["bq"]), node("Conv", ["xq", "wq", "bq"], ["r"])]), image, None,
                        GRIDS | WEIGHTS | {"b": np.full(4, 2**31 - 1, np.int32), "sb": np.float32(1 / 8)}), "32 bits"
    yield "unsymmetric", model(around(conv), image, None, GRIDS | WEIGHTS | {"w": np.full((4, 2, 1, 1), 255, np.uint8), "zw": np.uint8(3)}), "symmetric"
    yield "loop", model(around([node("If", ["c"], ["r"], then_branch=_branch(), else_branch=_branch())]), image, None,
                        GRIDS | {"c": np.array(True)}), "loop or a branch"


def _branch():
    value = onnx.helper.make_tensor_value_info("v", onnx.TensorProto.FLOAT, [])
    return onnx.helper.make_graph([node("Constant", [], ["v"], value_float=1.0)], "b", [], [value])


@pytest.mark.parametrize(("proto", "says"), [pytest.param(proto, says, id=name) for name, proto, says in bad_models()])
def test_what_cannot_be_generated_is_named(proto, says):
    with pytest.raises(LilliputError, match=says):
        lower(proto)


def test_a_cycle_is_refused(tmp_path):
    proto = model(around([node("Add", ["xq", "q"], ["p"]), node("Relu", ["p"], ["q"]), node("Relu", ["q"], ["r"])]), [1, 4], None, GRIDS)
    (tmp_path / "cycle.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(LilliputError):
        lower(tmp_path / "cycle.onnx")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_never_crash(resnet, tmp_path, data):
    content = bytearray(resnet.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.sampled_from([len(content), len(content) // 2, 100]))]
    path = tmp_path / "damaged.onnx"
    path.write_bytes(bytes(content))
    with contextlib.suppress(LilliputError):
        emit(greedy(lower(path)), tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} <= {"damaged.onnx", "out"}


def test_samples_of_a_run(resnet, tmp_path):
    inputs = lower(resnet).inputs
    np.savez(tmp_path / "good.npz", input=np.zeros((3, 1, 8, 8), np.float32))
    assert len(read_samples(tmp_path / "good.npz", inputs)) == 3
    for name, array in {"shape": np.zeros((3, 8, 8)), "type": np.array(["a"]), "nan": np.full((1, 1, 8, 8), np.nan)}.items():
        np.savez(tmp_path / f"{name}.npz", input=array)
        with pytest.raises(DataError, match="input"):
            read_samples(tmp_path / f"{name}.npz", inputs)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match="savez"):
        read_samples(tmp_path / "text.npz", inputs)


def test_the_command_line(resnet, tmp_path):
    out = tmp_path / "firmware"
    found = CliRunner().invoke(app, ["deploy", str(resnet), "--target", "host", "--ram", "64K", "-o", str(out), "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.output)["arena"] <= 64 * 1024
    assert (out / "model.h").exists()
    for arguments, says in ((["--ram", "lots"], "128K"), (["--rounding", "up"], "double or single"), (["--target", "avr"], "unknown target")):
        failed = CliRunner().invoke(app, ["deploy", str(resnet), "-o", str(tmp_path / "b"), *arguments])
        assert failed.exit_code == 2
        assert says in failed.output
