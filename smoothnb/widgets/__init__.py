from smoothnb.widgets.mixing import MixingSlider
from smoothnb.widgets.strips import strip

__all__ = ["MixingSlider", "strip"]
