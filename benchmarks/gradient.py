"""How well the finite difference gives the regularizer's gradient, beside the exact double backward in float32.

    python benchmarks/gradient.py --output docs/results/training/gradient.json

On the postcard LoRA with weights drawn at random, over timesteps from 30 to 990.
"""

import argparse
import json
from pathlib import Path

import torch

from smoothnb.evaluation.report import describe
from smoothnb.latents import encode_pixels
from smoothnb.models.load import load_pipeline
from smoothnb.models.lora import add_lora
from smoothnb.schedule import Schedule
from smoothnb.training.datasets import PostcardStream
from smoothnb.training.regularizer import POINTS, RunningConstant, unit_directions, variation_regularizer

TRIED = {
    torch.float32: [(0.0, 1e-3), (0.0, 1e-4), (-1e-3, 1e-3), (-1e-2, 1e-2)],
    torch.float16: [(0.0, 0.01), (-0.003, 0.003), (-0.03, 0.03)],
    torch.bfloat16: [(-0.01, 0.01), (-0.03, 0.03), (-0.1, 0.1)],
}
"""Points beside those that the package uses."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    pipe = load_pipeline("postcard", dtype=torch.float32)
    unet, device, schedule = pipe.unet, pipe.device, Schedule.of(pipe.scheduler)
    torch.manual_seed(0)
    unet.requires_grad_(False)
    add_lora(unet, 8)
    for name, p in unet.named_parameters():
        if "lora_B" in name:  # starts at zero, where lora_A has no gradient
            p.data.normal_(0, 0.02)
    weights = [p for p in unet.parameters() if p.requires_grad]
    pixels, captions = PostcardStream(128, 128).take(range(options.samples))
    x0 = encode_pixels(pipe, pixels)
    noise, delta = torch.randn_like(x0), unit_directions(tuple(x0.shape)).to(device)
    timesteps = torch.linspace(30, 990, options.samples).long().to(device)
    embeds = pipe.encode_prompt(captions, device, 1, False)[0].detach()

    def gradient(dtype: torch.dtype, method: str, points: tuple[float, float] = (0.0, 0.0)) -> torch.Tensor:
        def predict(x_t, t):
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                return unet(x_t, t, encoder_hidden_states=embeds).sample

        a = RunningConstant()
        loss = variation_regularizer(predict, schedule, x0, noise, timesteps, delta, a, method, points)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss.mean(), weights)])

    exact, rows = gradient(torch.float32, "exact"), []
    for dtype, used in POINTS.items():
        for points in [None, used, *TRIED[dtype]]:
            found = gradient(dtype, "finite_difference", points) if points else gradient(dtype, "exact")
            cosine = torch.cosine_similarity(exact, found, dim=0).item()
            row = {"dtype": str(dtype).removeprefix("torch."), "points": points or "exact", "used": points == used}
            rows.append(row | {"cosine": cosine, "length": (found.norm() / exact.norm()).item()})
            print(" ".join(f"{k} {v:.5f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        results = {"gradient": rows, "samples": options.samples, "machine": describe(device)}
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
