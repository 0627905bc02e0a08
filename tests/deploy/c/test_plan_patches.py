"""First stages in patches: the same codes, the multiplications counted, and the way into patches chosen by memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planner_nets import Builder, autoencoder, mobilenet_v2, port

from lilliput.core.errors import BudgetError, PreconditionError
from lilliput.deploy.c.operators import AveragePool, MaxPool, Table, Window
from lilliput.deploy.c.plan import faults, greedy, plan
from lilliput.deploy.c.plan.patches import cuts, in_patches
from lilliput.deploy.c.plan.stage import reach, stages


def sample(program, seed=1):
    return [np.random.default_rng(seed).integers(-128, 128, p.buffer.shape) for p in program.inputs]


def same(made, patched):
    """Whether all buffers that both have hold the same codes, and vary."""
    want, found = made.values(*sample(made)), patched.values(*sample(made))
    common = [b for b in want if b in found]
    assert len(np.unique(want[common[1]])) > 3
    return all((want[b] == found[b]).all() for b in common)


def pool(net, x, kind, window):
    out = net.buffer(f"pool{len(net.steps)}", (*window.size(*x.shape[:2]), x.shape[2]))
    net.steps.append(kind(inputs=(x,), output=out, layer=out.name, image=x.shape, window=window))
    return out


def table(net, x):
    out = net.buffer(f"table{len(net.steps)}", x.shape)
    net.steps.append(Table(inputs=(x,), output=out, layer=out.name, table=net.rng.permutation(256) - 128))
    return out


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_stage_in_any_patches_gives_the_same_codes(data):
    draw = lambda *choices: data.draw(st.sampled_from(choices))  # noqa: E731
    net = Builder((draw(7, 9, 12), draw(6, 8, 11), 3), seed=data.draw(st.integers(0, 99)))
    x = net.input
    for _ in range(data.draw(st.integers(1, 4))):
        kind = draw("conv", "conv", "depthwise", "residual", "max", "mean", "table")
        if kind == "conv":
            x = net.conv(x, 4, draw(1, 3, (5, 2)), draw(1, 1, 2))
        elif kind == "depthwise":
            x = net.depthwise(x, draw(1, 2))
        elif kind == "residual":
            x = net.add(x, net.conv(net.conv(x, 5, 3), x.shape[2], 3))
        elif kind == "table":
            x = table(net, x)
        else:
            x = pool(net, x, MaxPool if kind == "max" else AveragePool, Window(kernel=(3, 2), stride=(draw(1, 2), 1), pads=(1, 0, 1, 1)))
    made = net.program(net.conv(x, 6))
    found = list(stages(made))
    assert found
    stage = draw(*found)
    height, width, _ = stage.images[stage.output]
    patched = in_patches(stage, data.draw(st.integers(1, height)), data.draw(st.integers(1, width)))
    want, codes = made.values(*sample(made)), patched.values(*sample(made))
    assert (want[stage.output] == codes[stage.output]).all()
    assert (want[made.outputs[0].buffer] == codes[made.outputs[0].buffer]).all()
    assert faults(greedy(patched), samples=[sample(made)]) == []


def test_what_a_patch_reads():
    window = Window(kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1))
    assert reach(window, 0, (0, 2), 10) == (0, 4)  # rows -1 ... 3
    assert reach(window, 0, (2, 4), 10) == (3, 8)
    assert reach(window, 0, (4, 5), 10) == (7, 10)
    assert cuts(10, 3) == [(0, 3), (3, 7), (7, 10)]


def test_multiplications_of_the_halo_by_hand():
    # 3 x 3 over 3 x 3, 1 channel each: two patches of 4 of 8 rows; the first layer's rows are 5 and 5 instead of 8, 8 columns of 9 taps each.
    net = Builder((8, 8, 1))
    made = net.program(net.conv(net.conv(net.input, 1, 3), 1, 3))
    stage = list(stages(made))[-1]
    assert stage.count == 2
    assert in_patches(stage, 2, 1).macs - made.macs == 2 * 8 * 9


def test_a_stage_ends_where_one_tensor_is_left():
    net = Builder((8, 8, 4))
    x = net.conv(net.input, 4, 3)
    made = net.program(net.conv(net.mean(net.add(x, net.conv(net.conv(x, 4), 4))), 3))
    assert [stage.count for stage in stages(made)][:3] == [1, 4, 5]


def test_four_times_less_memory_for_a_quarter_more_multiplications():
    made = mobilenet_v2(size=224, width=1.0, depth=4)
    for overlap in (False, True):
        whole = plan(made, overlap=overlap)
        found = plan(made, overlap=overlap, ram=whole.arena // 4)
        assert found.patches is not None
        assert found.arena * 4 <= whole.arena
        assert found.program.macs - made.macs == found.patches.extra
        assert found.program.macs <= 1.25 * made.macs
        assert faults(found) == []


def test_patches_of_a_mobilenet_give_the_same_codes():
    made = mobilenet_v2(size=64, width=0.35, depth=4)
    whole, found = plan(made), plan(made, patches=True)
    assert 3 * found.arena < whole.arena
    assert same(made, found.program)
    assert faults(found, samples=[sample(made)]) == []


def test_patches_come_where_memory_asks_for_them_and_no_more_than_needed():
    made = mobilenet_v2(size=48, width=0.35, depth=3)
    whole, least = plan(made), plan(made, patches=True)
    assert plan(made, ram=whole.arena).patches is None
    assert plan(made, ram=whole.arena, patches=False).patches is None
    few, many = plan(made, ram=whole.arena - 4), plan(made, ram=(least.arena + whole.arena) // 3)
    assert 0 <= few.patches.extra <= many.patches.extra
    assert few.patches.rows * few.patches.columns < least.patches.rows * least.patches.columns


def test_too_little_memory_names_the_layer_and_the_bytes():
    net = Builder((8, 8, 4))
    made = net.program(net.conv(net.conv(net.input, 16, 1), 4, 1))
    with pytest.raises(BudgetError, match=r"takes 1,280 bytes, 280 more than the 1,000 given; its fullest step is conv[01]"):
        plan(made, ram=1000, overlap=False, patches=False)
    with pytest.raises(BudgetError, match="more than the 100 given"):
        plan(made, ram=100)


def test_no_stage_is_no_patches():
    with pytest.raises(PreconditionError, match="no first stage"):
        plan(autoencoder(), patches=True)


def test_a_program_with_two_inputs_has_no_stage():
    net = Builder((4, 4, 2))
    second = net.buffer("second", (4, 4, 2))
    made = net.program(net.add(net.input, second))
    assert list(stages(type(made)(inputs=(port(net.input), port(second)), outputs=made.outputs, steps=made.steps))) == []
