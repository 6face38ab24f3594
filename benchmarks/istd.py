"""Where the time of ISTD goes, and what sharing a batch brings: `python benchmarks/istd.py`.

The share of the time that is spent inside the UNet, whose work is the same for everyone; and, beside it in one run, the
way that suggests itself: the pipeline of diffusers called for one picture after the other.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from smoothnb.evaluation import istd, walk
from smoothnb.evaluation.report import describe
from smoothnb.images import neighbour_distances
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.stream import held_out_prompts


class Stopwatch:
    """Seconds spent inside a module."""

    def __init__(self, module: torch.nn.Module):
        self.seconds, self._start = 0.0, 0.0
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._end())

    def _begin(self) -> None:
        self._start = self._now()

    def _end(self) -> None:
        self.seconds += self._now() - self._start

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()


def one_by_one(pipe, prompts: list[str], steps: int) -> float:
    """ISTD without this package's sampler: a picture at a time."""
    deviations = []
    for number, prompt in enumerate(prompts):
        frames = [
            pipe(prompt, latents=noise[None], num_inference_steps=steps, guidance_scale=7.5).images[0]
            for noise in walk(pipe, number)
        ]
        deviations.append(neighbour_distances(frames).std(correction=0).item())
    return float(np.mean(deviations))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="postcard")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[11, 22, 44])
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    pipe, prompts = load_pipeline(options.model), held_out_prompts(options.prompts)
    stopwatch = Stopwatch(pipe.unet)
    istd(pipe, prompts[:1], num_inference_steps=2, progress=False)
    figures = {}
    ways = {f"{n} pictures at a time": n for n in options.batch_sizes} | {"diffusers, one by one": 0}
    for name, batch_size in ways.items():
        stopwatch.seconds, start = 0.0, time.perf_counter()
        if batch_size:
            settings = dict(num_inference_steps=options.steps, batch_size=batch_size, progress=False)
            value = istd(pipe, prompts, **settings).value
        else:
            value = one_by_one(pipe, prompts, options.steps)
        seconds = time.perf_counter() - start
        figures[name] = {"istd": value, "seconds": seconds, "inside_unet": stopwatch.seconds / seconds}
        print(
            f"{name}: {seconds:.1f} s, {figures[name]['inside_unet']:.1%} inside the UNet, ISTD {value:.4f}", flush=True
        )
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        results = {
            "ways": figures,
            "prompts": options.prompts,
            "steps": options.steps,
            "machine": describe(pipe.device),
        }
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
