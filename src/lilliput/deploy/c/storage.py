"""How weights lie in flash: plain int8, packed into a few bits with a table of their values, or entropy-coded; decoded a few filters at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lilliput.deploy.c.operators import Buffer, Convolution
from lilliput.deploy.c.operators.convolution import Stored
from lilliput.deploy.c.program import Program

Array = NDArray[Any]
# Bytes of decoded weights at a time, where a few filters fit.
_TILE = 2048
_FILTERS = 4
# rANS: states in [2^23, 2^31), frequencies in 1/2^8.
_LOW, _SCALE = 1 << 23, 8


class Storage(Protocol):
    """What becomes of a layer's weights `(O, n)`, int8."""

    def __call__(self, weights: Array) -> tuple[str, Mapping[str, Array], Mapping[str, int]] | None:
        """Kernel, arrays and fields; None where plain int8 takes no more."""
        ...


@dataclass(frozen=True, kw_only=True)
class Plain:
    """One byte to a weight."""

    def __call__(self, weights: Array) -> None:
        """See `Storage`."""
        del weights


@dataclass(frozen=True, kw_only=True)
class Packed:
    """1, 2 or 4 bits to a weight where a layer has at most 2, 4 or 16 different codes, and a table of these: integers of few bits,
    ternary, binary and codebook weights alike.

    Indices from the lowest bits of each byte up, filter after filter, each filter from a new byte on.
    """

    def __call__(self, weights: Array) -> tuple[str, Mapping[str, Array], Mapping[str, int]] | None:
        """See `Storage`."""
        table, index = np.unique(weights, return_inverse=True)
        bits = next((b for b in (1, 2, 4) if table.size <= 1 << b), None)
        if bits is None:
            return None
        per = 8 // bits
        rows: Array = index.reshape(weights.shape).astype(np.uint8)
        rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % per))).reshape(len(rows), -1, per)
        codes = (rows << (np.arange(per, dtype=np.uint8) * bits)).sum(2).astype(np.uint8)
        arrays = {"codes": codes, "table": table.astype(np.int8)}
        return ("packed_conv_s8", arrays, {"bits": bits}) if _bytes(arrays) < weights.size else None


@dataclass(frozen=True, kw_only=True)
class Coded:
    """Entropy-coded where that takes less than `Packed`: a range coder with a fixed probability for each of up to 256 codes. (duda2014ans)

    One stream to a layer, decoded filter after filter: four bytes of state, then the bytes that the decoder takes in turn. Symbol
    `s` is where `slots[x mod 256] = s`, and `x` becomes `f_s (x div 256) + x mod 256 - c_s`.
    """

    def __call__(self, weights: Array) -> tuple[str, Mapping[str, Array], Mapping[str, int]] | None:
        """See `Storage`."""
        packed = Packed()(weights)
        table, index, counts = np.unique(weights, return_inverse=True, return_counts=True)
        if table.size > 128:
            return packed
        frequencies = quantized_frequencies(counts)
        starts = np.concatenate([[0], np.cumsum(frequencies)[:-1]])
        arrays = {"codes": encode(index.reshape(-1), frequencies, starts), "table": table.astype(np.int8),
                  "slots": np.repeat(np.arange(table.size), frequencies).astype(np.uint8), "frequencies": frequencies.astype(np.uint16),
                  "starts": starts.astype(np.uint16)}
        least = weights.size if packed is None else _bytes(packed[1])
        return ("coded_conv_s8", arrays, {}) if _bytes(arrays) < least else packed


def _bytes(arrays: Mapping[str, Array]) -> int:
    return sum(array.nbytes for array in arrays.values())


def quantized_frequencies(counts: Array) -> Array:
    """Whole frequencies of at least 1 that add up to 256, near the counts: the largest remainders round up."""
    total = 1 << _SCALE
    ideal: Array = counts / counts.sum() * total
    found: Array = np.maximum(np.floor(ideal), 1).astype(np.int64)
    while found.sum() != total:
        step = 1 if found.sum() < total else -1
        # Where one more, or one fewer, costs the fewest bits.
        gain = counts * (np.log2(found + step, where=found + step > 0, out=np.full(found.size, -np.inf)) - np.log2(found))
        found[int(np.argmax(gain))] += step
    return found


def encode(symbols: Array, frequencies: Array, starts: Array) -> Array:
    """The stream of symbols, uint8; written backwards, so that it is read forwards."""
    state, out = _LOW, bytearray()
    for symbol in symbols[::-1].tolist():
        frequency = int(frequencies[symbol])
        while state >= ((_LOW >> _SCALE) << 8) * frequency:
            out.append(state & 255)
            state >>= 8
        state = ((state // frequency) << _SCALE) + state % frequency + int(starts[symbol])
    out += bytes((state >> shift) & 255 for shift in (0, 8, 16, 24))
    return np.frombuffer(bytes(out[::-1]), np.uint8)


def decode(stream: Array, count: int, frequencies: Array, starts: Array) -> Array:
    """The symbols of a stream: what the C kernel does."""
    slots = np.repeat(np.arange(frequencies.size), frequencies).tolist()
    data = stream.tolist()
    state, at, found = int.from_bytes(bytes(data[:4]), "big"), 4, []
    for _ in range(count):
        slot = state & ((1 << _SCALE) - 1)
        symbol = slots[slot]
        state = int(frequencies[symbol]) * (state >> _SCALE) + slot - int(starts[symbol])
        while state < _LOW and at < len(data):
            state = (state << 8) | data[at]
            at += 1
        found.append(symbol)
    return np.array(found, np.int64)


def store(program: Program, storage: Storage) -> Program:
    """The program with the weights of its convolutions and linear layers stored in that way; depthwise and grouped ones, of few weights, plain."""
    steps = []
    for step in program.steps:
        found = storage(step.weights.reshape(len(step.weights), -1).astype(np.int8)) if type(step) is Convolution and step.groups == 1 else None
        if found is not None:
            assert isinstance(step, Convolution)
            size = step.weights[0].size
            tile = min(max(_TILE // size // _FILTERS * _FILTERS, _FILTERS), len(step.weights))
            scratch = Buffer(name=f"{step.output.name}.weights", shape=(tile * size,), scale=1.0, zero=0)
            step = replace(step, stored=Stored(kernel=found[0], arrays=found[1], fields=found[2], tile=tile), scratch=scratch)
        steps.append(step)
    return replace(program, steps=tuple(steps))
