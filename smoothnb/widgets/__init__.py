from smoothnb.widgets.blend import BlendSlider
from smoothnb.widgets.live import LivePlot
from smoothnb.widgets.mixing import MixingSlider
from smoothnb.widgets.pad import MixingPad, pad_weights
from smoothnb.widgets.strips import strip
from smoothnb.widgets.upload import PictureUpload

__all__ = ["BlendSlider", "LivePlot", "MixingPad", "MixingSlider", "PictureUpload", "pad_weights", "strip"]
