"""The optional packages, imported when they are needed."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lilliput.core.errors import PreconditionError


def needed(module: str) -> Any:
    """The module of the extra; raises `PreconditionError` that says how to install it."""
    try:
        with quiet():
            return importlib.import_module(module)
    except ImportError as error:
        raise PreconditionError(f"LiteRT files need {module.partition('.')[0]}, which is not installed ({error}): pip install 'lilliput[litert]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """The converter's libraries log and warn about what no user can change."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
