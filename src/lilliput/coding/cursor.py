"""Small numbers and texts in bytes, read with every length checked."""

from __future__ import annotations

from lilliput.core import CorruptFileError


def varint(value: int) -> bytes:
    """A whole number, seven bits a byte, the low ones first; the high bit says that more follow.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def block(data: bytes) -> bytes:
    """Bytes after their length."""
    return varint(len(data)) + data


class Cursor:
    """Where reading stands in some bytes; raises `CorruptFileError` beyond their end."""

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self.data, self.what, self.at = memoryview(data), what, 0

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > self.left:
            raise self.damaged(f"it ends {size - self.left} bytes too early")
        self.at += size
        return bytes(self.data[self.at - size:self.at])

    def byte(self) -> int:
        """The next byte."""
        return self.take(1)[0]

    def varint(self, limit: int = 2**63) -> int:
        """The next number, which must be below `limit`."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 63:
                raise self.damaged("a number has too many bytes")
        if value >= limit:
            raise self.damaged(f"the number {value} is out of range")
        return value

    def block(self) -> bytes:
        """The next bytes after their length."""
        return self.take(self.varint())

    def text(self) -> str:
        """The next text."""
        try:
            return self.block().decode()
        except UnicodeDecodeError:
            raise self.damaged("a name is not UTF-8") from None

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise self.damaged(f"{self.left} bytes follow its end")

    def damaged(self, why: str) -> CorruptFileError:
        """The error to raise."""
        return CorruptFileError(f"{self.what} is damaged: {why}")
