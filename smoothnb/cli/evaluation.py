"""Commands that evaluate models."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from smoothnb import evaluation
from smoothnb._utils.files import expanded
from smoothnb.evaluation._compare import save_plot
from smoothnb.evaluation._istd import ISTD, walk as walk_noises
from smoothnb.evaluation.judges import PhotoJudge, ReaderJudge
from smoothnb.evaluation.prompts import read_prompts
from smoothnb.evaluation.report import report as write_report
from smoothnb.figures.export import save_frames
from smoothnb.images import to_pil
from smoothnb.models.load import load_pipeline
from smoothnb.models.lora import set_smoothness
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.postcards.styles import render_in
from smoothnb.sampling import generate


def istd(
    results: Path,
    model: str = "postcard",
    smooth: bool = False,
    lora: Path | None = None,
    smoothness: float | None = None,
    prompts: str = "postcard",
    count: int | None = None,
    num_ratios: int = 11,
    guidance_scale: float = 7.5,
    num_inference_steps: int = 50,
    seed: int = 0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    correction: int = 0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 22,
) -> None:
    """Measures how smooth a model is; `accelerate launch -m smoothnb istd` distributes the prompts over processes.

    Args:
        results: Results file; the same command resumes it.
        model: A model that comes with smoothnb, a folder, or an id on the Hugging Face hub.
        smooth: Whether to use the smooth LoRA that comes with the model.
        lora: A smooth LoRA of your own, folder or file.
        smoothness: Weight of the LoRA, at least 0; by default 1.
        prompts: postcard, coco, a .json of COCO's captions, or a text file with one prompt a line.
        count: Number of prompts; by default 500, or all lines of a text file.
        num_ratios: Number of pictures per interpolation, at least 3.
        guidance_scale: w, at least 1.
        num_inference_steps: Number of sampling steps.
        seed: Seed of the noises.
        pixel_range: Values of black and white.
        correction: 0 for the population standard deviation, 1 for the sample standard deviation.
        height: Height of the pictures, in pixels; by default the model's own.
        width: Width of the pictures, in pixels; by default the model's own.
        batch_size: Number of pictures drawn at a time.
    """
    from accelerate import PartialState

    state = PartialState()
    pipe = load_pipeline(model, state.device, smooth=lora or smooth)
    if smoothness is not None:
        set_smoothness(pipe, smoothness)
    with state.main_process_first():
        chosen = read_prompts(prompts, count)
    found = evaluation.istd(
        pipe, chosen, num_ratios, guidance_scale, num_inference_steps, seed, pixel_range, correction, height, width,
        batch_size, results,
    )  # fmt: skip
    if state.is_main_process:
        print(f"{found}\nwrote {results}")


def compare(results: Positional[tuple[Path, ...]], output: Path | None = None) -> None:
    """Compares models that istd has measured, on the same prompts with the same settings.

    Args:
        results: Results files of istd; the first is the baseline.
        output: File for a plot: .png, .svg or .pdf.
    """
    found = evaluation.compare({path.stem: ISTD.load(path) for path in results})
    print(found.table())
    if output is not None:
        save_plot(found, output)
        print(f"wrote {output}")


def report(
    models: Positional[tuple[str, ...]],
    output: Path,
    measured: Path | None = None,
    prompts: str = "postcard",
    count: int | None = None,
    judge: Literal["reader", "photo"] = "reader",
    style: str = "plain",
    real: Path | None = None,
    num_inference_steps: int = 50,
    guidance_scale: float = 7.5,
    walks: int | None = None,
    path_lengths: int = 250,
    reconstructions: int = 16,
    batch_size: int = 22,
) -> None:
    """Measures models and writes a report like the paper's tables; resumes an interrupted run.

    Args:
        models: The baseline first, each as NAME=MODEL, NAME=MODEL+LORA or NAME=MODEL+LORA@SMOOTHNESS, such as
            base=postcard smooth=postcard+smooth half=postcard+smooth@0.5 mine=postcard+runs/mine; "smooth" is the LoRA
            that comes with a model.
        output: Folder for report.md, report.json and figures.
        measured: Folder for the results files of istd; by default the same.
        prompts: postcard, coco, a .json of COCO's captions, or a text file with one prompt a line.
        count: Number of prompts; by default 500, or all lines of a text file.
        judge: reader for postcards; photo for Inception, LPIPS and CLIP.
        style: For reader: style of the Reader and of the real pictures of FID.
        real: For photo: folder of the real pictures of FID, which are also inverted, with the prompt "".
        num_inference_steps: Number of sampling steps.
        guidance_scale: w, at least 1.
        walks: Number of prompts for ISTD; by default all.
        path_lengths: Number of prompts for PPL; 0 for no PPL.
        reconstructions: Number of pictures to invert and reconstruct.
        batch_size: Number of pictures drawn at a time.
    """
    candidates, chosen = dict(_candidate(spec) for spec in models), read_prompts(prompts, count)
    if judge == "photo":
        if real is None:
            raise ValueError("the judge photo needs real pictures: --real FOLDER")
        looks = PhotoJudge(real)
        pictures, texts = to_pil(next(looks.real()))[:reconstructions], [""] * reconstructions
    else:
        looks = ReaderJudge(4 * len(chosen), style=style)
        pictures = [p for scene in held_out_scenes(reconstructions) for p in to_pil(render_in(style, [scene]))]
        texts = held_out_prompts(reconstructions)
    found = write_report(
        candidates, chosen, looks, output, measured, pictures, texts[: len(pictures)],
        num_inference_steps, guidance_scale, walks, path_lengths, lpips=judge == "photo", batch_size=batch_size,
    )  # fmt: skip
    print(f"{found.table()}\nwrote {expanded(output) / 'report.md'}")


def walk(
    models: Positional[tuple[str, ...]],
    output: Path,
    number: int = 0,
    prompts: str = "postcard",
    num_ratios: int = 25,
    guidance_scale: float = 7.5,
    num_inference_steps: int = 50,
    seed: int = 0,
    interval: int = 120,
) -> None:
    """Draws one of the interpolations that istd measures, with models side by side.

    Args:
        models: As in `report`.
        output: The file: an animation (.gif, .mp4), or a strip (.png).
        number: Index of the prompt; the noises are those of istd.
        prompts: postcard, coco, a .json of COCO's captions, or a text file with one prompt a line.
        num_ratios: Number of pictures, at least 2.
        guidance_scale: w, at least 1.
        num_inference_steps: Number of sampling steps.
        seed: Seed of the noises.
        interval: Time between two pictures of an animation, in milliseconds.
    """
    prompt, rows = read_prompts(prompts, number + 1)[number], {}
    for name, load in map(_candidate, models):
        pipe = load()
        rows[name] = generate(
            pipe, prompt, latents=walk_noises(pipe, number, num_ratios, seed), num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
        )  # fmt: skip
    labels = [f"{i / (num_ratios - 1):.2f}" for i in range(num_ratios)]
    print(f"{prompt!r}: wrote {save_frames(output, rows, labels, interval)}")


def _candidate(spec: str) -> tuple[str, Callable]:
    """Name of a model, and a function that loads it."""
    match = re.fullmatch(r"([^=/\\]+)=([^+]+?)(?:\+(.+?)(?:@([\d.]+))?)?", spec)
    if match is None:
        raise ValueError(
            f"expected NAME=MODEL, NAME=MODEL+LORA or NAME=MODEL+LORA@SMOOTHNESS, such as smooth=postcard+smooth, got "
            f"{spec!r}"
        )
    name, model, lora, smoothness = match.groups()

    def load():
        pipe = load_pipeline(model, smooth=True if lora == "smooth" else lora or False)
        if smoothness is not None:
            set_smoothness(pipe, float(smoothness))
        return pipe

    return name, load
