"""Still figures and animations of pictures, without any widget."""

from smoothnb.figures.marks import mark
from smoothnb.figures.strips import difference, strip

__all__ = ["difference", "mark", "strip"]
