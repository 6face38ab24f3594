"""Null-text inversion: guidance is led back to every picture, together or each by itself."""

import pytest
import torch
from safetensors.torch import load_file

from smoothnb import generate, load_pipeline, null_text_invert, reconstruct, sample
from smoothnb.inversion.null_text import _fit
from smoothnb.latents import encode

PROMPTS = ["a red house in a meadow at sunset", "a pine in the snow at night"]


@pytest.fixture(scope="module")
def postcard():
    return load_pipeline("postcard", dtype=torch.float32)


@pytest.fixture(scope="module")
def pictures(postcard):
    return generate(postcard, PROMPTS, [1, 2], num_inference_steps=5, progress=False)


def error(pipe, found, series=None):
    """Mean squared error of the latents that guided sampling from an inversion ends at, for each picture."""
    series, settings = found.series if series is None else series, found.settings
    steps = sample(
        pipe, settings.prompts, found.latents, 0, settings.num_inference_steps, settings.guidance_scale, series
    )
    *_, last = steps
    return (last.latents - found.trajectory[0]).square().flatten(1).mean(1)


def test_one_series_brings_guidance_back_to_both_pictures(postcard, pictures):
    found = null_text_invert(postcard, pictures, PROMPTS, 7.5, 5, inner_steps=8, progress=False)
    assert found.series.shape[:2] == (5, 1)
    assert (error(postcard, found) < error(postcard, found, "") / 4).all()
    assert not any(p.requires_grad and p.grad is not None for p in postcard.unet.parameters())


def test_each_picture_can_have_a_series_of_its_own(postcard, pictures):
    found = null_text_invert(postcard, pictures, PROMPTS, 7.5, 5, inner_steps=8, shared=False, progress=False)
    assert found.series.shape[:2] == (5, 2)
    assert torch.equal(found[1].series[:, 0], found.series[:, 1])
    assert not torch.equal(found[0].series, found[1].series)
    assert (error(postcard, found) < error(postcard, found, "") / 4).all()


def test_more_inner_steps_come_nearer(postcard, pictures):
    few, many = (
        error(postcard, null_text_invert(postcard, pictures, PROMPTS, 7.5, 5, inner_steps=n, progress=False)).mean()
        for n in (1, 8)
    )
    assert many < few / 3


def test_without_inner_steps_it_is_negative_prompt_inversion(postcard, pictures):
    found = null_text_invert(
        postcard, pictures, PROMPTS, 7.5, 10, inner_steps=0, shared=False, fixed_point_steps=8, progress=False
    )
    embeds = postcard.encode_prompt(PROMPTS, "cpu", 1, False)[0]
    torch.testing.assert_close(found.series, embeds.expand(10, -1, -1, -1))
    assert (error(postcard, found) < 4e-3).all()
    empty = null_text_invert(postcard, pictures[0], "", 7.5, 2, inner_steps=0, start="empty", progress=False)
    torch.testing.assert_close(empty.series, postcard.encode_prompt("", "cpu", 1, False)[0].expand(2, 1, -1, -1))


def test_more_than_two_pictures_share_and_are_drawn_in_batches(tiny_pipe):
    pictures = generate(tiny_pipe, "a house", list(range(18)), num_inference_steps=1, progress=False)
    for shared, count in ((True, 1), (False, 18)):
        found = null_text_invert(tiny_pipe, pictures, "a house", 3.0, 2, inner_steps=1, shared=shared, progress=False)
        assert found.series.shape[:2] == (2, count)
        assert len(reconstruct(tiny_pipe, found, progress=False)) == 18
    torch.testing.assert_close(found.trajectory[0], encode(tiny_pipe, pictures))


def test_ctrl_c_keeps_the_steps_that_are_done(tiny_pipe, monkeypatch, tmp_path):
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return _fit(*args)

    monkeypatch.setattr("smoothnb.inversion.null_text._fit", interrupted)
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    with pytest.warns(UserWarning, match="interrupted after 2 of 5 steps") as said:
        found = null_text_invert(
            tiny_pipe, picture, "a house", 7.5, 5, inner_steps=2, start="empty", cache=tmp_path, progress=False
        )
    assert said[0].filename == __file__
    assert found.series.shape[0] == 5
    assert not torch.equal(found.series[0], found.series[1])
    assert torch.equal(found.series[1], found.series[4])
    # An incomplete series is not stored: the same call starts again.
    assert ["series" in load_file(file) for file in tmp_path.iterdir()] == [False]
    monkeypatch.setattr("smoothnb.inversion.null_text._fit", lambda *args: calls.append(1) or _fit(*args))
    whole = null_text_invert(
        tiny_pipe, picture, "a house", 7.5, 5, inner_steps=2, start="empty", cache=tmp_path, progress=False
    )
    assert len(calls) == 3 + 5 and torch.equal(whole.series[:2], found.series[:2])


def test_finished_inversions_are_found_in_the_cache(tiny_pipe, tmp_path, monkeypatch):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    options = dict(num_inference_steps=2, inner_steps=1, cache=tmp_path, progress=False)
    first = null_text_invert(tiny_pipe, picture, "a house", 3.0, **options)
    monkeypatch.setattr("smoothnb.inversion.null_text._fit", None)
    again = null_text_invert(tiny_pipe, picture, "a house", 3.0, **options)
    assert torch.equal(again.series, first.series) and again.settings == first.settings
    with pytest.raises(TypeError, match="not callable"):
        null_text_invert(tiny_pipe, picture, "a house", 4.0, **options)
    monkeypatch.undo()
    again = null_text_invert(tiny_pipe, iter(picture), "a house", 3.0, **options)
    assert torch.equal(again.series, first.series), "an iterator is read once"


def test_weights_are_frozen_while_the_series_is_sought_and_left_as_they_were(tiny_pipe, monkeypatch):
    weights = list(tiny_pipe.unet.parameters())
    before, seen = [p.requires_grad for p in weights], []
    assert any(before)

    def watched(*args):
        seen.append(any(p.requires_grad for p in weights))
        return _fit(*args)

    monkeypatch.setattr("smoothnb.inversion.null_text._fit", watched)
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    null_text_invert(tiny_pipe, picture, "a house", 3.0, 2, inner_steps=1, progress=False)
    assert seen == [False, False]
    assert [p.requires_grad for p in weights] == before


def test_noise_that_is_not_finite_is_an_error(tiny_pipe, monkeypatch):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    monkeypatch.setattr(
        "smoothnb.inversion.null_text.predict_noise", lambda pipe, schedule, x, t, embeds: x * torch.nan
    )
    with pytest.raises(FloatingPointError, match="not finite"):
        null_text_invert(tiny_pipe, picture, "a house", 3.0, 2, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guidance_scale": 1.0}, "guidance_scale above 1, got 1.0"),
        ({"start": "zero"}, r"one of \('prompt', 'empty'\), got 'zero'"),
        ({"prompt": ["a", "b"]}, "each of 1 pictures, got 2"),
    ],
)
def test_wrong_arguments_are_named(tiny_pipe, change, message):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=1, progress=False)
    with pytest.raises(ValueError, match=message):
        null_text_invert(tiny_pipe, picture, **({"prompt": "a house", "progress": False} | change))
