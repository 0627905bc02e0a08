"""Methods that change the weights that stay, so that a layer's outputs, or the loss, stay what they were."""

from __future__ import annotations

from pathlib import Path

from lilliput.core import Budget
from lilliput.prune.allocation import global_threshold
from lilliput.prune.inverse_fisher import BlockFisher, Compensate, InverseFisher, MatrixFreeFisher, RemovalCost
from lilliput.prune.layerwise import LayerByLayer
from lilliput.prune.patterns import NM, Rows, Whole
from lilliput.prune.schedules import Gradual, OneShot
from lilliput.prune.solvers import LayerOBS, SparseGPT, Wanda
from lilliput.prune.step import FineTune, Prune
from lilliput.prune.surgeon import ExactOBS
from lilliput.prune.units import Element
from lilliput.train import Fit

__all__ = ["layerwise_obs", "mfac", "obc", "obs", "sparsegpt", "wanda", "woodfisher"]


def _recover(fine_tune: Fit | None) -> FineTune | None:
    return None if fine_tune is None else FineTune(fit=fine_tune)


def obs(budget: Budget, *, fine_tune: Fit | None = None, unit: Element = Element(), samples: int = 256,
        checkpoint: Path | None = None) -> LayerByLayer:
    """One weight after the other goes, the one that costs least, and all others make up for it (Hassibi 1993, `hassibi1993obs`).

    Departs from the paper, whose Hessian is that of the network's error and far too large for networks of today: this one is that
    of each layer's own outputs, where it is exact, as with `obc`, which is the same but for its patterns.
    """
    return LayerByLayer(method="prune.obs", budget=budget, solver=ExactOBS(), unit=unit, samples=samples,
                        recover=_recover(fine_tune), checkpoint=checkpoint)


def layerwise_obs(budget: Budget, *, fine_tune: Fit | None = None, unit: Element = Element(), samples: int = 256,
                  checkpoint: Path | None = None) -> LayerByLayer:
    """L-OBS: order and inverse Hessian of a layer are worked out once (Dong 2017, `dong2017layerwise`).

    Departs from the paper in taking the inputs from the network as it is pruned by then, not from the original.
    """
    return LayerByLayer(method="prune.layerwise_obs", budget=budget, solver=LayerOBS(), unit=unit, samples=samples,
                        recover=_recover(fine_tune), checkpoint=checkpoint)


def obc(budget: Budget | None = None, *, pattern: Whole | Rows | NM = Whole(), fine_tune: Fit | None = None,
        unit: Element = Element(), samples: int = 256, checkpoint: Path | None = None) -> LayerByLayer:
    """ExactOBS: rows of a layer lose weights one by one, and compete for who loses the next (Frantar 2022, `frantar2022obc`).

    Sparsities are uniform and inputs those of the pruned network, where the paper finds sparsities by a further search and takes
    the original's inputs. Its quantizer, OBQ, is not part of it: `quantize.gptq` is OBQ in a fixed order of columns.
    """
    return LayerByLayer(method="prune.obc", budget=budget, solver=ExactOBS(), pattern=pattern, unit=unit, samples=samples,
                        recover=_recover(fine_tune), checkpoint=checkpoint)


def sparsegpt(budget: Budget | None = None, *, pattern: Whole | Rows | NM = Whole(), fine_tune: Fit | None = None,
              unit: Element = Element(), samples: int = 256, checkpoint: Path | None = None) -> LayerByLayer:
    """Columns from first to last, a mask to each block of them, and a Cholesky factor for all updates.

    (Frantar 2023, `frantar2023sparsegpt`)
    """
    return LayerByLayer(method="prune.sparsegpt", budget=budget, solver=SparseGPT(), pattern=pattern, unit=unit, samples=samples,
                        recover=_recover(fine_tune), checkpoint=checkpoint)


def wanda(budget: Budget | None = None, *, pattern: Whole | Rows | NM = Rows(), fine_tune: Fit | None = None,
          unit: Element = Element(), samples: int = 256, checkpoint: Path | None = None) -> LayerByLayer:
    """The smallest `|w| ||x||` of every output go, and nothing else changes (Sun 2024, `sun2024wanda`)."""
    return LayerByLayer(method="prune.wanda", budget=budget, solver=Wanda(), pattern=pattern, unit=unit, samples=samples,
                        recover=_recover(fine_tune), checkpoint=checkpoint)


def woodfisher(budget: Budget, *, fine_tune: Fit | None = None, schedule: OneShot | Gradual = OneShot(),
               fisher: InverseFisher = BlockFisher(), unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """Weights whose removal costs least by the inverse Fisher information, in blocks, go, and the others make up for it.

    (Singh 2020, `singh2020woodfisher`)
    """
    return Prune(method="prune.woodfisher", budget=budget, criterion=RemovalCost(fisher=fisher), unit=unit, schedule=schedule,
                 allocation=global_threshold, recover=_recover(fine_tune), compensate=Compensate(fisher=fisher),
                 checkpoint=checkpoint)


def mfac(budget: Budget, *, fine_tune: Fit | None = None, schedule: OneShot | Gradual = OneShot(),
         fisher: InverseFisher = MatrixFreeFisher(), unit: Element = Element(), checkpoint: Path | None = None) -> Prune:
    """As `woodfisher`, the whole Fisher matrix by as many vectors as there are gradients (Frantar 2021, `frantar2021mfac`)."""
    return Prune(method="prune.mfac", budget=budget, criterion=RemovalCost(fisher=fisher), unit=unit, schedule=schedule,
                 allocation=global_threshold, recover=_recover(fine_tune), compensate=Compensate(fisher=fisher),
                 checkpoint=checkpoint)
