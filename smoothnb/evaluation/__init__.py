"""What can be measured of a model."""

from smoothnb.evaluation.istd import ISTD, istd, walk

__all__ = ["ISTD", "istd", "walk"]
