"""Still figures, diagrams and animations of pictures, without any widget."""

from smoothnb.figures.diagrams import diagram
from smoothnb.figures.marks import mark
from smoothnb.figures.strips import difference, strip

__all__ = ["diagram", "difference", "mark", "strip"]
