"""The replay of a plan: sound plans pass, every broken one is caught."""

from dataclasses import replace

import numpy as np
import pytest
from planner_nets import Builder, ds_cnn, resnet8

from lilliput.core.errors import PreconditionError
from lilliput.deploy.c.emit import emit
from lilliput.deploy.c.operators import InPlaceDepthwise
from lilliput.deploy.c.plan import faults, greedy, lifetimes, plan


def sample(program):
    return [np.random.default_rng(1).integers(-128, 128, port.buffer.shape) for port in program.inputs]


def small():
    net = Builder((6, 5, 4))
    x = net.conv(net.input, 8, 3)
    y = net.conv(net.depthwise(net.conv(x, 8)), 8)
    return net.program(net.conv(net.mean(net.add(x, y)), 5))


@pytest.mark.parametrize("made", [small(), ds_cnn(), resnet8()], ids=["small", "keyword spotting", "image classification"])
@pytest.mark.parametrize("overlap", [False, True])
def test_sound_plans_pass(made, overlap):
    assert faults(plan(made, overlap=overlap), samples=[sample(made)]) == []


def test_greedy_plans_pass():
    made = small()
    assert faults(greedy(made), samples=[sample(made)]) == []


def moved(found, buffer, by):
    return replace(found, offsets={**found.offsets, buffer: found.offsets[buffer] + by}, arena=found.arena + max(by, 0))


def test_every_buffer_that_is_moved_into_another_is_caught():
    """Each buffer of an optimal plan in turn one word lower: where bytes that are still needed are hit, and nowhere else, the replay complains."""
    made = small()
    found = plan(made)
    caught = 0
    for buffer in lifetimes(found.program):
        if found.offsets[buffer] >= 4:
            broken = moved(found, buffer, -4)
            caught += bool(faults(broken, samples=[sample(made)]))
    assert caught >= 4


def test_an_input_too_close_behind_its_output():
    net = Builder((6, 5, 4))
    made = net.program(net.conv(net.input, 4, 3))
    source, out = made.inputs[0].buffer, made.steps[0].output
    lag = made.steps[0].lag(0)
    assert lag == (5 + 2) * 4
    close = replace(greedy(made), offsets={out: 0, source: lag}, arena=lag + source.size)
    assert faults(close, samples=[sample(made)], pixels_at_once=1) == []
    assert "is overwritten before it is read" in faults(moved(close, source, -4), pixels_at_once=1)[0]
    assert faults(close, pixels_at_once=2) != []


def test_buffers_outside_and_unaligned():
    found = plan(small())
    buffer = found.program.steps[2].output
    assert "not aligned" in faults(moved(found, buffer, 1))[0]
    assert "outside" in faults(replace(found, arena=found.arena - 4))[0]


def test_two_buffers_alive_in_one_place():
    made = small()
    found = greedy(made)
    first, second = made.steps[0].output, made.steps[1].output
    assert any("overwritten by" in fault for fault in faults(replace(found, offsets={**found.offsets, second: found.offsets[first]})))


def test_in_place_and_apart():
    made = ds_cnn()
    found = plan(made)
    step = next(s for s in found.program.steps if isinstance(s, InPlaceDepthwise))
    assert any("works in place" in fault for fault in faults(moved(found, step.output, 4)))
    scratch = replace(found, offsets={**found.offsets, step.scratch: found.offsets[step.output]})
    assert any("scratch memory lies over" in fault for fault in faults(scratch))


def test_wrong_codes_are_seen():
    """A replay with codes compares them, whatever the bytes' owners say."""
    made = small()
    other = replace(made, steps=tuple(replace(s, bias=s.bias + 1000) if i == 1 else s for i, s in enumerate(made.steps)))

    class Other(type(made)):
        def __call__(self, *arrays):
            return other(*arrays)

    found = greedy(made)
    lying = replace(found, program=Other(inputs=made.inputs, outputs=made.outputs, steps=made.steps))
    assert faults(lying, samples=[sample(made)]) == ["output conv6 differs from the program's"]


def test_no_project_is_written_for_a_broken_plan(tmp_path):
    found = plan(small())
    with pytest.raises(PreconditionError, match="the plan does not hold"):
        emit(replace(found, arena=found.arena - 4), tmp_path / "project")
    assert not (tmp_path / "project").exists()
