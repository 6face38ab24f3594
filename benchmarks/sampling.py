"""Seconds for pictures of the postcard model, 50 steps, guidance 7.5: `python benchmarks/sampling.py`."""

import argparse
import json
import statistics
import time
from pathlib import Path

from smoothnb.evaluation.report import describe
from smoothnb.models.load import load_pipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    pipe, prompt = load_pipeline("postcard"), "a red house in the snow at night"
    pipe(prompt, num_inference_steps=5)
    figures: dict[int, dict[str, float]] = {}
    for count, rounds in ((1, 9), (11, 3)):
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            pipe(prompt, num_inference_steps=50, guidance_scale=7.5, num_images_per_prompt=count)
            seconds.append(time.perf_counter() - start)
        # Other work on the machine slows single rounds: both ends are told.
        figures[count] = {"median": statistics.median(seconds), "best": min(seconds), "worst": max(seconds)}
        print(f"{count:2d} in one batch: " + ", ".join(f"{k} {v:.2f} s" for k, v in figures[count].items()))
    if options.output:
        results = {"seconds": figures, "machine": describe(pipe.device)}
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
