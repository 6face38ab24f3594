"""Where models come from: names and mirrors of the hub, local copies, one file that holds a whole model."""

import re

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file, save_file

import smoothnb as sn
from smoothnb.models.deltas import save_difference
from smoothnb.models.load import fingerprint
from smoothnb.models.sources import HUB_NAMES, find_model, packaged_models

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut", "downsamplers.0": "downsample", "upsamplers.0": "upsample",
}  # fmt: skip


def original_unet_name(name: str, layers: int, depth: int) -> str:
    """The name that a weight has in the checkpoints of the first Stable Diffusion code."""
    fixed = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    }  # fmt: skip
    for ours, theirs in fixed.items():
        if name.startswith(f"{ours}."):
            return name.replace(ours, theirs, 1)
    side, rest = name.split(".", 1)
    if side == "mid_block":
        kind, number, rest = rest.split(".", 2)
        place = f"middle_block.{2 * int(number) if kind == 'resnets' else 1}"
    else:
        block, kind, number, rest = rest.split(".", 3)
        first = int(block) * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{1 + first + layers}.0.{rest.replace('conv', 'op')}"
        if kind == "upsamplers":
            # Behind the attention, where the block has one.
            return f"output_blocks.{first + layers}.{2 if int(block) >= depth - 1 else 1}.{rest}"
        start = (
            f"input_blocks.{1 + first + int(number)}"
            if side == "down_blocks"
            else f"output_blocks.{first + int(number)}"
        )
        place = f"{start}.{0 if kind == 'resnets' else 1}"
    if kind == "resnets":
        part, leaf = rest.split(".", 1)
        rest = f"{RESNET[part]}.{leaf}"
    return f"{place}.{rest}"


def original_vae_name(name: str, depth: int) -> str:
    name = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d+)\.", lambda m: f"up.{depth - 1 - int(m[1])}.", name)
    for ours, theirs in VAE_NAMES.items():
        name = re.sub(rf"(?<![\w]){re.escape(ours)}(?=\.)", theirs, name)
    return name.replace("resnets.", "block.")


@pytest.fixture(scope="module")
def checkpoint(tiny_folder, tmp_path_factory):
    """The tiny pipeline in one file, as community models come."""
    pipe = sn.load_pipeline(tiny_folder, device="cpu")
    depth, layers = len(pipe.unet.config.block_out_channels), pipe.unet.config.layers_per_block
    state = {
        f"model.diffusion_model.{original_unet_name(name, layers, depth)}": value
        for name, value in pipe.unet.state_dict().items()
    }
    for name, value in pipe.vae.state_dict().items():
        theirs = original_vae_name(name, len(pipe.vae.config.block_out_channels))
        state[f"first_stage_model.{theirs}"] = (
            value[..., None, None] if "attn_1" in theirs and value.ndim == 2 else value
        )
    for name, value in pipe.text_encoder.state_dict().items():
        state[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = value
    file = tmp_path_factory.mktemp("checkpoints") / "community.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    return file


def test_a_checkpoint_of_one_file_is_the_same_model(checkpoint, tiny_folder):
    ours = sn.load_pipeline(checkpoint, device="cpu", config=tiny_folder)
    assert fingerprint(ours) == fingerprint(sn.load_pipeline(tiny_folder, device="cpu"))
    (picture,) = sn.generate(ours, "a red house", num_inference_steps=2, progress=False)
    (expected,) = sn.generate(
        sn.load_pipeline(tiny_folder, device="cpu"), "a red house", num_inference_steps=2, progress=False
    )
    assert picture.tobytes() == expected.tobytes()


def test_local_copies_come_before_the_hub(checkpoint, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SMOOTHNB_MODELS", str(tmp_path))
    (tmp_path / "realistic-vision-v2.safetensors").symlink_to(checkpoint)
    (tmp_path / "stable-diffusion-v1-5").symlink_to(tiny_folder)
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone" / "model").symlink_to(tiny_folder)
    assert find_model("realistic-vision-v2").places == (tmp_path / "realistic-vision-v2.safetensors",)
    assert sn.load_pipeline("stable-diffusion-v1-5", device="cpu").unet.config.sample_size == 8
    assert find_model("someone/model").places == (tmp_path / "someone" / "model",)
    assert find_model("openjourney-v4").places == HUB_NAMES["openjourney-v4"]


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


def spoiled(how: str, checkpoint, folder):
    file = folder / "model.safetensors"
    if how == "pickle":
        file = folder / "model.ckpt"
        torch.save({"a": torch.ones(1)}, file)
    elif how == "cut":
        file.write_bytes(checkpoint.read_bytes()[:-1000])
    elif how == "lora":
        save_file({"unet.to_q.lora.down.weight": torch.ones(1, 1)}, file)
    return file


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("pickle", r"a \.ckpt is a pickle"),
        ("cut", "cut off or damaged"),
        ("lora", "not a complete Stable Diffusion model.*A LoRA goes on top"),
    ],
)
def test_files_that_are_no_model_are_refused(how, message, checkpoint, tmp_path):
    with pytest.raises(ValueError, match=message):
        sn.load_pipeline(spoiled(how, checkpoint, tmp_path), device="cpu")


def test_a_missing_file_is_not_taken_for_a_hub_id():
    with pytest.raises(FileNotFoundError, match="no folder or file models"):
        sn.load_pipeline("models/a.safetensors")


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


def test_a_fine_tuned_model_takes_the_smooth_lora_of_its_base(variant, tiny_folder, tmp_path):
    with pytest.raises(ValueError, match='no smooth LoRA comes with "tiny-tuned"'):
        sn.load_pipeline("tiny-tuned", device="cpu", smooth=True)
    base = sn.load_pipeline("tiny", device="cpu")
    names = [n for n, m in base.unet.named_modules() if n.endswith("to_q")]
    pairs = {
        f"unet.{n}.lora.{part}.weight": torch.ones((2, w.shape[1]) if part == "down" else (w.shape[0], 2))
        for n in names
        for w in [base.unet.get_submodule(n).weight]
        for part in ("down", "up")
    }
    (tmp_path / "tiny-smooth").mkdir()
    save_file(pairs, tmp_path / "tiny-smooth" / "pytorch_lora_weights.safetensors")
    assert "smooth" in sn.load_pipeline("tiny-tuned", device="cpu", smooth=True).unet.peft_config


def test_a_difference_of_another_model_is_refused(variant, tmp_path):
    file = tmp_path / "tiny-tuned" / "difference.safetensors"
    state = load_file(file)
    save_file({k: v[:-2] if v.dtype == torch.uint8 else v for k, v in state.items()}, file, {"base": "tiny"})
    with pytest.raises(ValueError, match="does not belong to this pipeline"):
        sn.load_pipeline("tiny-tuned", device="cpu")
