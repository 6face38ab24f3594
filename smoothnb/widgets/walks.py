"""Interpolations of several prompts, with the size of each step as a bar."""

import html
from collections.abc import Mapping, Sequence
from statistics import pstdev

import ipywidgets
import traitlets
from PIL import Image

from smoothnb.images import neighbour_distances
from smoothnb.widgets.mixing import MixingSlider

COLOURS = ("#2f6690", "#d1772e", "#4f8a5b", "#8a5a9c")
"""Colours of the rows."""
HEIGHT = 96
"""Height of the bars, in pixels."""


class WalkSlider(ipywidgets.VBox):
    """A menu of prompts, a `MixingSlider` over the selected interpolation, and bars of its steps.

    Bars are distances between neighbouring pictures, whose standard deviation is ISTD; the step that leads to the
    picture shown is dark.

    Args:
        walks: Pictures along the interpolation, by prompt and by name of the row.
        width: Width of a picture on screen, in pixels.

    Attributes:
        prompt: The selected prompt. Setting it shows its interpolation at the same η.
        value: The mixing ratio η. Setting it shows the nearest picture.
        slider: The `MixingSlider` that is shown.

    Raises:
        ValueError: If there are no prompts; or as `MixingSlider`.
    """

    prompt = traitlets.Unicode()
    value = traitlets.Float(0.0)

    def __init__(self, walks: Mapping[str, Mapping[str, Sequence[Image.Image]]], width: int = 256):
        if not walks:
            raise ValueError("expected the walk of at least one prompt, got none")
        self._walks, self._width = {prompt: dict(rows) for prompt, rows in walks.items()}, width
        self._sliders: dict[str, MixingSlider] = {}
        self._distances: dict[str, dict[str, list[float]]] = {}
        self._menu = ipywidgets.Dropdown(options=list(walks), description="prompt", layout={"width": "32em"})
        self._bars = ipywidgets.HTML()
        super().__init__()
        ipywidgets.link((self._menu, "value"), (self, "prompt"))
        self.observe(lambda _: self._show(), names="prompt")
        self.observe(lambda _: self._move(), names="value")
        self._show()

    @traitlets.validate("prompt")
    def _valid_prompt(self, proposal: dict) -> str:
        if proposal["value"] not in self._walks:
            raise traitlets.TraitError(f"expected one of {list(self._walks)}, got {proposal['value']!r}")
        return proposal["value"]

    def _show(self) -> None:
        if self.prompt not in self._sliders:
            rows = self._walks[self.prompt]
            slider = self._sliders[self.prompt] = MixingSlider(rows, width=self._width)
            self._distances[self.prompt] = {name: neighbour_distances(row).tolist() for name, row in rows.items()}
            slider.observe(self._follow, names="value")
        self.slider = self._sliders[self.prompt]
        self.children = (self._menu, self.slider, self._bars)
        self._move()

    def _follow(self, change: dict) -> None:
        if change["owner"] is self.slider:
            self.value = change["new"]

    def _move(self) -> None:
        self.slider.value = self.value
        self.value = self.slider.value
        self._bars.value = bars(self._distances[self.prompt], self.slider.index - 1, self._width)


def bars(distances: Mapping[str, Sequence[float]], dark: int, width: int) -> str:
    """Distances by name as bars in SVG; bar `dark` is highlighted."""
    most = max(max(row) for row in distances.values()) or 1.0
    panels = []
    for number, (name, row) in enumerate(distances.items()):
        slot = width / len(row)
        shapes = [
            f'<rect x="{i * slot + 1:.1f}" y="{HEIGHT * (1 - d / most):.1f}" width="{slot - 2:.1f}" '
            f'height="{HEIGHT * d / most:.1f}" fill="{COLOURS[number % len(COLOURS)]}" '
            f'fill-opacity="{1 if i == dark else 0.55}"/>'
            for i, d in enumerate(row)
        ]
        said = html.escape(f"{name} steps: ") + ", ".join(f"{d:.1f}" for d in row)
        step = f", this step {row[dark]:.1f}" if dark >= 0 else ""
        panels.append(
            f'<figure style="margin:0"><svg role="img" aria-label="{said}" width="{width}" height="{HEIGHT}">'
            f"{''.join(shapes)}</svg><figcaption>deviation {pstdev(row):.1f}{step}</figcaption></figure>"
        )
    return f'<div style="display:flex;flex-wrap:wrap;padding:0 4px;gap:12px;line-height:1.4">{"".join(panels)}</div>'
