"""What a UNet's features say about places of a picture."""

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
class Look:
    """Features of a batch of noisy latents, and the noise that was found with them.

    Attributes:
        maps: Output of each block that is looked at, in float32, standardized.
        scales: Mean and standard deviation of each map's channels that it was standardized by.
        size: Height and width of the pictures, in pixels.
        prediction: The UNet's own, ε̂ or v̂.
    """

    maps: tuple[Float[Tensor, "batch _channel _height _width"], ...]
    scales: tuple[tuple[Tensor, Tensor], ...]
    size: tuple[int, int]
    prediction: Float[Tensor, "batch channel height width"]

    def at(self, points: Points) -> Float[Tensor, "batch point feature"]:
        """Features at places between and beside the maps' own, by bilinear interpolation, the maps one after another.

        DragDiffusion enlarges the maps to half the picture's size first; this reads the same off the small ones.
        """
        height, width = self.size
        grid = points / points.new_tensor([width, height]) * 2 - 1
        read = [
            F.grid_sample(map_, grid[:, None], align_corners=False, padding_mode="border")[:, :, 0]
            for map_ in self.maps
        ]
        return torch.cat(read, 1).transpose(1, 2)


@dataclass(frozen=True)
class Eye:
    """Looks at noisy latents through some up blocks of a UNet, by hooks: its forward pass stays diffusers' own.

    Attributes:
        pipe: A diffusers pipeline.
        blocks: Numbers of the up blocks; -1 is the last.
        embeds: Of the prompt, one for all.
        size: Height and width of the pictures, in pixels.
        standardize: Whether every channel is brought to mean 0 and standard deviation 1, so that none drowns another.
    """

    pipe: object
    blocks: Sequence[int]
    embeds: Float[Tensor, "1 token embedding"]
    size: tuple[int, int]
    standardize: bool = True

    def look(self, x: Tensor, t: Tensor, like: Look | None = None) -> Look:
        """One pass through the UNet.

        Args:
            x: Noisy latents in float32, of any batch size.
            t: Their timestep.
            like: Whose scales to standardize by; by default those of the first of the batch.
        """
        unet, seen = self.pipe.unet, []
        with hooked(*((unet.up_blocks[block], seen.append) for block in self.blocks)):
            scaled = self.pipe.scheduler.scale_model_input(x, t).to(unet.dtype)
            prediction = unet(scaled, t, encoder_hidden_states=self.embeds.expand(len(x), -1, -1)).sample
        maps = [map_.float() for map_ in seen]
        scales = tuple(map(self._scale, maps)) if like is None else like.scales
        maps = tuple((map_ - mean) / deviation for map_, (mean, deviation) in zip(maps, scales, strict=True))
        return Look(maps, scales, self.size, prediction.float())

    def _scale(self, map_: Tensor) -> tuple[Tensor, Tensor]:
        first = map_[:1].detach()
        mean, deviation = first.mean((2, 3), keepdim=True), first.std((2, 3), keepdim=True).clamp(min=1e-6)
        return (mean, deviation) if self.standardize else (torch.zeros_like(mean), torch.ones_like(mean))
