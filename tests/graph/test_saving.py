"""Saved networks come back exactly; damaged and hostile files are refused, and nothing in them runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lilliput.core.errors import CorruptFileError, TraceError
from lilliput.graph.saving import load, save
from lilliput.graph.trace import Traced, trace

SHAPE = (2, 3, 6, 6)
fuzz = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.head = nn.Linear(8, 5)
        self.tied = nn.Linear(8, 5, bias=False)
        self.tied.weight = self.head.weight
        self.register_buffer("scale", torch.full((4, 1, 1), 1.5), persistent=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages(x) * self.scale
        a, b = x.chunk(2, 1)
        x = torch.cat([a, b.relu()], 1).reshape(x.shape[0], 8, -1).mean(-1)
        return self.head(self.drop(x)) + self.tied(x)


@cache
def network() -> Traced:
    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        model(torch.randn(8, *SHAPE[1:]))
    return trace(model.eval(), torch.zeros(SHAPE))


@cache
def saved() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        save(network(), Path(folder) / "net.pt2")
        return (Path(folder) / "net.pt2").read_bytes()


def written(folder: Path, data: bytes) -> Path:
    path = folder / "net.pt2"
    path.write_bytes(data)
    return path


def edited(edit: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED) -> bytes:
    """The saved archive with its records edited and written anew, CRCs and all."""
    with zipfile.ZipFile(io.BytesIO(saved())) as archive:
        root = archive.namelist()[0].partition("/")[0]
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    edit(records)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(f"{root}/{name}", data)
    return out.getvalue()


def edit_json(record: str, change: Callable[[Any], None]) -> bytes:
    def edit(records: dict[str, bytes]) -> None:
        value = json.loads(records[record])
        change(value)
        records[record] = json.dumps(value).encode()

    return edited(edit)


def edit_program(change: Callable[[Any], None]) -> bytes:
    return edit_json("models/model.json", change)


def edit_weights(change: Callable[[Any], None]) -> bytes:
    return edit_json("data/weights/model_weights_config.json", change)


def test_outputs_names_and_shapes_come_back_exactly(tmp_path: Path) -> None:
    back = load(written(tmp_path, saved()))
    x = torch.randn(5, *SHAPE[1:])
    assert isinstance(back, Traced)
    assert torch.equal(back(x), network()(x))
    assert dict(back.named_parameters()).keys() == dict(network().named_parameters()).keys()
    assert {name for name, _ in back.named_buffers()} == {name for name, _ in network().named_buffers()}
    assert back.meta["lilliput"] == network().meta["lilliput"]
    assert back.dynamic_batch
    assert back.example[0].shape == torch.Size(SHAPE)


def test_quantized_networks_come_back(tmp_path: Path) -> None:
    import lilliput.quantize.op  # noqa: F401 (defines the operator)

    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("scale", torch.full((3,), 0.01))
            self.register_buffer("zero", torch.zeros(3, dtype=torch.int32))

        def forward(self, x: Tensor) -> Tensor:
            weight = torch.ops.lilliput.fake_quantize(self.layer.weight, self.scale, self.zero, -128, 127, 0)
            return nn.functional.linear(x, weight, self.layer.bias)

    model, x = trace(Quantized(), torch.zeros(2, 4)), torch.randn(3, 4)
    save(model, tmp_path / "net.pt2")
    back = load(tmp_path / "net.pt2")
    assert torch.equal(back(x), model(x))
    assert back.tensor("zero").dtype == torch.int32


def test_ties_survive(tmp_path: Path) -> None:
    back = load(written(tmp_path, saved()))
    assert back.tensor("head.weight") is back.tensor("tied.weight")


def test_a_loaded_network_trains_and_saves_again(tmp_path: Path) -> None:
    back = load(written(tmp_path, saved())).train()
    before = back.tensor("stages.1.running_mean").clone()
    back(torch.randn(4, *SHAPE[1:])).square().sum().backward()
    assert all(p.grad is not None for p in back.parameters())
    assert not torch.equal(back.tensor("stages.1.running_mean"), before)
    save(back, tmp_path / "again.pt2")
    again, x = load(tmp_path / "again.pt2"), torch.randn(3, *SHAPE[1:])
    assert torch.equal(again(x), back.eval()(x))


def test_saving_leaves_the_network_alone_and_tells_nothing_of_the_machine(tmp_path: Path) -> None:
    model = trace(Net().train(), torch.zeros(SHAPE))
    code = model.code
    save(model, tmp_path / "net.pt2")
    assert model.training
    assert model.code == code
    assert b"stack_trace" not in (tmp_path / "net.pt2").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in (tmp_path / "net.pt2").read_bytes()


def test_torch_reads_what_we_write_and_we_read_what_torch_writes(tmp_path: Path) -> None:
    x = torch.randn(3, *SHAPE[1:])
    assert torch.equal(torch.export.load(written(tmp_path, saved())).module()(x), network()(x))
    program = torch.export.export(Net().eval(), (torch.ones(SHAPE),))
    torch.export.save(program, tmp_path / "theirs.pt2")
    back = load(tmp_path / "theirs.pt2")
    assert not back.dynamic_batch
    assert torch.equal(back(x[:2]), program.module()(x[:2]))


def test_structured_and_several_outputs(tmp_path: Path) -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> dict[str, Any]:
            values, _ = x.max(1)
            return {"sum": x + y, "parts": [values, (y * 2,)]}

    model = trace(Many(), (torch.zeros(2, 3), torch.zeros(2, 3)))
    save(model, tmp_path / "many.pt2")
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    back, want = load(tmp_path / "many.pt2")(x, y), model(x, y)
    assert torch.equal(back["sum"], want["sum"])
    assert torch.equal(back["parts"][0], want["parts"][0])
    assert torch.equal(back["parts"][1][0], want["parts"][1][0])


def test_a_failed_save_keeps_the_old_file(tmp_path: Path) -> None:
    path = written(tmp_path, b"old")
    broken = trace(Net(), torch.zeros(SHAPE))
    broken.set_tensor("stages.0.weight", torch.zeros(4, 2, 3, 3))
    with pytest.raises(TraceError, match="refuses"):
        save(broken, path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["net.pt2"]


@fuzz
@given(st.floats(0, 1, exclude_max=True))
def test_truncation_anywhere_is_refused(tmp_path: Path, where: float) -> None:
    with pytest.raises(CorruptFileError, match=r"net\.pt2"):
        load(written(tmp_path, saved()[: int(where * len(saved()))]))


@fuzz
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_a_flipped_byte_is_refused_or_does_no_harm(tmp_path: Path, where: float, flip: int) -> None:
    data = bytearray(saved())
    data[int(where * len(data))] ^= flip
    try:
        back = load(written(tmp_path, bytes(data)))
    except CorruptFileError:
        return
    # Padding and dates within the zip carry nothing.
    assert torch.equal(back(torch.ones(SHAPE)), network()(torch.ones(SHAPE)))


def test_every_flipped_weight_byte_is_caught(tmp_path: Path) -> None:
    payload = network().tensor("head.weight").detach().numpy().tobytes()
    start = saved().index(payload)
    for offset in range(0, len(payload), 13):
        data = bytearray(saved())
        data[start + offset] ^= 1
        with pytest.raises(CorruptFileError, match="CRC"):
            load(written(tmp_path, bytes(data)))


@fuzz
@given(st.binary(max_size=300))
def test_random_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(CorruptFileError):
        load(written(tmp_path, data))


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=6)


def replaced(value: Any, steps: list[float], new: Any) -> Any:
    """The JSON value with the element that the steps lead to replaced."""
    if steps and isinstance(value, dict) and value:
        key = list(value)[int(steps[0] * len(value))]
        return {**value, key: replaced(value[key], steps[1:], new)}
    if steps and isinstance(value, list) and value:
        index = int(steps[0] * len(value))
        return [*value[:index], replaced(value[index], steps[1:], new), *value[index + 1 :]]
    return new


@fuzz
@given(st.sampled_from(["models/model.json", "data/weights/model_weights_config.json"]),
       st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=10), json_values)
def test_edited_programs_load_or_are_refused(tmp_path: Path, record: str, steps: list[float], new: Any) -> None:
    def edit(records: dict[str, bytes]) -> None:
        records[record] = json.dumps(replaced(json.loads(records[record]), steps, new)).encode()

    try:
        back = load(written(tmp_path, edited(edit)))
    except CorruptFileError:
        return
    assert isinstance(back, Traced)


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "executed"))


def pickled(bomb: bytes) -> dict[str, bytes]:
    def as_pickle(config: Any) -> None:
        config["config"]["head.bias"]["use_pickle"] = True

    def legacy(records: dict[str, bytes]) -> None:
        records["data/weights/model.pt"] = bomb
        del records["data/weights/model_weights_config.json"]

    def custom(records: dict[str, bytes]) -> None:
        records["data/constants/opaque_obj_0"] = records["data/constants/custom_obj_0"] = bomb
        row = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
        records["data/constants/model_constants_config.json"] = json.dumps({"config": {"x": row}}).encode()

    def payload(records: dict[str, bytes]) -> None:
        config = json.loads(records["data/weights/model_weights_config.json"])
        as_pickle(config)
        records["data/weights/model_weights_config.json"] = json.dumps(config).encode()
        records["data/weights/" + config["config"]["head.bias"]["path_name"]] = bomb

    return {"weight": edited(payload), "legacy": edited(legacy), "object": edited(custom)}


@pytest.mark.parametrize("kind", ["weight", "legacy", "object"])
def test_pickles_are_refused_unopened(tmp_path: Path, kind: str) -> None:
    trap = tmp_path / "trap"
    pickle.loads(pickle.dumps(Bomb(trap)))
    assert trap.exists(), "the bomb must work"
    trap.unlink()
    with pytest.raises(CorruptFileError):
        load(written(tmp_path, pickled(pickle.dumps(Bomb(trap)))[kind]))
    assert not trap.exists()


def test_sample_inputs_and_expressions_are_never_evaluated(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = f"__import__('pathlib').Path({str(trap)!r}).write_text('executed')"

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: code if k == "expr_str" else poison(v) for k, v in value.items()}
        return [poison(v) for v in value] if isinstance(value, list) else value

    def edit(records: dict[str, bytes]) -> None:
        records["data/sample_inputs/model.pt"] = pickle.dumps(Bomb(trap))
        program = poison(json.loads(records["models/model.json"]))
        program["guards_code"] = [code]
        records["models/model.json"] = json.dumps(program).encode()

    back = load(written(tmp_path, edited(edit)))
    assert torch.equal(back(torch.ones(SHAPE)), network()(torch.ones(SHAPE)))
    assert not trap.exists()


@pytest.mark.parametrize("target", [
    "torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.hub.load", "torch.load", "_operator.attrgetter",
    "os.system", "builtins.eval", "torch.ops.higher_order.cond", "torch.ops.aten.relu.default.__class__", "math.factorial",
    "torch.ops.aten.set_.source_Tensor", "torch.ops.prim.device.default", "torch.ops.aten.nothing.default", "", "torch.ops.aten.warn.default",
])
def test_targets_that_are_no_tensor_operators_are_refused(tmp_path: Path, target: str) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][3]["target"] = target

    with pytest.raises(CorruptFileError):
        load(written(tmp_path, edit_program(change)))


def test_a_missing_custom_operator_says_what_to_import(tmp_path: Path) -> None:
    def change(program: Any) -> None:
        program["graph_module"]["graph"]["nodes"][3]["target"] = "torch.ops.lilliput.unheard_of.default"

    with pytest.raises(CorruptFileError, match="import lilliput"):
        load(written(tmp_path, edit_program(change)))


def test_weights_reaching_beyond_their_record_are_refused(tmp_path: Path) -> None:
    for key, value in {"sizes": [{"as_int": 6}], "storage_offset": {"as_int": 1}, "strides": [{"as_int": 2}]}.items():
        def change(config: Any, key: str = key, value: Any = value) -> None:
            config["config"]["head.bias"]["tensor_meta"][key] = value

        with pytest.raises(CorruptFileError, match="beyond its record"):
            load(written(tmp_path, edit_weights(change)))


def test_expanding_a_byte_into_memory_is_refused(tmp_path: Path) -> None:
    def change(config: Any) -> None:
        config["config"]["head.bias"]["tensor_meta"].update(sizes=[{"as_int": 2**40}], strides=[{"as_int": 0}])

    with pytest.raises(CorruptFileError, match="expand"):
        load(written(tmp_path, edit_weights(change)))


def test_huge_inputs_and_splits_are_refused(tmp_path: Path) -> None:
    def wide(program: Any) -> None:
        program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"][1] = {"as_int": 2**30}

    def split(program: Any) -> None:
        node = next(n for n in program["graph_module"]["graph"]["nodes"] if "chunk" in n["target"])
        node["target"] = "torch.ops.aten.tensor_split.sections"
        node["inputs"][1] = {"name": "sections", "arg": {"as_int": 2**50}, "kind": 1}

    for change, reason in ((wide, "elements"), (split, "tensors")):
        with pytest.raises(CorruptFileError, match=reason):
            load(written(tmp_path, edit_program(change)))


def test_compressed_members_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptFileError, match="compressed"):
        load(written(tmp_path, edited(lambda records: None, zipfile.ZIP_DEFLATED)))


def test_a_missing_file_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "absent.pt2")
    with pytest.raises(CorruptFileError, match="missing"):
        load(written(tmp_path, edited(lambda records: records.pop("models/model.json"))))  # type: ignore[arg-type,return-value]
