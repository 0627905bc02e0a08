"""Methods for networks that are run over and over on their own results."""

from __future__ import annotations

from lilliput.data import NormalTimes, Sampler
from lilliput.data.sampling import Times
from lilliput.quantize.bits import Uniform
from lilliput.quantize.posttraining import Static
from lilliput.quantize.ranges import MSE
from lilliput.quantize.scheme import Scheme
from lilliput.quantize.trajectory import OnTrajectory

__all__ = ["ptq4dm"]


def ptq4dm(*, sampler: Sampler, times: Times = NormalTimes(), weights: int = 8, activations: int = 8, samples: int = 512,
           exclude: tuple[str, ...] = ()) -> OnTrajectory:
    """Calibration along the denoising, at time steps drawn from a normal distribution.

    Axes: integer grid, least squared error over time steps, nearest.

    The paper compares metrics for the range and finds squared error best, which is what is used here for activations; it leaves
    the SiLUs in floating point, which here lie on the grid as well. (shang2023ptq4dm)
    """
    scheme = Scheme(ranges=MSE(steps=16), bits=Uniform(weights=weights, activations=activations), exclude=exclude)
    return OnTrajectory(sampler=sampler, times=times, inner=Static(scheme=scheme, samples=samples, method="quantize.ptq4dm"))
