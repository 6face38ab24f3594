"""The figures of the postcard model, by one command: what the docs say about it comes from here."""

import itertools
import json
from collections import defaultdict
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from tqdm import tqdm

from smoothnb.machine import describe
from smoothnb.models import load_pipeline
from smoothnb.postcards.captions import stated
from smoothnb.postcards.reader import Reader, accuracy, load_reader
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import random_scenes
from smoothnb.postcards.sheet import contact_sheet
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.postcards.vae import psnr

HELD_OUT_REAL = (1 << 40) + 1
"""Seed of the renders that FID takes for real."""


def _batches(items: list, size: int = 32) -> list[list]:
    return [items[i : i + size] for i in range(0, len(items), size)]


@torch.no_grad()
def vae_figures(pipe: StableDiffusionPipeline, count: int) -> dict[str, float]:
    """PSNR of renders that went through the autoencoder, and the deviation of its scaled latents."""
    values, latents = [], []
    for batch in _batches(held_out_scenes(count)):
        pictures = render(batch, device=pipe.device).to(pipe.vae.dtype)
        mean = pipe.vae.encode(pictures * 2 - 1).latent_dist.mean
        rebuilt = (pipe.vae.decode(mean).sample / 2 + 0.5).clamp(0, 1)
        values.append(psnr(rebuilt.float(), pictures.float()))
        latents.append(mean.float() * pipe.vae.config.scaling_factor)
    return {"vae_psnr_db": torch.cat(values).mean().item(), "latent_std": torch.cat(latents).std().item()}


def draw(pipe: StableDiffusionPipeline, prompts: list[str], steps: int = 50, guidance_scale: float = 7.5) -> Tensor:
    """Pictures for prompts, [count, 3, height, width] in [0, 1]; the noise of prompt i is seeded by i."""
    parts = []
    for batch in tqdm(_batches(list(enumerate(prompts))), desc="pictures", mininterval=5):
        generators = [torch.Generator().manual_seed(i) for i, _ in batch]
        parts.append(
            pipe(
                [p for _, p in batch], num_inference_steps=steps, guidance_scale=guidance_scale,
                generator=generators, output_type="pt",
            ).images.float().cpu()
        )  # fmt: skip
    return torch.cat(parts)


def adherence(reader: Reader, pictures: Tensor, prompts: list[str]) -> dict[str, float]:
    """Of what prompts state, the share that the Reader finds in the pictures: over all, and by factor."""
    found = defaultdict(list)
    for batch in _batches(list(range(len(prompts)))):
        for i, reading in zip(batch, reader.read(pictures[batch]), strict=True):
            for factor, right in reading.agrees(stated(prompts[i])).items():
                found[factor].append(right)
    every = [right for values in found.values() for right in values]
    return {"all": sum(every) / len(every)} | {factor: sum(v) / len(v) for factor, v in found.items()}


def fid(reader: Reader, pictures: list[Tensor], real: list[Tensor]) -> float:
    """Frechet distance of Reader features (torchmetrics) between two lists of batches of pictures."""
    metric = FrechetInceptionDistance(feature=reader, normalize=True)
    for batches, are_real in ((real, True), (pictures, False)):
        for batch in batches:
            metric.update(batch, real=are_real)
    return metric.compute().item()


def renders_taken_for_real(count: int) -> list[Tensor]:
    """Batches of renders of a stream that neither training nor the other held-out scenes use."""
    stream = random_scenes(HELD_OUT_REAL)
    return [render(batch) for batch in _batches(list(itertools.islice(stream, count)))]


def main(
    model: str = "postcard", count: int = 512, reader_count: int = 2000, output: Path = Path("runs/evaluation")
) -> None:
    """Measures a postcard pipeline and its Reader, prints the table, and writes it with a contact sheet.

    Args:
        model: Name or folder of the pipeline.
        count: Held-out renders and prompts.
        reader_count: Held-out renders for the Reader.
        output: Folder for figures.json, figures.md and sheet.png.
    """
    output.mkdir(parents=True, exist_ok=True)
    pipe, reader = load_pipeline(model), load_reader()
    figures: dict = {f"reader_{k}": v for k, v in accuracy(reader, held_out_scenes(reader_count)).items()}
    figures |= vae_figures(pipe, count)
    prompts = held_out_prompts(count)
    pictures = draw(pipe, prompts)
    contact_sheet(pictures[:64]).save(output / "sheet.png")
    figures |= {f"adherence_{k}": v for k, v in adherence(reader, pictures, prompts).items()}
    real = renders_taken_for_real(count * 4)
    figures["fid"] = fid(reader, list(pictures.split(32)), real)
    figures["fid_floor"] = fid(reader, [render(b) for b in _batches(held_out_scenes(count))], real)
    machine = describe(pipe.device)
    table = "\n".join(["| figure | value |", "|---|---|", *(f"| {k} | {v:.3f} |" for k, v in figures.items())])
    (output / "figures.json").write_text(json.dumps(figures | {"machine": machine, "count": count}, indent=1) + "\n")
    on = ", ".join(f"{key} {value}" for key, value in machine.items())
    (output / "figures.md").write_text(f"{table}\n\n{count} held-out prompts and renders; {on}.\n")
    print(table)
