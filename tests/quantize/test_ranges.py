import pytest
import torch
from quantize_nets import Arrays, ArraySplit, arrays
from torch import nn

from lilliput.core.errors import DataError, PreconditionError, RecipeError
from lilliput.data.drawing import labelled_batches, sample_batches
from lilliput.quantize import MSE, Entropy, Integer, MinMax, Percentile, Quantizer, minmax
from lilliput.quantize.ranges import channel_bounds
from lilliput.quantize.streams import Extremes, Histogram

AFFINE, MIRROR = Integer(signed=False, symmetric=False), Integer()


def _stream(ranges, *batches):
    stream = ranges.stream()
    for batch in batches:
        stream.update(batch)
    return stream


@pytest.mark.parametrize("seed", range(6))
def test_histogram_in_parts_equals_the_whole(seed):
    torch.manual_seed(seed)
    x = torch.randn(6000) * torch.logspace(-3, 2, 6000) + seed
    whole, parts, backwards = Histogram(256), Histogram(256), Histogram(256)
    whole.update(x)
    for part in x.split(500):
        parts.update(part)
    for part in reversed(x.split(700)):
        backwards.update(part)
    for histogram in (parts, backwards):
        assert histogram.width == whole.width
        assert histogram.counts.sum() == len(x)
        offset = whole.start - histogram.start
        assert torch.equal(torch.roll(histogram.counts, -offset), whole.counts)
    lower = (torch.arange(256) + whole.start) * whole.width
    exact = torch.stack([((x.double() >= low) & (x.double() < low + whole.width)).sum() for low in lower])
    assert torch.equal(whole.counts, exact.double())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("stream", [Extremes, Histogram])
def test_values_that_are_not_finite_are_refused(stream, bad):
    with pytest.raises(DataError, match="NaN or infinite"):
        stream().update(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("x", [torch.zeros(100), torch.full((100,), 3.7), torch.full((5,), -1e-30), torch.tensor([1e20, -1e20])])
@pytest.mark.parametrize("ranges", [MinMax(), Percentile(), MSE(), Entropy()])
def test_constant_and_extreme_tensors(ranges, x):
    low, high = ranges(_stream(ranges, x), AFFINE)
    assert min(float(x.min()), 0) <= low <= high <= max(float(x.max()), 0)


def test_minmax():
    assert MinMax()(_stream(MinMax(), torch.tensor([1.0, 2]), torch.tensor([-3.0])), AFFINE) == (-3, 2)


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.9])
def test_percentile_equals_brute_force_to_a_bin(percentile):
    torch.manual_seed(0)
    x = torch.randn(50_000)
    ranges = Percentile(percentile=percentile)
    stream = _stream(ranges, *x.split(7000))
    low, high = ranges(stream, AFFINE)
    tail = round(len(x) * (1 - percentile / 100))
    for end, ordered in ((-low, (-x).sort().values), (high, x.sort().values), (ranges(stream, MIRROR)[1], x.abs().sort().values)):
        # Between the neighbours of the order statistic, and a bin's width around them.
        assert ordered[-tail - 2] - stream.width <= end <= ordered[-tail + 1] + stream.width


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_mse_is_as_good_as_brute_force(bits):
    torch.manual_seed(1)
    x = torch.randn(20_000) ** 3
    grid = Integer(bits=bits)
    ranges = MSE()

    def error(limit):
        scale, zero, _ = grid.parameters(torch.tensor(-limit), torch.tensor(limit))
        return ((((x / scale).round() + zero).clamp(grid.qmin, grid.qmax) - zero) * scale - x).square().sum().item()

    low, high = ranges(_stream(ranges, *x.split(3000)), grid)
    best = min(error(float(x.abs().max()) * i / 400) for i in range(1, 401))
    assert error(max(-low, high)) <= 1.05 * best
    assert error(max(-low, high)) <= error(float(x.abs().max()))


def test_mse_finds_both_ends_of_a_lopsided_tensor():
    x = torch.cat([torch.rand(3000) * 3 - 1, torch.tensor([25.0])])
    grid = Integer(bits=4, signed=False, symmetric=False)

    def error(low, high):
        scale, zero, _ = grid.parameters(torch.tensor(low), torch.tensor(high))
        return ((((x / scale).round() + zero).clamp(0, 15) - zero) * scale - x).square().sum().item()

    low, high = MSE()(_stream(MSE(), x), grid)
    best = min(error(-i / 20, j / 4) for i in range(1, 21) for j in range(2, 101))
    assert error(low, high) <= 1.05 * best < 0.5 * error(-1.0, 25.0)


def test_entropy_clips_a_lone_outlier_and_keeps_what_is_full():
    torch.manual_seed(0)
    body = torch.randn(100_000)
    low, high = Entropy()(_stream(Entropy(), torch.cat([body, torch.tensor([30.0])])), AFFINE)
    assert high < 15
    assert low < -3.5
    full = torch.rand(100_000)
    assert Entropy()(_stream(Entropy(), full), AFFINE)[1] > 0.95


@pytest.mark.parametrize("axis", [0, 1])
def test_channel_bounds_are_those_of_each_slice(axis):
    x = torch.randn(3, 4, 5)
    grid = Integer(axis=axis)
    for ranges in (MinMax(), Percentile(percentile=99)):
        low, high = channel_bounds(ranges, x, grid)
        for i in range(x.shape[axis]):
            assert (low[i], high[i]) == pytest.approx(ranges(_stream(ranges, x.select(axis, i)), grid))


def test_bad_settings():
    with pytest.raises(RecipeError, match="percentile"):
        Percentile(percentile=40)
    with pytest.raises(PreconditionError, match="histogram"):
        MSE()(Extremes(), AFFINE)


def test_calibration_draws_from_all_over_a_split_sorted_by_class():
    # Class k has inputs around k: the first samples would show the ranges of one class.
    classes = torch.arange(10).repeat_interleave(100)
    data = Arrays(ArraySplit(classes[:, None].float().expand(-1, 6) + torch.rand(1000, 6), classes))
    drawn = torch.cat(list(sample_batches(data.train, 64)))
    assert len(drawn) == 64
    assert len(drawn[:, 0].floor().unique()) == 10
    assert torch.equal(drawn, torch.cat(list(sample_batches(data.train, 64))))
    pairs = list(labelled_batches(data.train, 64))
    assert torch.equal(torch.cat([inputs for inputs, _ in pairs]), drawn)
    assert all((inputs[:, 0].floor() == targets).all() for inputs, targets in pairs)
    torch.manual_seed(0)
    quantized = minmax(samples=64)(nn.Sequential(nn.Linear(6, 4)).eval(), data).model
    inputs = next(module for module in quantized.modules() if isinstance(module, Quantizer) and not module.weight)
    assert 9 < inputs.scale.item() * 255 < 10


def test_all_samples_are_drawn_where_there_are_fewer():
    data = arrays(6, samples=40)
    assert torch.equal(torch.cat(list(sample_batches(data.train, 512))), data.train.inputs)
