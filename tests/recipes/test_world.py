"""The continuous postcard world: what lies between two postcards is a postcard, and words name regions of it."""

import dataclasses
import itertools
import random

import pytest
import torch

from recipes.postcards.reader import pictures_of
from recipes.postcards.world.captions import GRAMMAR, agrees, caption, edit_as_stated, full_caption, names, stated
from recipes.postcards.world.reader import Reader
from recipes.postcards.world.render import render, thing_mask
from recipes.postcards.world.scene import Scene, edit, random_scenes

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


def test_captions_state_what_is_there():
    rng = random.Random(0)
    for scene in SCENES:
        named = names(scene)
        assert stated(full_caption(scene)) == named
        assert stated(caption(scene, rng)).items() <= named.items()
        assert all(agrees(scene, topic, name) for topic, name in named.items())


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


def test_the_reader_reads_a_batch():
    readings = Reader().read(render(SCENES[:3], size=64))
    assert len(readings) == 3
    assert all(0 <= r.hour < 24 and 0 <= r.hue < 360 and 0 <= r.lightness <= 1 for r in readings)
