"""Inversion: from a picture back to the noise that draws it."""

from smoothnb.inversion.ddim import ddim_invert, reconstruct
from smoothnb.inversion.inversion import Inversion
from smoothnb.inversion.null_text import null_text_invert

__all__ = ["Inversion", "ddim_invert", "null_text_invert", "reconstruct"]
