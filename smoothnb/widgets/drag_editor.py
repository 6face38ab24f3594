"""An editor for `drag`: a canvas, and the dragged picture next to it."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack

import ipywidgets as widgets
from PIL import Image

from smoothnb._utils.checks import PointList, at_least
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb.dragging import Dragged, DragOptions, drag
from smoothnb.images import ImageLike, to_pil, to_pixels
from smoothnb.latents import picture_size
from smoothnb.widgets.canvas import DragCanvas, Point
from smoothnb.widgets.drawing import Drawing
from smoothnb.widgets.mixing import MixingSlider

REASONS = {
    "arrived": "arrived after {steps}",
    "steps": "ended after {steps}: max_steps allows no more",
    "lost": "lost sight of a handle after {steps}: the best so far is drawn",
    "interrupted": "stopped after {steps}: the best so far is drawn",
}
"""Status messages by `Dragged.reason`."""


class DragEditor(widgets.VBox):
    """A canvas for arrows and a mask, and the dragged picture next to it, with a slider over the optimization steps.

    The button "drag" runs `drag` in a background thread. Its progress, the reason why it stopped, and errors in arrows
    or mask are shown below the picture. "stop" draws the best state so far. At most one widget draws at a time: a new
    one stops the drag too. Without a browser, call `drag` and `wait`:

        editor = sn.DragEditor(pipe, "house.png", "a house", handles=[(44, 88)], targets=[(74, 88)])
        editor.drag().wait().result.picture

    Args:
        pipe: A diffusers pipeline.
        picture: The picture, in any form that `encode` takes. It is cropped around the centre and resized to the size
            that the model draws, to which arrows and mask refer.
        prompt: A description of the picture.
        handles: Initial points to drag; see `DragCanvas`.
        targets: Initial targets, one for each handle.
        mask: Initial mask, white where the picture may change.
        options: Settings of `drag`.
        frames: Number of intermediate pictures to draw, at least 2; see `drag`.
        width: Width of a picture on screen, in pixels.

    Attributes:
        canvas: The `DragCanvas`, with `handles`, `targets` and `mask`.
        result: The last `Dragged`, or None.
        slider: The `MixingSlider` over its pictures, or None. `slider.value` is the step.
        error: The exception of the last drag, or None.

    Raises:
        ValueError: If handles, targets, mask or frames are invalid.
    """

    _drawer: Drawing | None = None

    def __init__(
        self,
        pipe: Pipeline,
        picture: ImageLike,
        prompt: str,
        handles: PointList = (),
        targets: PointList = (),
        mask: ImageLike | None = None,
        options: DragOptions = DragOptions(),  # noqa: B008 (it is frozen)
        frames: int = 9,
        width: int = 256,
    ):
        check_pipeline(pipe)
        at_least(2, frames=frames)
        self._pipe, self._prompt, self._options, self._frames = pipe, prompt, options, frames
        (picture,) = to_pil(to_pixels(picture, *picture_size(pipe)))
        self.canvas = DragCanvas(picture, handles, targets, mask, width)
        # Messages about earlier arrows are cleared.
        self.canvas.observe(self._forget, names=["arrows", "_mask"])
        self.result: Dragged | None = None
        self.slider: MixingSlider | None = None
        self.error: Exception | None = None
        self._begin = widgets.Button(description="drag", button_style="primary")
        # The canvas's colour, in both versions of ipywidgets.
        self._begin.style.button_color = "#2f6690"
        # In the dark theme it would be black; ipywidgets 7 has no text_color.
        if self._begin.style.has_trait("text_color"):
            self._begin.style.text_color = "#ffffff"
        self._end = widgets.Button(description="stop", layout=widgets.Layout(visibility="hidden"))
        # A double click must not start a second drag.
        self._begin.on_click(lambda _: None if self.canvas._busy else self.drag())
        self._end.on_click(lambda _: self.stop())
        buttons = widgets.HBox([self._begin, self._end], layout=widgets.Layout(margin="0 2px"))
        self._left = widgets.VBox([self.canvas, buttons], layout=widgets.Layout(flex="0 1 auto"))
        self._both = widgets.HBox([self._left], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([self._both])

    def __repr__(self) -> str:
        return f"DragEditor({self._prompt!r}, {self.canvas!r})"

    def drag(self) -> "DragEditor":
        """Starts to drag along the current arrows, like the button.

        Returns:
            The editor itself.

        Raises:
            RuntimeError: If a drag is running.
        """
        canvas = self.canvas
        if canvas._busy:
            raise RuntimeError("a drag is running: `wait` for it, or `stop` it and wait")
        canvas._status = "training a LoRA of the picture" if self._options.lora_steps else "inverting the picture"
        Drawing({0: self._dragged(canvas.handles, canvas.targets, canvas.mask)}, [0], self._put, self._report)
        return self

    def wait(self) -> "DragEditor":
        """Blocks until the drag is over. Ctrl-C has the effect of `stop`.

        Returns:
            The editor itself.

        Raises:
            RuntimeError: If the drag was stopped before it started.
            Exception: The error that ended the drag.
        """
        if self._drawer:
            self._drawer.wait()
        return self

    def stop(self) -> None:
        """Stops the optimization after the current step and draws the best state so far."""
        if self._drawer:
            self._drawer.stop()

    def close(self) -> None:
        self.stop()
        super().close()

    def _forget(self, _: object) -> None:
        if not self.canvas._busy:
            self.canvas._status = ""

    def _dragged(self, handles: list[Point], targets: list[Point], mask: Image.Image | None) -> Iterator[Dragged]:
        if not handles:
            raise ValueError("there is no arrow yet: drag one from a handle to its target")
        arrival = self._options.resolved(self._pipe, self.canvas.picture.size[::-1]).arrival
        with ExitStack() as quiet:

            def told(step: int, left: float) -> None:
                stopped = self._drawer.stopped
                ended = stopped or left <= arrival or step == self._options.max_steps
                self.canvas._status = f"step {step}: {left:.0f} px left" + ", drawing the pictures" * ended
                self._end.layout.visibility = "hidden" if ended else "visible"
                if stopped:
                    # The status replaces the warning. Filters are global, so they are set as late as possible.
                    quiet.enter_context(warnings.catch_warnings())
                    warnings.filterwarnings("ignore", "interrupted after")
                    raise KeyboardInterrupt

            result = drag(
                self._pipe, self.canvas.picture, self._prompt, handles, targets, mask, self._options,
                frames=self._frames, callback=told, progress=False,
            )  # fmt: skip
        yield result

    def _put(self, _: int, __: int, result: Dragged) -> None:
        labels = [f"step {step}" for step in result.frame_steps]
        width = self.canvas._width
        slider = MixingSlider(result.frames, result.frame_steps, labels, width, axis="optimization step")
        slider.value = slider.etas[-1]
        # Next to the canvas if there is room for the picture.
        slider.layout.flex = f"1 1 {width + 8}px"
        before, self.slider, self.result = self.slider, slider, result
        self._both.children = [self._left, slider]
        if before:
            before.close()

    def _report(self, drawing: Drawing) -> None:
        # The first report precedes the thread, which checks `stopped`.
        self._drawer, self.error = drawing, drawing.error
        if not drawing.running:
            self.canvas._status = self._said(drawing)
        self._end.layout.visibility = "visible" if drawing.running and not drawing.done else "hidden"
        self._begin.disabled = drawing.running
        # Last, as it allows the next drag.
        self.canvas._busy = drawing.running

    def _said(self, drawing: Drawing) -> str:
        if isinstance(drawing.error, ValueError):
            return str(drawing.error)
        if drawing.error:
            return f"{type(drawing.error).__name__}: {drawing.error}"
        if not drawing.done:
            return "stopped before it started"
        count = len(self.result.losses)
        steps = f"{count} step{'' if count == 1 else 's'}"
        return f"{REASONS[self.result.reason].format(steps=steps)} ({sum(self.result.seconds.values()):.1f} s)"
