"""The pictures in data/ are those that their command draws, and what is on them is what their prompts say."""

import numpy as np
import pytest
from PIL import Image

from smoothnb import example_picture
from smoothnb.images import to_pixels
from smoothnb.postcards.captions import stated
from smoothnb.postcards.pictures import BEYOND, EXAMPLES, beyond, write_pictures
from smoothnb.postcards.reader import load_reader


def test_the_shipped_pictures_are_drawn_by_their_command(tmp_path):
    write_pictures(tmp_path)
    assert {file.stem for file in tmp_path.iterdir()} == {*EXAMPLES, *BEYOND}
    for name in (*EXAMPLES, *BEYOND):
        drawn, (shipped, _) = Image.open(tmp_path / f"{name}.png"), example_picture(name)
        assert shipped.size == (256, 256)
        assert np.abs(np.asarray(drawn, dtype=int) - np.asarray(shipped, dtype=int)).max() <= 2


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_reader_finds_what_the_prompt_says(name):
    picture, prompt = example_picture(name)
    (reading,) = load_reader().read(to_pixels(picture, 128, 128))
    found = reading.agrees(stated(prompt))
    assert set(found) == {"time", "land", "thing", "colour"} and all(found.values())


def test_pictures_beyond_the_world_are_of_the_size_asked_for():
    for picture in beyond(64).values():
        assert picture.shape == (3, 64, 64) and 0 <= picture.min() and picture.max() <= 1


def test_other_names_are_refused():
    with pytest.raises(ValueError, match="house, lighthouse, two_sailboats, got 'cat'"):
        example_picture("cat")
