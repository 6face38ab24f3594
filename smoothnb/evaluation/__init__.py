"""What can be measured of a model."""

from smoothnb.evaluation.istd import ISTD, istd

__all__ = ["ISTD", "istd"]
