"""What must hold where a runtime's float arithmetic rounded a value the other way."""

import numpy as np
import torch

from lilliput.deploy.reference import Reference
from lilliput.quantize import exact


def rounded_by_the_runtime(model, path, inputs):
    """Whether the integer reference of the file gives what the simulation gives for these inputs, so that only the runtime differs."""
    with torch.no_grad():
        wanted = exact(model)(inputs.double()).numpy()
    return np.abs(Reference(path)(inputs.numpy()) - wanted).max() <= 1e-6 * np.abs(wanted).max()
