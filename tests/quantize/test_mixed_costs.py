"""What widths cost: tables, functions, stored bits; errors."""


import pytest

from lilliput.core import Budget, PreconditionError, UnknownNameError
from lilliput.quantize import Bits, Integer
from lilliput.quantize.levels import Ternary
from lilliput.quantize.mixed.costs import check, stored_bits, table


def test_tables_of_costs():
    options = [Bits(2, 8), Bits(4, 8)]
    assert table("latency", {"a": {2: 0.5, 4: 1.0, 8: 2.0}}, ["a"], options).tolist() == [[0.5, 1.0]]
    assert table("energy", lambda layer, bits: bits.weights * bits.activations + len(layer), ["a", "bb"], options).tolist() == [[17, 33], [18, 34]]
    with pytest.raises(UnknownNameError, match="latency table"):
        table("latency", {"a": {2: 1.0, 4: 1.0}}, ["b"], options)
    with pytest.raises(PreconditionError, match=r"lacks \[4\] bits for a"):
        table("latency", {"a": {2: 1.0}}, ["a"], options)


def test_budgets_need_something_that_widths_change():
    check(Budget(bits=4.0, size="10K"), {})
    check(Budget(latency="2ms"), {"latency": lambda layer, bits: 1.0})
    for budget, words in ((Budget(), "limits no cost"), (Budget(macs=0.5), "prune"), (Budget(latency="2ms"), "needs a table")):
        with pytest.raises(PreconditionError, match=words):
            check(budget, {})


def test_widths_as_onnx_stores_them():
    assert [stored_bits(Integer(bits=b)) for b in (2, 3, 4, 5, 8, 9)] == [4, 4, 4, 8, 8, 16]
    assert stored_bits(Ternary()) == 2
