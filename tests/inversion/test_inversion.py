"""DDIM inversion: exact where it can be, of any picture and prompt, saved and loaded whole."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from smoothnb import Inversion, ddim_invert, generate, load_pipeline, null_text_invert, reconstruct, sample
from smoothnb.latents import encode
from smoothnb.models.load import fingerprint
from smoothnb.sampling import TruncatedPromptWarning

PROMPT = "a red house in a meadow at sunset"


@pytest.fixture(scope="module")
def postcard():
    return load_pipeline("postcard", dtype=torch.float32)


@pytest.fixture(scope="module")
def pictures(postcard):
    return generate(postcard, PROMPT, [1, 2], num_inference_steps=5, progress=False)


def error(pipe, inversion):
    """Mean squared error of the latents that sampling from an inversion ends at, for each picture."""
    *_, last = sample(pipe, PROMPT, inversion.latents, 0, inversion.settings.num_inference_steps, 1)
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


def test_it_is_saved_and_loaded_whole(tiny_pipe, tmp_path):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    found = null_text_invert(tiny_pipe, picture, "a house", 3.0, 3, inner_steps=1, progress=False)
    found.save(tmp_path / "deep" / "house.safetensors")
    loaded = Inversion.load(tmp_path / "deep" / "house.safetensors", tiny_pipe)
    assert loaded.settings == found.settings
    assert torch.equal(loaded.trajectory, found.trajectory) and torch.equal(loaded.series, found.series)
    assert len(reconstruct(tiny_pipe, loaded, progress=False)) == 1
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["house.safetensors"]
    with pytest.raises(ValueError, match="inverted with 3 steps, not 50"):
        Inversion.load(tmp_path / "deep" / "house.safetensors", tiny_pipe, num_inference_steps=50)


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


def test_the_cache_knows_picture_model_and_settings(tiny_pipe, tmp_path, monkeypatch):
    pictures = generate(tiny_pipe, "a house", [1, 2], num_inference_steps=1, progress=False)
    first = ddim_invert(tiny_pipe, pictures[0], "a house", 3, cache=tmp_path, progress=False)
    monkeypatch.setattr("smoothnb.inversion.ddim.predict_noise", None)
    again = ddim_invert(tiny_pipe, pictures[0], "a house", 3, cache=tmp_path, progress=False)
    assert torch.equal(again.trajectory, first.trajectory) and again.settings == first.settings
    again = ddim_invert(tiny_pipe, iter([pictures[0]]), "a house", 3, cache=tmp_path, progress=False)
    assert torch.equal(again.trajectory, first.trajectory)
    other = copy.deepcopy(tiny_pipe)
    other.unet.conv_in.weight.data += 0.1
    for pipe, picture, steps in ((tiny_pipe, pictures[1], 3), (tiny_pipe, pictures[0], 4), (other, pictures[0], 3)):
        with pytest.raises(TypeError, match="not callable"):
            ddim_invert(pipe, picture, "a house", steps, cache=tmp_path, progress=False)


GRADIENT = np.linspace(0, 1, 90 * 50 * 3).reshape(90, 50, 3)
PICTURES = {
    "tall": Image.fromarray((GRADIENT * 255).astype(np.uint8)),
    "wide and grey": Image.fromarray((GRADIENT[..., 0].T * 255).astype(np.uint8)),
    "transparent": Image.new("RGBA", (20, 20), (255, 0, 0, 90)),
    "black": Image.new("RGB", (64, 64)),
    "white": np.ones((64, 64, 3)),
    "noise": torch.rand(3, 70, 64, generator=torch.Generator().manual_seed(0)),
    "one pixel": Image.new("P", (1, 1)),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("prompt", ["", "a house"])
def test_pictures_of_every_kind_are_inverted(tiny_pipe, name, prompt):
    found = null_text_invert(tiny_pipe, PICTURES[name], prompt, 3.0, 3, inner_steps=2, progress=False)
    assert torch.isfinite(found.trajectory).all() and torch.isfinite(found.series).all()
    (drawn,) = reconstruct(tiny_pipe, found, progress=False)
    assert drawn.size == (64, 64)


def test_a_prompt_that_is_too_long_is_cut_and_that_is_said(tiny_pipe):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=1, progress=False)
    prompt = "a red house " * 20
    with pytest.warns(TruncatedPromptWarning, match="takes 32 tokens, and this prompt has 62"):
        long = ddim_invert(tiny_pipe, picture, prompt, 2, progress=False)
    assert torch.isfinite(long.trajectory).all()


@pytest.mark.parametrize("invert", [ddim_invert, null_text_invert])
def test_an_iterator_of_pictures_is_inverted_and_cached(tiny_pipe, tmp_path, invert):
    pictures = generate(tiny_pipe, "a house", [1, 2], num_inference_steps=1, progress=False)
    options = dict(prompt="a house", num_inference_steps=2, cache=tmp_path, progress=False)
    first, again = (invert(tiny_pipe, iter(pictures), **options) for _ in range(2))
    assert len(first) == 2 and torch.equal(again.trajectory, first.trajectory)


def test_half_precision_works(tiny_pipe):
    pipe = copy.deepcopy(tiny_pipe).to(torch.float16)
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=2, progress=False)
    found = null_text_invert(pipe, picture, "a house", 3.0, 4, inner_steps=3, progress=False)
    assert found.trajectory.dtype == found.series.dtype == torch.float32
    assert torch.isfinite(found.trajectory).all() and torch.isfinite(found.series).all()
    assert not torch.equal(found.series[0], found.series[3])
    assert len(reconstruct(pipe, found, progress=False)) == 1


def test_prompts_and_pictures_must_pair_up(tiny_pipe):
    picture = generate(tiny_pipe, "a house", 1, num_inference_steps=1, progress=False)
    with pytest.raises(ValueError, match="each of 1 pictures, got 2"):
        ddim_invert(tiny_pipe, picture, ["a", "b"], progress=False)
