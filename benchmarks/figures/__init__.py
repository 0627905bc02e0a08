"""The figures of `benchmarks/README.md`, family by family."""

from benchmarks.figures import coding, microcontrollers, pruning, quantization, spine

FIGURES = (*spine.FIGURES, *quantization.FIGURES, *pruning.FIGURES, *microcontrollers.FIGURES, *coding.FIGURES)
