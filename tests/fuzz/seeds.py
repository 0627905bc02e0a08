"""Valid inputs for the fuzz targets to start from: `python seeds.py FOLDER`."""

import sys
from pathlib import Path

import numpy as np

from lilliput import coding
from lilliput.coding.arithmetic import Arithmetic
from lilliput.coding.cabac import Cabac

rng = np.random.default_rng(0)
SYMBOLS = {
    "few": rng.geometric(0.4, 50).clip(0, 15).astype(np.uint8),
    "streams": rng.geometric(0.6, 4100).clip(0, 15).astype(np.uint8),
    "lanes": rng.geometric(0.4, 3000).clip(0, 15).astype(np.uint8),
    "all": rng.integers(0, 256, 400).astype(np.uint8),
    "many": np.where(rng.random(66_000) < 0.97, 0, 1).astype(np.uint8),
    "exceptions": np.where(rng.random(3000) < 0.999, 7, rng.integers(0, 256, 3000)).astype(np.uint8),
    "constant": np.full(20, 9, np.uint8),
}


def static(coder: coding.Coder, symbols: np.ndarray) -> bytes:
    """A count of three bytes, the table's size in two, table, chunk."""
    table = coder.table(coding.count(symbols))
    return len(symbols).to_bytes(3, "little") + len(table).to_bytes(2, "little") + table + coder.encode(symbols, table)


def main(folder: Path) -> None:
    coders = [("rans", coding.Rans()), ("rans", coding.Rans(pairs=True)), ("huffman", coding.Huffman())]
    coders += [("tunstall", coding.Tunstall(width=width)) for width in (8, 9)]
    coders += [("arithmetic", Arithmetic(adaptive=adaptive)) for adaptive in (False, True)]
    for name, coder in coders:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for what, symbols in SYMBOLS.items():
            (folder / name / f"{what}-{coder!r}".replace(" ", "")).write_bytes(static(coder, symbols))
    # So many that adaptive frequencies are halved.
    (folder / "arithmetic" / "halved").write_bytes(static(Arithmetic(adaptive=True), rng.integers(0, 2, 2**17 + 100).astype(np.uint8)))
    (folder / "cabac").mkdir(parents=True, exist_ok=True)
    for spread in (0.3, 1, 4, 100, 1e8):
        values = np.rint(rng.laplace(scale=spread, size=(12, 25))).clip(-2**31, 2**31 - 1).astype(np.int32)
        for what, matrix in (("plain", values), ("rows", values * (np.arange(12) % 3 == 0)[:, None]), ("signs", abs(values))):
            (folder / "cabac" / f"{what}-{spread}").write_bytes(bytes(matrix.shape) + Cabac().encode(matrix.astype(np.int32)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
