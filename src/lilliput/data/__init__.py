"""Data sets: found or fetched, checked, split three ways, and fed from memory."""

from lilliput.data.arrays import from_arrays, from_splits
from lilliput.data.base import Data, Split, check
from lilliput.data.folder import from_folder
from lilliput.data.holdout import Holdout
from lilliput.data.loading import load, names
from lilliput.data.samples import Samples
from lilliput.data.transforms import Augmentation, CropFlip, Keep, Normalize, Transforms

__all__ = ["Augmentation", "CropFlip", "Data", "Holdout", "Keep", "Normalize", "Samples", "Split", "Transforms", "check",
           "from_arrays", "from_folder", "from_splits", "load", "names"]
