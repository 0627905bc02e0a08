"""Commands for coded weights: pack, unpack, inspect."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lilliput.cli.base import JsonFlag, app, guarded, table
from lilliput.core import LilliputError

Threads = Annotated[int, typer.Option(min=1, help="Threads that chunks are coded on.")]


@app.command(epilog="Examples: lilliput pack model.onnx · lilliput pack model.onnx -o model.lil --coder rans --threads 2")
@guarded
def pack(
    model: Annotated[Path, typer.Argument(help="model.onnx, its weights inside.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; model.lil by default.")] = None,
    coder: Annotated[str, typer.Option(help="rans, huffman, tunstall, arithmetic, adaptive, zstd, stored; auto: of the fast ones what takes least; cabac: the smallest, slow.")] = "auto",
    threads: Threads = 1,
    as_json: JsonFlag = False,
) -> None:
    """Entropy-code the weights of an ONNX file; unpack gives the same file bit by bit."""
    from lilliput import coding

    data, path = _read(model), out or model.with_suffix(".lil")
    size = coding.pack_onnx(data, path, coder=coder, threads=threads)
    with coding.open(path, threads=threads) as packed:
        if packed.onnx() != data:
            path.unlink()
            raise LilliputError(f"{model} did not come back as it was: please report this file")
    if as_json:
        typer.echo(json.dumps({"file": str(path), "size": size, "model": len(data), "ratio": len(data) / size}))
        return
    typer.echo(f"{path}: {size:,} bytes, 1/{len(data) / size:.2f} of {model} ({len(data):,} bytes); checked: it unpacks to the same bytes")


@app.command(epilog="Example: lilliput unpack model.lil -o model.onnx")
@guarded
def unpack(
    packed: Annotated[Path, typer.Argument(help="model.lil, as pack made it.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; model.onnx by default.")] = None,
    threads: Threads = 1,
) -> None:
    """Write the ONNX file that was packed, bit by bit."""
    from lilliput import coding
    from lilliput.core.atomic import write_bytes

    path = out or packed.with_suffix(".onnx")
    with coding.open(packed, threads=threads) as file:
        data = file.onnx()
    write_bytes(path, data)
    typer.echo(f"{path}: {len(data):,} bytes")


@app.command(epilog="Example: lilliput inspect model.lil")
@guarded
def inspect(packed: Annotated[Path, typer.Argument(help="model.lil, as pack made it.")], as_json: JsonFlag = False) -> None:
    """What each tensor of a packed file takes: symbols, coder, bits an element beside their entropy, bytes before and after."""
    from lilliput import coding

    with coding.open(packed) as file:
        lines = [asdict(line) for line in coding.inspect(file)]
        graph = file.skeleton.chunk.size if file.skeleton else 0
    size = packed.stat().st_size
    if as_json:
        typer.echo(json.dumps({"file": str(packed), "size": size, "graph": graph, "tensors": lines}))
        return
    table({**line, "shape": " x ".join(map(str, line["shape"]))} for line in lines)
    coded = sum(line["coded"] for line in lines)
    typer.echo(f"{size:,} bytes: tensors {coded:,}, graph {graph:,}, index and alignment {size - coded - graph:,}")


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise LilliputError(f"there is no file {path}")
    return path.read_bytes()
