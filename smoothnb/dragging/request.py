"""Points and mask of a drag: checked, and transformed to the size that the model draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image, ImageOps
from torch import Tensor

from smoothnb._utils.checks import PointList, check_points
from smoothnb._utils.pipeline import Pipeline
from smoothnb.dragging.moving import DragTask
from smoothnb.dragging.options import DragOptions
from smoothnb.images import ImageLike, to_mask
from smoothnb.models.parts import device_of


@dataclass(frozen=True, eq=False)
class Request:
    """Points and mask in the picture that the model draws.

    Attributes:
        handles, targets: (x, y) in pixels; (0, 0) is the upper left corner.
        mask: True where the picture may change; None for everywhere.
        size: Height and width of the picture.
    """

    handles: Float[Tensor, "point 2"]
    targets: Float[Tensor, "point 2"]
    mask: Bool[Tensor, "height width"] | None
    size: tuple[int, int]

    @classmethod
    def of(
        cls, handles: PointList, targets: PointList, mask: ImageLike | None, given: tuple[int, int],
        size: tuple[int, int],
    ) -> "Request":  # fmt: skip
        """Checks points and mask.

        Args:
            handles: (x, y) in pixels of the given picture.
            targets: One target for each handle.
            mask: A picture of the same size, see `to_mask`.
            given: Height and width of the given picture.
            size: Height and width of the picture that the model draws. Picture, points and mask are cropped around the
                centre and resized to it.

        Raises:
            ValueError: If there are no points, handles and targets differ in number, a point lies outside the picture
                or a handle on its target, or the mask has another size or excludes a handle.
        """
        handles, targets = list(handles), list(targets)
        if len(handles) != len(targets) or not handles:
            raise ValueError(
                f"expected as many targets as handles, and at least one of each; got {len(handles)} handles and "
                f"{len(targets)} targets"
            )
        pairs = (("handle", handles), ("target", targets))
        before = [check_points(name, points, given[::-1]) for name, points in pairs]
        for handle, target in zip(*before, strict=True):
            if math.dist(handle, target) < 1:
                raise ValueError(f"the handle ({_xy(handle)}) lies on its target: drag it by at least one pixel")
        scale = max(size[0] / given[0], size[1] / given[1])
        middle, new_middle = (torch.tensor(sides[::-1], dtype=torch.float32) / 2 for sides in (given, size))
        after = [(middle.new_tensor(points) - middle) * scale + new_middle for points in before]
        for points, moved in zip(before, after, strict=True):
            for point, (x, y) in zip(points, moved.tolist(), strict=True):
                if not (-1e-3 <= x <= size[1] + 1e-3 and -1e-3 <= y <= size[0] + 1e-3):
                    raise ValueError(
                        f"the point ({_xy(point)}) is cropped away: the model draws {size[1]}×{size[0]}, and sees "
                        f"the centre of this {given[1]}×{given[0]} picture"
                    )
        found = None
        if mask is not None:
            fitted = ImageOps.fit(to_mask(mask, given[::-1]), size[::-1], Image.Resampling.NEAREST)
            found = torch.from_numpy(np.asarray(fitted) > 0)
        if found is not None:
            for point, (x, y) in zip(before[0], after[0].tolist(), strict=True):
                if not found[min(int(y), size[0] - 1), min(int(x), size[1] - 1)]:
                    raise ValueError(
                        f"the mask excludes the handle ({_xy(point)}): it should be white wherever the picture may "
                        "change, around the handles and on the way to their targets"
                    )
        return cls(*after, found, size)

    def task(self, pipe: Pipeline, options: DragOptions) -> DragTask:
        """The task in tensors on the pipeline's device."""
        points = (x[None].to(device_of(pipe)) for x in (self.handles, self.targets))
        cells = self.cells(*(side // pipe.vae_scale_factor for side in self.size))
        return DragTask(*points, cells.to(device_of(pipe)), options)

    def cells(self, height: int, width: int) -> Float[Tensor, "1 1 {height} {width}"]:
        """The mask at the size of the latents: 1 where at least a quarter of the pixels may change."""
        if self.mask is None:
            return torch.ones(1, 1, height, width, dtype=torch.float32)
        return (F.interpolate(self.mask[None, None].float(), (height, width), mode="area") >= 0.25).float()


def _xy(point: Sequence[float]) -> str:
    return ", ".join(f"{x:g}" for x in point)
