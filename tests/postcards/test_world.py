"""The continuous postcard world: what lies between two postcards is a postcard, and words name regions of it."""

import dataclasses
import itertools
import random

import pytest
import torch

from recipes.postcards.reader import pictures_of
from smoothnb.postcards.captions import GRAMMAR, edit_as_stated, names
from smoothnb.postcards.render import render, thing_mask
from smoothnb.postcards.scene import THINGS, Scene, edit, random_scenes
from smoothnb.postcards.stream import postcards

SCENES = list(itertools.islice(random_scenes(11), 40))


def test_scenes_are_drawn_alike_for_one_seed_and_keep_what_is_fixed():
    assert list(itertools.islice(random_scenes(11, land="sea"), 5)) == list(
        itertools.islice(random_scenes(11, land="sea"), 5)
    )
    assert {s.land for s in itertools.islice(random_scenes(1, land="sea"), 20)} == {"sea"}
    assert {s.land for s in SCENES if s.thing == "sailboat"} == {"sea"}


@pytest.mark.parametrize("field", [{"hour": 24}, {"hue": -1}, {"mist": 1.2}, {"land": "moon"}, {"seed": -1}])
def test_scenes_that_cannot_be_are_refused(field):
    with pytest.raises(ValueError, match=next(iter(field))):
        Scene(**field)


@pytest.mark.parametrize(
    ("field", "start", "end"),
    [
        ("hour", 4.0, 23.5),
        ("clouds", 0, 1),
        ("mist", 0, 1),
        ("ridges", 0, 1),
        ("snow", 0, 1),
        ("x", 40, 90),
        ("hue", 0, 359.9),
        ("lightness", 0, 1),
        ("horizon", 62, 82),
    ],
)
def test_small_changes_of_numbers_change_pictures_little(field, start, end):
    """No factor has a cliff: of 60 steps from one end to the other none holds more than a tenth of the whole way."""
    scene = Scene(18.4, "sea", 0.4, 0.2, "lighthouse", 285, 0.2, ridges=0.6)
    values = torch.linspace(start, end, 61).tolist()
    frames = render([edit(scene, **{field: value}) for value in values])
    steps = frames.diff(dim=0).flatten(1).norm(dim=1)
    assert steps.max() < 0.1 * steps.sum()


def test_the_day_closes_to_a_circle():
    last, first = render([Scene(hour=23.999, thing="pine"), Scene(hour=0.0, thing="pine")])
    assert (last - first).abs().max() < 0.02


@pytest.mark.parametrize("topic", ["time", "weather", "colour", "land"])
def test_an_edit_in_words_gives_the_nearest_scene_that_they_describe(topic):
    scene = Scene(12.5, "sea", 0.2, 0.05, "house", 2, 0.1)
    for name, phrases in GRAMMAR[topic].items():
        noun = f"{phrases[0]} house" if topic == "colour" else f"house {phrases[0]}"
        edited = edit_as_stated(scene, f"a {noun}")
        assert names(edited)[topic] == name
        changed = {f.name for f in dataclasses.fields(Scene) if getattr(scene, f.name) != getattr(edited, f.name)}
        assert changed <= {"hour", "clouds", "mist", "hue", "lightness", "land"}
    assert edit_as_stated(scene, "a red house at noon") == scene


def test_two_things_are_composed_of_two_renders():
    scenes = [dataclasses.replace(s, thing="balloon", x=30.0, y=40.0) for s in SCENES]
    pictures, count = pictures_of(scenes, "plain", random.Random(0), 1.0, "cpu")
    changed = (pictures - render(scenes)).abs().amax((1, 2, 3)) > 0.05
    assert changed.tolist() == (count == 2).tolist()
    assert 0.5 < changed.float().mean()


def test_masks_are_of_the_thing():
    scene = Scene(thing="balloon", y=40)
    difference = (render([scene]) - render([edit(scene, thing="none")])).abs().amax(1, keepdim=True)
    mask = thing_mask([scene])
    assert difference[mask > 0.9].min() > 0.003
    assert difference[mask == 0].max() < 1e-5


def test_pictures_have_the_asked_size_and_range():
    for size in (64, 128):
        pictures = render(SCENES[:8], size)
        assert pictures.shape == (8, 3, size, size)
        assert pictures.isfinite().all() and pictures.min() >= 0 and pictures.max() <= 1
        assert pictures.flatten(1).std(1).min() > 0.03, "a picture is blank"


def test_a_scene_looks_the_same_in_any_batch_and_its_seed_decides_shapes():
    together = render(SCENES)
    alone = torch.cat([render([s]) for s in SCENES])
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.equal(render([Scene(ridges=1)]), render([Scene(ridges=1, seed=1)]))


def test_a_large_picture_shows_the_small_one():
    shrunk = torch.nn.functional.avg_pool2d(render(SCENES[:16], 512), 4)
    # Stars and edges are drawn to the pixel; the rest must agree.
    assert (render(SCENES[:16], 128) - shrunk).abs().mean() < 0.006


def test_edges_are_antialiased():
    mask = thing_mask([Scene(thing="balloon", x=64, y=40, size=44)])
    assert 60 < ((mask > 0.05) & (mask < 0.95)).sum() < 600, "the outline should be soft, and only the outline"


@pytest.mark.parametrize("thing", [t for t in THINGS if t != "none"])
def test_the_mask_is_where_the_picture_changes(thing):
    scene = Scene(thing=thing, land="sea" if thing == "sailboat" else "meadow", hue=285)
    mask = thing_mask([scene])
    changed = (render([scene]) - render([edit(scene, hue=60)])).abs().amax(1, keepdim=True) > 0.1
    reflected = torch.zeros_like(mask)
    reflected[:, :, int(scene.base) :] = 1
    assert mask.sum() > 200
    assert not (changed & (mask < 0.01) & (reflected < 1)).any()
    ys, xs = torch.nonzero(mask[0, 0] > 0.5, as_tuple=True)
    assert abs(xs.float().mean() - scene.x) < 4 and abs(ys.float().mean() - scene.y) < 10


def test_no_banding_in_a_night_sky():
    sky = (render([Scene(22.0, clouds=0.0, ridges=0.1, seed=4)])[0, :, :60, :4] * 255).round()
    assert sky.diff(dim=1).abs().max() <= 6, "neighbouring rows of a gradient differ by a few levels at most"


def test_things_stand_on_the_ground_and_within_the_picture():
    for scene in itertools.islice(random_scenes(1), 500):
        assert 0 < scene.x - scene.size / 3 and scene.x + scene.size / 3 < 128
        assert 0 < scene.y - scene.size / 2 and scene.base < 128
        if scene.thing not in ("none", "balloon"):
            assert scene.base >= scene.horizon + 9


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least one scene"):
        render([])
    with pytest.raises(ValueError, match="size of at least 8"):
        render([Scene()], size=4)


def test_the_stream_is_the_same_whatever_its_batch_size():
    few, many = (list(itertools.islice(postcards(3, batch_size=n), 6)) for n in (2, 6))
    assert [(p.caption, p.scene) for p in few] == [(p.caption, p.scene) for p in many]
    assert torch.allclose(few[5].picture, many[5].picture, atol=1e-5)
