"""The widgets in JupyterLab, in a browser: how they move, and how long a picture takes to change.

Needs playwright (`pip install playwright`) and Chromium: its own (`playwright install chromium`) or one on the PATH.
`pytest tests/browser -s` prints the times.
"""

import statistics

import pytest

FRAMES = """
import numpy as np, smoothnb as sn
from PIL import Image
rng = np.random.default_rng(0)
def frame(i):
    grid = np.kron(rng.random((16, 16, 3)), np.ones((8, 8, 1))) * 235 + rng.random((128, 128, 3)) * 20
    return Image.fromarray(grid.astype("uint8"))
"""
SLIDER = "s = sn.MixingSlider({name: [frame(i) for i in range(17)] for name in ('base', 'smooth')})\ns"
PAD = "p = sn.MixingPad([frame(i) for i in range(25)])\np"
SLOW = """
import time
def slowly():
    for i in range(3):
        time.sleep(1)
        yield frame(i)
t = sn.MixingSlider({"base": slowly(), "smooth": slowly()}, [0, 1, 0.5])
t
"""
BUSY = "time.sleep(3)"
EDIT = """
from smoothnb import postcards
scene = postcards.example_scene("house")
answer = lambda words: postcards.picture(postcards.edit_as_stated(scene, words))
invert = lambda pipe, picture, prompt: sn.ddim_invert(pipe, picture, prompt, 4, progress=False)
red, blue = "a red house in a meadow at sunset", "a blue house in a meadow at sunset"
e = sn.EditSlider(sn.load_pipeline(), postcards.picture(scene), red, blue, answer, invert)
e
"""


@pytest.fixture(scope="module")
def page(open_notebook, run):
    """The notebook, with its pictures made; later cells run on demand."""
    page = open_notebook(FRAMES, SLIDER, PAD, SLOW, BUSY, EDIT)
    run(page, 0)
    return page


@pytest.fixture(scope="module")
def slider(page, run):
    """The output of the slider's cell."""
    run(page, 1)
    output = page.locator(".jp-CodeCell").nth(1)
    output.locator("img").nth(1).wait_for(timeout=60_000)
    return output


def caption(output):
    return output.locator(".smoothnb-caption").first.inner_text()


def test_the_slider_moves_by_mouse_and_keys(page, slider):
    handle = slider.locator("input[type=range]")
    box = handle.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert caption(slider) == "η = 0.50"
    for key, expected in {"ArrowRight": "0.56", "ArrowUp": "0.62", "ArrowLeft": "0.56", "ArrowDown": "0.50",
                          "Home": "0.00", "End": "1.00"}.items():  # fmt: skip
        page.keyboard.press(key)
        assert caption(slider) == f"η = {expected}"
    assert slider.locator(".smoothnb-name").all_inner_texts() == ["base", "smooth"]


def test_play_goes_there_and_back(page, slider):
    slider.locator("input[type=range]").press("End")
    play = slider.get_by_title("play there and back")
    play.click()
    page.wait_for_timeout(700)
    play.click()
    seen = caption(slider)
    assert "η = 0.50" < seen < "η = 1.00"
    page.wait_for_timeout(600)
    assert caption(slider) == seen


WATCH = """output => {
  const watched = window.moves;
  window.moves = [];
  if (watched) return;
  const images = [...output.querySelectorAll('img')];
  let since = 0, waiting = new Set();
  const begin = () => { since = performance.now(); waiting = new Set(images); };
  output.addEventListener('keydown', begin, true);
  output.addEventListener('pointermove', begin, true);
  images.forEach(image => image.addEventListener('load', async () => {
    await image.decode();
    waiting.delete(image);
    if (!waiting.size) window.moves.push(performance.now() - since);
  }));
}"""


@pytest.mark.parametrize("by", ["keys", "mouse"])
def test_pictures_change_within_50_milliseconds(page, slider, by):
    handle = slider.locator("input[type=range]")
    handle.press("Home")
    page.wait_for_timeout(500)
    slider.evaluate(WATCH)
    box = handle.bounding_box()
    there_and_back = [*range(1, 17), *range(15, -1, -1)] * 3
    if by == "mouse":
        page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
        page.mouse.down()
    for before, place in zip([0, *there_and_back], there_and_back, strict=False):
        if by == "keys":
            page.keyboard.press("ArrowRight" if place > before else "ArrowLeft")
        else:
            page.mouse.move(box["x"] + 8 + place / 16 * (box["width"] - 16), box["y"] + box["height"] / 2)
        page.wait_for_timeout(60)
    page.mouse.up()
    moves = sorted(page.evaluate("window.moves"))
    p95 = moves[int(0.95 * len(moves))]
    print(f"\n{by}: {len(moves)} moves, median {statistics.median(moves):.1f} ms, 95th percentile {p95:.1f} ms")
    assert len(moves) >= 60
    assert p95 <= 50


def test_the_pad_moves_by_mouse_and_keys(page, run):
    run(page, 2)
    output = page.locator(".jp-CodeCell").nth(2)
    output.locator(".smoothnb-here").wait_for(timeout=30_000)
    assert caption(output) == "A 1.00 · B 0.00 · C 0.00 · D 0.00"
    grid = output.locator(".smoothnb-grid")
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 10, box["y"] + box["height"] - 10, steps=8)
    page.mouse.up()
    assert caption(output) == "A 0.00 · B 0.00 · C 0.00 · D 1.00"
    grid.press("ArrowUp")
    grid.press("ArrowLeft")
    assert caption(output) == "A 0.06 · B 0.19 · C 0.19 · D 0.56"


def test_pictures_appear_and_move_while_they_are_drawn_and_while_the_kernel_is_busy(page, run):
    run(page, 3)
    output = page.locator(".jp-CodeCell").nth(3)
    first = output.locator("img[src]").first
    first.wait_for(timeout=5000)
    assert "of 6 pictures drawn" in output.locator(".smoothnb-status").inner_text()
    assert output.locator("img[src]").count() == 1
    run(page, 4)
    page.wait_for_timeout(1700)
    here = first.get_attribute("src")
    output.locator("input[type=range]").press("End")
    assert caption(output) == "η = 1.00"
    page.wait_for_timeout(1000)
    assert first.get_attribute("src") != here
    output.locator(".smoothnb-status").wait_for(state="hidden", timeout=10_000)
    assert output.locator("img[src]").count() == 2


def test_an_edit_is_typed_and_its_slider_moves(page, run):
    run(page, 5)
    output = page.locator(".jp-CodeCell").nth(5)

    def wait_for_pictures(status):
        status.wait_for(state="hidden", timeout=60_000)
        return output.locator("img[src]").evaluate_all("images => images.map(image => image.src)")

    output.locator("img[src]").nth(3).wait_for(timeout=60_000)
    status = output.locator(".smoothnb-status")
    before = wait_for_pictures(status)
    assert output.locator(".smoothnb-name").all_inner_texts() == ["picture", "edit", "true edit", "difference"]
    assert caption(output) == "switch = 0.80"
    handle = output.get_by_label("switch", exact=True)
    handle.press("Home")
    assert caption(output) == "switch = 0.00"
    field = output.locator("input[type=text]").nth(1)
    field.fill("")
    field.press("Enter")
    output.get_by_text("the target prompt is empty").wait_for(timeout=10_000)
    assert output.locator("img[src]").count() == 4
    field.fill("a white house in a meadow at sunset")
    field.press("Enter")
    output.get_by_text("the target prompt is empty").wait_for(state="hidden", timeout=10_000)
    output.locator("img[src]").nth(3).wait_for(timeout=60_000)
    after = wait_for_pictures(status)
    assert caption(output) == "switch = 0.00" and len(after) == len(before) == 4
    assert not set(after) & set(before)
