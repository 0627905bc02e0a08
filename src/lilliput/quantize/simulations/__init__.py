"""How training methods round: one file for each idea, an estimator that installs a simulation in the quantizers."""

from lilliput.quantize.simulations.apot import PowersOfTwoClip
from lilliput.quantize.simulations.auxiliary import Assisted
from lilliput.quantize.simulations.base import CalibratedRange, Roles, replaced
from lilliput.quantize.simulations.binary import Bounded, MeanSign, Sign
from lilliput.quantize.simulations.dorefa import ScaleAdjustedLevels, TanhLevels
from lilliput.quantize.simulations.dsq import SoftStaircase
from lilliput.quantize.simulations.guided import Guided
from lilliput.quantize.simulations.inq import Incremental, IncrementalPowers
from lilliput.quantize.simulations.least_squares import Greedy, LeastSquaresSigns, Optimal
from lilliput.quantize.simulations.llt import LearnedLookup, Sharpening
from lilliput.quantize.simulations.lqnets import QuantizationErrorMinimisation
from lilliput.quantize.simulations.pact import CalibratedClip, LearnedClip
from lilliput.quantize.simulations.qil import LearnedInterval
from lilliput.quantize.simulations.staged import Stage, StagedLevels, Stages
from lilliput.quantize.simulations.syq import RowScales
from lilliput.quantize.simulations.ternary import TernaryThreshold, TrainedTernary
from lilliput.quantize.simulations.unclamp import Unclamped

__all__ = [
    "Assisted", "Bounded", "CalibratedClip", "CalibratedRange", "Greedy", "Guided", "Incremental", "IncrementalPowers",
    "LearnedClip", "LearnedInterval", "LearnedLookup", "LeastSquaresSigns", "MeanSign", "Optimal", "PowersOfTwoClip",
    "QuantizationErrorMinimisation", "Roles", "RowScales", "ScaleAdjustedLevels", "Sharpening", "Sign", "SoftStaircase",
    "Stage", "StagedLevels", "Stages", "TanhLevels", "TernaryThreshold", "TrainedTernary", "Unclamped", "replaced",
]
