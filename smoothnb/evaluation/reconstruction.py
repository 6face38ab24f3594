"""How near pictures come to those they are to show again: MSE, PSNR, SSIM."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb.images import ImageLike, to_pixels, to_rgb


@torch.no_grad()
def reconstruction(images: Sequence[ImageLike], originals: Sequence[ImageLike]) -> dict[str, Float[Tensor, " picture"]]:
    """Compares pictures with their originals, one by one.

    Beside what an inversion reaches, always look at what the autoencoder alone does, `decode(pipe, encode(pipe, …))`:
    no inversion can come nearer.

    Args:
        images: PIL, paths, arrays or tensors.
        originals: As many, brought to the size of the images as `encode` brings them.

    Returns:
        By name, one number for each picture: "mse" of pixels in [0, 1]; "psnr" in dB; "ssim", 1 for equal pictures
        (torchmetrics).

    Raises:
        ValueError: If there are no pictures, they do not pair up, or differ in size.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    if not len(images) or len(images) != len(originals):
        raise ValueError(
            f"expected as many originals as pictures, at least one, got {len(originals)} and {len(images)}"
        )
    width, height = to_rgb(images[0]).size
    ours, theirs = (to_pixels(list(x), height, width) for x in (images, originals))
    mse = (ours - theirs).square().flatten(1).mean(1)
    ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
    return {"mse": mse, "psnr": -10 * mse.clamp(min=1e-12).log10(), "ssim": ssim}
