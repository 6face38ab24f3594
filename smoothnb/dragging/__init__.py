"""Points of a picture, dragged to others."""

from smoothnb.dragging._drag import Dragged, drag
from smoothnb.dragging.matching import point_map
from smoothnb.dragging.options import DRAG_DIFFUSION, DragOptions

__all__ = ["DRAG_DIFFUSION", "DragOptions", "Dragged", "drag", "point_map"]
