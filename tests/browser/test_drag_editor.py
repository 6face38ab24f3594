"""The drag editor in JupyterLab, in a browser: from an arrow drawn by mouse to a result whose slider moves."""

import re

import pytest

SETUP = """
import smoothnb as sn
pipe = sn.load_pipeline()
options = sn.DragOptions(num_inference_steps=6, max_steps=8, learning_rate=0.3)
"""
EDITOR = """
e = sn.DragEditor(pipe, *sn.example_picture("house"), options=options, frames=3)
e
"""
ARROWS = "print('arrows', e.canvas.arrows)"


@pytest.fixture(scope="module")
def page(open_notebook, run):
    page = open_notebook(SETUP, EDITOR, ARROWS)
    run(page, 0)
    run(page, 1)
    return page


def test_an_arrow_is_drawn_and_the_result_appears_beside_it(page, run):
    output = page.locator(".jp-CodeCell").nth(1)
    stage, drag = output.locator(".smoothnb-stage"), output.get_by_role("button", name="drag", exact=True)
    stage.wait_for(timeout=90_000)
    assert not output.get_by_role("button", name="stop", exact=True).is_visible()
    drag.click()
    output.get_by_text("there is no arrow yet").wait_for(timeout=10_000)

    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    page.mouse.move(box["x"] + 88, box["y"] + 176)
    page.mouse.down()
    page.mouse.move(box["x"] + 148, box["y"] + 176, steps=4)
    page.mouse.up()
    output.get_by_text("Drag from what should move").wait_for(timeout=10_000)
    drag.click()
    output.get_by_text(re.compile(r"after \d steps.* s\)$")).wait_for(timeout=60_000)
    run(page, 2)
    page.get_by_text("arrows [[44.0, 88.0, 74.0, 88.0]]").wait_for(timeout=10_000)

    result, slider = output.locator(".smoothnb-column img"), output.get_by_label("optimization step", exact=True)
    beside = result.bounding_box()
    assert beside["y"] == pytest.approx(box["y"], abs=2) and beside["width"] == box["width"]
    assert beside["x"] > box["x"] + box["width"]
    caption = output.locator(".smoothnb-caption")
    after, last = result.get_attribute("src"), caption.inner_text()
    slider.press("Home")
    assert caption.inner_text() == "step 0" != last
    assert result.get_attribute("src") not in (None, after)
    # The picture stays until the next one is there, and the slider is then that of the next.
    drag.click()
    output.get_by_text(last, exact=True).wait_for(timeout=60_000)
    assert output.locator(".smoothnb-column img").count() == 1
