"""Figures of a postcard model: what the docs say about it comes from here."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
import tyro
from diffusers import StableDiffusionPipeline
from torch import Tensor

from recipes.postcards.reader import accuracy
from recipes.postcards.sheet import contact_sheet
from recipes.postcards.vae import psnr
from smoothnb._utils.files import write_text
from smoothnb.evaluation.judges import ReaderJudge
from smoothnb.evaluation.report import describe
from smoothnb.images import save_picture
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.postcards.styles import render_in
from smoothnb.sampling import generate, generate_pixels

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.5)
"""Guidance scales to choose from."""


def held_out_renders(count: int, style: str) -> Tensor:
    """Renders of the held-out scenes, [picture, 3, 128, 128]."""
    scenes = held_out_scenes(count)
    return torch.cat([render_in(style, scenes[i : i + 32]) for i in range(0, count, 32)])


@torch.no_grad()
def vae_figures(pipe: StableDiffusionPipeline, renders: Tensor) -> dict[str, float]:
    """PSNR of renders that went through the autoencoder, and the deviation of its scaled latents."""
    values, latents = [], []
    for pictures in renders.split(32):
        mean = pipe.vae.encode(pictures * 2 - 1).latent_dist.mean
        values.append(psnr((pipe.vae.decode(mean).sample / 2 + 0.5).clamp(0, 1), pictures))
        latents.append(mean * pipe.vae.config.scaling_factor)
    return {"vae_psnr_db": torch.cat(values).mean().item(), "latent_std": torch.cat(latents).std().item()}


def gradient_energy(pictures: Tensor) -> float:
    """Mean squared difference of neighbouring pixels: how sharp pictures are."""
    return (pictures.diff(dim=-1).square().mean() + pictures.diff(dim=-2).square().mean()).item()


def main(
    model: str = "postcard",
    style: str = "plain",
    count: int = 512,
    steps: int = 50,
    reader_count: int = 2000,
    output: Path = Path("runs/evaluation"),
) -> None:
    """Measures a postcard pipeline and its Reader, prints the table, and writes it with a contact sheet.

    Args:
        model: Name or folder of the pipeline.
        style: Style of its pictures, one of `STYLES`.
        count: Number of held-out renders and prompts.
        steps: Number of sampling steps.
        reader_count: Number of held-out renders for the Reader.
        output: Folder for figures.json, figures.md and sheet.png.
    """
    pipe, judge = load_pipeline(model), ReaderJudge(4 * count, style=style)
    seen = accuracy(judge.features, held_out_scenes(reader_count), style)
    figures: dict = {f"reader_{k}": v for k, v in seen.items()}
    renders = held_out_renders(count, style)
    figures |= vae_figures(pipe, renders)
    prompts = held_out_prompts(count)
    pictures = generate_pixels(pipe, prompts, range(count), num_inference_steps=steps, batch_size=32)
    save_picture(contact_sheet(pictures[:64]), output / "sheet.png")
    figures |= {f"adherence_{k}": v for k, v in judge.adherence(pictures, prompts).items()}
    figures |= {"fid": judge.fid(pictures), "fid_floor": judge.fid(renders)}
    figures["fid_over_floor"] = figures["fid"] / figures["fid_floor"]
    figures["sharpness"] = gradient_energy(pictures) / gradient_energy(renders)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        generate(pipe, prompts[0], num_inference_steps=steps, progress=False)
        seconds.append(time.perf_counter() - start)
    figures["seconds_for_one"] = min(seconds)
    figures["guidance_scale"] = getattr(pipe, "recommended_guidance_scale", 7.5)
    machine = describe(pipe.device)
    table = "\n".join(["| figure | value |", "|---|---|", *(f"| {k} | {v:.3f} |" for k, v in figures.items())])
    about = {"machine": machine, "count": count, "steps": steps}
    write_text(output / "figures.json", json.dumps(figures | about, indent=1) + "\n")
    on = ", ".join(f"{key} {value}" for key, value in machine.items())
    write_text(output / "figures.md", f"{table}\n\n{count} held-out prompts and renders, {steps} steps; {on}.\n")
    print(table)


def best_scale(measured: Mapping[float, tuple[float, float]]) -> float:
    """The guidance scale with the lowest FID of those whose adherence is within one point of the highest.

    The condition keeps out scales that draw good pictures of something else.

    Args:
        measured: FID and adherence by scale.
    """
    most = max(adherence for _, adherence in measured.values())
    return min((fid, scale) for scale, (fid, adherence) in measured.items() if adherence >= most - 0.01)[1]


def guidance(
    model: str = "postcard",
    count: int = 128,
    steps: int = 25,
    output: Path = Path("runs/evaluation/guidance.md"),
    recommend: Path | None = None,
) -> None:
    """Measures FID and adherence at several guidance scales, prints a table, and chooses the best scale.

    Args:
        model: Name or folder of the pipeline.
        count: Number of held-out prompts.
        steps: Number of sampling steps.
        output: File for the table.
        recommend: File for the recommended scale, such as data/postcard/recommended.json.
    """
    pipe, judge, prompts = load_pipeline(model), ReaderJudge(8 * count), held_out_prompts(count)
    renders = held_out_renders(count, "plain")
    rows = ["| w | FID | adherence | one thing | sharpness |", "|---|---|---|---|---|"]
    rows.append(f"| renders | {judge.fid(renders):.0f} | | | 1.00 |")
    measured = {}
    for scale in SCALES:
        pictures = generate_pixels(pipe, prompts, range(count), None, steps, scale, batch_size=32)
        said, sharp = judge.adherence(pictures, prompts), gradient_energy(pictures) / gradient_energy(renders)
        measured[scale] = judge.fid(pictures), said["all"]
        rows.append(
            f"| {scale:g} | {measured[scale][0]:.0f} | {said['all']:.1%} | {said['one thing']:.1%} | {sharp:.2f} |"
        )
        print(rows[-1], flush=True)
    best = best_scale(measured)
    write_text(output, "\n".join(rows) + f"\n\n{count} held-out prompts, {steps} steps. Recommended: {best:g}.\n")
    if recommend is not None:
        write_text(recommend, json.dumps({"guidance_scale": best}) + "\n")


def write_difference(tuned: Path, output: Path, base: str = "postcard") -> None:
    """Saves a fine-tuned model as its difference from its base, for data/.

    Args:
        tuned: Folder of the fine-tuned pipeline.
        output: Folder to write to.
        base: The base model.
    """
    from smoothnb.models.deltas import save_difference

    file = save_difference(load_pipeline(base), load_pipeline(tuned), output, base)
    print(f"wrote {file}, {file.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"model": main, "guidance": guidance, "difference": write_difference})
