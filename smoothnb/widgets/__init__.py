from smoothnb.widgets.canvas import DragCanvas
from smoothnb.widgets.drag_editor import DragEditor
from smoothnb.widgets.editing import EditSlider
from smoothnb.widgets.live import LivePlot
from smoothnb.widgets.mixing import BlendSlider, MixingSlider
from smoothnb.widgets.pad import MixingPad, pad_weights
from smoothnb.widgets.upload import PictureUpload
from smoothnb.widgets.walks import WalkSlider

__all__ = [
    "BlendSlider", "DragCanvas", "DragEditor", "EditSlider", "LivePlot", "MixingPad", "MixingSlider", "PictureUpload",
    "WalkSlider", "pad_weights",
]  # fmt: skip
