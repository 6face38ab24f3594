"""Contact sheets: many pictures on one."""

from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from recipes.postcards.world.render import render
from recipes.postcards.world.scene import random_scenes
from smoothnb.images import save_picture


def contact_sheet(pictures: Float[Tensor, "count 3 height width"], columns: int = 8, margin: int = 4) -> Image.Image:
    """Lays pictures with values in [0, 1] out in rows on a white ground."""
    count, _, height, width = pictures.shape
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * (width + margin) + margin, rows * (height + margin) + margin), "white")
    pixels = (pictures.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    for i, picture in enumerate(pixels):
        corner = margin + i % columns * (width + margin), margin + i // columns * (height + margin)
        sheet.paste(Image.fromarray(picture), corner)
    return sheet


def render_sheet(
    output: Path = Path("postcards.png"), count: int = 32, columns: int = 8, size: int = 192, seed: int = 3
) -> None:
    """Draws a contact sheet of random scenes.

    Args:
        output: The picture to write.
        count: How many scenes.
        columns: Scenes in a row.
        size: Side of each, in pixels.
        seed: Of the scenes.
    """
    stream = random_scenes(seed)
    pictures = [render([next(stream) for _ in range(min(16, count - i))], size) for i in range(0, count, 16)]
    save_picture(contact_sheet(torch.cat(pictures), columns), output)
