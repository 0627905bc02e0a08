"""Figures of coding."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.figures.base import Cell, Figure, Rows


def _coder(source: str, coder: str, *, above: float = float("inf"), decode: float, two: float = 0.0, encode: float = 0.0) -> Callable[[Rows], Cell]:
    """Percent above the entropy, and millions of symbols a second."""

    def cell(rows: Rows) -> Cell:
        r = rows[f"{source}:{coder}"]
        text = f"{r['above']:.3f}% over {r['entropy']:.3f} bits; decoded {r['decode']:,.0f}, two threads {r['decode_two']:,.0f}, encoded {r['encode']:,.0f} MB/s"
        peers = [rows[name] for name in (f"{source}:{peer}" for peer in ("constriction", "zstd3", "zstd19")) if name in rows]
        theirs = "; ".join(f"{p['coder']} {p['above']:.2f}%, {p['decode']:,.0f}, {p['encode']:,.0f} MB/s" for p in peers)
        return text, theirs, r["above"] <= above and r["decode"] >= decode and r["decode_two"] >= two and r["encode"] >= encode

    return cell


def _zeros(rows: Rows) -> Cell:
    """The same, and the size beside zstd's."""
    text, theirs, good = _coder("zeros", "rans", above=0.15, decode=0)(rows)
    smaller = [100 * (1 - rows["zeros:rans"]["bits"] / rows[f"zeros:zstd{level}"]["bits"]) for level in (3, 19)]
    return f"{text}; {smaller[0]:.0f}% smaller than zstd, {smaller[1]:.0f}% than its level 19", theirs, good and min(smaller) >= 25


def _floats(rows: Rows) -> Cell:
    r = rows["bfloat16:rans"]
    text = f"{100 * r['share']:.2f}%; decoded {r['decode']:,.0f}, two threads {r['decode_two']:,.0f} MB/s of weights"
    return text, "", r["share"] <= 0.663 and r["decode"] >= 1400


FIGURES = (
    Figure(name="rANS, 4-bit Laplacian, ten million symbols", bar="<= 0.1% over the entropy; >= 1,500 MB/s, two threads 2,600, encoding 400", file="coders",
           cell=_coder("laplacian4", "rans", above=0.1, decode=1500, two=2600, encode=400)),
    Figure(name="rANS, 8-bit Laplacian", bar="<= 0.15%; >= 1,300 MB/s", file="coders", cell=_coder("laplacian8", "rans", above=0.15, decode=1300)),
    Figure(name="rANS, 4 bits, nine of ten zero", bar="<= 0.15%; 25% smaller than nibble-packed zstd", file="coders", cell=_zeros),
    Figure(name="rANS in pairs, 4-bit Laplacian", bar=">= 3,000 MB/s", file="coders", cell=_coder("laplacian4", "rans_pairs", decode=3000)),
    Figure(name="Huffman, 4-bit Laplacian", bar=">= 2,000 MB/s", file="coders", cell=_coder("laplacian4", "huffman", decode=2000)),
    Figure(name="Tunstall, 4-bit Laplacian", bar=">= 4,000 MB/s", file="coders", cell=_coder("laplacian4", "tunstall", decode=4000)),
    Figure(name="bfloat16 weights without loss", bar="<= 66.3% of the size; >= 1,400 MB/s", file="coders", cell=_floats),
)
