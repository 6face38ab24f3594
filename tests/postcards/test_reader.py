import random
from dataclasses import replace

import pytest

from recipes.postcards.reader import accuracy, pictures_of
from smoothnb._utils.files import data_folder
from smoothnb.postcards.captions import stated
from smoothnb.postcards.reader import Reading, load_reader
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import Scene
from smoothnb.postcards.stream import held_out_scenes


@pytest.fixture(scope="module")
def reader():
    return load_reader()


def test_the_shipped_reader_is_small_and_reads_held_out_renders(reader):
    assert (data_folder() / "reader.safetensors").stat().st_size <= 1e6
    found = accuracy(reader, held_out_scenes(256))
    assert found["place_error"] <= 1.5 and found["hour_error"] <= 0.4 and found["hue_error"] <= 10
    assert min(found[topic] for topic in ("land", "thing", "count", "time", "weather", "colour")) >= 0.97, found


def test_it_reads_pictures_of_any_size(reader):
    scene = Scene(thing="lighthouse", hue=2, x=40, y=80)
    for size in (128, 256):
        (reading,) = reader.read(render([scene], size))
        assert (reading.thing, reading.count) == ("lighthouse", 1) and all(reading.agrees({"colour": "red"}).values())
        assert abs(reading.x - 40) < 3 and abs(reading.y - 80) < 3 and abs(reading.size - scene.size) < 5


def test_it_counts_things(reader):
    scenes = [Scene(thing=thing, land="sea", x=30) for thing in ("house", "pine", "sailboat", "balloon", "lighthouse")]
    pictures, count = pictures_of(
        [replace(s, seed=i) for i in range(4) for s in scenes], "plain", random.Random(0), 1, "cpu"
    )
    found = [reading.count for reading in reader.read(pictures)]
    assert count.max() == 2 and sum(a == b for a, b in zip(found, count.tolist(), strict=True)) >= 18
    assert reader.read(render([Scene(thing="none")]))[0].count == 0


def test_features_are_what_fid_asks_for(reader):
    features = reader(render(held_out_scenes(3)))
    assert features.shape == (3, reader.num_features)
    assert features.isfinite().all()


def test_agreement_is_judged_topic_by_topic_and_generously_near_borders():
    reading = Reading("sea", "house", 1, 12.0, 5.0, 0.1, 0.1, 0.0, 20.0, 60.0, 40.0)
    assert reading.agrees(stated("a blue house at noon")) == {"colour": False, "thing": True, "time": True}
    assert replace(reading, hour=14.5).agrees({"time": "noon"}) == {"time": True}
    assert reading.agrees({}) == {}
