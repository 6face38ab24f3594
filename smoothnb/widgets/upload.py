"""A button to upload a picture."""

import io
from collections.abc import Mapping

import ipywidgets as widgets
from PIL import Image

from smoothnb.images import to_rgb


class PictureUpload(widgets.FileUpload):
    """A file chooser for one picture, with a default until one is chosen.

    Args:
        default: The default picture.

    Attributes:
        chosen: Whether a picture was chosen.
    """

    def __init__(self, default: Image.Image):
        super().__init__(accept="image/*", multiple=False, description="your picture")
        # ipywidgets 8 would show "null"; 7 has no tooltip here.
        if self.has_trait("tooltip"):
            self.tooltip = "choose a picture from this machine"
        self._default = to_rgb(default)

    def __repr__(self) -> str:
        return f"PictureUpload({'a picture is chosen' if self.chosen else 'no picture chosen yet'})"

    @property
    def chosen(self) -> bool:
        return bool(self.value)

    @property
    def picture(self) -> Image.Image:
        """The chosen picture in RGB, with EXIF orientation applied; or the default.

        Raises:
            ValueError: If the chosen file is not a picture.
        """
        if not self.chosen:
            return self._default
        # A dict in ipywidgets 7, which Colab has; a tuple since 8.
        files = list(self.value.values() if isinstance(self.value, Mapping) else self.value)
        try:
            return to_rgb(io.BytesIO(files[-1]["content"]))
        except ValueError as error:
            raise ValueError("the chosen file is not a picture that Pillow can read: choose another") from error
