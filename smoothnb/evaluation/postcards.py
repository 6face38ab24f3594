"""The figures of the postcard model, by one command: what the docs say about it comes from here."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from smoothnb._utils.files import write_text
from smoothnb.evaluation.judges import ReaderJudge
from smoothnb.evaluation.report import describe
from smoothnb.images import save_picture
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.reader import accuracy
from smoothnb.postcards.render import render
from smoothnb.postcards.sheet import contact_sheet
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.postcards.vae import psnr
from smoothnb.sampling import generate_pixels


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
    pipe, judge = load_pipeline(model), ReaderJudge(4 * count)
    figures: dict = {f"reader_{k}": v for k, v in accuracy(judge.features, held_out_scenes(reader_count)).items()}
    figures |= vae_figures(pipe, count)
    prompts = held_out_prompts(count)
    pictures = generate_pixels(pipe, prompts, range(count), batch_size=32)
    save_picture(contact_sheet(pictures[:64]), output / "sheet.png")
    figures |= {f"adherence_{k}": v for k, v in judge.adherence(pictures, prompts).items()}
    figures["fid"] = judge.fid(pictures)
    figures["fid_floor"] = judge.fid(torch.cat([render(b) for b in _batches(held_out_scenes(count))]))
    machine = describe(pipe.device)
    table = "\n".join(["| figure | value |", "|---|---|", *(f"| {k} | {v:.3f} |" for k, v in figures.items())])
    write_text(output / "figures.json", json.dumps(figures | {"machine": machine, "count": count}, indent=1) + "\n")
    on = ", ".join(f"{key} {value}" for key, value in machine.items())
    write_text(output / "figures.md", f"{table}\n\n{count} held-out prompts and renders; {on}.\n")
    print(table)
