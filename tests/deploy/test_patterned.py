"""Packed n:m weights: an exact round trip, fewer bytes, and the same network in ONNX Runtime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lilliput.core.bits import packed_size
from lilliput.core.errors import PreconditionError
from lilliput.deploy import Session, export, lookup
from lilliput.deploy.patterned import Packed, decode, pack_patterns, pack_rows
from lilliput.deploy.runtime import open_session
from lilliput.graph import trace
from lilliput.prune.patterns import NM
from lilliput.prune.semistructured import Patterned, follows


def patterned(n, m, outputs, inputs, seed, dtype):
    """Rows of which `n` of every `m` at most are not zero."""
    rng = np.random.default_rng(seed)
    groups = -(-inputs // m)
    order = rng.random((outputs, groups, m)).argsort(2)
    kept = np.zeros((outputs, groups, m), bool)
    np.put_along_axis(kept, order[:, :, :n], rng.random((outputs, groups, n)) < 0.9, axis=2)
    values = rng.integers(1, 100, (outputs, groups, m)).astype(dtype)
    return (values * kept).reshape(outputs, -1)[:, :inputs].astype(dtype)


sizes = {"outputs": st.integers(1, 9), "inputs": st.integers(1, 40), "seed": st.integers(0, 2**32 - 1)}
kinds = st.sampled_from([np.float32, np.float16, np.int8, np.uint8])


@settings(deadline=None, max_examples=50)
@given(m=st.integers(1, 20), data=st.data(), dtype=kinds, **sizes)
def test_any_rows_survive(m, data, dtype, outputs, inputs, seed):
    n = data.draw(st.integers(1, m))
    rows = patterned(n, m, outputs, inputs, seed, dtype)
    packed = pack_rows(rows, n, m)
    np.testing.assert_array_equal(packed.unpack(), rows)
    assert packed.unpack().dtype == dtype


@settings(deadline=None, max_examples=12)
@given(m=st.integers(2, 20), data=st.data(), dtype=kinds, **sizes)
def test_standard_operators_decode_them(m, data, dtype, outputs, inputs, seed):
    rows = patterned(n := data.draw(st.integers(1, m)), m, outputs, inputs, seed, dtype)
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="network"), ir_version=10)
    build = lookup.Builder(model, "w")
    value = decode(build, pack_rows(rows, n, m))
    model.graph.extend(build.nodes)
    value.name = "found"
    model.graph.outputs.append(value)
    proto = ir.to_proto(model)
    proto.graph.output[0].type.tensor_type.elem_type = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    np.testing.assert_array_equal(open_session(proto.SerializeToString(), threads=1).run(None, {})[0], rows)


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 5)), m=st.integers(-1, 300), inputs=st.integers(-1, 12),
       seed=st.integers(0, 99))
def test_any_positions_are_taken_or_refused(shape, m, inputs, seed):
    positions = np.random.default_rng(seed).integers(0, 5, shape).astype(np.uint8)
    try:
        packed = Packed(values=np.ones(shape, np.float32), positions=positions, m=m, inputs=inputs)
    except PreconditionError as error:
        assert "pack_rows" in str(error)  # noqa: PT017
    else:
        assert packed.unpack().shape == (shape[0], inputs)


def test_bad_rows_name_the_remedy():
    with pytest.raises(PreconditionError, match="3 of some 4 weights are not zero, more than 2: prune"):
        pack_rows(np.array([[1, 1, 1, 0]]), 2, 4)
    for n, m in ((0, 4), (5, 4), (2, 300)):
        with pytest.raises(PreconditionError, match="0 < n <= m <= 256"):
            pack_rows(np.zeros((2, 8)), n, m)


class Small(nn.Module):
    """A convolution whose channels do not divide by four, one that turns its rows, and products of two and three axes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 48, 3), nn.Conv2d(48, 40, 3, groups=2)
        self.mix, self.head = nn.Linear(40, 90), nn.Linear(90, 70)

    def forward(self, x):
        x = torch.relu(self.b(torch.relu(self.a(x)))).flatten(2).transpose(1, 2)
        return self.head(torch.relu(self.mix(x)).mean(1))


def sparse(pattern=NM(n=2, m=4)):
    torch.manual_seed(0)
    traced = trace(Small().eval(), torch.zeros(2, 3, 8, 8))
    plan = Patterned(pattern=pattern).plan(traced)
    scores = [traced.tensor(name).detach().abs().numpy() for name in plan.names]
    return plan.apply(plan.keep(scores, np.ones(len(scores))), traced)


def initialisers(path):
    return {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("pattern", [NM(n=2, m=4), NM(n=1, m=4), NM(n=3, m=8)])
def test_a_packed_file_is_smaller_and_computes_the_same(pattern, tmp_path):
    model, x = sparse(pattern), torch.randn(5, 3, 8, 8)
    assert all(follows(model.tensor(f"{name}.weight"), pattern) for name in ("a", "b", "mix", "head"))
    plain = export(model, tmp_path / "plain.onnx", x)
    small = pack_patterns(plain, tmp_path / "small.onnx", n=pattern.n, m=pattern.m)
    np.testing.assert_array_equal(Session(small)(x.numpy()), Session(plain)(x.numpy()))
    stored, dense = initialisers(small), initialisers(plain)
    weights = sum(array.nbytes for array in dense.values() if array.ndim > 1 and array.nbytes > 4000)
    values = sum(array.nbytes for name, array in stored.items() if ".values" in name)
    codes = sum(array.nbytes for name, array in stored.items() if ".codes" in name)
    width = (pattern.m - 1).bit_length()
    # Rests of rows are filled up, so a little over the pattern's own share.
    assert values == pytest.approx(weights * pattern.n / pattern.m, rel=0.06)
    assert values >= weights * pattern.n / pattern.m
    assert codes == pytest.approx(packed_size(values // 4, 1) * width, abs=4 * width)
    # The operators of a decoder take less than two and a half kilobytes.
    assert small.stat().st_size < plain.stat().st_size - weights + values + codes + 4 * 2500
    assert all(node.domain == "" for node in onnx.load(small).graph.node)


def test_integers_of_a_quantized_network_keep_the_pattern_and_are_packed(tmp_path):
    from tests.quantize.quantize_nets import arrays

    from lilliput.quantize import minmax

    data = arrays(3, 8, 8, samples=64)
    model = minmax(samples=64)(sparse(), data).model.eval()
    x = data.train.inputs[:8]
    plain = export(model, tmp_path / "plain.onnx", x)
    small = pack_patterns(plain, tmp_path / "small.onnx")
    values = {name: array for name, array in initialisers(small).items() if ".values" in name}
    # The others' 1296 and 3600 bytes would not get smaller.
    assert [array.shape for array in values.values()] == [(40, 54, 2), (70, 23, 2)]
    assert all(array.dtype == np.int8 for array in values.values())
    np.testing.assert_array_equal(Session(small)(x.numpy()), Session(plain)(x.numpy()))
    assert small.stat().st_size < plain.stat().st_size


def test_dense_networks_are_refused(tmp_path):
    torch.manual_seed(0)
    plain = export(Small().eval(), tmp_path / "plain.onnx", torch.zeros(2, 3, 8, 8))
    with pytest.raises(PreconditionError, match="prune it first"):
        pack_patterns(plain, tmp_path / "small.onnx")
    assert not (tmp_path / "small.onnx").exists()
