"""The recipes run from renders to a pipeline and a Reader, and resume where they stopped."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from recipes.postcards import diffusion, evaluate, reader, sheet, vae
from smoothnb._utils.files import data_folder
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.reader import load_reader

WEIGHTS = data_folder() / "postcard" / "vae"


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
    load_reader(tmp_path / "reader.safetensors")
    assert (tmp_path / "reader.safetensors").stat().st_size < 1_000_000


def test_the_figures_are_written_with_a_sheet(tmp_path, capsys):
    evaluate.main(count=4, steps=1, reader_count=8, output=tmp_path)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"fid", "fid_floor", "adherence_all", "sharpness", "vae_psnr_db", "guidance_scale"} <= figures.keys()
    assert (tmp_path / "sheet.png").is_file() and "| fid |" in capsys.readouterr().out


def test_the_recommended_scale_has_the_best_fid_of_those_that_follow_the_prompt():
    fid_and_adherence = {1.0: (100, 0.90), 2.0: (300, 0.985), 3.0: (350, 0.99), 5.0: (310, 0.97)}
    assert evaluate.best_scale(fid_and_adherence) == 2.0


def test_the_day_of_a_scene_has_24_different_pictures_and_is_lit_by_day(tmp_path):
    sheet.hours(tmp_path / "hours.png", columns=24, size=32)
    with Image.open(tmp_path / "hours.png") as picture:
        frames = [picture.crop((6 + 38 * i, picture.height - 38, 38 + 38 * i, picture.height - 6)) for i in range(24)]
    light = [sum(frame.convert("L").tobytes()) for frame in frames]
    assert len(set(light)) == 24 and light[12] > 2 * light[0]


@pytest.mark.slow
def test_a_model_is_fine_tuned_in_another_style_and_comes_back_from_its_difference(tmp_path, monkeypatch):
    base = data_folder() / "postcard"
    diffusion.train(
        diffusion.DiffusionConfig(
            output=tmp_path, style="neon", start=base, pool=8, steps=2, batch_size=2, autocast=False, learning_rate=1e-3
        )
    )
    evaluate.write_difference(tmp_path / "pipeline", tmp_path / "data" / "postcard-new")
    (tmp_path / "data" / "postcard").symlink_to(base)
    tuned, before = load_pipeline(tmp_path / "pipeline", device="cpu"), load_pipeline("postcard", device="cpu")
    monkeypatch.setattr("smoothnb.models.sources.data_folder", lambda: tmp_path / "data")
    again = load_pipeline("postcard-new", device="cpu")
    changed = 0
    for name, weight in tuned.unet.named_parameters():
        changed += not torch.equal(weight, before.unet.get_parameter(name))
        torch.testing.assert_close(again.unet.get_parameter(name), weight, atol=2e-3, rtol=0)
    assert changed > 0.8 * len(list(tuned.unet.parameters()))
