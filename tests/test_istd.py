"""ISTD against its definition, written out."""

from itertools import pairwise

import numpy as np
import pytest

from smoothnb import generate, istd, seeded_noise, slerp

SETTINGS = dict(num_ratios=3, num_inference_steps=2, progress=False)


def test_it_is_the_mean_deviation_of_neighbours_distances(tiny_pipe):
    prompts = ["a house", "a pine"]
    result = istd(tiny_pipe, prompts, **SETTINGS)
    by_hand = []
    for i, prompt in enumerate(prompts):
        path = slerp(*seeded_noise(tiny_pipe, [2 * i, 2 * i + 1]), [0, 0.5, 1])
        frames = generate(tiny_pipe, prompt, latents=path, num_inference_steps=2, progress=False)
        pixels = [np.asarray(frame) / 255 for frame in frames]
        by_hand.append([np.linalg.norm(b - a) for a, b in pairwise(pixels)])
    np.testing.assert_allclose(result.distances, by_hand, rtol=1e-4)
    assert result.value == pytest.approx(np.mean([np.std(row) for row in by_hand]), rel=1e-4)
    assert result.value > 0


def test_noises_depend_on_seed_and_prompt_number_alone(tiny_pipe):
    both, first, other = (
        istd(tiny_pipe, prompts, seed=seed, **SETTINGS) for prompts, seed in ((["a", "b"], 0), (["a"], 0), (["a"], 1))
    )
    np.testing.assert_allclose(both.distances[0], first.distances[0], rtol=1e-5)
    assert abs(other.value - first.value) > 1e-6


@pytest.mark.parametrize(("prompts", "ratios"), [([], 11), (["a"], 2)])
def test_too_little_to_measure_is_named(tiny_pipe, prompts, ratios):
    with pytest.raises(ValueError, match=f"got {len(prompts)} prompts and {ratios} ratios"):
        istd(tiny_pipe, prompts, num_ratios=ratios)
