"""The command line: every command is a few lines over a function that Python has too."""

from __future__ import annotations

import os
import sys

from lilliput.cli import commands  # the order of the help

# isort: split

from lilliput.cli import coding
from lilliput.cli.base import app

__all__ = ["app", "coding", "commands", "main"]


def main() -> None:
    """Run the command line; `--debug` is taken anywhere on it."""
    if "--debug" in sys.argv[1:]:
        sys.argv.remove("--debug")
        os.environ["LILLIPUT_DEBUG"] = "1"
    app()
