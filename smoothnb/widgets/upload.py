"""A button that takes a picture from the reader's own machine."""

import io
from collections.abc import Mapping

import ipywidgets as widgets
from PIL import Image

from smoothnb._utils.arguments import checked
from smoothnb.figures.strips import picture as rgb
from smoothnb.images import to_rgb


class PictureUpload(widgets.FileUpload):
    """A file chooser for one picture; until the reader has chosen one, another stands in.

    Args:
        default: What stands in.

    Attributes:
        chosen: Whether the reader has chosen a picture.
    """

    @checked(default=rgb)
    def __init__(self, default: Image.Image):
        super().__init__(accept="image/*", multiple=False, description="your picture")
        # ipywidgets 8 would show "null"; 7 has none here.
        if self.has_trait("tooltip"):
            self.tooltip = "choose a picture from this machine"
        self._default = default

    def __repr__(self) -> str:
        return f"PictureUpload({'a picture is chosen' if self.chosen else 'no picture chosen yet'})"

    @property
    def chosen(self) -> bool:
        return bool(self.value)

    @property
    def picture(self) -> Image.Image:
        """The picture chosen last, in RGB and the right way up; before that, the one that stands in.

        Raises:
            ValueError: If the file chosen is no picture.
        """
        if not self.chosen:
            return self._default
        # A dictionary by name in ipywidgets 7, which Colab has; a tuple since 8.
        files = list(self.value.values() if isinstance(self.value, Mapping) else self.value)
        try:
            return to_rgb(io.BytesIO(files[-1]["content"]))
        except ValueError as error:
            raise ValueError("the file chosen is no picture that pillow can read: choose another") from error
