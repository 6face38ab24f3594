"""Time and memory of one training step: plain LoRA, with the regularizer, and with its exact double backward.

    python benchmarks/training.py --batch-size 8 --output docs/results/training/postcard.json
    python benchmarks/training.py --model sd15 --size 256 --rounds 2 --output docs/results/training/sd15-256.json

Methods take turns in one process, so that their times can be compared; each has a process of its own for its memory.
"lazy" is reckoned: the regularizer at every fourth step, plain steps between.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from smoothnb.evaluation.report import describe
from smoothnb.models.load import best_device, load_pipeline
from smoothnb.models.lora import add_lora
from smoothnb.schedule import Schedule
from smoothnb.training.losses import base_loss
from smoothnb.training.regularizer import (
    POINTS,
    RunningConstant,
    objective_parts,
    unit_directions,
    variation_regularizer,
)

METHODS = ("plain", "ours", "exact")
LAZY = 4


def build(options) -> tuple[torch.nn.Module, Schedule, int]:
    """The UNet with a LoRA of rank 8, its schedule, and the side of its latents."""
    device = best_device()
    torch.manual_seed(0)
    if options.model == "postcard":
        pipe = load_pipeline("postcard", device, options.dtype)
        unet, schedule, side = pipe.unet, Schedule.of(pipe.scheduler), pipe.unet.config.sample_size
    else:
        # Stable Diffusion 1.5's architecture; neither speed nor memory depends on the weights.
        unet = UNet2DConditionModel(cross_attention_dim=768).to(device, options.dtype)
        scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        schedule, side = Schedule.of(scheduler), options.size // 8
    unet.requires_grad_(False)
    add_lora(unet, 8)
    if options.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet.train(), schedule, side


def stepper(options):
    """A function that takes one training step by a method; the optimizer is left out, as it is the same for all."""
    unet, schedule, side = build(options)
    device, size = next(unet.parameters()).device, options.batch_size
    x0, noise = torch.randn(2, size, 4, side, side, device=device)
    embeds = torch.randn(size, 77, unet.config.cross_attention_dim, device=device)
    timesteps = torch.randint(1000, (size,), device=device)
    delta, a = unit_directions(tuple(x0.shape)).to(device), RunningConstant()

    def predict(x_t, t):
        with torch.autocast(device.type, options.dtype, enabled=options.dtype != torch.float32):
            return unet(x_t, t, encoder_hidden_states=embeds).sample

    problem = predict, schedule, x0, noise, timesteps

    def step(method: str) -> None:
        unet.zero_grad()
        if method == "ours":
            for base, regularizer in objective_parts(*problem, delta, a, points=POINTS[options.dtype]):
                (base + regularizer).mean().backward()
            return
        loss = base_loss(*problem)
        if method == "exact":
            loss = loss + variation_regularizer(*problem, delta, a, "exact")
        loss.mean().backward()

    return step, device


def memory(options) -> float:
    """Peak of one step beyond what was there before, in GB."""
    step, device = stepper(options)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        step(options.memory)
        return (torch.cuda.max_memory_allocated() - before) / 1e9
    # Linux sets the peak back to what is in use now.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_memory()
    step(options.memory)
    return _peak_memory() - before


def _peak_memory() -> float:
    """Of this process, in GB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("postcard", "sd15"), default="postcard")
    parser.add_argument("--size", type=int, default=512, help="side of the pictures for sd15, in pixels")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--memory", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    options.dtype = getattr(torch, options.dtype)
    if options.memory:
        print(memory(options))
        return
    figures: dict[str, dict[str, float]] = {m: {} for m in options.methods}
    for method in options.methods:
        words = [sys.executable, __file__, *sys.argv[1:], "--memory", method]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{method} failed:\n{done.stderr}")
        figures[method]["gigabytes"] = float(done.stdout)
    step, device = stepper(options)
    times: dict[str, list[float]] = {m: [] for m in options.methods}
    for number in range(options.rounds + 1):
        for method in options.methods:
            start = time.perf_counter()
            step(method)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round warms up
                times[method].append(time.perf_counter() - start)
    for method in options.methods:
        figures[method]["seconds"] = statistics.median(times[method])
    if "ours" in figures:
        seconds = (figures["ours"]["seconds"] + (LAZY - 1) * figures["plain"]["seconds"]) / LAZY
        figures["lazy"] = {"seconds": seconds, "gigabytes": figures["ours"]["gigabytes"]}
    for method in figures:
        for what in ("seconds", "gigabytes"):
            figures[method][f"{what}_beside_plain"] = figures[method][what] / figures["plain"][what]
        print(method, {k: round(v, 3) for k, v in figures[method].items()})
    if options.output:
        settings = {k: str(v) for k, v in vars(options).items() if k not in ("memory", "output")}
        results = {"figures": figures, "settings": settings, "machine": describe(device)}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
