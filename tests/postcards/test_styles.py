"""Postcards in other styles, and the community models of them."""

import itertools

import pytest
import torch

from smoothnb._utils.files import data_folder
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.reader import accuracy, load_reader
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import random_scenes
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.postcards.styles import STYLES, render_in, style_of
from smoothnb.sampling import generate_pixels

OTHERS = [style for style in STYLES if style != "plain"]


@pytest.fixture(scope="module")
def scenes():
    return list(itertools.islice(random_scenes(7), 48))


@pytest.mark.parametrize("style", STYLES)
def test_a_style_is_a_picture_of_the_same_scene(style, scenes):
    pictures = render_in(style, scenes[:4], 96)
    assert pictures.shape == (4, 3, 96, 96) and pictures.min() >= 0 and pictures.max() <= 1
    torch.testing.assert_close(render_in(style, scenes[1:2], 96)[0], pictures[1], atol=1e-5, rtol=0)
    assert torch.equal(pictures, render(scenes[:4], 96)) == (style == "plain")


@pytest.mark.parametrize("style", OTHERS)
def test_a_large_picture_shows_the_small_one(style, scenes):
    large = torch.nn.functional.interpolate(render_in(style, scenes[:4], 256), (128, 128), mode="area")
    assert (large - render_in(style, scenes[:4], 128)).abs().mean() < 0.03


@pytest.mark.parametrize("style", STYLES)
def test_styles_are_told_apart(style, scenes):
    assert style_of(render_in(style, scenes)).count(style) >= 0.9 * len(scenes)


def test_an_unknown_style_is_refused(scenes):
    with pytest.raises(ValueError, match="expected a style of plain, film, neon; got 'oil'"):
        render_in("oil", scenes)


@pytest.mark.parametrize("style", OTHERS)
def test_a_reader_reads_renders_of_its_style(style):
    found = accuracy(load_reader(style=style), held_out_scenes(96), style=style)
    assert min(found[factor] for factor in ("time", "land", "weather", "thing", "colour")) > 0.9
    assert found["place"] < 2.5


@pytest.mark.parametrize("style", OTHERS)
def test_a_community_model_draws_in_its_style_with_and_without_the_smooth_lora(style):
    folder = data_folder() / f"postcard-{style}"
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= 10e6
    prompts = held_out_prompts(12)
    for smooth in (False, True):
        pipe = load_pipeline(f"postcard-{style}", device="cpu", smooth=smooth)
        pictures = generate_pixels(pipe, prompts, range(12), num_inference_steps=8, progress=False)
        assert style_of(pictures).count(style) >= 10
