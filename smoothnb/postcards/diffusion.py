"""The postcard diffusion model: a UNet and a text encoder, trained together on latents of renders."""

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import compute_snr
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from smoothnb._utils.files import atomic_write, read_weights
from smoothnb.images import save_picture
from smoothnb.models.build import build_pipeline
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.captions import build_tokenizer, caption, vocabulary
from smoothnb.postcards.fit import fit
from smoothnb.postcards.muon import optimizers
from smoothnb.postcards.scene import random_scenes
from smoothnb.postcards.sheet import contact_sheet
from smoothnb.postcards.stream import held_out_prompts
from smoothnb.postcards.styles import render_in
from smoothnb.training.losses import offset_noise


@dataclass(frozen=True)
class DiffusionConfig:
    """Settings of the diffusion model's training. The defaults are those of the shipped model.

    Attributes:
        output: Folder for the pipeline, its checkpoint, latents and contact sheets.
        vae: Folder of the trained autoencoder.
        style: Of the pictures, one of `STYLES`.
        start: Folder of a pipeline to fine-tune; of it the UNet alone is trained, all of its weights.
        pool: Scenes whose latents are computed once and drawn from. Captions are made anew at every draw, so a
            scene is never told twice in the same words.
        steps: Optimizer steps.
        batch_size: Latents a step.
        learning_rate: Of AdamW, at its height.
        muon_learning_rate: Of Muon, at its height; fine-tuning is by AdamW alone.
        drop_caption: Share of captions replaced by the empty one, for classifier-free guidance.
        min_snr_gamma: Clip of the signal-to-noise ratio in the loss weights (Hang et al. 2023).
        max_noise_weight: How many times more the noisiest timesteps count; their weight is one over their
            signal-to-noise ratio, up to this.
        noise_offset: Size of one more normal number that the noise of each channel is moved by (Guttenberg 2023).
        ema_decay: Of the running average of the weights.
        seed: Of weights and data.
        device: cpu, cuda or mps.
    """

    output: Path = Path("runs/diffusion")
    vae: Path = Path("runs/vae/vae")
    style: str = "plain"
    start: Path | None = None
    pool: int = 12_000
    steps: int = 5000
    batch_size: int = 32
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    drop_caption: float = 0.1
    min_snr_gamma: float = 5.0
    max_noise_weight: float = 25.0
    noise_offset: float = 0.1
    ema_decay: float = 0.998
    seed: int = 0
    device: str = "cpu"


def build_unet() -> UNet2DConditionModel:
    """A new UNet with random weights and the shipped model's architecture: SD-1.5's, at a sixth of its width."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(48, 96, 256),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=128,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A new text encoder with random weights, as long and as wide as postcards need."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=512,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def save_pipeline(pipe: StableDiffusionPipeline, folder: Path) -> None:
    """Saves the pipeline in half precision, with the words it knows beside it."""
    # In parts, so that no file is too large for a repository.
    pipe.to(torch.float16).save_pretrained(folder, max_shard_size="15MB")
    for path in folder.rglob("*.json"):
        config = json.loads(path.read_text())
        config.pop("_name_or_path", None)  # where a part lay on this machine
        if "dtype" in config:
            # transformers loads in the dtype that a config names, diffusers in float32: a pipeline loaded without a
            # dtype would be of two kinds and fail.
            config["dtype"] = "float32"
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary(), indent=1) + "\n")


@torch.no_grad()
def latent_pool(config: DiffusionConfig, vae: AutoencoderKL) -> Tensor:
    """Scaled latents of the pool's scenes, [pool, 4, 16, 16]; computed once and kept in the output folder."""
    path = config.output / "latents.safetensors"
    if path.exists():
        latents = read_weights(path)[0]["latents"]
        if len(latents) == config.pool:
            return latents
    scenes, parts = random_scenes(config.seed), []
    for _ in tqdm(range(0, config.pool, 32), desc="latents", mininterval=5):
        pictures = render_in(config.style, list(itertools.islice(scenes, 32)), device=config.device)
        parts.append((vae.encode(pictures * 2 - 1).latent_dist.mean * vae.config.scaling_factor).half().cpu())
    latents = torch.cat(parts)[: config.pool]
    with atomic_write(path) as partial:
        save_file({"latents": latents}, partial)
    return latents


def train(config: DiffusionConfig) -> StableDiffusionPipeline:
    """Trains UNet and text encoder together, or fine-tunes a UNet, and saves the whole pipeline.

    The fine-tuning has no regularizer: community models have none.

    Args:
        config: The settings. Called again after a stop, it goes on where it was.

    Returns:
        The pipeline, its weights averaged over the run, in half precision.
    """
    config.output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    vae = AutoencoderKL.from_pretrained(config.vae).to(config.device)
    if config.start is None:
        tokenizer = build_tokenizer()
        pipe = build_pipeline(vae, build_unet(), build_text_encoder(tokenizer), tokenizer)
        model = nn.ModuleDict({"unet": pipe.unet, "text": pipe.text_encoder})
    else:
        base = load_pipeline(config.start, "cpu", torch.float32)
        pipe = build_pipeline(vae, base.unet, base.text_encoder.requires_grad_(False), base.tokenizer)
        model = nn.ModuleDict({"unet": pipe.unet})
    # Convolutions on the CPU are a tenth faster with channels last, and no slower on a GPU.
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.to(config.device)
    scheduler = pipe.scheduler
    latents = latent_pool(config, vae)
    scenes = list(itertools.islice(random_scenes(config.seed), config.pool))

    def loss(generator: torch.Generator, step: int) -> Tensor:
        rows = torch.randint(len(latents), (config.batch_size,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        captions = ["" if rng.random() < config.drop_caption else caption(scenes[row], rng) for row in rows.tolist()]
        tokens = pipe.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        clean = latents[rows].float()
        # The mean colour of a picture shines through even the noise of the last timestep, and tells day from night:
        # next to it the words would count for nothing. An offset hides it.
        noise = offset_noise(tuple(clean.shape), config.noise_offset, generator)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(rows),), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        noisy, noise, timesteps, tokens = (x.to(config.device) for x in (noisy, noise, timesteps, tokens))
        predicted = pipe.unet(noisy, timesteps, pipe.text_encoder(tokens).last_hidden_state).sample
        snr = compute_snr(scheduler, timesteps)
        # What light and land there are is decided where almost all is noise. There an error of the picture enters that
        # of the noise times the SNR, next to nothing: without more weight the words for it are never learned.
        weight = snr.clamp(max=config.min_snr_gamma) / snr * (1 + (1 / snr).clamp(max=config.max_noise_weight))
        return ((predicted - noise).square().flatten(1).mean(1) * weight).mean()

    def sheet(step: int) -> None:
        generator = torch.Generator().manual_seed(0)
        prompts = held_out_prompts(8)
        pictures = pipe(prompts, num_inference_steps=20, generator=generator, output_type="pt").images
        save_picture(contact_sheet(pictures, columns=8), config.output / f"sheet-{step:06d}.png")

    # Fine-tuning, as most of the community does it, by AdamW alone: Muon would take longer than the small batches.
    optimize = (
        optimizers(model, config.learning_rate, config.muon_learning_rate)
        if config.start is None
        else [torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=1e-2)]
    )
    fit(
        model, loss, steps=config.steps, optimizers=optimize,
        ema_decay=config.ema_decay,
        seed=config.seed, checkpoint=config.output / "checkpoint.pt", on_save=sheet,
    )  # fmt: skip
    save_pipeline(pipe, config.output / "pipeline")
    return pipe
