"""The report of a run: one HTML file that works offline, and the same figures as a terminal table."""

from lilliput.report.html import render, write
from lilliput.report.model import RunView, Variant
from lilliput.report.read import from_run

__all__ = ["RunView", "Variant", "from_run", "render", "write"]
