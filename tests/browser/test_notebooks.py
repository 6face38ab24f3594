"""Every notebook in JupyterLab, run from the menu: no error, no blank widget; keys, names and both themes.

`pytest tests/browser/test_notebooks.py -k 03` runs one of them. The environment variable SCREENSHOTS names a folder to
keep a picture of each widget in, in both themes.
"""

import io
import os
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

NOTEBOOKS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))}
GALLERY = [
    """
import numpy as np, smoothnb as sn
from PIL import Image
pipe = sn.load_pipeline()
house, prompt = sn.example_picture("house")
house = house.resize((128, 128))
row = [Image.blend(house, house.rotate(180), i / 4) for i in range(5)]
""",
    "sn.MixingSlider(row)",
    "sn.MixingSlider({'base': row, 'smooth': row[::-1], 'a third one': row}, width=256)",
    "sn.MixingSlider(iter(row[:3]), [i / 4 for i in range(5)], width=256)",
    "sn.BlendSlider({0: row, 0.5: row[::-1], 1: row})",
    "sn.MixingPad([Image.blend(row[i], row[-1], j / 3) for i in range(4) for j in range(4)])",
    "sn.WalkSlider({prompt: {'base': row, 'smooth': row}, 'another': {'base': row, 'smooth': row}})",
    """
plot = sn.LivePlot("loss", "regularizer", "spread")
for i in range(30):
    plot.add(i, loss=1 / (i + 1), regularizer=i % 3, spread=i)
plot.draw()
plot
""",
    "sn.PictureUpload(house)",
    "sn.DragCanvas(house, [(30, 30), (90, 90)], [(60, 30), (90, 60)], np.arange(128 * 128).reshape(128, 128) > 8000)",
    """
options = sn.DragOptions(num_inference_steps=6, max_steps=8, learning_rate=0.3)
editor = sn.DragEditor(pipe, house, prompt, [(44, 88)], [(74, 88)], options=options, frames=3)
editor.drag().wait()
editor
""",
    """
invert = lambda pipe, picture, prompt: sn.ddim_invert(pipe, picture, prompt, 4, progress=False)
answer = lambda words: row[-1]
sn.EditSlider(pipe, house, prompt, prompt.replace("red", "azure").replace("blue", "azure"), answer, invert)
""",
]
"""Each widget once, also those that no notebook shows, and as no notebook has them."""

OUTPUTS = ".jp-OutputArea-executeResult > .jp-OutputArea-output:has(.jupyter-widgets, .smoothnb)"
# Errors, and warnings: JupyterLab shows them alike.
ERRORS = '[data-mime-type="application/vnd.jupyter.stderr"]'
# `textContent`, as JupyterLab leaves out to lay out what is not in sight.
RUN = """() => {
  const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')].map(node => node.textContent);
  const status = document.querySelector('.jp-Notebook-ExecutionIndicator').dataset.status;
  const failed = document.querySelector('ERRORS');
  return status === 'idle' && !prompts.some(text => text.includes('*')) && (failed || /\\d/.test(prompts.at(-1)));
}""".replace("ERRORS", ERRORS)
DRAWN = """() => [...document.querySelectorAll('.smoothnb-status')]
  .every(node => !node.textContent.includes('the nearest stands in'))"""
# Those that a reader of the screen is told of.
PARTS = "input:not([type=file]), button, select, textarea, [role=slider], [role=application], [tabindex], img, svg"
BLANK = """root => {
  const problems = [];
  if (root.innerText.match(/Error displaying widget|Loading widget|Traceback/)) problems.push(root.innerText);
  const pen = Object.assign(document.createElement('canvas'), { width: 32, height: 32 }).getContext('2d');
  const pictures = [...root.querySelectorAll('img')].filter(node => node.checkVisibility());
  for (const picture of pictures) {
    if (!picture.complete || !picture.naturalWidth) { problems.push('not loaded: ' + picture.outerHTML); continue; }
    pen.drawImage(picture, 0, 0, 32, 32);
    const pixels = new Set(new Uint32Array(pen.getImageData(0, 0, 32, 32).data.buffer));
    if (pixels.size < 2) problems.push('of one colour: ' + picture.outerHTML.slice(0, 200));
    if (picture.width < 8 || picture.height < 8) problems.push('tiny: ' + picture.outerHTML.slice(0, 200));
  }
  for (const canvas of root.querySelectorAll('canvas')) if (!canvas.width) problems.push('a canvas of no width');
  if (!pictures.length && !root.querySelector('button')) problems.push('nothing to see');
  return problems;
}"""
# Text in its colour on what lies behind, by the formula of WCAG 2; and whatever sticks out of the output.
READABLE = """root => {
  const problems = [];
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = (text) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = text;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [[r, g, b], a / 255];
  };
  const over = ([upper, alpha], lower) => upper.map((value, i) => alpha * value + (1 - alpha) * lower[i]);
  const behind = (node) => {
    if (!node) return [255, 255, 255];
    const layer = rgba(getComputedStyle(node).backgroundColor);
    return layer[1] === 1 ? layer[0] : over(layer, behind(node.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const said = (node) => `${node.tagName} ${(node.value || node.textContent).trim().slice(0, 40)}`;
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const nodes = new Set(root.querySelectorAll('input[type=text], select, textarea'));
  while (walker.nextNode()) if (walker.currentNode.data.trim()) nodes.add(walker.currentNode.parentElement);
  for (const node of nodes) {
    // What is switched off may be pale.
    if (node.closest('option, :disabled') || !node.checkVisibility({ visibilityProperty: true })) continue;
    const style = getComputedStyle(node);
    const [colour, alpha] = rgba(style.color);
    let opacity = alpha;
    for (let up = node; up; up = up.parentElement) opacity *= getComputedStyle(up).opacity;
    const back = behind(node);
    const lights = [light(over([colour, opacity], back)), light(back)].sort((a, b) => b - a);
    const contrast = (lights[0] + 0.05) / (lights[1] + 0.05);
    if (contrast < 4.5) problems.push(`contrast ${contrast.toFixed(2)}: ${said(node)}`);
    if (parseFloat(style.fontSize) < 11) problems.push(`small, ${style.fontSize}: ${said(node)}`);
    const text = document.createRange();
    text.selectNodeContents(node);
    const { left, right } = text.getBoundingClientRect();
    const box = node.getBoundingClientRect();
    const clipped = 'value' in node ? node.scrollWidth > node.clientWidth + 1
      : style.overflowX !== 'visible' && (left < box.left - 1 || right > box.right + 1);
    if (clipped)
      problems.push(`clipped: ${said(node)}`);
  }
  const limit = root.getBoundingClientRect();
  for (const node of root.querySelectorAll('*')) {
    const box = node.getBoundingClientRect();
    if (box.width && node.checkVisibility() && (box.right > limit.right + 1 || box.left < limit.left - 1))
      problems.push(`sticks out: ${node.tagName} ${node.className}, to ${box.right} of ${limit.right}`);
  }
  return problems;
}"""
STATE = """root => [[...root.querySelectorAll('img')].map(node => node.src).join(),
  [...root.querySelectorAll('.smoothnb-caption')].map(node => node.innerText).join()]"""


@pytest.fixture(scope="module", params=[*NOTEBOOKS, "gallery"])
def page(request, open_file, choose):
    """The notebook, run to its end."""
    if request.param == "gallery":
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s.strip()) for s in GALLERY])
        shows, warnings = range(1, len(GALLERY)), []
    else:
        notebook = nbformat.read(NOTEBOOKS[request.param], as_version=4)
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        shows = [i for i, cell in enumerate(cells) if "vnd.jupyter.widget-view" in str(cell.outputs)]
        # None that the notebook does not keep, and so speak of.
        warnings = [o.text for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
        for cell in cells:
            cell.outputs, cell.execution_count = [], None
    page = open_file(notebook, f"{request.param}.ipynb", viewport={"width": 1280, "height": 800})
    page.name, page.shows, page.warnings, page.problems = request.param, list(shows), warnings, []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    choose(page, "Run", "Run All Cells")
    page.wait_for_function("() => document.querySelector('[data-status=busy]')", timeout=60_000)
    page.wait_for_function(RUN, timeout=1_800_000, polling=500)
    page.wait_for_function(DRAWN, timeout=300_000, polling=500)
    yield page
    page.close()


def outputs(page):
    return page.locator(OUTPUTS).all()


def look_at(widget):
    widget.evaluate("node => node.scrollIntoView({ block: 'center' })")
    widget.page.wait_for_timeout(300)


def test_all_cells_run_and_no_widget_is_blank(page):
    assert page.locator(ERRORS).all_text_contents() == page.warnings
    shown = page.locator(".jp-CodeCell").evaluate_all(
        f"cells => cells.flatMap((cell, i) => cell.querySelector('{OUTPUTS}') ? [i] : [])"
    )
    assert shown == page.shows
    for widget in outputs(page):
        look_at(widget)
        assert widget.evaluate(BLANK) == []
    assert page.get_by_text("Error displaying widget").count() == page.get_by_text("Loading widget").count() == 0
    assert page.problems == []


def test_every_slider_is_moved_by_keys(page):
    moved = 0
    for widget in outputs(page):
        for handle in widget.locator("input[type=range]:visible, .smoothnb-grid").all():
            there_and_back = (["Home", "End"], ["End", "Home"])
            if "smoothnb-grid" in handle.get_attribute("class"):
                there_and_back = (["ArrowRight", "ArrowDown"], ["ArrowLeft", "ArrowUp"])
            for keys in there_and_back:
                handle.press(keys[0])
                before = widget.evaluate(STATE)
                handle.press(keys[1])
                page.wait_for_timeout(300)
                after = widget.evaluate(STATE)
                assert before[0] != after[0] and before[1] != after[1], (before[1], after[1])
                assert widget.evaluate(BLANK) == []
            moved += 1
    assert moved or not page.shows or page.locator(f"{OUTPUTS} .smoothnb").count() == 0


def test_every_part_has_a_name_and_shows_the_focus(page):
    devtools = page.context.new_cdp_session(page)
    document = devtools.send("DOM.getDocument")["root"]["nodeId"]
    problems = []
    for i, widget in enumerate(outputs(page)):
        widget.evaluate("(node, i) => node.dataset.number = i", i)
        for j, part in enumerate(widget.locator(PARTS).all()):
            if not part.is_visible():
                continue
            part.evaluate("(node, j) => node.dataset.part = j", j)
            found = devtools.send(
                "DOM.querySelector", {"nodeId": document, "selector": f'[data-number="{i}"] [data-part="{j}"]'}
            )
            told = devtools.send("Accessibility.getPartialAXTree", found | {"fetchRelatives": False})["nodes"][0]
            what = part.evaluate("node => node.outerHTML.slice(0, 200)")
            # What is only to be looked at may be hidden, on purpose.
            hidden = part.get_attribute("alt") == "" or (told["ignored"] and part.get_attribute("tabindex") is None)
            name = told.get("name", {}).get("value", "").strip()
            if not hidden and not any(character.isalpha() for character in name):
                problems.append(f"no name, {name!r}: {what}")
            if part.evaluate("node => node.tabIndex >= 0 && !node.disabled") and not focus_is_seen(page, part):
                problems.append(f"no focus to be seen: {what}")
    assert not problems, "\n".join(problems)


def focus_is_seen(page, part):
    # Only for those who came by the keyboard. The page may move to what this finds.
    page.keyboard.press("Tab")
    look_at(part)
    box = part.bounding_box()
    clip = {"x": box["x"] - 6, "y": box["y"] - 6, "width": box["width"] + 12, "height": box["height"] + 12}
    pictures = []
    for act in ("focus", "blur"):
        part.evaluate(f"node => node.{act}({{ preventScroll: true }})")
        page.wait_for_timeout(250)
        pictures.append(np.asarray(Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")).astype(int))
    return (np.abs(pictures[0] - pictures[1]).max(2) > 40).sum() > 20


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_all_can_be_read(page, choose, theme):
    is_light = str(theme == "Light").lower()
    if page.evaluate("document.body.dataset.jpThemeLight") != is_light:
        choose(page, "Settings", "Theme", f"JupyterLab {theme}")
    page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{is_light}'", timeout=30_000)
    page.wait_for_timeout(1500)
    problems = []
    for i, widget in enumerate(outputs(page)):
        look_at(widget)
        problems += [f"{i}: {problem}" for problem in widget.evaluate(READABLE)]
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"{page.name}_{i}_{theme.lower()}.png")
    assert not problems, "\n".join(problems)
