"""Motion supervision and point tracking (Shi et al. 2023): where a handle should go next, and where it is now."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb.dragging.features import Features, Points

Offsets = Float[Tensor, "_offset 2"]
"""(x, y) from the centre of a patch, in pixels."""


def patch(radius: float, spacing: float) -> Offsets:
    """A square grid of offsets around (0, 0).

    Args:
        radius: Half the square's side, in pixels; rounded to a multiple of `spacing`.
        spacing: Distance between neighbouring offsets, in pixels.
    """
    count = round(radius / spacing)
    steps = torch.arange(-count, count + 1, dtype=torch.float32) * spacing
    return torch.cartesian_prod(steps, steps)


def around(points: Points, offsets: Offsets) -> Float[Tensor, "batch place 2"]:
    """The patches around all points, concatenated."""
    return (points[:, :, None] + offsets.to(points)).flatten(1, 2)


def next_positions(handles: Points, targets: Points, stride: float) -> Points:
    """Moves the handles straight towards their targets by one stride, but never past them."""
    remaining = targets - handles
    distance = remaining.norm(dim=-1, keepdim=True)
    return handles + remaining * (stride / distance.clamp(min=stride))


def supervision_loss(
    features: Features, points: Points, wanted: Float[Tensor, "_batch_or_1 point feature"]
) -> Float[Tensor, " batch"]:
    """Motion supervision, Eq. 3 of DragDiffusion (Shi et al. 2023).

    Σ over points of the mean over channels of |F(point) - wanted|, for each sample.
    """
    return (features.at(points) - wanted).abs().mean(-1).sum(-1)


def track(
    features: Features, handles: Points, initial: Float[Tensor, "batch point feature"], offsets: Offsets
) -> tuple[Points, Float[Tensor, "batch point"]]:
    """Point tracking, Eq. 5 of DragDiffusion (Shi et al. 2023).

    argmin over the patch around each handle of |F(point) - F_0(handle)|, where F_0 are the features before the drag.

    Returns:
        The new handles, and the distances of their features from the initial ones (mean over channels).
    """
    candidates = features.at(around(handles, offsets)).unflatten(1, (handles.shape[1], len(offsets)))
    distances, best = (candidates - initial[:, :, None]).abs().mean(-1).min(-1)
    return handles + offsets.to(handles)[best], distances
