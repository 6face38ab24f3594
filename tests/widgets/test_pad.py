import base64
import io

import numpy as np
import pytest
import torch
import traitlets
from PIL import Image

from smoothnb import MixingPad, mix, pad_weights


def frames(count):
    return [Image.new("RGB", (8, 4), (10 * g, 0, 0)) for g in range(count)]


def state(pad):
    place = pad._shown[pad.level][pad.index]
    picture = Image.open(io.BytesIO(base64.b64decode(getattr(pad, f"_picture_{pad.level}_{place}"))))
    return pad.u, pad.v, pad.index, pad.level, picture.getpixel((0, 0))[0] // 10


def test_weights_are_bilinear_and_the_corners_are_the_noises():
    weights = pad_weights(3).reshape(3, 3, 4)
    np.testing.assert_allclose([weights[0, 0], weights[0, 2], weights[2, 0], weights[2, 2]], np.eye(4))
    np.testing.assert_allclose(weights[1, 1], [0.25] * 4)
    np.testing.assert_allclose(weights[0, 1], [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(weights[1, 0], [0.5, 0, 0.5, 0])
    assert pad_weights(2, 5).shape == (10, 4)
    np.testing.assert_allclose(pad_weights(2, 5).sum(1), 1)


def test_mixes_over_the_pad_stay_normal():
    noises = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    mixes = mix(noises, pad_weights(5))
    assert torch.equal(mixes[[0, 4, 20, 24]], noises)
    np.testing.assert_allclose(mixes.flatten(1).std(1), 1, atol=0.1)


@pytest.mark.parametrize(
    "move",
    [
        lambda p: (setattr(p, "u", 0.5), setattr(p, "v", 1.0)),
        lambda p: (setattr(p, "u", 0.6), setattr(p, "v", 7.0)),
        lambda p: (setattr(p, "index", 1), setattr(p, "level", 2)),
        lambda p: p.set_state({"index": 1, "level": 2}),  # as the browser does
    ],
)
def test_all_ways_to_move_show_the_same(move):
    pad = MixingPad(frames(9))
    assert state(pad) == (0, 0, 0, 0, 0)
    move(pad)
    assert state(pad) == (0.5, 1, 1, 2, 7)
    np.testing.assert_allclose(pad.weights, [0, 0, 0.5, 0.5])


def test_captions_name_the_share_of_each_corner():
    pad = MixingPad(frames(6), columns=3, corners=["seed 1", "seed 2", "seed 3", "seed 4"])
    assert pad._captions[1][1] == "seed 1 0.00 · seed 2 0.00 · seed 3 0.50 · seed 4 0.50"
    assert repr(pad) == "MixingPad(2 × 3 pictures between seed 1, seed 2, seed 3, seed 4)"


def test_a_sheet_shows_every_picture_in_its_place(tmp_path):
    path = MixingPad(frames(6), columns=3).save(tmp_path / "new" / "pad.png", size=16)
    pixels = np.asarray(Image.open(path))[..., 0]
    assert pixels.shape == (2 * (8 + 6) + 6, 3 * (16 + 6) + 6)
    found = [[pixels[6 + r * 14 + 4, 6 + c * 22 + 8] // 10 for c in range(3)] for r in range(2)]
    assert found == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (0, {}, "at least two rows"),
        (3, {}, "at least two rows"),
        (5, {}, "at least two rows of 2 columns, got 5 frames"),
        (6, {"columns": 4}, "at least two rows of 4 columns, got 6"),
        (4, {"columns": 4}, "at least two rows of 4 columns, got 4"),
        (4, {"corners": "ABC"}, "four names of corners, got 3"),
    ],
)
def test_wrong_arguments_say_what_came(count, options, message):
    with pytest.raises(ValueError, match=message):
        MixingPad(frames(count), **options)


@pytest.mark.parametrize(("trait", "wrong"), [("u", float("nan")), ("v", float("inf")), ("index", 3), ("level", -1)])
def test_positions_that_do_not_exist_raise_and_change_nothing(trait, wrong):
    pad = MixingPad(frames(9))
    pad.u = 0.5
    with pytest.raises(traitlets.TraitError):
        setattr(pad, trait, wrong)
    assert state(pad) == (0.5, 0, 1, 0, 1)
