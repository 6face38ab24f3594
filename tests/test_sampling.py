import copy

import numpy as np
import pytest
import torch

from smoothnb import generate, sample, seeded_noise
from smoothnb.latents import decode

PROMPTS = ["a red house at night", "a balloon in a meadow"]


def last(steps):
    return list(steps)[-1].latents


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("negative_prompt", ["", "fog"])
def test_sample_ends_where_diffusers_ends(tiny_pipe, guidance_scale, negative_prompt):
    noise = seeded_noise(tiny_pipe, [1, 2])
    expected = tiny_pipe(
        PROMPTS, latents=noise.clone(), num_inference_steps=5, guidance_scale=guidance_scale,
        negative_prompt=[negative_prompt] * 2, output_type="latent",
    ).images  # fmt: skip
    steps = sample(tiny_pipe, PROMPTS, noise, 0, 5, guidance_scale, negative_prompt)
    torch.testing.assert_close(last(steps), expected)


def test_every_step_is_the_one_diffusers_makes(tiny_pipe):
    seen = []

    def keep(pipe, index, timestep, tensors):
        seen.append((index, int(timestep), tensors["latents"].clone()))
        return {}

    noise = seeded_noise(tiny_pipe, [4])
    tiny_pipe(PROMPTS[0], latents=noise, num_inference_steps=4, callback_on_step_end=keep, output_type="latent")
    for step, (index, timestep, latents) in zip(sample(tiny_pipe, PROMPTS[0], noise, 0, 4), seen, strict=True):
        assert (step.index, step.timestep) == (index, timestep)
        torch.testing.assert_close(step.latents, latents)


def test_x0_and_the_noise_it_implies_lead_to_the_next_latents(tiny_pipe):
    noise = seeded_noise(tiny_pipe, [4])
    steps = list(sample(tiny_pipe, PROMPTS[0], noise, 0, 4))
    alpha_bar = tiny_pipe.scheduler.alphas_cumprod
    before = noise
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        now = alpha_bar[step.timestep]
        then = alpha_bar[after.timestep] if after else tiny_pipe.scheduler.final_alpha_cumprod
        epsilon = (before - now.sqrt() * step.x0) / (1 - now).sqrt()
        torch.testing.assert_close(step.latents, then.sqrt() * step.x0 + (1 - then).sqrt() * epsilon)
        before = step.latents


def test_the_pipeline_is_left_as_it_was(tiny_pipe):
    before = copy.deepcopy(vars(tiny_pipe.scheduler))
    list(sample(tiny_pipe, PROMPTS[0], None, 0, 3))
    after = vars(tiny_pipe.scheduler)
    assert before.keys() == after.keys()
    assert before["num_inference_steps"] == after["num_inference_steps"]
    assert torch.equal(before["timesteps"], after["timesteps"])


def test_gradients_are_off_within_steps_and_on_between_them(tiny_pipe):
    for step in sample(tiny_pipe, PROMPTS[0], None, 0, 2):
        assert torch.is_grad_enabled()
        assert not step.latents.requires_grad


def test_one_prompt_or_one_noise_serves_the_whole_batch(tiny_pipe):
    noise = seeded_noise(tiny_pipe, [1, 2])
    torch.testing.assert_close(
        last(sample(tiny_pipe, PROMPTS[0], noise, 0, 2)), last(sample(tiny_pipe, PROMPTS[:1] * 2, noise, 0, 2))
    )
    torch.testing.assert_close(
        last(sample(tiny_pipe, PROMPTS, noise[0], 0, 2)), last(sample(tiny_pipe, PROMPTS, None, [1, 1], 2))
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": ["a"] * 3, "seed": [1, 2]}, "3 prompts and 2 latents"),
        ({"prompt": []}, "0 prompts"),
        ({"latents": torch.zeros(1, 3, 8, 8)}, "4 channels"),
        ({"latents": torch.full((4, 8, 8), float("inf"))}, "finite latents"),
    ],
)
def test_wrong_arguments_raise_before_the_first_step(tiny_pipe, change, message):
    with pytest.raises(ValueError, match=message):
        sample(tiny_pipe, **({"prompt": "a house"} | change))


def test_generate_draws_what_diffusers_draws(tiny_pipe):
    noise = seeded_noise(tiny_pipe, [1, 2, 3])
    expected = tiny_pipe(PROMPTS[0], latents=noise[1:2], num_inference_steps=3).images[0]
    for batch_size in (2, 16):
        pictures = generate(
            tiny_pipe, PROMPTS[0], [1, 2, 3], num_inference_steps=3, batch_size=batch_size, progress=False
        )
        assert len(pictures) == 3
        assert np.abs(np.asarray(pictures[1], int) - np.asarray(expected, int)).max() <= 1


def test_generate_pairs_prompts_with_seeds_across_batches(tiny_pipe):
    prompts = [*PROMPTS, "a pine"]
    together = generate(tiny_pipe, prompts, [1, 2, 3], num_inference_steps=2, batch_size=2, progress=False)
    alone = decode(tiny_pipe, last(sample(tiny_pipe, "a pine", None, 3, 2)))[0]
    assert np.abs(np.asarray(together[2], int) - np.asarray(alone, int)).max() <= 1


def test_prompts_and_seeds_that_do_not_pair_up_are_refused_before_the_first_batch(tiny_pipe):
    with pytest.raises(ValueError, match="3 prompts and 4 latents"):
        generate(tiny_pipe, [*PROMPTS, "a pine"], [1, 2, 3, 4], num_inference_steps=1, batch_size=2, progress=False)


def test_the_progress_bar_counts_every_step_and_can_be_turned_off(tiny_pipe, capsys):
    generate(tiny_pipe, PROMPTS[0], num_inference_steps=2, progress=False)
    assert capsys.readouterr().err == ""
    generate(tiny_pipe, PROMPTS[0], [1, 2], num_inference_steps=2, batch_size=1)
    assert "/4" in capsys.readouterr().err
