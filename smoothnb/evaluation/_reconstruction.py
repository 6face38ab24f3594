"""Reconstruction errors: MSE, PSNR, SSIM, LPIPS."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb.images import ImageLike, to_pixels, to_rgb

KERNEL = 11
"""Side of the SSIM window, in pixels."""


@torch.no_grad()
def reconstruction(
    images: Sequence[ImageLike], originals: Sequence[ImageLike], lpips: bool = False
) -> dict[str, Float[Tensor, " picture"]]:
    """Compares pictures with their originals, one by one.

    The autoencoder alone, `decode(pipe, encode(pipe, …))`, is the lower bound of the error of any inversion.

    Args:
        images: PIL, paths, arrays or tensors.
        originals: The same number of pictures, resized to the size of the images as by `encode`.
        lpips: Whether to compute LPIPS (Zhang et al. 2018) too. Needs torchvision, which downloads the network's
            weights.

    Returns:
        One number for each picture, by name: "mse" of pixels in [0, 1]; "psnr" in dB; "ssim", 1 for equal pictures;
        "lpips", 0 for equal pictures (both torchmetrics).

    Raises:
        ValueError: If there are no pictures, or not as many originals.
        ImportError: If `lpips` is set and torchvision is not installed.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    images, originals = list(images), list(originals)
    if not images or len(images) != len(originals):
        raise ValueError(
            f"expected as many originals as pictures, at least one, got {len(originals)} and {len(images)}"
        )
    width, height = to_rgb(images[0]).size
    if min(width, height) < KERNEL:
        raise ValueError(f"expected pictures of at least {KERNEL}×{KERNEL} pixels, for SSIM, got {width}×{height}")
    ours, theirs = (to_pixels(x, height, width) for x in (images, originals))
    mse = (ours - theirs).square().flatten(1).mean(1)
    ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
    found = {"mse": mse, "psnr": -10 * mse.clamp(min=1e-12).log10(), "ssim": ssim}
    return found | {"lpips": lpips_distances(ours, theirs)} if lpips else found


def lpips_distances(
    ours: Float[Tensor, "picture 3 height width"], theirs: Float[Tensor, "picture 3 height width"]
) -> Float[Tensor, " picture"]:
    """LPIPS of pictures in [0, 1], pair by pair (Zhang et al. 2018; torchmetrics).

    Raises:
        ImportError: If torchvision is not installed.
    """
    try:
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ImportError("LPIPS compares features of a network from torchvision: pip install torchvision") from error
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    metric = LearnedPerceptualImagePatchSimilarity(normalize=True)
    return torch.stack([metric(a[None], b[None]) for a, b in zip(ours, theirs, strict=True)])
