"""The menu of walks in JupyterLab: another prompt, another picture, other bars, the same η."""

WALKS = """
import smoothnb as sn
from PIL import Image
row = lambda *greys: [Image.new("RGB", (32, 32), (g, g, g)) for g in greys]
pine = {"base": row(0, 255, 255), "smooth": row(0, 100, 200)}
house = {"base": row(0, 0, 0), "smooth": row(0, 0, 255)}
sn.WalkSlider({"a pine": pine, "a house": house})
"""
DARK = (
    "panels => panels.map(p => [...p.querySelectorAll('rect')].findIndex(r => r.getAttribute('fill-opacity') == '1'))"
)


def test_prompt_and_ratio_are_picked_and_the_bars_follow(open_notebook, run):
    page = open_notebook(WALKS)
    run(page, 0)
    output = page.locator(".jp-CodeCell").first
    bars = output.locator("svg[role=img]")
    bars.nth(1).wait_for(timeout=60_000)
    assert bars.evaluate_all(DARK) == [-1, -1]

    output.locator("input[type=range]").press("End")
    output.get_by_text("this step").first.wait_for()
    assert bars.evaluate_all(DARK) == [1, 1]
    before = output.locator("img").nth(1).get_attribute("src")

    output.locator("select").select_option("a house")
    page.wait_for_function("before => document.querySelectorAll('.jp-CodeCell img')[1]?.src != before", arg=before)
    assert output.locator(".smoothnb-caption").first.inner_text() == "η = 1.00"
    assert bars.nth(1).get_attribute("aria-label") == "smooth steps: 0.0, 55.4"

    output.locator("input[type=range]").press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('.jp-CodeCell .smoothnb-caption').innerText == 'η = 0.50'")
    page.wait_for_function(f"() => ({DARK})([...document.querySelectorAll('.jp-CodeCell svg[role=img]')])[0] == 0")
