"""CABAC's decoder as csrc/coding/cabac.h and range_coder.h specify it, and as slow as Python is."""

import numpy as np

ONE = 2**31 - 1


class Context:
    """Two estimates and how often they were used."""

    def __init__(self):
        self.a = self.b = 2**30
        self.n = 0

    @property
    def p(self):
        return (self.a + self.b) >> 16 | 1

    def learn(self, bit, rate):
        ripe = (self.n + 1).bit_length()
        s, t = min(4 + rate, ripe), min(7 + rate, ripe)
        self.a += (ONE >> s if bit else 0) - (self.a >> s)
        self.b += (ONE >> t if bit else 0) - (self.b >> t)
        self.n += 1


class Reader:
    """One stream."""

    def __init__(self, coded):
        coded = bytes(coded)
        self.rate, self.signs, self.neighbours = coded[0] & 7, coded[0] >> 3 & 3, coded[0] >> 5
        self.limit, self.shift = coded[1] & 15, coded[1] >> 4
        body = coded[2:]
        self.raw = [byte >> i & 1 for byte in reversed(body) for i in range(8)]
        self.code = int.from_bytes(body + bytes(4 * len(body) + 64), "big")
        self.left = 8 * (5 * len(body) + 64)
        self.low, self.range, self.width, self.raw_at = 0, 2**64 - 1, 64, 0
        self.contexts = {}

    def bin(self, *name):
        context = self.contexts.setdefault(name, Context())
        split = (self.range >> 16) * context.p
        bit = (self.code >> (self.left - self.width)) < self.low + split
        if bit:
            self.range = split
        else:
            self.low += split
            self.range -= split
        context.learn(bit, self.rate)
        if self.range < 2**32:
            self.low, self.range, self.width = self.low << 32, self.range << 32, self.width + 32
        return int(bit)

    def bits(self, count):
        taken = sum(bit << i for i, bit in enumerate(self.raw[self.raw_at:self.raw_at + count]))
        self.raw_at += count
        return taken

    def size(self):
        tail = next((t for t, least in enumerate((57, 49, 41, 33), 1) if self.range >= 2**least), 5)
        return 2 + (self.width - 64) // 8 + tail + -(-self.raw_at // 8)

    def integer(self, before, before_that, above):
        c = 0
        if self.neighbours:
            c = min(3, (abs(before) + abs(before_that) + (abs(above) if self.neighbours == 2 else 0)) >> self.shift)
        if not self.bin("significance", c):
            return 0
        t, other = ((v > 0) + 2 * (v < 0) for v in (before, before_that))
        minus = self.bits(1) if self.signs == 0 else self.bin("sign", t + 3 * other * (self.signs == 2))
        k = 1
        while k <= self.limit and self.bin("greater", k, c):
            k += 1
        if k > self.limit:
            e = 0
            while e < 31 and self.bin("prefix", e, c):
                e += 1
            number = 1
            for _ in range(min(e, 2)):
                number = 2 * number + self.bin("suffix", e, number)
            k += (number << max(e - 2, 0)) + self.bits(max(e - 2, 0)) - 1
        return -k if minus else k


def decode(coded, shape):
    """The matrix, and the size that the stream should have."""
    reader, (rows, columns) = Reader(coded), shape
    values = [0, 0]
    for i in range(rows * columns):
        values.append(reader.integer(values[-1], values[-2], values[2 + i - columns] if i >= columns else 0))
    return np.array(values[2:], np.int32).reshape(shape), reader.size()
