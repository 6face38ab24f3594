"""Two prompts and a slider over `switch` of `edit_text`."""

import html
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from PIL import Image

from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb.editing.edit import check_prompts, edit_text
from smoothnb.figures.strips import difference
from smoothnb.images import ImageLike, to_pil, to_pixels
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.inversion.inversion import Inversion
from smoothnb.latents import picture_size
from smoothnb.sampling import embed, finish
from smoothnb.widgets.mixing import MixingSlider

SWITCHES = (0.8, 0.4, 1.0, 0.6, 0.2, 0.0)
"""Values of `switch`, in the order in which they are drawn."""


class EditSlider(widgets.VBox):
    """A text edit: fields for the source and the target prompt, and a slider over `switch`.

    The picture, its edit, the true edit if it is known, and the difference are shown side by side. A new prompt (press
    Enter) redraws the edits in a background thread, a new source prompt after a new inversion; until then the slider
    shows the nearest available edit. Errors in a prompt are shown below the fields, and the pictures remain.

    Args:
        pipe: A diffusers pipeline.
        picture: The picture, in any form that `encode` takes.
        source_prompt: A description of the picture.
        target_prompt: A description of the edited picture.
        answer: Function from the target prompt to the true edit; it may raise ValueError if there is none.
        invert: Function from pipeline, picture and prompt to an inversion; by default DDIM inversion.
        switches: Values of `switch` to draw, in this order.
        width: Width of a picture on screen, in pixels.
        options: Other options of `edit_text`, such as method="attention".

    Attributes:
        source, target: The two fields; setting their `value` is the same as typing.
        slider: The current `MixingSlider`; `slider.frames["edit"]` are the edits.

    Raises:
        ValueError: As in `edit_text`, for the initial prompts.
    """

    def __init__(
        self,
        pipe: Pipeline,
        picture: ImageLike,
        source_prompt: str,
        target_prompt: str,
        answer: Callable[[str], Image.Image] | None = None,
        invert: Callable[[Pipeline, Image.Image, str], Inversion] | None = None,
        switches: Sequence[float] | np.ndarray = SWITCHES,
        width: int = 192,
        options: Mapping[str, object] | None = None,
    ):
        check_pipeline(pipe)
        (self._picture,) = to_pil(to_pixels(picture, *picture_size(pipe)))
        self._pipe, self._answer, self._width, self._options = pipe, answer, width, dict(options or {})
        self._invert = invert or (lambda pipe, picture, prompt: ddim_invert(pipe, picture, prompt, progress=False))
        self._switches, self._inversions = [float(s) for s in switches], {}
        field = {"continuous_update": False, "layout": widgets.Layout(width="98%")}
        self.source = widgets.Text(source_prompt, description="picture", **field)
        self.target = widgets.Text(target_prompt, description="edit", **field)
        self._said = widgets.HTML()
        self.slider = self._drawn()
        super().__init__([self.source, self.target, self._said, self.slider])
        for text in (self.source, self.target):
            text.observe(self._redraw, names="value")

    def __repr__(self) -> str:
        return f"EditSlider({self.source.value!r} to {self.target.value!r})"

    def wait(self) -> "EditSlider":
        """Blocks until all edits are drawn.

        Raises:
            RuntimeError: If the drawing was stopped.
            Exception: The error that ended the drawing.
        """
        self.slider.wait()
        return self

    def _redraw(self, _: object) -> None:
        try:
            slider = self._drawn()
        except ValueError as error:
            self._say(str(error))
            return
        before, self.slider = self.slider, slider
        slider.value = before.value
        self.children = [*self.children[:3], slider]
        before.close()

    def _drawn(self) -> MixingSlider:
        source, target = self.source.value, self.target.value
        check_prompts([source], [target], self._options.get("weights") or {})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            embed(self._pipe, [source, target])
        said = [str(warning.message) for warning in caught]
        edits: list[Image.Image] = []
        rows = {"picture": [self._picture] * len(self._switches), "edit": self._edits(source, target, edits)}
        if self._answer is not None:
            try:
                rows["true edit"] = [self._answer(target)] * len(self._switches)
            except ValueError as error:
                said.append(f"no true edit is known: {error}")
        # Rows alternate, so the current edit is the last one.
        rows["difference"] = (difference(self._picture, edits[-1]) for _ in self._switches)
        self._say(*said)
        labels = [f"switch = {switch:.2f}" for switch in self._switches]
        slider = MixingSlider(rows, self._switches, labels, self._width, axis="switch")
        slider.value = self._switches[0]
        return slider

    def _edits(self, source: str, target: str, done: list[Image.Image]) -> Iterator[Image.Image]:
        if source not in self._inversions:
            self._inversions[source] = self._invert(self._pipe, self._picture, source)
        for switch in self._switches:
            steps = edit_text(self._pipe, self._inversions[source], target, switch, **self._options)
            done += finish(self._pipe, steps, progress=False)
            yield done[-1]

    def _say(self, *texts: str) -> None:
        self._said.value = "<br>".join(html.escape(text) for text in texts)
