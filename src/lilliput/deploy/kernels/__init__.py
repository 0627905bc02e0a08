"""The model on the machine at hand: what its layers became, which kernel is faster, how it scales with threads."""

from lilliput.deploy.kernels.choice import Choice, LayerChoice, choose
from lilliput.deploy.kernels.fusion import Fusions, Kernel, fusions
from lilliput.deploy.kernels.threads import Scaling, scaling

__all__ = ["Choice", "Fusions", "Kernel", "LayerChoice", "Scaling", "choose", "fusions", "scaling"]
