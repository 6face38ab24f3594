"""Null-text inversion of two pictures with one series, beside the method as it was published.

    python benchmarks/null_text.py --output docs/results/null-text/postcard.json
    python benchmarks/null_text.py --model sd15 --size 256 --output docs/results/null-text/sd15-256.json

The yardstick follows Mokady et al. 2023 and its use for two pictures in the supplement (Eq. 5): pictures one after the
other, gradients for every weight, for each t a fresh Adam of ten steps at most and an early stop. On postcards both
methods run whole, pair by pair, and what counts is the time to an error that is no larger on either picture. With the
architecture of Stable Diffusion 1.5 and random weights one inner step is measured, a forward and a backward pass: ours
in float32, and in the half precision that a pipeline may be loaded in, where the published code insists on float32.
"""

import argparse
import copy
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from smoothnb.evaluation.report import describe
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.inversion.inversion import Inversion
from smoothnb.inversion.null_text import null_text_invert
from smoothnb.inversion.soap import Soap
from smoothnb.models.load import best_device, load_pipeline
from smoothnb.postcards.render import render
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.sampling import embed, sample

PUBLISHED, OURS, HALF = METHODS = ("published", "ours, float32", "ours, half precision")


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
    pipe.unet.zero_grad()
    return found, torch.cat(series)


def errors(pipe, found: Inversion, series: Tensor, guidance_scale: float) -> list[float]:
    """Mean squared error of the latents of each picture, drawn again."""
    settings = found.settings
    *_, last = sample(pipe, settings.prompts, found.latents, 0, settings.num_inference_steps, guidance_scale, series)
    return (last.latents - found.trajectory[0]).square().flatten(1).mean(1).tolist()


def whole(options) -> dict:
    """Both methods on pairs of postcards: seconds, errors, and how many times faster the same error is reached."""
    pipe = load_pipeline("postcard", dtype=torch.float32)
    scenes, prompts = held_out_scenes(2 * options.pairs), held_out_prompts(2 * options.pairs)
    w, rows = options.guidance_scale, []
    for pair in range(options.pairs):
        own = slice(2 * pair, 2 * pair + 2)
        images, texts = list(render(scenes[own])), prompts[own]
        start = time.perf_counter()
        found, series = published(pipe, images, texts, w, options.steps)
        seconds = time.perf_counter() - start
        row = {"prompts": texts, "published": {"seconds": seconds, "errors": errors(pipe, found, series, w)}}
        for inner in options.inner_steps:
            start = time.perf_counter()
            ours = null_text_invert(
                pipe, images, texts, w, options.steps, inner, fixed_point_steps=options.fixed_point_steps,
                progress=False,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            row[f"ours, {inner} inner steps"] = {
                "seconds": seconds,
                "errors": errors(pipe, ours, ours.series, w),
                "times_faster": row["published"]["seconds"] / seconds,
            }
        there = [
            found["times_faster"]
            for found in row.values()
            if "times_faster" in found
            and all(a <= b for a, b in zip(found["errors"], row["published"]["errors"], strict=True))
        ]
        row["times_faster_to_the_same_error"] = max(there, default=None)
        rows.append(row)
        print(json.dumps(row, indent=1), flush=True)
    reached = [row["times_faster_to_the_same_error"] for row in rows]
    median = statistics.median(reached) if None not in reached else None
    print("times faster to the same error, median over pairs:", median)
    return {"median_times_faster_to_the_same_error": median, "pairs": rows}


def inner_step(method: str, size: int) -> Callable[[], None]:
    """A function that takes one inner step for two pictures, on Stable Diffusion 1.5's architecture."""
    device = best_device()
    dtype = half_precision(device) if method == HALF else torch.float32
    # Neither speed nor memory depends on the weights.
    torch.set_default_dtype(dtype)
    unet = UNet2DConditionModel(cross_attention_dim=768).to(device).requires_grad_(method == PUBLISHED)
    torch.set_default_dtype(torch.float32)
    x, wanted = torch.randn(2, 2, 4, size // 8, size // 8, device=device)
    null, t = torch.randn(1, 77, 768, device=device).requires_grad_(), torch.tensor(500, device=device)
    adam, soap = torch.optim.Adam([null], lr=1e-2), Soap()

    def noise(x: Tensor, null: Tensor) -> Tensor:
        return unet(x.to(dtype), t, encoder_hidden_states=null.to(dtype)).sample.float()

    def published_step() -> None:
        adam.zero_grad()
        for own, target in zip(x.split(1), wanted.split(1), strict=True):
            (noise(own, null) - target).square().mean().backward()
        adam.step()
        unet.zero_grad()

    def our_step() -> None:
        found = noise(x, null.expand(2, -1, -1))
        (gradient,) = torch.autograd.grad(found, null, wanted - found.detach())
        null.data += 0.05 * soap.direction(gradient)

    return published_step if method == PUBLISHED else our_step


def half_precision(device: torch.device) -> torch.dtype:
    """What a pipeline is loaded in to save memory; CPUs have no fast float16."""
    return torch.float16 if device.type == "cuda" else torch.bfloat16


def _peak_memory() -> float:
    """Of this process, in GB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1e6


def one_inner_step(options) -> dict:
    """Seconds by turns in one process; peak memory of a process of its own for each method."""
    figures: dict[str, dict[str, float]] = {}
    for method in METHODS:
        words = [sys.executable, __file__, *sys.argv[1:], "--memory", method]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{method} failed:\n{done.stderr}")
        figures[method] = {"gigabytes": float(done.stdout)}
    steps = {method: inner_step(method, options.size) for method in METHODS}
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(options.rounds + 1):
        for method, step in steps.items():
            start = time.perf_counter()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number:  # the first round warms up
                times[method].append(time.perf_counter() - start)
    for method, found in figures.items():
        found["seconds"] = statistics.median(times[method])
        for what in ("seconds", "gigabytes"):
            found[f"{what}_published_beside_it"] = figures[PUBLISHED][what] / found[what]
    print(json.dumps(figures, indent=1))
    return {"figures": figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("postcard", "sd15"), default="postcard")
    parser.add_argument("--pairs", type=int, default=4, help="of postcards")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--inner-steps", type=int, nargs="+", default=[2, 3, 4])
    parser.add_argument("--fixed-point-steps", type=int, default=0, help="of the DDIM inversion before, for ours")
    parser.add_argument("--size", type=int, default=256, help="side of the pictures for sd15, in pixels")
    parser.add_argument("--rounds", type=int, default=3, help="for sd15")
    parser.add_argument("--memory", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    if options.memory:
        inner_step(options.memory, options.size)()
        print(_peak_memory())
        return
    results = whole(options) if options.model == "postcard" else one_inner_step(options)
    if options.output:
        settings = {key: str(value) for key, value in vars(options).items() if key not in ("output", "memory")}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        results |= {"settings": settings, "machine": describe(best_device())}
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
