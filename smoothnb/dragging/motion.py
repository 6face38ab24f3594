"""Motion supervision and point tracking: where a handle is to go next, and where it has gone (Shi et al. 2023)."""

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb.dragging.features import Look, Points

Offsets = Float[Tensor, "_offset 2"]
"""(x, y) from the middle of a patch, in pixels."""


def patch(radius: float, spacing: float) -> Offsets:
    """A square of places around (0, 0), evenly spaced.

    Args:
        radius: Half the square's side, in pixels; rounded to whole spacings.
        spacing: Between two places, in pixels.
    """
    count = round(radius / spacing)
    steps = torch.arange(-count, count + 1, dtype=torch.float32) * spacing
    return torch.cartesian_prod(steps, steps)


def around(points: Points, offsets: Offsets) -> Float[Tensor, "batch place 2"]:
    """The patches of all points, one after another."""
    return (points[:, :, None] + offsets.to(points)).flatten(1, 2)


def next_places(handles: Points, targets: Points, stride: float) -> Points:
    """One stride further on the straight way to the targets, or the targets where they are nearer than that."""
    left = targets - handles
    distance = left.norm(dim=-1, keepdim=True)
    return handles + left * (stride / distance.clamp(min=stride))


def supervision(
    look: Look, places: Points, wanted: Float[Tensor, "_batch_or_1 point feature"]
) -> Float[Tensor, " batch"]:
    """The loss of motion supervision: how far the features at some places are from those wanted there.

    Σ over places of the mean over channels of |F(place) - wanted|, as in Eq. 3 of DragDiffusion (Shi et al. 2023),
    for each sample.
    """
    return (look.at(places) - wanted).abs().mean(-1).sum(-1)


def track(
    look: Look, handles: Points, own: Float[Tensor, "batch point feature"], offsets: Offsets
) -> tuple[Points, Float[Tensor, "batch point"]]:
    """Point tracking: the place near each handle whose features are most like the handle's own at the start.

    argmin over the patch around the handle of |F(place) - own|, as in Eq. 5 of DragDiffusion (Shi et al. 2023).

    Returns:
        The places, and how far their features are from the handles' own (mean over channels).
    """
    seen = look.at(around(handles, offsets)).unflatten(1, (handles.shape[1], len(offsets)))
    distances, best = (seen - own[:, :, None]).abs().mean(-1).min(-1)
    return handles + offsets.to(handles)[best], distances
