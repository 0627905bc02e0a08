"""One training loop over Lightning Fabric, and the hooks that let methods run together in it."""

from lilliput.train.config import Checkpoint, Fit
from lilliput.train.evaluate import evaluate, evaluating, mean_squared_error, perplexity
from lilliput.train.frechet import feature_distance, frechet
from lilliput.train.hooks import Batch, Hook, State
from lilliput.train.loop import DivergenceError, Trained, fit
from lilliput.train.losses import CrossEntropy, Loss, MeanSquaredError, loss_of
from lilliput.train.optimizers import SGD, AdamW, Optimizer
from lilliput.train.protocols import Dataset, Split
from lilliput.train.recalibrate import recalibrate_batchnorm
from lilliput.train.schedules import Constant, Cosine, OneCycle, Schedule

__all__ = ["SGD", "AdamW", "Batch", "Checkpoint", "Constant", "Cosine", "CrossEntropy", "Dataset", "DivergenceError", "Fit", "Hook",
           "Loss", "MeanSquaredError", "OneCycle", "Optimizer", "Schedule", "Split", "State", "Trained", "evaluate", "evaluating",
           "feature_distance", "fit", "frechet", "loss_of", "mean_squared_error", "perplexity", "recalibrate_batchnorm"]
