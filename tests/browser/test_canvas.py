"""The canvas in JupyterLab, in a browser: where arrows and mask land in the picture, by mouse, touch and keys."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

SETUP = """
import base64, json, zlib, numpy as np
from PIL import Image
from smoothnb.widgets.canvas import DragCanvas
marks = {(40, 60): "#ff0000", (200, 30): "#00ff00", (120, 170): "#0000ff"}
picture = Image.new("RGB", (256, 192), "#404040")
for (x, y), colour in marks.items():
    picture.paste(colour, (x - 4, y - 4, x + 4, y + 4))
drawn = asked = 0
"""
CANVAS = """
drawn += 1
c = DragCanvas(picture)
c._status = f"canvas {drawn}"
c
"""
PROBE = """
asked += 1
mask = c.mask and base64.b64encode(zlib.compress(np.asarray(c.mask).tobytes())).decode()
print("answer", json.dumps({"asked": asked, "arrows": c.arrows, "mask": mask}))
"""
FROM_PYTHON = "c.arrows, c.mask = [[20, 20, 20, 80]], np.arange(192 * 256).reshape(192, 256) % 256 > 127"
BUSY = "c._busy = not c._busy; c._status = 'busy' if c._busy else 'ready'"
AGAIN = "c"
RED, GREEN, BLUE = (40, 60), (200, 30), (120, 170)


class Canvas:
    """The newest canvas on a page, and what the kernel knows of it."""

    def __init__(self, page, run):
        self.page, self.run = page, run
        self.drawn = self.asked = 0
        self.output = self.page.locator(".jp-CodeCell").nth(1)
        self.stage = self.output.locator(".smoothnb-stage")

    def fresh(self):
        self.drawn += 1
        self.run(self.page, 1)
        self.output.get_by_text(f"canvas {self.drawn}", exact=True).wait_for(timeout=90_000)
        self.page.wait_for_function("stage => stage.querySelector('img').naturalWidth", arg=self.stage.element_handle())
        return self

    def look(self):
        """The page as it is seen, in CSS pixels."""
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot(scale="css"))).convert("RGB")).astype(int)

    def marks(self):
        """Where the picture's three marks are seen on the page: of each, the middle."""
        box = self.stage.locator("img").bounding_box()
        left, top = int(box["x"]), int(box["y"])
        seen = self.look()[top : top + int(box["height"]), left : left + int(box["width"])]
        y, x = np.mgrid[: seen.shape[0], : seen.shape[1]] + 0.5
        places = {}
        for point, colour in {RED: 0, GREEN: 1, BLUE: 2}.items():
            weight = (seen[..., colour] - seen.max(2, where=np.arange(3) != colour, initial=0)).clip(0)
            places[point] = (left + np.average(x, weights=weight), top + np.average(y, weights=weight))
        return places

    def at(self, x, y):
        self.stage.scroll_into_view_if_needed()
        box = self.stage.locator("img").bounding_box()
        return box["x"] + x / 256 * box["width"], box["y"] + y / 192 * box["height"]

    def drag(self, *points):
        """By mouse, through points of the picture."""
        self.page.mouse.move(*self.at(*points[0]))
        self.page.mouse.down()
        for point in points[1:]:
            self.page.mouse.move(*self.at(*point), steps=4)
        self.page.mouse.up()

    def press(self, name):
        self.output.get_by_role("button", name=name, exact=True).click()

    def keys(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def kernel(self):
        """Arrows, and where the mask is white (None without), as the kernel has them."""
        self.asked += 1
        focused = self.page.evaluate_handle("document.activeElement")
        self.run(self.page, 2)
        answer = self.page.get_by_text(f'answer {{"asked": {self.asked},')
        answer.wait_for(timeout=20_000)
        focused.evaluate("node => node.focus()")
        found = json.loads(answer.inner_text().removeprefix("answer"))
        if found["mask"] is None:
            return found["arrows"], None
        pixels = np.frombuffer(zlib.decompress(base64.b64decode(found["mask"])), np.uint8)
        assert set(pixels) <= {0, 255}
        return found["arrows"], pixels.reshape(192, 256) == 255

    def arrows(self):
        return self.kernel()[0]

    def mask(self):
        return self.kernel()[1]


SCREENS = {"screen": {}, "phone": {"device_scale_factor": 2, "has_touch": True}}


@pytest.fixture(scope="module")
def open_canvas(open_notebook, run):
    """From the name of a screen to a canvas on it; made once, and new again for each test."""
    made = {}

    def open_canvas(screen="screen"):
        if screen not in made:
            page = open_notebook(SETUP, CANVAS, PROBE, FROM_PYTHON, BUSY, AGAIN, **SCREENS[screen])
            run(page, 0)
            made[screen] = Canvas(page, run)
        return made[screen].fresh()

    return open_canvas


@pytest.fixture
def canvas(open_canvas):
    return open_canvas()


def near(found, expected, by=0.1):
    np.testing.assert_allclose(found, expected, atol=by)
    return True


@pytest.mark.parametrize(
    ("screen", "style"),
    [
        ("screen", ""),
        ("screen", "document.body.style.zoom = 0.75"),
        ("screen", "document.body.style.zoom = 1.5"),
        ("screen", "widget.style.width = '160px'"),
        ("screen", "widget.style.transform = 'scale(0.8)'"),
        ("phone", ""),
        ("phone", "document.body.style.zoom = 1.5"),
    ],
)
def test_arrows_end_where_the_picture_was_touched(open_canvas, screen, style):
    canvas = open_canvas(screen)
    canvas.stage.evaluate(f"stage => {{ const widget = stage.parentElement; {style} }}")
    canvas.page.wait_for_timeout(500)
    try:
        marks = canvas.marks()
        for start, end in [(RED, GREEN), (BLUE, RED)]:
            canvas.page.mouse.move(*marks[start])
            canvas.page.mouse.down()
            canvas.page.mouse.move(*marks[end], steps=5)
            canvas.page.mouse.up()
    finally:
        canvas.page.evaluate("document.body.style.zoom = ''")
    # Browsers draw a picture up to a pixel and a half of the screen beside the place they report.
    assert near(canvas.arrows(), [[*RED, *GREEN], [*BLUE, *RED]], by=0.8)


def test_an_end_is_moved_and_keeps_its_distance_from_the_pointer(canvas):
    canvas.drag((60, 60), (120, 80))
    canvas.drag((63, 62), (33, 92))
    assert near(canvas.arrows(), [[30, 90, 120, 80]])
    canvas.drag((120, 80), (250, 10))
    assert near(canvas.arrows(), [[30, 90, 250, 10]])
    canvas.drag((250, 10), (250, 10))
    assert near(canvas.arrows(), [[30, 90, 250, 10]])


def test_arrows_stay_within_the_picture_and_clicks_are_none(canvas):
    canvas.drag((60, 60), (400, -50))
    canvas.drag((100, 100), (101.5, 101.5))
    canvas.drag((100, 100))
    assert near(canvas.arrows(), [[60, 60, 256, 0]])


def disc(x, y, radius):
    down, right = np.mgrid[:192, :256] + 0.5
    return np.hypot(right - x, down - y) <= radius


def test_a_mask_is_painted_and_erased(canvas):
    canvas.press("paint")
    canvas.output.get_by_label("brush").fill("40")
    canvas.drag((60, 100), (160, 100))
    mask = canvas.mask()
    between = np.zeros((192, 256), dtype=bool)
    between[80:120, 60:160] = True
    expected = between | disc(60, 100, 20) | disc(160, 100, 20)
    # Only at the rim may they differ.
    assert (mask ^ expected).sum() < 40
    canvas.press("erase")
    canvas.drag((160, 100))
    expected &= ~disc(160, 100, 20)
    assert (canvas.mask() ^ expected).sum() < 60
    assert canvas.arrows() == []
    canvas.drag((60, 100), (160, 100))
    assert canvas.mask() is None


def test_erasing_comes_first_where_a_part_must_stay(canvas):
    canvas.press("erase")
    canvas.output.get_by_label("brush").fill("40")
    canvas.drag((100, 100))
    assert (canvas.mask() ^ ~disc(100, 100, 20)).sum() < 20


def test_undo_and_clear(canvas):
    canvas.drag((60, 60), (120, 80))
    canvas.press("paint")
    canvas.drag((200, 150))
    mask = canvas.mask()
    canvas.press("clear")
    assert canvas.kernel() == ([], None)
    canvas.press("undo")
    arrows, back = canvas.kernel()
    assert near(arrows, [[60, 60, 120, 80]]) and (back == mask).all()
    # Painting goes on from the mask that came back.
    canvas.drag((30, 30))
    more = canvas.mask()
    assert more[mask].all() and more.sum() > 1.5 * mask.sum()
    for _ in range(2):
        canvas.press("undo")
    arrows, none = canvas.kernel()
    assert near(arrows, [[60, 60, 120, 80]]) and none is None
    canvas.stage.press("Control+z")
    assert canvas.arrows() == []


def test_keys_draw_arrows_and_paint(canvas):
    canvas.stage.focus()
    # From the middle, (128, 96).
    canvas.keys("Shift+ArrowLeft", "ArrowUp", "Enter", "Shift+ArrowDown", "Shift+ArrowRight", "ArrowRight", "Space")
    assert near(canvas.arrows(), [[118, 95, 129, 105]])
    canvas.keys("Shift+ArrowUp", "Shift+ArrowUp", "Enter", "Shift+ArrowUp", "Escape")
    assert near(canvas.arrows(), [[118, 95, 129, 105]])
    canvas.keys("Enter", "Shift+ArrowRight", "Enter", "Backspace")
    assert near(canvas.arrows(), [[118, 95, 129, 105]])
    canvas.keys("Delete")
    assert canvas.arrows() == []
    canvas.keys("Control+z")
    assert near(canvas.arrows(), [[118, 95, 129, 105]])
    canvas.press("paint")
    canvas.output.get_by_label("brush").fill("20")
    canvas.stage.focus()
    canvas.keys("Shift+ArrowLeft", "Enter", "Enter")
    assert (canvas.mask() ^ disc(118, 96, 10)).sum() < 20
    # JupyterLab has seen none of these keys.
    assert canvas.page.locator(".jp-CodeCell").count() == 6


def test_fingers_draw_and_a_second_one_is_ignored(open_canvas):
    canvas = open_canvas("phone")
    fingers = canvas.page.context.new_cdp_session(canvas.page)

    def touch(kind, *points):
        places = [dict(zip("xy", canvas.at(*point), strict=True), id=i) for i, point in enumerate(points)]
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (60, 60))
    touch("touchMove", (80, 80))
    touch("touchStart", (80, 80), (200, 30))
    touch("touchMove", (100, 150), (220, 100))
    touch("touchEnd", (100, 150))
    touch("touchEnd")
    assert near(canvas.arrows(), [[60, 60, 100, 150]])
    # Further from an end than a mouse may be.
    touch("touchStart", (68, 60))
    touch("touchMove", (88, 50))
    touch("touchEnd")
    assert near(canvas.arrows(), [[80, 50, 100, 150]])


def test_what_python_sets_is_drawn_and_nothing_can_be_drawn_while_it_is_busy(canvas):
    before = canvas.look()
    canvas.run(canvas.page, 3)
    canvas.page.wait_for_timeout(1000)
    after = canvas.look()
    for point, changed in {(20, 50): True, (60, 150): True, (220, 150): False}.items():
        x, y = map(round, canvas.at(*point))
        assert (np.abs(after - before)[y, x].sum() > 30) == changed, point
    canvas.run(canvas.page, 4)
    canvas.output.get_by_text("busy", exact=True).wait_for()
    canvas.drag((100, 100), (150, 150))
    canvas.stage.focus()
    canvas.keys("Enter", "Shift+ArrowLeft", "Enter", "Delete", "Control+z")
    assert canvas.output.get_by_role("button", disabled=True).count() == 5
    arrows, mask = canvas.kernel()
    assert arrows == [[20, 20, 20, 80]] and mask[:, 128:].all() and not mask[:, :128].any()
    canvas.run(canvas.page, 4)
    canvas.output.get_by_text("ready", exact=True).wait_for()
    canvas.drag((100, 100), (150, 150))
    assert len(canvas.arrows()) == 2


def test_a_second_view_shows_the_same_and_undoes_the_same(canvas):
    canvas.drag((60, 60), (120, 80))
    canvas.run(canvas.page, 5)
    view = canvas.page.locator(".jp-CodeCell").nth(5)
    view.locator(".smoothnb-stage").wait_for()
    canvas.page.wait_for_timeout(500)
    pictures = [
        stage.evaluate("stage => stage.querySelector('canvas').toDataURL()")
        for stage in (canvas.stage, view.locator(".smoothnb-stage"))
    ]
    assert pictures[0] == pictures[1]
    view.get_by_role("button", name="undo").click()
    assert canvas.arrows() == []
