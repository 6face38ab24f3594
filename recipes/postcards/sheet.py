"""Contact sheets of many pictures, and the pictures of docs/ and data/ that renders make."""

from itertools import islice
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb.figures import strip
from smoothnb.images import save_picture, to_pil
from smoothnb.postcards.pictures import write_pictures
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import Scene, edit, random_scenes

COAST = Scene(
    land="sea", clouds=0.5, mist=0.08, thing="lighthouse", hue=4, x=50, y=78, size=52, horizon=76, ridges=0.75, seed=8
)
"""The scene whose day is drawn."""


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


def random_postcards(
    output: Path = Path("docs/images/postcards.png"), count: int = 32, columns: int = 8, size: int = 144, seed: int = 21
) -> None:
    """Draws a contact sheet of random scenes.

    Args:
        output: Picture to write.
        count: Number of scenes.
        columns: Scenes in a row.
        size: Side of each, in pixels.
        seed: Seed of the scenes.
    """
    scenes = list(islice(random_scenes(seed), count))
    save_picture(contact_sheet(render(scenes, size), columns), output, optimize=True)


def hours(output: Path = Path("docs/images/hours.png"), columns: int = 8, size: int = 144) -> None:
    """Draws one scene at every hour of a day, and labels each picture with its hour.

    Args:
        output: Picture to write.
        columns: Hours in a row; a divisor of 24.
        size: Side of each picture, in pixels.
    """
    pictures = to_pil(render([edit(COAST, hour=hour) for hour in range(24)], size))
    labels = [f"{hour:02}:00" for hour in range(24)]
    rows = [strip(pictures[i : i + columns], labels[i : i + columns], size) for i in range(0, 24, columns)]
    save_picture(Image.fromarray(np.concatenate([np.asarray(row) for row in rows])), output, optimize=True)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"postcards": random_postcards, "hours": hours, "examples": write_pictures})
