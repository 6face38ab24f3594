"""Features of a UNet, read at points of a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils.temporarily import hooked

Points = Float[Tensor, "batch point 2"]
"""(x, y) in pixels of the picture, whose corners are (0, 0) and (width, height)."""


@dataclass(frozen=True, eq=False)
class Features:
    """Feature maps of a batch of noisy latents, and the UNet's prediction from the same pass.

    Attributes:
        maps: Outputs of the chosen blocks, in float32, standardized.
        scales: Mean and standard deviation of each map's channels, by which it was standardized.
        size: Height and width of the pictures, in pixels.
        prediction: The UNet's output, ε̂ or v̂.
    """

    maps: tuple[Float[Tensor, "batch _channel _height _width"], ...]
    scales: tuple[tuple[Tensor, Tensor], ...]
    size: tuple[int, int]
    prediction: Float[Tensor, "batch channel height width"]

    def at(self, points: Points) -> Float[Tensor, "batch point feature"]:
        """Interpolates the maps bilinearly at the points and concatenates their channels.

        DragDiffusion first enlarges the maps to half the picture's size; this gives the same values.
        """
        height, width = self.size
        grid = points / points.new_tensor([width, height]) * 2 - 1
        values = [
            F.grid_sample(map_, grid[:, None], align_corners=False, padding_mode="border")[:, :, 0]
            for map_ in self.maps
        ]
        return torch.cat(values, 1).transpose(1, 2)


@dataclass(frozen=True)
class FeatureExtractor:
    """Reads features of noisy latents from some up blocks of a UNet, by forward hooks.

    Attributes:
        pipe: A diffusers pipeline.
        blocks: Indices of the up blocks; -1 is the last.
        embeds: Embedding of the prompt, shared by the batch.
        size: Height and width of the pictures, in pixels.
        standardize: Whether every channel is scaled to mean 0 and standard deviation 1, so that none dominates.
    """

    pipe: object
    blocks: Sequence[int]
    embeds: Float[Tensor, "1 token embedding"]
    size: tuple[int, int]
    standardize: bool = True

    def __call__(self, x: Tensor, t: Tensor, reference: Features | None = None) -> Features:
        """Runs the UNet once.

        Args:
            x: Noisy latents in float32, of any batch size.
            t: Their timestep.
            reference: Features whose scales are used to standardize; by default those of the first sample of x.
        """
        unet, outputs = self.pipe.unet, []
        with hooked(*((unet.up_blocks[block], outputs.append) for block in self.blocks)):
            prediction = unet(x.to(unet.dtype), t, encoder_hidden_states=self.embeds.expand(len(x), -1, -1)).sample
        maps = [map_.float() for map_ in outputs]
        scales = tuple(map(self._scale, maps)) if reference is None else reference.scales
        maps = tuple((map_ - mean) / deviation for map_, (mean, deviation) in zip(maps, scales, strict=True))
        return Features(maps, scales, self.size, prediction.float())

    def _scale(self, map_: Tensor) -> tuple[Tensor, Tensor]:
        first = map_[:1].detach()
        mean, deviation = first.mean((2, 3), keepdim=True), first.std((2, 3), keepdim=True).clamp(min=1e-6)
        return (mean, deviation) if self.standardize else (torch.zeros_like(mean), torch.ones_like(mean))
