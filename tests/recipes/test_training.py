"""The recipes run from renders to a pipeline and a Reader, and resume where they stopped."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from recipes.postcards import diffusion, reader, vae
from recipes.postcards.world.reader import Reader

WEIGHTS = Path(diffusion.__file__).parent / "weights" / "vae"


@pytest.mark.slow
def test_the_diffusion_recipe_writes_a_pipeline_and_resumes(tmp_path):
    config = diffusion.DiffusionConfig(output=tmp_path, vae=WEIGHTS, pool=8, steps=2, batch_size=2, autocast=False)
    diffusion.train(config)
    before = (tmp_path / "latents-000.safetensors").stat().st_mtime_ns
    assert load_file(tmp_path / "latents-000.safetensors")["latents"].std() < 2
    diffusion.train(diffusion.DiffusionConfig(**vars(config) | {"steps": 3}))
    assert (tmp_path / "latents-000.safetensors").stat().st_mtime_ns == before
    pipe = StableDiffusionPipeline.from_pretrained(tmp_path / "pipeline", safety_checker=None)
    assert all("CrossAttn" in kind for kind in pipe.unet.config.down_block_types)
    assert json.loads((tmp_path / "pipeline" / "vocabulary.json").read_text())["topics"]["time"]


@pytest.mark.slow
def test_the_autoencoder_recipe_starts_from_trained_weights(tmp_path):
    config = vae.VAEConfig(output=tmp_path, start=WEIGHTS, steps=1, batch_size=1, autocast=False)
    trained = vae.train(config)
    assert trained.dtype == torch.float32
    assert 0.1 < trained.config.scaling_factor < 0.4


def test_the_reader_recipe_writes_weights_that_a_reader_loads(tmp_path):
    reader.train(reader.ReaderConfig(output=tmp_path, steps=2, batch_size=4))
    weights = load_file(tmp_path / "reader.safetensors")
    Reader().load_state_dict({name: value.float() for name, value in weights.items()})
    assert sum(value.numel() for value in weights.values()) * 2 < 1_000_000
