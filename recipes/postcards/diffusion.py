"""The postcard diffusion model: a UNet and a text encoder, trained together on latents of renders."""

import itertools
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.training_utils import compute_snr
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from recipes.postcards.fit import fit
from recipes.postcards.muon import optimizers
from recipes.postcards.sheet import contact_sheet
from recipes.postcards.world.captions import build_tokenizer, caption, vocabulary
from recipes.postcards.world.scene import random_scenes
from recipes.postcards.world.stream import held_out_prompts
from recipes.postcards.world.styles import render_in
from smoothnb._utils.files import atomic_write, read_weights
from smoothnb.images import save_picture
from smoothnb.models import load_pipeline
from smoothnb.models.build import build_pipeline
from smoothnb.training.losses import offset_noise


@dataclass(frozen=True)
class DiffusionConfig:
    """Settings of the diffusion model's training. The defaults are those of the shipped model.

    Attributes:
        output: Folder for the pipeline, its checkpoint, latents and contact sheets.
        vae: Folder of the trained autoencoder.
        style: Style of the pictures, one of `STYLES`.
        start: Folder of a pipeline to fine-tune; of it the UNet alone is trained, all of its weights.
        pool: Scenes whose latents are computed once and drawn from. Captions are made anew at every draw, so a
            scene is never told twice in the same words.
        steps: Optimizer steps.
        batch_size: Latents a step.
        learning_rate: Peak learning rate of AdamW.
        muon_learning_rate: Peak learning rate of Muon; fine-tuning is by AdamW alone.
        drop_caption: Share of captions replaced by the empty one, for classifier-free guidance.
        min_snr_gamma: Clip of the signal-to-noise ratio in the loss weights (Hang et al. 2023).
        max_noise_weight: How many times more the noisiest timesteps count; their weight is one over their
            signal-to-noise ratio, up to this.
        noise_offset: Size of one more normal number that the noise of each channel is moved by (Guttenberg 2023).
        ema_decay: Decay of the running average of the weights.
        seed: Seed of weights and data.
        device: cpu, cuda or mps.
        autocast: Computes in bfloat16: several times as fast on a GPU, and on a CPU with AMX.
        compile: Compiles the UNet, which takes minutes at the start. It pays on a GPU, and on a CPU in float32.
    """

    output: Path = Path("runs/diffusion")
    vae: Path = Path("recipes/postcards/weights/vae")
    style: str = "plain"
    start: Path | None = None
    pool: int = 60_000
    steps: int = 5000
    batch_size: int = 128
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    drop_caption: float = 0.1
    min_snr_gamma: float = 5.0
    max_noise_weight: float = 25.0
    noise_offset: float = 0.1
    ema_decay: float = 0.998
    seed: int = 0
    device: str = "cpu"
    autocast: bool = True
    compile: bool = False


def build_unet() -> UNet2DConditionModel:
    """A new UNet with random weights: SD-1.5's architecture at a sixth of its width, with attention at every level."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(48, 80, 144),
        layers_per_block=1,
        attention_head_dim=2,
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


SHARD = 4_000
"""Latents in a file."""


class LatentPool:
    """Scaled latents of a stream of scenes, in files that grow while the training runs.

    Args:
        config: Settings; the files lie in its output folder.
    """

    def __init__(self, config: DiffusionConfig):
        self.config, self.latents, self.scenes = config, torch.empty(0, 4, 16, 16, dtype=torch.half), []
        self.stream, self.shard = random_scenes(config.seed), min(SHARD, config.pool)

    def path(self, shard: int) -> Path:
        return self.config.output / f"latents-{shard:03d}.safetensors"

    def load(self) -> None:
        """Takes up the shards that have been written since."""
        while (path := self.path(len(self.scenes) // self.shard)).exists() and len(self.scenes) < self.config.pool:
            self.latents = torch.cat([self.latents, read_weights(path)[0]["latents"]])
            self.scenes += itertools.islice(self.stream, self.shard)

    @torch.no_grad()
    def fill(self, vae: AutoencoderKL, count: int) -> None:
        """Computes shards until there are at least `count` latents."""
        config = self.config
        self.load()
        vae.to(config.device, memory_format=torch.channels_last)
        while len(self.scenes) < count:
            parts = []
            scenes = random_scenes(config.seed)
            scenes = list(itertools.islice(scenes, len(self.scenes), len(self.scenes) + self.shard))
            for i in range(0, self.shard, 32):
                pictures = render_in(config.style, scenes[i : i + 32], device=config.device) * 2 - 1
                with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
                    mean = vae.encode(pictures.contiguous(memory_format=torch.channels_last)).latent_dist.mean
                parts.append((mean.float() * vae.config.scaling_factor).half().cpu().contiguous())
            with atomic_write(self.path(len(self.scenes) // self.shard)) as partial:
                save_file({"latents": torch.cat(parts)}, partial)
            self.load()
            print(f"{len(self.scenes)} latents", flush=True)


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
    pool = LatentPool(config)
    pool.fill(vae, min(SHARD, config.pool))
    pool.load()
    unet = pipe.unet
    if config.autocast:
        # Plain matrix products are faster here than fused attention, whose backward pass on a CPU is slow.
        unet.set_attn_processor(AttnProcessor())
    forward = torch.compile(unet) if config.compile else unet

    def loss(generator: torch.Generator, step: int) -> Tensor:
        if step % 50 == 0:
            pool.load()
        rows = torch.randint(len(pool.scenes), (config.batch_size,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        captions = [
            "" if rng.random() < config.drop_caption else caption(pool.scenes[row], rng) for row in rows.tolist()
        ]
        tokens = pipe.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        clean = pool.latents[rows].float()
        # The mean colour of a picture shines through even the noise of the last timestep, and tells day from night:
        # next to it the words would count for nothing. An offset hides it.
        noise = offset_noise(tuple(clean.shape), config.noise_offset, generator)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (len(rows),), generator=generator)
        noisy = scheduler.add_noise(clean, noise, timesteps)
        noisy, noise, timesteps, tokens = (x.to(config.device) for x in (noisy, noise, timesteps, tokens))
        hidden = pipe.text_encoder(tokens).last_hidden_state
        with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
            predicted = forward(noisy.contiguous(memory_format=torch.channels_last), timesteps, hidden).sample.float()
        snr = compute_snr(scheduler, timesteps)
        # What light and land there are is decided where almost all is noise. There an error of the picture enters that
        # of the noise times the SNR, next to nothing: without more weight the words for it are never learned.
        weight = snr.clamp(max=config.min_snr_gamma) / snr * (1 + (1 / snr).clamp(max=config.max_noise_weight))
        return ((predicted - noise).square().flatten(1).mean(1) * weight).mean()

    def sheet(step: int) -> None:
        generator = torch.Generator().manual_seed(0)
        prompts = held_out_prompts(24)
        pictures = pipe(prompts, num_inference_steps=20, guidance_scale=3, generator=generator, output_type="pt").images
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


if __name__ == "__main__":
    train(tyro.cli(DiffusionConfig))
