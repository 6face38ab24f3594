"""Null-text inversion of two pictures with one series, beside the method as it was published: time to the same error.

    python benchmarks/null_text.py --output docs/results/null-text.json

The yardstick follows Mokady et al. 2023 and its use for two pictures in the supplement (Eq. 5): pictures one after the
other, gradients for every weight, for each t a fresh Adam of ten steps at most and an early stop. Ours gets as many
inner steps as it needs to end nearer to both pictures.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from torch import Tensor

from smoothnb.inversion import Inversion, ddim_invert
from smoothnb.machine import describe
from smoothnb.models import load_pipeline
from smoothnb.null_text import null_text_invert
from smoothnb.postcards.render import render
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.sampling import embed, sample


def published(pipe, images, prompts: list[str], guidance_scale: float, steps: int) -> tuple[Inversion, Tensor]:
    """The inversion, and the series in the order of sampling."""
    found = ddim_invert(pipe, images, prompts, steps, progress=False)
    pipe.unet.requires_grad_(True)
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.set_timesteps(steps, device=pipe.device)
    embeds, null, series = embed(pipe, prompts), embed(pipe, ""), []
    now = list(found.latents.split(1))

    def step(x: Tensor, t: Tensor, null: Tensor, conditional: Tensor) -> Tensor:
        unconditional = pipe.unet(x, t, encoder_hidden_states=null).sample
        noise = unconditional + guidance_scale * (conditional - unconditional)
        return scheduler.step(noise, t, x).prev_sample

    for i, t in enumerate(scheduler.timesteps):
        targets = found.trajectory[-2 - i].split(1)
        with torch.no_grad():
            conditionals = [
                pipe.unet(x, t, encoder_hidden_states=e).sample for x, e in zip(now, embeds.split(1), strict=True)
            ]
        null = null.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([null], lr=1e-2 * (1 - i / 100))
        for _ in range(10):
            optimizer.zero_grad()
            total = 0.0
            for x, target, conditional in zip(now, targets, conditionals, strict=True):
                loss = (step(x, t, null, conditional) - target).square().mean()
                loss.backward()
                total += loss.item()
            optimizer.step()
            if total < 1e-5 + i * 2e-5:
                break
        with torch.no_grad():
            now = [step(x, t, null, c) for x, c in zip(now, conditionals, strict=True)]
        series.append(null.detach())
    pipe.unet.requires_grad_(False).zero_grad()
    return found, torch.cat(series)


def errors(pipe, found: Inversion, series: Tensor, guidance_scale: float) -> list[float]:
    """Mean squared error of the latents of each picture, drawn again."""
    settings = found.settings
    *_, last = sample(pipe, settings.prompts, found.latents, 0, settings.num_inference_steps, guidance_scale, series)
    return (last.latents - found.trajectory[0]).square().flatten(1).mean(1).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--inner-steps", type=int, nargs="+", default=[1, 2, 3, 5, 10])
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    pipe = load_pipeline("postcard", dtype=torch.float32)
    pipe.unet.requires_grad_(False)
    scenes, prompts = held_out_scenes(2 * options.pairs), held_out_prompts(2 * options.pairs)
    rows = []
    for pair in range(options.pairs):
        own = slice(2 * pair, 2 * pair + 2)
        images, texts = list(render(scenes[own])), prompts[own]
        start = time.perf_counter()
        found, series = published(pipe, images, texts, options.guidance_scale, options.steps)
        row = {"prompts": texts, "published": {"seconds": time.perf_counter() - start}}
        row["published"]["errors"] = errors(pipe, found, series, options.guidance_scale)
        for inner in options.inner_steps:
            start = time.perf_counter()
            ours = null_text_invert(
                pipe, images, texts, options.guidance_scale, options.steps, inner, progress=False
            )  # fmt: skip
            seconds = time.perf_counter() - start
            row[f"ours, {inner} inner steps"] = {
                "seconds": seconds,
                "times faster": row["published"]["seconds"] / seconds,
                "errors": errors(pipe, ours, ours.series, options.guidance_scale),
            }
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        settings = {key: value for key, value in vars(options).items() if key != "output"}
        options.output.write_text(
            json.dumps({"pairs": rows, "settings": settings, "machine": describe(pipe.device)}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
