import itertools
import random

import pytest

from smoothnb.postcards.scene import FACTORS, SUN_HEIGHT, Scene, edit, random_scene, random_scenes


def test_a_seed_gives_the_same_scenes_and_another_seed_others():
    first, again, other = (list(itertools.islice(random_scenes(s), 20)) for s in (7, 7, 8))
    assert first == again
    assert not set(first) & set(other)


def test_every_value_of_every_factor_is_drawn():
    scenes = list(itertools.islice(random_scenes(0), 400))
    for factor, values in FACTORS.items():
        assert {getattr(s, factor) for s in scenes} == set(values)


def test_things_stand_on_the_ground_and_within_the_picture():
    for scene in itertools.islice(random_scenes(1), 500):
        assert 0 < scene.x - scene.size / 3 and scene.x + scene.size / 3 < 128
        assert 0 < scene.y - scene.size / 2 and scene.base < 128
        if scene.thing not in ("none", "balloon"):
            assert scene.base >= scene.horizon + 9
        if scene.thing == "sailboat":
            assert scene.land == "sea"


def test_fixed_factors_are_kept():
    scene = random_scene(random.Random(0), time="night", land="snow", thing="pine", x=50.0)
    assert (scene.time, scene.land, scene.thing, scene.x) == ("night", "snow", "pine", 50.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"time": "tea"}, "expected time to be one of dawn, noon, sunset, night; got 'tea'"),
        ({"thing": "sailboat", "land": "desert"}, "a sailboat needs land='sea'; got land='desert'"),
        ({"ridges": 4}, "expected 0 to 3 ridges; got 4"),
        ({"seed": -1}, "expected a seed"),
    ],
)
def test_scenes_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        Scene(**wrong)


def test_edit_changes_what_it_is_told_and_moves_the_sun_with_the_time():
    scene = Scene(thing="house", colour="red")
    assert edit(scene, colour="blue") == Scene(thing="house", colour="blue")
    low, high = SUN_HEIGHT["sunset"]
    later = edit(scene, time="sunset")
    assert low * later.horizon <= later.sun_y <= high * later.horizon
    assert edit(scene, time="sunset", sun_y=5.0).sun_y == 5.0
    with pytest.raises(ValueError, match="sailboat"):
        edit(scene, thing="sailboat")
