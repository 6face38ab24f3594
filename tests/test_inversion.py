"""Inversion: exact where it can be, saved and loaded whole, and the series found where there is one to find."""

import copy

import pytest
import torch

from smoothnb import Inversion, ddim_invert, generate, load_pipeline, null_text_invert, reconstruct, sample
from smoothnb.inversion import STEP, _least_squares, fingerprint
from smoothnb.latents import encode

PROMPT = "a red house in a meadow at sunset"


@pytest.fixture(scope="module")
def postcard():
    return load_pipeline("postcard", dtype=torch.float32)


@pytest.fixture(scope="module")
def pictures(postcard):
    return generate(postcard, PROMPT, [1, 2], num_inference_steps=5, progress=False)


def error(pipe, inversion, prompt=PROMPT, series="", guidance_scale=1.0):
    """Mean squared error of the latents that sampling from an inversion ends at, for each picture."""
    steps = inversion.settings.num_inference_steps
    *_, last = sample(pipe, prompt, inversion.latents, 0, steps, guidance_scale, series)
    return (last.latents - inversion.trajectory[0]).square().flatten(1).mean(1)


def test_the_trajectory_starts_at_the_picture_and_ends_as_noise(postcard, pictures):
    found = ddim_invert(postcard, pictures, PROMPT, 5, progress=False)
    assert found.trajectory.shape == (6, 2, 4, 16, 16)
    torch.testing.assert_close(found.trajectory[0], encode(postcard, pictures))
    assert torch.equal(found.latents, found.trajectory[-1])
    assert 0.6 < found.latents.std() < 1.4


def test_fixed_point_steps_make_the_inversion_exact(postcard, pictures):
    rough, fine = (
        error(postcard, ddim_invert(postcard, pictures, PROMPT, 5, fixed_point_steps=n, progress=False))
        for n in (0, 12)
    )
    assert (fine < 1e-3).all() and (fine < rough / 20).all()


def test_pictures_are_inverted_alike_alone_and_together(postcard, pictures):
    both = ddim_invert(postcard, pictures, PROMPT, 5, progress=False)
    alone = ddim_invert(postcard, pictures[1], PROMPT, 5, progress=False)
    torch.testing.assert_close(both[1].trajectory, alone.trajectory, rtol=1e-3, atol=1e-3)
    assert both[-1].settings == alone.settings


def test_null_text_brings_guidance_back_to_both_pictures(postcard, pictures):
    found = null_text_invert(postcard, pictures, PROMPT, 7.5, 5, progress=False)
    without = error(postcard, found, guidance_scale=7.5)
    shared = error(postcard, found, PROMPT, found.series, 7.5)
    assert (shared < without / 5).all()
    assert not any(p.grad is not None for p in postcard.unet.parameters())


def test_least_squares_solves_a_linear_problem():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(6, 12, generator=generator)
    wanted = torch.randn(1, 6, generator=generator)

    def predict(null):
        return (null.flatten() @ matrix.T)[None]

    start = torch.zeros(1, 3, 4)
    found, noise = _least_squares(predict, start, wanted, 90, 1e-9, STEP[torch.float32])
    torch.testing.assert_close(noise, wanted, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(predict(found), noise)
    untouched, _ = _least_squares(predict, start, wanted, 0, 1e-9, STEP[torch.float32])
    assert torch.equal(untouched, start)


def test_ctrl_c_keeps_the_steps_that_are_done(postcard, pictures, monkeypatch):
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return _least_squares(*args)

    monkeypatch.setattr("smoothnb.inversion._least_squares", interrupted)
    found = null_text_invert(postcard, pictures[0], PROMPT, 7.5, 5, inner_steps=1, progress=False)
    assert found.series.shape[0] == 5
    assert not torch.equal(found.series[0], found.series[1])
    assert torch.equal(found.series[1], found.series[4])


def test_it_is_saved_and_loaded_whole(tiny_pipe, tmp_path):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    found = null_text_invert(tiny_pipe, picture, "a house", 3.0, 3, inner_steps=1, progress=False)
    found.save(tmp_path / "deep" / "house.safetensors")
    loaded = Inversion.load(tmp_path / "deep" / "house.safetensors", tiny_pipe)
    assert loaded.settings == found.settings
    assert torch.equal(loaded.trajectory, found.trajectory) and torch.equal(loaded.series, found.series)
    assert len(reconstruct(tiny_pipe, loaded, progress=False)) == 1


def test_an_inversion_of_another_model_is_refused(tiny_pipe, tmp_path):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    ddim_invert(tiny_pipe, picture, "a house", 3, progress=False).save(tmp_path / "house.safetensors")
    other = copy.deepcopy(tiny_pipe)
    assert fingerprint(other) == fingerprint(tiny_pipe)
    assert fingerprint(other.to(torch.float16)) == fingerprint(tiny_pipe)
    other.unet.conv_in.weight.data += 0.1
    with pytest.raises(ValueError, match="belongs to another model"):
        Inversion.load(tmp_path / "house.safetensors", other)
    (tmp_path / "broken.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="no safetensors file"):
        Inversion.load(tmp_path / "broken.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Inversion.load(tmp_path / "missing.safetensors")


def test_the_loras_weight_is_part_of_the_fingerprint():
    from smoothnb import set_smoothness

    pipe = load_pipeline("postcard", smooth=True)
    full = fingerprint(pipe)
    set_smoothness(pipe, 0.5)
    assert fingerprint(pipe) != full
    set_smoothness(pipe, 1)
    assert fingerprint(pipe) == full


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps of at least 1"),
        ({"guidance_scale": 1.0}, "guidance_scale above 1, got 1.0"),
        ({"prompt": ["a", "b"]}, "each of 1 pictures, got 2"),
    ],
)
def test_wrong_arguments_are_named(tiny_pipe, change, message):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=1, progress=False)
    with pytest.raises(ValueError, match=message):
        null_text_invert(tiny_pipe, picture, **({"prompt": "a house", "progress": False} | change))
