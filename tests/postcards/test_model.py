"""The postcard pipeline as it is shipped."""

import subprocess
import sys

import pytest
import torch
from diffusers import DDIMScheduler

from smoothnb._utils.files import data_folder
from smoothnb.evaluation.judges import ReaderJudge
from smoothnb.images import to_pil
from smoothnb.latents import encode
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.captions import build_tokenizer
from smoothnb.postcards.render import render
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.sampling import generate_pixels

FOLDER = data_folder() / "postcard"


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline("postcard", device="cpu")


def test_plain_diffusers_loads_and_draws_without_smoothnb():
    code = f"""
import sys
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(FOLDER)!r})
picture = pipe("a red house", num_inference_steps=2).images[0]
assert not any(name.startswith("smoothnb") for name in sys.modules)
print(picture.size, pipe.vae_scale_factor, pipe.unet.config.sample_size)
"""
    environment = {"HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "(128, 128) 8 16", done.stderr


def test_scheduler_is_that_of_stable_diffusion(pipe):
    c = pipe.scheduler.config
    assert isinstance(pipe.scheduler, DDIMScheduler)
    assert (c.beta_start, c.beta_end, c.beta_schedule) == (0.00085, 0.012, "scaled_linear")
    assert (c.num_train_timesteps, c.steps_offset, c.prediction_type) == (1000, 1, "epsilon")
    assert (c.set_alpha_to_one, c.clip_sample) == (False, False)


def test_tokenizer_is_the_one_that_captions_build(pipe):
    assert pipe.tokenizer.get_vocab() == build_tokenizer().get_vocab()


def test_the_model_is_small_and_has_attention_at_every_level(pipe):
    files = [f for f in FOLDER.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 25e6
    assert {f.suffix for f in files} <= {".json", ".safetensors", ".txt"}
    assert all("CrossAttn" in kind for kind in pipe.unet.config.down_block_types)
    assert 1 < pipe.recommended_guidance_scale < 7.5


def test_latents_have_unit_variance(pipe):
    latents = encode(pipe, to_pil(render(held_out_scenes(64))))
    assert latents.std().item() == pytest.approx(1, abs=0.05)


def test_pictures_show_what_prompts_say(pipe):
    prompts = held_out_prompts(24)
    pictures = generate_pixels(pipe, prompts, range(len(prompts)), num_inference_steps=20)
    shares = ReaderJudge().adherence(pictures, prompts)
    assert shares["all"] >= 0.93 and shares["one thing"] >= 0.9
    assert (pictures.flatten(1) >= 0.999).float().mean(1).max() < 0.5, "no blown-out picture"


def test_fid_is_small_between_renders_and_large_against_noise():
    judge, noise = ReaderJudge(real_count=128), torch.rand(128, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert judge.fid(render(held_out_scenes(128))) < 0.2 * judge.fid(noise)
