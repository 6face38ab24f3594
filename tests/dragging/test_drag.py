"""Whole drags: on postcards, where the answer is known, and on a tiny pipeline in every way they can end."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import pipeline_state

from smoothnb.dragging import DRAG_DIFFUSION, DragOptions, drag, point_map
from smoothnb.dragging.moving import DragState
from smoothnb.images import to_pixels
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.latents import seeded_noise
from smoothnb.models.load import load_pipeline
from smoothnb.models.lora import set_smoothness
from smoothnb.postcards import edit, example_scene, full_caption, picture, thing_mask
from smoothnb.postcards.reader import load_reader
from smoothnb.sampling import generate

# The module: the package has a function of that name.
DRAG = sys.modules["smoothnb.dragging._drag"]
SCENE = example_scene("house")
MOVED = edit(SCENE, x=SCENE.x + 28)
HOUSE, PROMPT = picture(SCENE), full_caption(SCENE)
HANDLE, TARGET = [(SCENE.x, SCENE.y)], [(MOVED.x, MOVED.y)]
QUICK = DragOptions(num_inference_steps=4, max_steps=3)
TINY = {"handles": [(20, 30)], "targets": [(44, 30)], "progress": False}


@pytest.fixture(scope="module")
def postcard():
    return load_pipeline("postcard", smooth=True)


def tiny_picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))


def way_mask():
    scenes = [edit(SCENE, x=SCENE.x + 28 * i / 8) for i in range(9)]
    covered = thing_mask(scenes).amax((0, 1))
    return torch.nn.functional.max_pool2d(covered[None], 11, 1, 5)[0] > 0.05


@pytest.mark.slow
def test_a_house_is_dragged_to_where_it_shall_stand_and_the_rest_stays(postcard):
    before = pipeline_state(postcard)
    found = drag(postcard, HOUSE, PROMPT, HANDLE, TARGET, way_mask(), frames=4, progress=False)
    assert pipeline_state(postcard) == before
    (reading,) = load_reader().read(to_pixels(found.picture, 128, 128))
    assert math.dist((reading.x, reading.y), TARGET[0]) < 28 / 4
    assert (reading.factors["thing"], reading.factors["colour"]) == ("house", "red")
    assert found.reason == "arrived" and math.dist(found.paths[-1, 0].tolist(), TARGET[0]) <= 8
    assert found.paths[0].tolist() == [list(HANDLE[0])] and len(found.paths) == len(found.losses) + 1
    assert list(found.seconds) == ["lora", "inversion", "motion", "sampling"]
    # Nothing is dragged in the first frame; the last is the picture.
    assert found.frame_steps[0] == 0 and found.frame_steps[-1] == len(found.losses) and len(found.frames) == 4
    assert found.frames[-1] is found.picture
    (reading,) = load_reader().read(to_pixels(found.frames[0], 128, 128))
    assert math.dist((reading.x, reading.y), HANDLE[0]) < 4
    # Outside the mask it is the autoencoder's copy; its decoder smears the edge.
    far = torch.nn.functional.max_pool2d(way_mask()[None].float(), 33, 1, 16)[0] == 0
    copy = drag(postcard, HOUSE, PROMPT, HANDLE, TARGET, way_mask(), DragOptions(max_steps=0, follow=0), progress=False)
    pixels, copied = (to_pixels(p, 128, 128)[0][:, far] for p in (found.picture, copy.picture))
    assert (pixels - copied).abs().max() < 0.06


def test_the_published_way_runs_with_its_lora_on_top_of_the_smooth_one(postcard):
    set_smoothness(postcard, 0.5)
    before = pipeline_state(postcard)
    options = replace(DRAG_DIFFUSION, lora_steps=3, max_steps=2, num_inference_steps=8)
    found = drag(postcard, HOUSE, PROMPT, HANDLE, TARGET, way_mask(), options, progress=False)
    assert pipeline_state(postcard) == before
    set_smoothness(postcard, 1.0)
    assert found.reason == "steps" and len(found.losses) == 2 and found.seconds["lora"] > 0.05


def test_a_generated_picture_comes_out_as_it_was_if_nothing_is_done_to_it(postcard):
    noise, options = seeded_noise(postcard, 3), DragOptions(max_steps=0, follow=0, reference_attention=False)
    (drawn,) = generate(postcard, PROMPT, latents=noise, num_inference_steps=25, guidance_scale=3.0, progress=False)
    found = drag(
        postcard, None, PROMPT, HANDLE, TARGET, None, options, latents=noise, guidance_scale=3.0, progress=False
    )
    difference = to_pixels(found.picture, 128, 128) - to_pixels(drawn, 128, 128)
    assert difference.abs().max() <= 2 / 255
    moved = drag(
        postcard, None, PROMPT, HANDLE, TARGET, None, replace(options, max_steps=3, follow=0.6), latents=noise[None],
        guidance_scale=3.0, progress=False,
    )  # fmt: skip
    assert (to_pixels(moved.picture, 128, 128) - to_pixels(drawn, 128, 128)).abs().max() > 0.05


def test_latents_outside_the_mask_are_not_touched(tiny_pipe, monkeypatch):
    seen = []
    real = DRAG.Source.draw
    monkeypatch.setattr(
        DRAG.Source,
        "draw",
        lambda self, extract, task, x, goals: (
            seen.append((self, task, x, real(self, extract, task, x, goals))) or seen[-1][-1]
        ),
    )
    mask = np.zeros((64, 64), bool)
    mask[16:48] = True
    drag(tiny_pipe, tiny_picture(), "a house", mask=mask, options=QUICK, **TINY)
    (origin, way, x, clean), cells = seen[0], torch.zeros(8, 8, dtype=torch.bool)
    cells[2:6] = True
    assert torch.equal(way.mask[0, 0] > 0, cells)
    for now, then in ((x, origin.states[-1]), (clean, origin.states[0])):
        assert torch.equal(now[..., ~cells], then[..., ~cells])
        assert not torch.allclose(now[..., cells], then[..., cells], atol=1e-3)


def test_the_mask_term_holds_what_lies_outside(tiny_pipe, monkeypatch):
    seen = []
    monkeypatch.setattr(DRAG.Source, "draw", lambda self, extract, task, x, goals: seen.append((self, x)) or x)
    mask = np.zeros((64, 64), bool)
    mask[16:48] = True
    for weight in (0.0, 100.0):
        options = replace(QUICK, keep="penalty", mask_weight=weight, learning_rate=0.01, max_steps=6)
        drag(tiny_pipe, tiny_picture(), "a house", mask=mask, options=options, **TINY)
    change = [(x - origin.states[-1])[..., :2, :].abs().mean() for origin, x in seen]
    assert change[1] < change[0] / 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_precision_and_several_points(tiny_folder, dtype):
    pipe = load_pipeline(tiny_folder, "cpu", dtype)
    options = replace(QUICK, lora_steps=2)
    found = drag(
        pipe, tiny_picture(), "a house", [(20, 30), (40, 50)], [(30, 30), (40, 20)], None, options, progress=False
    )
    assert found.paths.dtype == torch.float32 and found.paths.shape[1:] == (2, 2)
    assert found.picture.size == (64, 64) and all(math.isfinite(loss) for loss in found.losses)


def test_a_picture_of_another_size_is_dragged_in_its_own_pixels(tiny_pipe):
    big = tiny_picture().resize((256, 128))
    mask = np.ones((128, 256), bool)
    found = drag(tiny_pipe, big, "a house", [(128, 64)], [(160, 64)], mask, QUICK, progress=False)
    assert found.paths[0].tolist() == [[32, 32]]
    with pytest.raises(ValueError, match=r"a mask of the picture's size, 256×128, got 64×64"):
        drag(tiny_pipe, big, "a house", [(128, 64)], [(160, 64)], np.ones((64, 64), bool), QUICK, progress=False)


def test_an_interrupt_draws_the_best_so_far(tiny_pipe):
    before, told = pipeline_state(tiny_pipe), []

    def callback(step, left):
        told.append((step, left))
        if step == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted after 2 steps") as said:
        found = drag(
            tiny_pipe, tiny_picture(), "a house", options=replace(QUICK, max_steps=9), callback=callback, **TINY
        )
    assert said[0].filename == __file__
    assert found.reason == "interrupted" and len(found.losses) == 2 and [step for step, _ in told] == [0, 1, 2]
    assert told[0][1] == 24 and pipeline_state(tiny_pipe) == before


def test_an_interrupted_drawing_gives_what_is_seen_by_then(tiny_pipe, monkeypatch):
    before, calls = pipeline_state(tiny_pipe), []
    real = sys.modules["smoothnb.dragging.source"].guided_noise

    def noise(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr("smoothnb.dragging.source.guided_noise", noise)
    with pytest.warns(UserWarning, match="interrupted while sampling"):
        found = drag(tiny_pipe, tiny_picture(), "a house", options=replace(QUICK, follow=0.0), **TINY)
    assert found.picture.size == (64, 64) and len(calls) == 3 and pipeline_state(tiny_pipe) == before


def test_a_lost_handle_ends_it_with_the_best_state(tiny_pipe, monkeypatch):
    def moves(extract, x, t, task, step):
        yield DragState(x, task.handles)
        yield DragState(x + 1, task.handles + torch.tensor([9.0, 0]), 2.0)
        # Near its target, but not the handle.
        yield DragState(x + 2, task.handles + torch.tensor([20.0, 0]), 3.0, lost=True)

    drawn = []
    monkeypatch.setattr(DRAG, "optimize", moves)
    monkeypatch.setattr(DRAG.Source, "draw", lambda self, extract, task, x, goals: drawn.append((self, x, goals)) or x)
    found = drag(tiny_pipe, tiny_picture(), "a house", options=replace(QUICK, arrival=1.0), **TINY)
    origin, x, goals = drawn[0]
    assert found.reason == "lost" and found.losses == [2, 3]
    assert torch.equal(x, origin.states[-1] + 1) and goals.tolist() == [[[44, 30]]]


def test_everything_is_taken_off_after_an_error(tiny_pipe, monkeypatch):
    before = pipeline_state(tiny_pipe)
    monkeypatch.setattr("smoothnb.dragging.source.denoise", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drag(tiny_pipe, tiny_picture(), "a house", options=replace(QUICK, lora_steps=1), **TINY)
    assert pipeline_state(tiny_pipe) == before


def test_a_gradient_that_is_not_finite_is_said(tiny_pipe, monkeypatch):
    monkeypatch.setattr(
        "smoothnb.dragging.moving.supervision_loss", lambda features, *_: features.maps[0].sum((1, 2, 3)) * float("nan")
    )
    with pytest.raises(FloatingPointError, match=r"torch\.float32"):
        drag(tiny_pipe, tiny_picture(), "a house", options=QUICK, **TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "either a picture, or image=None"),
        ({"latents": torch.zeros(4, 8, 8)}, "either a picture, or image=None"),
        ({"guidance_scale": 3.0}, "guidance_scale of at least 1 for a generated"),
        ({"image": None, "latents": torch.zeros(2, 4, 8, 8)}, "latents of one picture, got those of 2"),
        ({"frames": 1}, "frames of 0 or at least 2"),
        ({"options": DragOptions(blocks=(2,))}, "blocks from -2 to 1"),
        ({"options": DragOptions(radius=40.0)}, "radius above 0 and at most 32"),
        ({"options": DragOptions(reference_layer=9)}, "reference_layer from 0 to 3, got 9"),
    ],
)
def test_what_is_wrong_is_named_before_any_work(tiny_pipe, change, message):
    asked = {"image": tiny_picture(), "prompt": "a house", "options": QUICK} | TINY | change
    with pytest.raises(ValueError, match=message):
        drag(tiny_pipe, **asked)


def test_a_point_is_found_where_its_thing_has_gone(postcard):
    inverted = ddim_invert(postcard, [HOUSE, picture(MOVED)], PROMPT, 10, progress=False)
    for other, place in ((inverted[0], HANDLE[0]), (inverted[1], TARGET[0])):
        alike = point_map(postcard, inverted[0], HANDLE[0], other)
        row, column = divmod(int(alike.argmax()), 64)
        assert math.dist((2 * column + 1, 2 * row + 1), place) < 8
        assert -1 <= alike.min() < 0.5 < alike.max() <= 1 + 1e-6
    with pytest.raises(ValueError, match="x from 0 to 128"):
        point_map(postcard, inverted[0], (129, 3))
    with pytest.raises(ValueError, match="of one picture, got one of 2"):
        point_map(postcard, inverted, (3, 3))
    with pytest.raises(ValueError, match="as many steps"):
        point_map(postcard, inverted[0], (3, 3), ddim_invert(postcard, HOUSE, PROMPT, 4, progress=False))
