"""Cells that take long are stopped in JupyterLab, by menu and by button: they end, and the next ones draw as before."""

import re

import pytest

SETUP = """
import smoothnb as sn
pipe = sn.load_pipeline()
house, prompt = sn.example_picture("house")
house = house.resize((128, 128))
draw = lambda: sn.generate(pipe, prompt, seeds=3, num_inference_steps=5, progress=False)[0].tobytes()
right = draw()
drawn = 0
"""
DRAW = """
drawn += 1
print("drawn", drawn, draw() == right, any(weight.requires_grad for weight in pipe.unet.parameters()) == trainable)
"""
TRAINABLE = "trainable = any(weight.requires_grad for weight in pipe.unet.parameters())"
LONG = {
    "frames = list(sn.interpolate(pipe, 0, 1, 2000, prompt))": (None, "KeyboardInterrupt"),
    "pictures = sn.generate(pipe, prompt, range(2000))": ("sampling", "KeyboardInterrupt"),
    "inversion = sn.null_text_invert(pipe, house, prompt, inner_steps=500, tolerance=0.0)": (
        "null text",
        "the others are not sought",
    ),
    "options = sn.DragOptions(max_steps=5000, learning_rate=1e-5, lora_steps=0)\n"
    "dragged = sn.drag(pipe, house, prompt, [(44, 88)], [(74, 88)], options=options)": (
        "dragging",
        "the best so far is drawn",
    ),
    "options = sn.DragOptions(lora_steps=5000)\n"
    "dragged = sn.drag(pipe, house, prompt, [(44, 88)], [(74, 88)], options=options)": (
        "LoRA of the picture",
        "KeyboardInterrupt",
    ),
}
"""By cell: the bar that it shows, and what it says once it is stopped."""
THREAD = """
slider = sn.MixingSlider(sn.interpolate(pipe, 0, 1, 500, prompt, batch_size=1), [i / 499 for i in range(500)])
slider
"""
GO_ON = """
slider = sn.MixingSlider(sn.interpolate(pipe, 0, 1, 3, prompt, num_inference_steps=5), [0, 0.5, 1])
slider
"""
WAIT = "slider.wait()"


class Notebook:
    """A page with a notebook, its setup run, and how often it has drawn."""

    def __init__(self, page, run, choose):
        self.page, self.run, self.choose, self.drawn = page, run, choose, 0
        run(page, 0)
        run(page, 1)

    def cell(self, number):
        return self.page.locator(".jp-CodeCell").nth(number)

    def stop(self, by):
        if by == "menu":
            self.choose(self.page, "Kernel", "Interrupt Kernel")
        else:
            self.page.get_by_role("button", name="Interrupt the kernel").click()

    def draws_as_before(self):
        self.drawn += 1
        self.run(self.page, 2)
        self.page.get_by_text(f"drawn {self.drawn} True True").wait_for(timeout=90_000)


@pytest.fixture(scope="module")
def notebook(open_notebook, run, choose):
    return Notebook(open_notebook(SETUP, TRAINABLE, DRAW, *LONG, THREAD, GO_ON, WAIT), run, choose)


NAMES = [re.findall(r"sn.(\w+)", cell)[-1] for cell in LONG]


@pytest.mark.parametrize("number", range(len(LONG)), ids=NAMES)
def test_a_long_cell_is_stopped_and_the_next_draws_as_before(notebook, number):
    notebook.draws_as_before()
    cell, (bar, said) = notebook.cell(3 + number), list(LONG.values())[number]
    notebook.run(notebook.page, 3 + number)
    if bar:
        # tqdm writes spaces of another kind.
        cell.get_by_text(re.compile(bar.replace(" ", r"\s") + ":")).first.wait_for(timeout=90_000)
    notebook.page.wait_for_timeout(2000)
    assert cell.locator(".jp-InputArea-prompt").text_content() == "[*]:"
    notebook.stop("button" if number % 2 else "menu")
    cell.get_by_text(said).first.wait_for(timeout=60_000)
    notebook.page.wait_for_function(
        "cell => !cell.querySelector('.jp-InputArea-prompt').textContent.includes('*')", arg=cell.element_handle()
    )
    assert cell.locator("[class*=hprogress]:visible").count() == 0
    notebook.draws_as_before()


def test_a_slider_that_draws_is_stopped_by_its_own_button_and_another_draws_to_its_end(notebook):
    here = 3 + len(LONG)
    notebook.run(notebook.page, here)
    cell = notebook.cell(here)
    cell.get_by_text(re.compile(r"^[1-9]\d* of 500 pictures drawn")).wait_for(timeout=90_000)
    # The kernel is not busy: there is nothing that an interrupt could stop.
    notebook.stop("menu")
    before = int(cell.locator(".smoothnb-status").inner_text().split()[0])
    cell.get_by_text(re.compile(rf"^{before + 2} of 500 pictures drawn")).wait_for(timeout=90_000)
    cell.get_by_role("button", name="stop", exact=True).click()
    cell.get_by_text(re.compile(r"^stopped after \d+ of 500 pictures$")).wait_for(timeout=60_000)
    assert not cell.get_by_role("button", name="stop", exact=True).is_visible()
    cell.locator("input[type=range]").press("End")
    assert cell.locator(".smoothnb-caption").inner_text() == "η = 1.00"
    notebook.draws_as_before()

    notebook.run(notebook.page, here + 1)
    done = notebook.cell(here + 1)
    done.locator("img[src]").wait_for(timeout=90_000)
    done.locator(".smoothnb-status").wait_for(state="hidden", timeout=90_000)


def test_waiting_for_a_slider_is_stopped_and_so_is_the_slider(notebook):
    here = 3 + len(LONG)
    notebook.run(notebook.page, here)
    cell = notebook.cell(here)
    cell.get_by_text(re.compile(r"^[1-9]\d* of 500 pictures drawn")).wait_for(timeout=90_000)
    notebook.run(notebook.page, here + 2)
    notebook.page.wait_for_timeout(2000)
    notebook.stop("button")
    notebook.cell(here + 2).get_by_text("KeyboardInterrupt").first.wait_for(timeout=60_000)
    cell.get_by_text(re.compile(r"^stopped after \d+ of 500 pictures$")).wait_for(timeout=60_000)
    notebook.draws_as_before()
