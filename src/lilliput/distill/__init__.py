"""Distillation: a small network learns from a large one, by a choice of knowledge, matcher, distance and scheme."""

from lilliput.distill.distances import SoftKL, kl_soft
from lilliput.distill.distillation import Distillation
from lilliput.distill.hook import Distil
from lilliput.distill.knowledge import Pair, View, logits
from lilliput.distill.matchers import same
from lilliput.distill.recipes import kd
from lilliput.distill.schemes import Offline

__all__ = ["Distil", "Distillation", "Offline", "Pair", "SoftKL", "View", "kd", "kl_soft", "logits", "same"]
