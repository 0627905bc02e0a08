"""Graphs of ATen operators: tracing, coupled channels, profile, latency."""

from lilliput.graph.trace import Traced, trace

__all__ = ["Traced", "trace"]
