"""What cannot be quantized is refused with an error that names the remedy, or noted; never a crash, never silence."""

import inspect
import math
from contextlib import suppress

import numpy as np
import onnx
import pytest
import torch
from quantize_nets import NETS, Arrays, ArraySplit, arrays
from torch import nn

from lilliput.core import Budget
from lilliput.core.errors import (
    BudgetError,
    CorruptFileError,
    DataError,
    LilliputError,
    PreconditionError,
    RecipeError,
    TraceError,
    UnknownNameError,
)
from lilliput.deploy.onnx import export, read
from lilliput.deploy.runtime import Session
from lilliput.quantize import (
    Integer,
    Quantizer,
    Scheme,
    Share,
    Uniform,
    dynamic,
    explain,
    fp8_training,
    gptq,
    hawq,
    kmeans_sharing,
    llm_int8,
    log_quant,
    lsq,
    mixed,
    peg,
    product_quantization,
    qat,
    recipes,
    static,
    twn,
)
from lilliput.train import SGD, Fit

FIT = Fit(epochs=1, batch_size=16, optimizer=SGD(lr=0.01))
DATA = arrays(2, 8, 8)
STEPS = {"static": static(), "gptq": gptq(), "qat": qat(fit=FIT), "lsq": lsq(fit=FIT), "dynamic": dynamic(), "llm_int8": llm_int8(),
         "kmeans_sharing": kmeans_sharing(fit=FIT), "fp8_training": fp8_training(fit=FIT)}


def _net():
    torch.manual_seed(0)
    return NETS["residual"][0]().eval()


class Other(Arrays):
    """Training inputs unlike the others."""

    def example(self, n=2):
        return torch.randn(n, 2, 8, 8)


def _split(inputs):
    return ArraySplit(inputs, torch.zeros(len(inputs), dtype=torch.long))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", STEPS)
def test_parameters_that_are_not_finite(name, value):
    for tensor in ("depthwise.weight", "head.bias"):
        model = _net()
        model.get_parameter(tensor).data[1] = value
        with pytest.raises(DataError, match=rf"{tensor} holds NaN or infinity: .*checkpoint"):
            STEPS[name](model, DATA)


def test_statistics_of_a_batch_norm_that_are_not_finite():
    model = _net()
    model.norm.running_var[0] = math.nan
    with pytest.raises(DataError, match=r"stem.weight holds NaN"):
        static()(model, DATA)
    with pytest.raises(DataError, match=r"stem: .*statistics of batch norms"):
        qat(fit=FIT)(model, DATA)


@pytest.mark.parametrize("name", ["static", "gptq", "qat", "lsq", "dynamic"])
def test_a_channel_of_zeros_stays_zero(name):
    model = _net()
    model.depthwise.weight.data[3] = 0
    model.depthwise.bias.data[3] = 0
    quantized = STEPS[name](model, DATA).model
    quantizer = next(q for q in quantized.modules() if isinstance(q, Quantizer) and q.weight and q.layer == "depthwise")
    scale = quantizer.scale.detach()
    assert torch.isfinite(scale).all()
    assert (scale > 0).all()
    assert (quantizer(torch.zeros(8, 1, 3, 3)) == 0).all()
    assert torch.isfinite(quantized(DATA.example(8))).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -3.0])
@pytest.mark.parametrize("name", ["static", "qat", "lsq"])
def test_a_constant_activation_is_kept(name, value):
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 4)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)) * 0 + value)

    torch.manual_seed(0)
    model, data = Constant().eval(), arrays(6)
    result = STEPS[name](model, data)
    quantizer = next(q for q in result.model.modules() if isinstance(q, Quantizer) and not q.weight and q.layer == "add_tensor")
    assert 0 < quantizer.scale < 1e3  # a learned one moves while it is trained
    if name != "lsq":
        assert quantizer(torch.full((2, 6), value)).tolist() == [[pytest.approx(value, rel=0.02)] * 6] * 2
    if name == "static":
        assert (result.model(data.example(8)) - model(data.example(8))).abs().max() <= 0.02 * model(data.example(8)).abs().max()


def test_arithmetic_with_several_numbers_in_a_row():
    class Numbers(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 4)

        def forward(self, x):
            return self.a(x) * 2 + 1 - 0.5 / 4

    model, data = Numbers().eval(), arrays(6)
    assert (static()(model, data).model(data.example(8)) - model(data.example(8))).abs().max() < 0.05


def test_a_single_sample_works_and_is_noted():
    data = arrays(2, 8, 8, samples=1)
    for step in (static(), lsq(fit=FIT)):
        result = step(_net(), data)
        assert any("calibrated on 1 samples only" in note for note in result.report.entries[0].notes)
        assert torch.isfinite(result.model.eval()(data.example(1))).all()


@pytest.mark.parametrize("samples", [0, -1, 2.5, "4", None])
def test_samples_are_a_number(samples):
    for step in (static(samples=samples), gptq(samples=samples), llm_int8(samples=samples)):
        with pytest.raises(PreconditionError, match="calibration needs samples"):
            step(_net(), DATA)


def test_data_of_another_shape_or_none():
    with pytest.raises(TraceError, match="channels"):
        static()(_net(), arrays(3, 8, 8))
    for shape in ((3, 8, 8), (2, 10, 10)):
        with pytest.raises(DataError, match=r"training inputs have shape .*bring them to one shape"):
            static()(_net(), Other(_split(torch.randn(40, *shape))))
    for step in STEPS.values():
        if step is not STEPS["dynamic"]:
            with pytest.raises(LilliputError, match=r"no samples|empty"):
                step(_net(), Other(_split(torch.randn(0, 2, 8, 8))))
    for data in (None, torch.randn(4, 2, 8, 8)):
        with pytest.raises(PreconditionError, match="pass data="):
            static()(_net(), data)
    with pytest.raises(PreconditionError, match="pass the network itself"):
        static()({"weights": 1}, DATA)


def test_a_network_that_fixes_its_batch():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 4)

        def forward(self, x):
            return self.a(x.reshape(2, 6))

    with pytest.raises(DataError, match="takes 2 samples at once"):
        static()(Two(), arrays(6))


def _with(parameter):
    return [name for name in recipes.__all__ if parameter in inspect.signature(getattr(recipes, name)).parameters and name != "ptq4dm"]


@pytest.mark.parametrize(("name", "parameter"), [(name, parameter) for parameter in ("weights", "activations", "bits") for name in _with(parameter)])
def test_every_recipe_refuses_widths_that_are_none(name, parameter):
    recipe = getattr(recipes, name)
    options = {"fit": FIT} if "fit" in inspect.signature(recipe).parameters else {}
    if "budget" in inspect.signature(recipe).parameters:
        options["budget"] = Budget(bits=4)
    for bits in (0, 33, "4"):
        with pytest.raises(LilliputError):
            recipe(**options, **{parameter: bits})(_net(), DATA)


def test_widths_of_grids():
    for bits in (0, 1, 17, 33, "4", 4.0, None):
        with pytest.raises(RecipeError, match="2 to 16 bits"):
            Integer(bits=bits)
    for bits in (0, 33, "4", 4.0, True, None):
        with pytest.raises(RecipeError, match="whole number from 1 to 16"):
            Uniform(weights=bits)
    with pytest.raises(RecipeError, match="binary and ternary"):
        static(weights=1)(_net(), DATA)
    with pytest.raises(RecipeError, match="2 to 6 bits"):
        log_quant(weights=9)(_net(), DATA)


def test_exclude():
    for step in (static(exclude=("stm",)), lsq(exclude=("stm",), fit=FIT), kmeans_sharing(exclude=("stm",), fit=FIT), dynamic(exclude=("stm",))):
        with pytest.raises(UnknownNameError, match=r"unknown layer in exclude 'stm'; did you mean .*stem"):
            step(_net(), DATA)
    with pytest.raises(RecipeError, match=r"a tuple of patterns: \('head',\)"):
        Scheme(exclude="head")
    for recipe in (kmeans_sharing, dynamic):
        with pytest.raises(RecipeError, match="a tuple of patterns"):
            recipe(exclude="head")(_net(), DATA)
    for step in (static(exclude=("*",)), lsq(exclude=("*",), fit=FIT), dynamic(exclude=("*",))):
        with pytest.raises(PreconditionError, match="quantize"):
            step(_net(), DATA)


def test_budgets_below_the_least():
    for step in (mixed(budget=Budget(bits=1.5)), mixed(budget=Budget(size=16)), hawq(budget=Budget(bits=0.5))):
        with pytest.raises(BudgetError, match=r"narrow|allow"):
            step(_net(), DATA)


def test_groups_and_blocks_that_do_not_divide():
    model, data = NETS["attention"][0]().eval(), arrays(5, 8)
    # Groups of unlike size are allowed; a group needs a feature, and a block a divisor of the row, so smaller ones are taken.
    quantized = peg(groups=3)(model, data).model
    assert (quantized(data.example(8)) - model(data.example(8))).abs().max() < 0.1 * model(data.example(8)).abs().max()
    for groups in (0, 2.5, "4"):
        with pytest.raises(RecipeError, match="one group or more"):
            peg(groups=groups)
    wide = nn.Sequential(nn.Linear(9, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    rows = product_quantization()(wide, arrays(9)).report.entries[0].layers
    assert {row["layer"]: row["block"] for row in rows}["0"] == 3
    for entries in (0, 1, "4"):
        with pytest.raises(RecipeError, match="2 to 65536 entries"):
            recipes.bit_goes_down(entries=entries)


@pytest.mark.parametrize("first", ["static", "dynamic", "twn"])
def test_a_network_that_is_quantized_already(first):
    quantized = {**STEPS, "twn": twn(fit=FIT)}[first](_net(), DATA).model
    for step in STEPS.values():
        with pytest.raises(PreconditionError, match="quantized already"):
            step(quantized, DATA)
    with pytest.raises(PreconditionError, match="no quantizers"):
        explain(_net(), _net(), DATA)


def test_training_mode_stays_with_the_callers_network():
    model = _net()
    wanted = static()(model, DATA).model(DATA.example(8))
    model.train()
    quantized = static()(model, DATA).model
    assert model.training
    assert all(module.training for module in model.modules())
    assert not quantized.training
    torch.testing.assert_close(quantized(DATA.example(8)), wanted)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 4)

    def forward(self, ids):
        return self.head(self.embed(ids).mean(1))


def test_inputs_of_whole_numbers():
    torch.manual_seed(0)
    tokens = torch.randint(0, 11, (48, 5))
    model, data = Tokens().eval(), Arrays(_split(tokens))
    for name in ("static", "lsq", "dynamic"):
        quantized = STEPS[name](model, data).model.eval()
        assert (quantized(tokens) - model(tokens)).abs().max() < 0.2 * model(tokens).abs().max()
        assert not any(q.layer == "ids" for q in quantized.modules() if isinstance(q, Quantizer))
    with pytest.raises(DataError, match=r"does not run on calibration inputs .*int64"):
        static()(Tokens(), Arrays(_split(tokens + 20)))
    with pytest.raises(TraceError, match=r"pass x.float\(\)"):
        static()(_net(), Arrays(_split(torch.randint(0, 255, (48, 2, 8, 8), dtype=torch.uint8))))


@pytest.mark.parametrize("name", STEPS)
def test_nothing_to_quantize(name):
    with pytest.raises(PreconditionError, match=r"nothing to|so nothing"):
        STEPS[name](nn.Sequential(nn.ReLU(), nn.Flatten()), DATA)


def test_what_cannot_be_traced_trained_or_exported(tmp_path):
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 4)

        def forward(self, x):
            return self.a(x) if x.sum() > 0 else x

    class Pair(Branch):
        def forward(self, x):
            return self.a(x), x

    class Unknown(Branch):
        def forward(self, x):
            return torch.special.bessel_j0(self.a(x))

    data = arrays(6)
    with pytest.raises(TraceError, match="data-dependent"):
        static()(Branch(), data)
    with pytest.raises(PreconditionError, match="returns a tuple"):
        lsq(fit=FIT)(Pair(), data)
    quantized = static()(Unknown(), data).model
    with pytest.raises(PreconditionError, match=r"cannot be written as ONNX.*bessel"):
        export(quantized, tmp_path / "net.onnx", data.example())
    assert not (tmp_path / "net.onnx").exists()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Networks whose weights are packed codes: levels in 4 bits, and tables."""
    folder, wide = tmp_path_factory.mktemp("packed"), nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    data, paths = arrays(8), []
    for name, step in (("levels", log_quant()), ("table", Share(method="quantize.kmeans_sharing", codebooks=kmeans_sharing(bits=2).codebooks))):
        paths.append(export(step(wide, data).model, folder / f"{name}.onnx", data.example(4)))
    return paths


def _codes(model):
    return [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.UINT8 and len(tensor.dims) == 1]


def test_packed_files_cut_short_or_with_codes_missing_are_refused(packed, tmp_path):
    for path in packed:
        whole = path.read_bytes()
        for length in (0, 1, len(whole) // 3, len(whole) - 7):
            (tmp_path / "cut.onnx").write_bytes(whole[:length])
            with pytest.raises(CorruptFileError, match=r"cut\.onnx"):
                Session(tmp_path / "cut.onnx")
        model = read(path)
        (codes, *_) = _codes(model)
        array = onnx.numpy_helper.to_array(codes)
        # Fewer bytes than the shape says, and a smaller shape with them.
        codes.raw_data = array[:-3].tobytes()
        (tmp_path / "short.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(CorruptFileError, match=r"short\.onnx"):
            Session(tmp_path / "short.onnx")
        codes.CopyFrom(onnx.numpy_helper.from_array(array[:-3], codes.name))
        (tmp_path / "short.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(LilliputError):
            Session(tmp_path / "short.onnx")(np.zeros((2, 8), np.float32))


def test_damaged_codes_stay_within_their_tables(packed, tmp_path):
    for path in packed:
        model = read(path)
        for codes in _codes(model):
            codes.raw_data = bytes(len(codes.raw_data) * [255])
        (tmp_path / "ones.onnx").write_bytes(model.SerializeToString())
        with suppress(LilliputError):
            assert np.isfinite(Session(tmp_path / "ones.onnx")(np.ones((2, 8), np.float32))).all()
