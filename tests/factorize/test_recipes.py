"""Recipes as text: options reach the pieces, and order says what can follow what."""

import pytest
from factorize_nets import Data, plain

from lilliput import factorize
from lilliput.core import Budget, RecipeError
from lilliput.pipelines.bind import Context, bind
from lilliput.pipelines.recipe import Recipe


def steps(*texts):
    recipe = Recipe.of({"model": "resnet8", "data": "digits", "steps": list(texts)})
    return bind(recipe, Context(original=plain(), data=Data(), measures={"latency": lambda model: 1.0}))


def test_options_reach_the_pieces():
    first, second, third, fourth = steps({"quantize.svd": {"macs": "50%", "across": {"separable": {}}}}, {"quantize.gsvd": {"params": "50%", "rounds": 5}},
                                         {"quantize.tucker": {"macs": "50%", "ranks": {"equal_slope": {}}}},
                                         {"quantize.transform_quantization": {"sharing": {"each": {"bits": 2}}, "distortion": {"output_error": {}}}})
    assert first.budget == Budget(macs="50%")
    assert first.decomposition == factorize.Separable()
    assert "latency" in first.measure
    assert second.decomposition == factorize.Responses(rounds=5)
    assert third.allocation == factorize.EqualSlope()
    assert fourth.sharing == factorize.Each(bits=2)
    assert fourth.distortion == factorize.OutputError()


def test_low_rank_leaves_weights_free_and_codes_do_not():
    assert len(steps({"quantize.svd": {"macs": "50%"}}, {"prune.fpgm": {"macs": "50%"}}, "quantize.minmax")) == 3
    assert len(steps({"quantize.filter_basis": {"macs": "50%"}}, {"quantize.cnnpack": {"bits": 4}})) == 2
    for texts in (("quantize.minmax", {"quantize.tucker": {"macs": "50%"}}), ("quantize.cnnpack", "quantize.minmax"),
                  ("quantize.transform_quantization", {"prune.fpgm": {"macs": "50%"}})):
        with pytest.raises(RecipeError, match=r"quantized already|whose integers are fixed"):
            steps(*texts)
