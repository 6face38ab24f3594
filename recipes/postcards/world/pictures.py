"""Pictures to invert: two scenes of the postcard world, and some that it does not hold, as a reader's own would be."""

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from recipes.postcards.world.render import render
from recipes.postcards.world.scene import Scene
from smoothnb._utils.files import data_folder
from smoothnb.images import save_picture, to_pil

Renders = dict[str, Float[Tensor, "3 size size"]]
"""RGB in [0, 1] by caption."""

EXAMPLES = {
    "house": (
        "a red house in a meadow at sunset",
        Scene(18.4, "meadow", thing="house", hue=2, lightness=0.05, x=52, y=88, size=46, snow=0.2, seed=3),
    ),
    "lighthouse": (
        "a white lighthouse in the snow at night",
        Scene(22.4, "snow", thing="lighthouse", hue=220, lightness=0.9, x=76, y=82, size=50, snow=0.8, seed=8),
    ),
}
"""Caption and scene by file name in data/pictures."""
BEYOND = {"two_sailboats": "a red sailboat at sea at noon"}
"""Captions by file name of the pictures that no scene has."""


def example_scene(name: str) -> Scene:
    """The scene behind an example picture.

    Raises:
        ValueError: If there is no such picture, or no scene behind it.
    """
    if name not in EXAMPLES:
        raise ValueError(f"expected one of {', '.join(EXAMPLES)}, got {name!r}")
    return EXAMPLES[name][1]


def picture(scene: Scene, size: int = 128) -> Image.Image:
    """Draws a scene as an RGB picture of size × size pixels."""
    return to_pil(render([scene], size))[0]


def example_picture(name: str) -> tuple[Image.Image, str]:
    """A picture that ships with the package, and a prompt that says what is on it.

    Args:
        name: "house", "lighthouse", or "two_sailboats", of which the postcard world knows only one at a time.

    Returns:
        An RGB picture of 256×256 pixels, and the prompt.

    Raises:
        ValueError: If there is no picture of that name.
    """
    prompts = {name: prompt for name, (prompt, _) in EXAMPLES.items()} | BEYOND
    if name not in prompts:
        raise ValueError(f"expected one of {', '.join(prompts)}, got {name!r}")
    with Image.open(data_folder() / "pictures" / f"{name}.png") as picture:
        return picture.convert("RGB"), prompts[name]


def beyond(size: int = 128) -> Renders:
    """Renders put together so that no scene has them.

    Args:
        size: Side of the pictures in pixels.
    """
    boats = Scene(12.5, "sea", thing="sailboat", hue=2, x=34, y=84, size=42)
    boat = replace(boats, lightness=1, x=92, y=90, size=46)
    house = Scene(18.6, "meadow", thing="house", hue=2, x=70, y=88, size=46)
    pine = Scene(12.5, "snow", thing="pine", hue=130, x=38, y=88, size=50, snow=0.8)
    balloon = replace(pine, thing="balloon", hue=285, x=88, y=44, size=46)
    night = Scene(22.4, "desert", thing="lighthouse", lightness=0.9, x=48, y=84, size=50)
    left, right, red, white, below, above, tower = render(
        [boats, boat, house, replace(house, lightness=1), pine, balloon, night], size
    )
    nothing, bare = render([replace(scene, thing="none") for scene in (boats, pine)], size)
    return {
        "a red sailboat at sea at noon": _laid_over(left, right, nothing),
        "a house in a meadow at sunset": (red + white) / 2,
        "a green pine in the snow at noon": _laid_over(below, above, bare),
        "a white lighthouse in the desert at night": tower.flip(1),
    }


def _laid_over(below: Tensor, above: Tensor, ground: Tensor) -> Tensor:
    """The first picture, with what the second has that the ground has not."""
    return torch.where((above - ground).abs().amax(0) > 0.004, above, below)


def write_pictures(output: Path = Path("data/pictures"), size: int = 256) -> None:
    """Writes the example pictures.

    Args:
        output: Folder for the PNGs.
        size: Side of the pictures in pixels.
    """
    renders = dict(zip(EXAMPLES, render([scene for _, scene in EXAMPLES.values()], size), strict=True))
    odd = beyond(size)
    renders |= {name: odd[prompt] for name, prompt in BEYOND.items()}
    for name, picture in zip(renders, to_pil(torch.stack(list(renders.values()))), strict=True):
        save_picture(picture, output / f"{name}.png", optimize=True)
