"""The postcard autoencoder: 128 x 128 pictures to 4 x 16 x 16 latents and back."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from diffusers import AutoencoderKL
from torch import Tensor

from recipes.postcards.fit import fit
from recipes.postcards.muon import optimizers
from recipes.postcards.sheet import contact_sheet
from recipes.postcards.world.render import render, thing_mask
from recipes.postcards.world.stream import held_out_scenes, training_scenes
from recipes.postcards.world.styles import render_in
from smoothnb.images import save_picture


@dataclass(frozen=True)
class VAEConfig:
    """Settings of the autoencoder's training. The defaults are those of the shipped model.

    Attributes:
        output: Folder for the trained autoencoder, its checkpoint and contact sheets.
        steps: Optimizer steps.
        batch_size: Pictures a step.
        learning_rate: Peak learning rate of AdamW.
        muon_learning_rate: Peak learning rate of Muon.
        kl_weight: Weight of the Kullback-Leibler term.
        latent_noise: Largest standard deviation of the noise on latents, as a share of theirs. It teaches the decoder
            to forgive the small errors of a diffusion model.
        scaled: Share of the steps that decode latents scaled down into a picture scaled down (equivariance to scaling,
            Kouzelis et al. 2025), which takes out of the latents what a diffusion model finds hard to predict.
        thing_weight: How many times more the pixels of the main thing count: it is what a reader looks at, and covers
            a twentieth of a picture.
        style: Style of the pictures, one of `STYLES`.
        start: Folder of an autoencoder to fine-tune.
        seed: Seed of weights and data.
        device: cpu, cuda or mps.
        autocast: Computes in bfloat16: several times as fast on a GPU, and on a CPU with AMX.
    """

    output: Path = Path("runs/vae")
    steps: int = 3100
    batch_size: int = 4
    learning_rate: float = 1e-3
    muon_learning_rate: float = 0.02
    kl_weight: float = 2e-8
    latent_noise: float = 0.1
    scaled: float = 0.15
    thing_weight: float = 5.0
    style: str = "plain"
    start: Path | None = None
    seed: int = 0
    device: str = "cpu"
    autocast: bool = True


def build_vae() -> AutoencoderKL:
    """A new autoencoder with random weights and the shipped model's architecture."""
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    # Posteriors start narrow (log variance -6): with the usual start at 0 the noise drowns the latents, and the
    # first hundreds of steps go into making it smaller.
    torch.nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], -6.0)
    return vae


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [0, 1], one for each of a batch."""
    return -10 * (x - y).square().flatten(1).mean(1).log10()


@torch.no_grad()
def measure_scaling_factor(vae: AutoencoderKL, count: int = 512) -> float:
    """One over the standard deviation of latents, so that scaled latents have unit variance."""
    device = next(vae.parameters()).device
    scenes = held_out_scenes(count)
    batches = [scenes[i : i + 16] for i in range(0, count, 16)]
    latents = torch.cat([vae.encode(render(b, device=device) * 2 - 1).latent_dist.mean for b in batches])
    return 1 / latents.std().item()


def train(config: VAEConfig) -> AutoencoderKL:
    """Trains the autoencoder on an endless stream of renders and saves it.

    Args:
        config: The settings. Called again after a stop, it goes on where it was.

    Returns:
        The trained autoencoder, its scaling factor measured.
    """
    torch.manual_seed(config.seed)
    vae = (build_vae() if config.start is None else AutoencoderKL.from_pretrained(config.start)).to(config.device)
    vae.to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator, step: int) -> Tensor:
        scenes = training_scenes(generator, config.batch_size)
        pictures = render_in(config.style, scenes, device=config.device) * 2 - 1
        things = F.max_pool2d(thing_mask(scenes, device=config.device), 5, stride=1, padding=2)
        weight = (1 + (config.thing_weight - 1) * things).sqrt()
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
            posterior = vae.encode(pictures).latent_dist
        mean = posterior.mean.float()
        levels = config.latent_noise * mean.detach().std() * torch.rand(len(mean), 1, 1, 1, generator=generator)
        latents = mean + (levels * torch.randn(mean.shape, generator=generator)).to(config.device)
        if torch.rand((), generator=generator) < config.scaled:
            scale = (0.5, 0.75)[int(torch.randint(2, (), generator=generator))]
            latents, pictures, weight = (
                F.interpolate(x, scale_factor=scale, mode="bilinear", antialias=True)
                for x in (latents, pictures, weight)
            )
        with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
            rebuilt = vae.decode(latents).sample
        error = (rebuilt.float() - pictures) * weight
        # Squares, not magnitudes: with L1 the tiny errors of wide skies outweigh those along edges, which stay blurred.
        # Differences of neighbouring pixels weigh edges once more.
        edges = error.diff(dim=-1).square().mean() + error.diff(dim=-2).square().mean()
        return error.square().mean() + edges + config.kl_weight * posterior.kl().float().mean()

    @torch.no_grad()
    def sheet(step: int) -> None:
        pictures = render_in(config.style, held_out_scenes(32), device=config.device)
        rebuilt = (vae.decode(vae.encode(pictures * 2 - 1).latent_dist.mean).sample / 2 + 0.5).clamp(0, 1)
        print(f"step {step}: {psnr(rebuilt, pictures).mean():.2f} dB on held-out renders", flush=True)
        rows = torch.stack([pictures[:8], rebuilt[:8], pictures[8:16], rebuilt[8:16]]).flatten(0, 1)
        save_picture(contact_sheet(rows, columns=8), config.output / f"sheet-{step:05d}.png")

    config.output.mkdir(parents=True, exist_ok=True)
    fit(
        vae, loss, steps=config.steps, ema_decay=0.99, seed=config.seed, save_every=100,
        optimizers=optimizers(vae, config.learning_rate, config.muon_learning_rate),
        checkpoint=config.output / "checkpoint.pt", on_save=sheet,
    )  # fmt: skip
    if config.style == "plain":
        vae.register_to_config(scaling_factor=measure_scaling_factor(vae))
    vae.save_pretrained(config.output / "vae")
    return vae


if __name__ == "__main__":
    train(tyro.cli(VAEConfig))
