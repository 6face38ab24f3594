"""What can be measured of a model."""

from smoothnb.evaluation.istd import ISTD, istd, walk
from smoothnb.evaluation.reconstruction import reconstruction

__all__ = ["ISTD", "istd", "reconstruction", "walk"]
