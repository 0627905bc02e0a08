"""What all commands share: the application, how they end, and how they print."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from lilliput.core import LilliputError

P = ParamSpec("P")
R = TypeVar("R")

app = typer.Typer(
    name="lilliput", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    help="Make a neural network smaller and faster, measure what that gained, and export it.\n\n"
         "Start with [bold]lilliput demo[/bold], then compress your own:\n\n"
         "  lilliput compress --model resnet20 --data fashion_mnist --macs 50% --max-drop 0.5",
    epilog="Ctrl-C is safe at any time: the same command goes on where it stopped. --debug (or LILLIPUT_DEBUG=1) shows tracebacks.")

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
Shape = Annotated[str | None, typer.Option("--input-shape", metavar="C,H,W", help="Shape of one input, without the batch.")]


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Errors on purpose become one line and exit code 2, Ctrl-C a line on how to resume and 130."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        debug = bool(os.environ.get("LILLIPUT_DEBUG"))
        quiet(debug)
        try:
            return command(*args, **kwargs)
        except LilliputError as error:
            if debug:
                raise
            typer.secho(f"error: {error}", fg="red", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stop:
            typer.secho(f"\nstopped; {stop}" if stop.args else "\nstopped", fg="yellow", err=True)
            raise typer.Exit(130) from None

    return run


def quiet(debug: bool) -> None:
    """Libraries warn about their own future; that is for those who debug."""
    if not debug:
        import warnings

        warnings.simplefilter("ignore")


def say(text: str) -> None:
    """A line beside the results, on the error stream."""
    typer.echo(text, err=True)


def _version(asked: bool) -> None:
    if asked:
        import lilliput

        typer.echo(f"lilliput {lilliput.__version__}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    pass


def bytes_of(text: str | None) -> int | None:
    """Bytes of `128K`, `1M` or `4096`."""
    if text is None:
        return None
    number, unit = text.strip().upper().removesuffix("B"), 1
    if number[-1:] in ("K", "M"):
        number, unit = number[:-1], {"K": 1024, "M": 1024**2}[number[-1]]
    if not number.isdecimal() or int(number) > 2**32:
        raise LilliputError(f"cannot read {text!r} as bytes; write 128K, 1M or 131072")
    return int(number) * unit


def table(rows: Any) -> None:
    """Plain columns, numbers to the right; as wide as they need, so that they can be piped."""
    rows = [dict(row) for row in rows]
    if not rows:
        return
    text = [[_cell(row.get(key)) for key in rows[0]] for row in rows]
    widths = [max(len(key), *(len(line[i]) for line in text)) for i, key in enumerate(rows[0])]
    right = [all(isinstance(row.get(key), int | float) for row in rows) for key in rows[0]]
    for line in (list(rows[0]), *text):
        cells = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True))
        typer.echo("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
