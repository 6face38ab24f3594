"""Points and masks that are asked for: checked, and brought to the model's size."""

import numpy as np
import pytest
import torch
from PIL import Image

from smoothnb.dragging.options import DRAG_DIFFUSION, DragOptions
from smoothnb.dragging.request import Request

SIZE = (64, 64)


def ask(handles=((10, 20),), targets=((30, 20),), mask=None, given=SIZE, size=SIZE):
    return Request.of(handles, targets, mask, given, size)


def half(width=64, height=64):
    mask = np.zeros((height, width), bool)
    mask[:, : width // 2] = True
    return mask


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"handles": []}, "got 0 handles and 1 targets"),
        ({"handles": [(1, 2), (3, 4)]}, "got 2 handles and 1 targets"),
        ({"handles": [], "targets": []}, "at least one of each"),
        ({"handles": [(65, 20)]}, "handle .65, 20. lies outside .* x from 0 to 64"),
        ({"targets": [(10, -1)]}, "target .10, -1. lies outside"),
        ({"handles": [(float("nan"), 2)]}, r"every handle as \(x, y\)"),
        ({"handles": [(1, 2, 3)]}, r"every handle as \(x, y\)"),
        ({"targets": [(10.2, 20.1)]}, "lies on its target"),
        ({"mask": half(32)}, "a mask of the picture's size, 64×64, got 32×64"),
        ({"mask": half(), "handles": [(40, 20)]}, "mask excludes the handle .40, 20."),
        ({"mask": Image.new("L", (64, 64))}, "mask excludes the handle"),
        ({"given": (64, 128), "handles": [(10, 20)]}, "cropped away"),
    ],
)
def test_what_is_wrong_is_named(asked, message):
    with pytest.raises(ValueError, match=message):
        ask(**asked)


def test_points_and_mask_go_with_the_picture_when_it_is_cropped_and_resized():
    mask = np.zeros((128, 256), bool)
    mask[:, 64:128] = True
    request = ask([(64, 0), (120, 64)], [(192, 128), (96, 64)], mask, (128, 256), SIZE)
    expected = torch.zeros(64, 64, dtype=torch.bool)
    # Of 256 columns those from 64 to 192 are left, and halved.
    expected[:, :32] = True
    assert torch.equal(request.mask, expected)
    torch.testing.assert_close(request.handles, torch.tensor([[0.0, 0.0], [28.0, 32.0]]))
    torch.testing.assert_close(request.targets, torch.tensor([[64.0, 64.0], [16.0, 32.0]]))


@pytest.mark.parametrize(
    "kind",
    [
        np.asarray,
        torch.from_numpy,
        Image.fromarray,
        # White strokes on a transparent layer.
        lambda mask: Image.merge("LA", [Image.new("L", (64, 64), 255), Image.fromarray(mask.astype(np.uint8) * 255)]),
    ],
)
def test_masks_of_every_kind_become_cells_of_latents(kind):
    request = ask(mask=kind(half()))
    assert request.mask.dtype == torch.bool and request.mask.sum() == 64 * 32
    cells = request.cells(8, 8)
    assert cells[0, 0, :, :4].all() and not cells[0, 0, :, 4:].any()
    assert ask().cells(8, 8).all()


def test_settings_outside_their_range_are_named(tiny_pipe):
    for name, value in {
        "num_inference_steps": 0, "strength": 0.0, "max_steps": -1, "learning_rate": 0.0, "blocks": (), "follow": 1.5,
        "wanted": "then", "keep": "all", "lora_steps": -1, "lora_rank": 0, "softness": -1.0,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=name):
            DragOptions(**{name: value})
    with pytest.raises(ValueError, match=r"strength .* worth at least one"):
        DragOptions(num_inference_steps=4, strength=0.1)
    with pytest.raises(ValueError, match="radius above 0 and at most 32"):
        DragOptions(radius=33.0).resolved(tiny_pipe, SIZE)


def test_lengths_are_scaled_to_the_picture_unless_they_are_given(tiny_pipe):
    small, large = (DragOptions(stride=5.0).resolved(tiny_pipe, (side, 2 * side)) for side in (128, 512))
    assert (small.radius, large.radius) == (16, 64) and small.stride == large.stride == 5
    assert DRAG_DIFFUSION.steps_from_noise == 35
    assert DRAG_DIFFUSION.resolved(tiny_pipe, (512, 512)) == DRAG_DIFFUSION


@pytest.mark.parametrize(
    ("option", "value"), [("blocks", (9,)), ("reference_layer", 99), ("num_inference_steps", 1001)]
)
def test_options_that_the_model_cannot_take_are_named(tiny_pipe, option, value):
    with pytest.raises(ValueError, match=option):
        DragOptions(**{option: value}).resolved(tiny_pipe, SIZE)
