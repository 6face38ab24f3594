import re

import pytest
import traitlets
from PIL import Image

from smoothnb import WalkSlider


def row(*greys):
    return [Image.new("RGB", (4, 4), (g, g, g)) for g in greys]


WALKS = {
    "a pine": {"base": row(0, 255, 255), "smooth": row(0, 100, 200)},
    "a <b>house</b>": {"base": row(0, 0, 0), "smooth": row(0, 0, 255)},
}
WHITE = 48**0.5
"""Distance from black to white."""


def shown(walks):
    """By row: the height of each bar as a share of the highest, and the number of the dark one."""
    found = []
    for panel in re.findall("<svg.*?</svg>", walks._bars.value):
        heights = [float(h) for h in re.findall(r'height="([\d.]+)" fill=', panel)]
        opacities = re.findall(r'fill-opacity="([\d.]+)"', panel)
        found.append(([h / 96 for h in heights], opacities.index("1") if "1" in opacities else None))
    return found


def test_bars_are_distances_and_the_step_that_led_here_is_dark():
    walks = WalkSlider(WALKS)
    assert shown(walks) == [([1, 0], None), ([pytest.approx(100 / 255, abs=0.01)] * 2, None)]
    walks.value = 0.5
    assert [dark for _, dark in shown(walks)] == [0, 0] and walks.slider.index == 1
    assert f"this step {WHITE:.1f}" in walks._bars.value and f"deviation {WHITE / 2:.1f}" in walks._bars.value
    assert 'aria-label="base steps: 6.9, 0.0"' in walks._bars.value


def test_another_prompt_shows_its_walk_at_the_same_ratio():
    walks = WalkSlider(WALKS)
    first = walks.slider
    walks.slider.index = 2  # as the browser does
    assert walks.value == 1.0
    walks._menu.value = "a <b>house</b>"
    assert walks.prompt == "a <b>house</b>" and walks.slider is not first and walks.slider.value == 1.0
    assert walks.children[1] is walks.slider and shown(walks) == [([0, 0], 1), ([0, 1], 1)]
    walks.value = 0.0
    walks.prompt = "a pine"
    assert walks.slider is first and first.value == 0.0, "the slider is kept, and follows"
    first.value = 0.5
    assert walks.value == 0.5


def test_values_go_to_the_nearest_frame_and_unknown_prompts_are_named():
    walks = WalkSlider(WALKS)
    walks.value = 0.6
    assert walks.value == 0.5
    with pytest.raises(traitlets.TraitError, match="'fog'"):
        walks.prompt = "fog"
    with pytest.raises(ValueError, match="at least one prompt"):
        WalkSlider({})


def test_names_cannot_break_the_page():
    walks = WalkSlider({"a": {'"><script>': row(0, 9)}})
    assert "<script>" not in walks._bars.value


def test_a_walk_without_any_change_has_bars_of_no_height():
    assert shown(WalkSlider({"a": {"still": row(5, 5, 5)}})) == [([0, 0], None)]
