"""Roundings: which of a grid's values each weight takes after calibration, where not the nearest; scales and biases too."""

from lilliput.graph.walk import Walk
from lilliput.quantize.rounding.admm import LayerwiseADMM
from lilliput.quantize.rounding.bias import BiasCorrection, ExpectedBiasCorrection
from lilliput.quantize.rounding.blockwise import BlockwiseCalibration
from lilliput.quantize.rounding.channel_bits import ChannelBits
from lilliput.quantize.rounding.gptq import GPTQ
from lilliput.quantize.rounding.groups import EmbeddingGroups
from lilliput.quantize.rounding.importance import Fisher
from lilliput.quantize.rounding.partition import blocks, layers
from lilliput.quantize.rounding.reconstruct import Descent, Reconstruct
from lilliput.quantize.rounding.similarity import SimilaritySearch

__all__ = ["GPTQ", "BiasCorrection", "BlockwiseCalibration", "ChannelBits", "Descent", "EmbeddingGroups",
           "ExpectedBiasCorrection", "Fisher", "LayerwiseADMM", "Reconstruct", "SimilaritySearch", "Walk", "blocks", "layers"]
