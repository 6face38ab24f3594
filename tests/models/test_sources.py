"""Where models come from: names and mirrors of the hub, local copies, one file that holds a whole model."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from original_names import original_unet_name, original_vae_name
from safetensors.torch import load_file, save_file
from tiny import with_lora

import smoothnb as sn
from smoothnb.models.deltas import save_difference
from smoothnb.models.load import fingerprint
from smoothnb.models.sources import HUB_NAMES, find_model, packaged_models


@pytest.fixture(scope="module")
def checkpoint(tiny_folder, tmp_path_factory):
    """The tiny pipeline in one file, as community models come."""
    pipe = sn.load_pipeline(tiny_folder, device="cpu")
    state = {
        f"model.diffusion_model.{original_unet_name(name, pipe.unet.config)}": value
        for name, value in pipe.unet.state_dict().items()
    }
    for name, value in pipe.vae.state_dict().items():
        theirs = original_vae_name(name, len(pipe.vae.config.block_out_channels))
        kernel = "attn_1" in theirs and value.ndim == 2
        state[f"first_stage_model.{theirs}"] = value[..., None, None] if kernel else value
    for name, value in pipe.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    file = tmp_path_factory.mktemp("checkpoints") / "community.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return file


def test_a_checkpoint_of_one_file_is_the_same_model(checkpoint, tiny_folder):
    ours = sn.load_pipeline(checkpoint, device="cpu", config=tiny_folder)
    assert fingerprint(ours) == fingerprint(sn.load_pipeline(tiny_folder, device="cpu"))


def test_local_copies_come_before_the_hub(checkpoint, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOOTHNB_MODELS", str(tmp_path))
    (tmp_path / "realistic-vision-v2.safetensors").symlink_to(checkpoint)
    (tmp_path / "stable-diffusion-v1-5").symlink_to(tiny_folder)
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "model").symlink_to(tiny_folder)
    assert find_model("realistic-vision-v2") == (tmp_path / "realistic-vision-v2.safetensors",)
    assert sn.load_pipeline("stable-diffusion-v1-5", device="cpu").unet.config.sample_size == 8
    assert find_model("someone/model") == (tmp_path / "someone" / "model",)
    assert find_model("openjourney-v4") == HUB_NAMES["openjourney-v4"]


def test_mirrors_are_tried_in_turn(tiny_folder, monkeypatch):
    asked, load, describe = [], StableDiffusionPipeline.from_pretrained, StableDiffusionPipeline.load_config

    def hub(name, **options):
        asked.append(name)
        if name == HUB_NAMES["stable-diffusion-v1-5"][0]:
            raise OSError("404: it has left")
        return describe(str(tiny_folder), **options)

    monkeypatch.setattr(StableDiffusionPipeline, "load_config", hub)
    monkeypatch.setattr(
        StableDiffusionPipeline, "from_pretrained", lambda name, **options: load(str(tiny_folder), **options)
    )
    assert sn.load_pipeline("stable-diffusion-v1-5", device="cpu").unet.config.sample_size == 8
    assert asked[:2] == list(HUB_NAMES["stable-diffusion-v1-5"][:2])
    monkeypatch.setattr(
        StableDiffusionPipeline, "load_config", lambda name, **options: (_ for _ in ()).throw(OSError("404"))
    )
    with pytest.raises(OSError, match=r'cannot load "prompthero/openjourney-v4": .*Check the name and the network'):
        sn.load_pipeline("openjourney-v4")


def test_files_that_are_no_model_are_refused(checkpoint, tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "model.ckpt")
    (tmp_path / "cut.safetensors").write_bytes(checkpoint.read_bytes()[:-1000])
    save_file({"unet.to_q.lora.down.weight": torch.ones(1, 1)}, tmp_path / "lora.safetensors")
    for name, message in {
        "model.ckpt": r"a \.ckpt is a pickle",
        "cut.safetensors": "cut off or damaged",
        "lora.safetensors": "not a complete Stable Diffusion model.*A LoRA goes on top",
    }.items():
        with pytest.raises(ValueError, match=message):
            sn.load_pipeline(tmp_path / name, device="cpu")


@pytest.fixture
def variant(tiny_folder, tmp_path, monkeypatch):
    """A data folder with a model and one that was fine-tuned from it."""
    base, tuned = (sn.load_pipeline(tiny_folder, device="cpu") for _ in range(2))
    generator = torch.Generator().manual_seed(0)
    for part in (tuned.unet, tuned.vae):
        for p in part.parameters():
            p.data += 0.01 * torch.randn(p.shape, generator=generator)
    (tmp_path / "tiny").symlink_to(tiny_folder)
    save_difference(base, tuned, tmp_path / "tiny-tuned", "tiny")
    monkeypatch.setattr("smoothnb.models.sources.data_folder", lambda: tmp_path)
    return tuned


def test_a_fine_tuned_model_is_its_base_and_a_difference(variant, tmp_path):
    assert packaged_models() == ["tiny", "tiny-tuned"]
    loaded, base = sn.load_pipeline("tiny-tuned", device="cpu"), sn.load_pipeline("tiny", device="cpu")
    for part, most in (("unet", 0.02), ("vae", 1e-4)):
        wanted, found, before = (dict(getattr(p, part).named_parameters()) for p in (variant, loaded, base))
        moved = sum((wanted[n] - before[n]).square().sum() for n in wanted)
        missed = sum((wanted[n] - found[n]).square().sum() for n in wanted)
        assert 0 < missed < most * moved
    size = (tmp_path / "tiny-tuned" / "difference.safetensors").stat().st_size
    count = sum(p.numel() for part in (variant.unet, variant.vae) for p in part.parameters())
    assert size < 1.7 * count


def test_a_fine_tuned_model_takes_the_smooth_lora_of_its_base(variant, tmp_path):
    with pytest.raises(ValueError, match='no smooth LoRA comes with "tiny-tuned"'):
        sn.load_pipeline("tiny-tuned", device="cpu", smooth=True)
    lora = sn.lora_of(with_lora(sn.load_pipeline("tiny", device="cpu")))
    sn.export_lora(lora, tmp_path / "tiny-smooth" / "pytorch_lora_weights.safetensors")
    assert "smooth" in sn.load_pipeline("tiny-tuned", device="cpu", smooth=True).unet.peft_config


def test_a_difference_of_another_model_is_refused(variant, tmp_path):
    file = tmp_path / "tiny-tuned" / "difference.safetensors"
    state = load_file(file)
    save_file({k: v[:-2] if v.dtype == torch.uint8 else v for k, v in state.items()}, file, {"base": "tiny"})
    with pytest.raises(ValueError, match="does not belong to this pipeline"):
        sn.load_pipeline("tiny-tuned", device="cpu")
