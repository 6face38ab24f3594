"""What can be measured of a model."""

from smoothnb.evaluation._compare import Comparison, compare
from smoothnb.evaluation._istd import ISTD, example_istd, istd, walk
from smoothnb.evaluation._reconstruction import reconstruction
from smoothnb.evaluation.judges import PhotoJudge, ReaderJudge
from smoothnb.evaluation.path_length import path_lengths
from smoothnb.evaluation.prompts import read_prompts

__all__ = [
    "ISTD",
    "Comparison",
    "PhotoJudge",
    "ReaderJudge",
    "compare",
    "example_istd",
    "istd",
    "path_lengths",
    "read_prompts",
    "reconstruction",
    "walk",
]
