"""Data sets: found or fetched, checked, split three ways, and fed from memory; text, and noise to be removed."""

from lilliput.data.arrays import from_arrays, from_splits
from lilliput.data.base import Data, Split, check
from lilliput.data.diffusion import CosineNoise, Diffusion, LinearNoise, noisy
from lilliput.data.folder import from_folder
from lilliput.data.holdout import Holdout
from lilliput.data.loading import load, names
from lilliput.data.samples import Samples
from lilliput.data.sampling import NormalTimes, Sampler, UniformTimes, trajectory
from lilliput.data.text import from_text
from lilliput.data.transforms import Augmentation, CropFlip, Keep, Normalize, Transforms

__all__ = ["Augmentation", "CosineNoise", "CropFlip", "Data", "Diffusion", "Holdout", "Keep", "LinearNoise", "NormalTimes",
           "Normalize", "Sampler", "Samples", "Split", "Transforms", "UniformTimes", "check", "from_arrays", "from_folder",
           "from_splits", "from_text", "load", "names", "noisy", "trajectory"]
