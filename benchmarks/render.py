"""How many postcards a second: `python benchmarks/render.py`."""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

from smoothnb.evaluation.report import describe
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import random_scenes


def renders_per_second(scenes: list, batch_size: int) -> float:
    start = time.perf_counter()
    for i in range(0, len(scenes), batch_size):
        render(scenes[i : i + batch_size])
    return len(scenes) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="write the figures here, as JSON")
    options = parser.parse_args()
    scenes = list(itertools.islice(random_scenes(0), 256))
    render(scenes[:32])
    # The median of five rounds: other work on the machine slows single ones.
    figures = {n: statistics.median(renders_per_second(scenes, n) for _ in range(5)) for n in (1, 8, 16, 32, 64)}
    for batch_size, rate in figures.items():
        print(f"batch of {batch_size:2d}: {rate:6.0f} renders a second")
    if options.output:
        results = {"renders_per_second": figures, "machine": describe()}
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
