"""Frames between two ends: the same whatever the batch, in the order asked for, checked before the first is drawn."""

import numpy as np
import pytest
import torch

from smoothnb import coarse_to_fine, ddim_invert, generate, interpolate, null_text_invert, seeded_noise, slerp
from smoothnb.images import neighbour_distances
from smoothnb.sampling import embed

SHORT = dict(num_inference_steps=3, guidance_scale=2.0)


def pixels(frames):
    return np.stack([np.asarray(frame, dtype=int) for frame in frames])


def test_frames_are_those_of_the_slerped_noises(tiny_pipe):
    noises = slerp(*seeded_noise(tiny_pipe, [1, 2]), [0, 0.5, 1])
    expected = generate(tiny_pipe, "a house", latents=noises, progress=False, **SHORT)
    frames = list(interpolate(tiny_pipe, 1, 2, 3, "a house", **SHORT))
    assert np.abs(pixels(frames) - pixels(expected)).max() <= 1
    assert np.abs(pixels(frames[:1]) - pixels(frames[2:])).max() > 1


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_frames_do_not_depend_on_the_batch(tiny_pipe, batch_size):
    alone, ours = (
        pixels(interpolate(tiny_pipe, 1, 2, 5, "a house", "a pine", batch_size=size, **SHORT))
        for size in (5, batch_size)
    )
    assert np.abs(alone - ours).max() <= 1


def test_frames_come_as_they_are_ready_in_the_order_asked_for(tiny_pipe, monkeypatch):
    drawn = []
    monkeypatch.setattr("smoothnb.interpolation.generate", lambda *args, **kw: drawn.append(1) or generate(*args, **kw))
    frames = interpolate(tiny_pipe, 1, 2, coarse_to_fine(3), "a house", batch_size=1, **SHORT)
    assert not drawn
    first, second = next(frames), next(frames)
    assert len(drawn) == 2
    ends = pixels(interpolate(tiny_pipe, 1, 2, [0.0, 1.0], "a house", **SHORT))
    assert np.abs(pixels([first, second]) - ends).max() <= 1


def test_even_spacing_makes_neighbours_equally_far_apart(tiny_pipe):
    plain, even = (
        list(interpolate(tiny_pipe, 1, 2, 7, "a house", "a pine", spacing=spacing, **SHORT))
        for spacing in ("eta", "even")
    )
    assert len(even) == 7
    assert np.abs(pixels(even)[[0, -1]] - pixels(plain)[[0, -1]]).max() <= 1
    before, after = (neighbour_distances(frames) for frames in (plain, even))
    assert after.std() < 0.7 * before.std()


def test_even_spacing_needs_a_number_of_frames(tiny_pipe):
    for etas in ([0.0, 0.5, 1.0], 2):
        with pytest.raises(ValueError, match="at least 3 for even spacing"):
            interpolate(tiny_pipe, 1, 2, etas, spacing="even")
    with pytest.raises(ValueError, match="'eta' or 'even', got 'time'"):
        interpolate(tiny_pipe, 1, 2, spacing="time")


def test_coarse_to_fine_halves_gaps():
    assert coarse_to_fine(5) == [0, 1, 0.5, 0.25, 0.75]
    for count in (2, 3, 10, 11):
        ratios = coarse_to_fine(count)
        np.testing.assert_allclose(sorted(ratios), np.linspace(0, 1, count))
    with pytest.raises(ValueError, match="count of at least 2, got 1"):
        coarse_to_fine(1)


def test_two_prompts_are_mixed_as_embeddings(tiny_pipe):
    halfway = list(interpolate(tiny_pipe, 1, 1, [0.5], "a house", "a pine", **SHORT))
    mixed = (embed(tiny_pipe, "a house") + embed(tiny_pipe, "a pine")) / 2
    expected = generate(tiny_pipe, mixed, 1, progress=False, **SHORT)
    assert np.abs(pixels(halfway) - pixels(expected)).max() <= 1


def test_inversions_bring_prompt_settings_and_series(tiny_pipe):
    pictures = generate(tiny_pipe, "a house", [1, 2], num_inference_steps=2, progress=False)
    found = null_text_invert(tiny_pipe, pictures, "a house", 3.0, 4, inner_steps=2, progress=False)
    frames = list(interpolate(tiny_pipe, found[0], found[1], [0.0, 0.5, 1.0]))
    latents = slerp(found.latents[0], found.latents[1], [0, 0.5, 1])
    expected = generate(tiny_pipe, "a house", 0, latents, 4, 3.0, found.series, progress=False)
    assert np.abs(pixels(frames) - pixels(expected)).max() <= 1


def test_series_of_their_own_are_mixed_for_each_frame(tiny_pipe):
    pictures = generate(tiny_pipe, "a house", [1, 2], num_inference_steps=2, progress=False)
    a, b = (null_text_invert(tiny_pipe, p, "a house", 3.0, 3, inner_steps=2, progress=False) for p in pictures)
    assert not torch.equal(a.series, b.series)
    frames = list(interpolate(tiny_pipe, a, b, [0.0, 0.25, 1.0], batch_size=2))
    quarter = slerp(a.latents[0], b.latents[0], 0.25)
    mixed = 0.75 * a.series + 0.25 * b.series
    expected = generate(tiny_pipe, "a house", 0, quarter, 3, 3.0, mixed, progress=False)
    assert np.abs(pixels(frames[1:2]) - pixels(expected)).max() <= 1


def test_a_gpu_without_room_gets_smaller_batches(tiny_pipe, monkeypatch):
    sizes = []

    def cramped(pipe, prompt, seeds, latents, *args, **kwargs):
        sizes.append(len(latents))
        if len(latents) > 2:
            raise torch.OutOfMemoryError
        return generate(pipe, prompt, seeds, latents, *args, **kwargs)

    monkeypatch.setattr("smoothnb.interpolation.generate", cramped)
    assert len(list(interpolate(tiny_pipe, 1, 2, 5, "a house", batch_size=5, **SHORT))) == 5
    assert sizes == [5, 3, 2, 2, 1]


def test_ends_that_do_not_fit_are_named(tiny_pipe):
    pictures = generate(tiny_pipe, "a house", [1, 2], num_inference_steps=2, progress=False)
    found = ddim_invert(tiny_pipe, pictures, "a house", 3, progress=False)
    with pytest.raises(ValueError, match="one picture, got 2"):
        interpolate(tiny_pipe, found, 1)
    with pytest.raises(ValueError, match=r"num_inference_steps differs.*\[3, 5\]"):
        interpolate(tiny_pipe, found[0], found[1], num_inference_steps=5)
    with pytest.raises(ValueError, match=r"eta as a number in \[0, 1\]"):
        interpolate(tiny_pipe, 1, 2, [0.0, 1.5])
