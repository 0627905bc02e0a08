"""Graphs of ATen operators: tracing, coupled channels, profile, latency."""

from lilliput.graph.coupling import Coupling, Group, Slot
from lilliput.graph.profile import LayerProfile, Profile, profile
from lilliput.graph.shrink import shrink
from lilliput.graph.trace import Traced, trace

__all__ = ["Coupling", "Group", "LayerProfile", "Profile", "Slot", "Traced", "profile", "shrink", "trace"]
