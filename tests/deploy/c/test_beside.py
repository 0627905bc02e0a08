"""What a model takes here and in TensorFlow Lite Micro, counted on this machine."""

import importlib.util
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c import beside, lower
from lilliput.deploy.c.harness import call

TINY = Path(__file__).parents[1] / "tflite" / "tiny.tflite"
micro = pytest.mark.skipif(importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed: make test-litert")
pytestmark = pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")


def test_our_instructions_are_counted_exactly_and_alike(tmp_path):
    once, again = (beside._ours(TINY, tmp_path / name) for name in ("a", "b"))
    assert once == again
    program = lower(TINY)
    # A multiplication takes one instruction at least, and at most some dozens with all around it.
    assert program.macs / 16 < once.instructions < 60 * program.macs + 10_000
    assert once.flash == once.code + once.constants > sum(step.weight_bytes for step in program.steps)


def test_only_what_runs_within_the_function_is_counted(tmp_path):
    (tmp_path / "main.c").write_text("volatile int x;\n__attribute__((noinline)) void inner(int n) { while (n--) x++; }\n"
                                     "__attribute__((noinline)) void counted(int n) { inner(n); x = 0; }\n"
                                     "int main(int c, char **v) { inner(5000); counted(c > 1 ? 2000 : 1000); return x != 0; }\n")
    call(["cc", "-O1", "main.c", "-o", "main"], tmp_path)
    (short, names, _), (long, _, _) = (beside._count(("counted",), ["./main", *more], tmp_path) for more in ([], ["more"]))
    assert {"counted", "inner"} <= names
    assert "main" not in names
    per_loop = (long - short) / 1000
    assert per_loop == int(per_loop)
    assert 0 < short - 1000 * per_loop < 30


@micro
def test_micro_takes_more_of_everything_for_the_same_model():
    ours, theirs = beside.beside_micro(TINY)
    assert (ours.runtime, theirs.runtime) == ("lilliput", "TensorFlow Lite Micro")
    found = zip(asdict(ours).values(), asdict(theirs).values(), strict=True)
    assert all(a < b for a, b in list(found)[1:])
    assert theirs.constants == TINY.stat().st_size


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(PreconditionError, match=r"model\.onnx is none"):
        beside.beside_micro("model.onnx")
    if importlib.util.find_spec("tflite_micro") is None:
        with pytest.raises(PreconditionError, match="pip install tflite-micro"):
            beside._micro(TINY, tmp_path, Path(sys.executable))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreconditionError, match="install the package valgrind"):
        beside.beside_micro(TINY)
