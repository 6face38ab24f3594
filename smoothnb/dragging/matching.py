"""Correspondences between pictures by the UNet's features."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils.checks import check_points
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline
from smoothnb.dragging.features import FeatureExtractor
from smoothnb.inversion.inversion import Inversion
from smoothnb.models.parts import device_of, uncompiled
from smoothnb.sampling import embed, scheduler_for

GRID = 64
"""Number of rows and columns of the similarity map."""


@oom_hint("comparing features", "give blocks further down, such as (-2,)")
@torch.no_grad()
@uncompiled
def point_map(
    pipe: Pipeline,
    inversion: Inversion,
    point: Sequence[float] | np.ndarray | Tensor,
    other: Inversion | None = None,
    strength: float = 0.2,
    blocks: Sequence[int] = (-2, -1),
) -> Float[Tensor, "rows columns"]:
    """Compares the UNet's features at a point with those everywhere in another picture (DIFT, Tang et al. 2023).

    Args:
        pipe: A diffusers pipeline.
        inversion: Inversion of the picture with the point.
        point: (x, y) in pixels of the picture that the model draws.
        other: Inversion of the picture to search; by default the same picture.
        strength: In (0, 1]: t / T of the noisy latents that features are read from.
        blocks: Indices of the up blocks whose features are used; -1 is the last.

    Returns:
        Cosine similarity of features on a 64 × 64 grid over the picture, at most 1. The point is found at the maximum.
        Features are standardized by those of the first picture.

    Raises:
        ValueError: If the point lies outside the picture, an inversion is of several pictures or another model's, or
            they have different numbers of steps.
    """
    other = inversion if other is None else other
    for one in (inversion, other):
        one.check(pipe)
        if len(one) != 1:
            raise ValueError(f"expected the inversion of one picture, got one of {len(one)}: choose by inversion[i]")
    steps = inversion.settings.num_inference_steps
    if other.settings.num_inference_steps != steps or not 0 < strength <= 1:
        raise ValueError(
            f"expected two inversions of as many steps and strength in (0, 1], got {steps} and "
            f"{other.settings.num_inference_steps} steps, and {strength}"
        )
    count = len(pipe.unet.up_blocks)
    if not blocks or not all(-count <= block < count for block in blocks):
        raise ValueError(f"expected at least one of the up blocks {-count} to {count - 1}, got {tuple(blocks)}")
    height, width = (side * pipe.vae_scale_factor for side in inversion.trajectory.shape[-2:])
    ((x, y),) = check_points("point", [point], (width, height))
    state = max(1, round(strength * steps))
    t = scheduler_for(pipe, steps).timesteps[steps - state]
    before, after = (
        FeatureExtractor(pipe, blocks, embed(pipe, one.settings.prompts), (height, width)) for one in (inversion, other)
    )
    first = before(inversion.trajectory[state].to(device_of(pipe)), t)
    second = after(other.trajectory[state].to(device_of(pipe)), t, first)
    middles = torch.arange(0.5, GRID, device=device_of(pipe), dtype=torch.float32) / GRID
    rows, columns = (middles * side for side in (height, width))
    places = torch.cartesian_prod(rows, columns).flip(-1)[None]
    own = first.at(torch.tensor([[[x, y]]], dtype=torch.float32, device=device_of(pipe)))
    return torch.cosine_similarity(second.at(places), own, dim=-1).reshape(GRID, GRID).cpu()
