"""Compares drags with their true answers, on the base and on the smooth model.

    python benchmarks/drag.py --output docs/results/drag/shipped

The main thing of held-out scenes moves by 16 to 48 pixels, and the true answer is the render of the moved scene. The
mask is what a user would paint: the thing on its way, and a little around it. Results are written as soon as they are
measured, so the same command resumes a run that was interrupted.
"""

import argparse
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from results import mean_with_interval, resume, write_tables

from smoothnb.dragging import DRAG_DIFFUSION, Dragged, DragOptions, drag, point_map
from smoothnb.evaluation.report import describe
from smoothnb.figures import strip
from smoothnb.figures.marks import mark
from smoothnb.images import to_pil, to_pixels
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.latents import decode, encode
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.captions import full_caption, names
from smoothnb.postcards.reader import load_reader
from smoothnb.postcards.render import render, thing_mask
from smoothnb.postcards.scene import EXTENT, Scene, edit, random_scenes
from smoothnb.postcards.stream import HELD_OUT

MODELS = ("base", "smooth")
LENGTHS = (16, 48)
"""Shortest and longest drag, in pixels."""
AROUND = 5
"""Pixels around the thing that the mask includes."""
NOTICED, SMEARED = 2 / 255, 4
"""A pixel belongs to the drag if a true colour changes by more than this within this many pixels."""
OURS = DragOptions()
NO_LORA = replace(DRAG_DIFFUSION, lora_steps=0)
TRUTH = "the true picture, encoded and decoded"
WAYS = {
    TRUTH: (None, False),
    "ours": (OURS, True),
    "ours, no mask": (OURS, False),
    "published, no LoRA": (NO_LORA, True),
    "published": (DRAG_DIFFUSION, True),
    "published, no LoRA, no reference attention": (replace(NO_LORA, reference_attention=False), True),
    "ours, with the LoRA": (replace(OURS, lora_steps=DRAG_DIFFUSION.lora_steps), True),
    "ours, no reference attention": (replace(OURS, reference_attention=False), True),
    "ours, only before sampling": (replace(OURS, follow=0), True),
    "ours, only while sampling": (replace(OURS, max_steps=0), True),
}  # fmt: skip
"""Options by name, and whether the mask is given."""
FIGURES = {
    "share": "distance left, of the drag ↓", "distance": "distance (px) ↓", "matched": "by features (px) ↓",
    "near": "within a quarter ↑", "same": "one thing, the same ↑", "answer": "dB to the true picture ↑",
    "outside": "dB outside ↑", "cast": "colour cast outside (of 255) ↓", "steps": "steps", "seconds": "seconds",
}  # fmt: skip
DIGITS = {
    "share": ".1%", "distance": ".1f", "matched": ".1f", "near": ".0%", "same": ".0%", "answer": ".2f",
    "outside": ".2f", "cast": ".2f", "steps": ".0f", "seconds": ".1f",
}  # fmt: skip
FULL = (TRUTH, "ours", "ours, no mask")
"""Ways measured on all cases; the others are measured on the first few (`--fewer`)."""
SHOWN = 10
"""Number of cases on the sheets of the best and of the worst."""


@dataclass(frozen=True)
class Case:
    """A drag with its answer: the scenes before and after, which differ in x and y."""

    before: Scene
    after: Scene

    @property
    def length(self) -> float:
        return math.dist(place(self.before), place(self.after))

    def mask(self) -> Image.Image:
        (x, y), (to_x, to_y) = place(self.before), place(self.after)
        way = [edit(self.before, x=x + (to_x - x) * i / 8, y=y + (to_y - y) * i / 8) for i in range(9)]
        covered = (thing_mask(way).amax(0, keepdim=True) > 0.05).float()
        return to_pil(F.max_pool2d(covered, 2 * AROUND + 1, 1, AROUND).expand(-1, 3, -1, -1))[0]


def place(scene: Scene) -> tuple[float, float]:
    """The middle of the thing."""
    return scene.x, scene.y


def cases(count: int) -> list[Case]:
    """Things move sideways, because their size tells how far away they are; balloons move up and down too."""
    rng, found = random.Random(HELD_OUT), []
    scenes = (scene for scene in random_scenes(HELD_OUT) if scene.thing != "none")
    while len(found) < count:
        scene, length = next(scenes), rng.uniform(*LENGTHS)
        angle = rng.uniform(-0.6, 0.6) if scene.thing == "balloon" else 0.0
        x = scene.x + math.copysign(length, EXTENT / 2 - scene.x) * math.cos(angle)
        y, edge = scene.y + length * math.sin(angle), scene.size / 2
        if edge < x < EXTENT - edge and (not angle or edge < y < scene.horizon + 8 - edge):
            found.append(Case(scene, edit(scene, x=x, y=y)))
    return found


def judge(case: Case, picture: Image.Image, reader) -> dict[str, float]:
    """Computes those of `FIGURES` that depend on the picture alone, but for the features' (see `matched`)."""
    pixels = to_pixels(picture, picture.height, picture.width)
    before, after = render([case.before, case.after], pixels.shape[-1]).split(1)
    moved = ((before - after).abs().amax(1, keepdim=True) > NOTICED).float()
    rest = 1 - F.max_pool2d(moved, 2 * SMEARED + 1, 1, SMEARED)
    errors = (pixels - after).square().mean(1, keepdim=True)
    (reading,) = reader.read(pixels)
    distance = math.dist((reading.x, reading.y), place(case.after))
    same = reading.agrees({topic: name for topic, name in names(case.after).items() if topic in ("thing", "colour")})
    return {
        "answer": -10 * math.log10(errors.mean()),
        "outside": -10 * math.log10((errors * rest).sum() / rest.sum()) if rest.any() else math.nan,
        "cast": (((pixels - after) * rest).sum((2, 3)) / rest.sum()).abs().max().item() * 255,
        "distance": distance,
        "share": distance / case.length,
        "near": float(distance <= case.length / 4),
        "same": float(all(same.values()) and reading.count == 1),
    }


def matched(pipe, cases: list[Case], pictures: list[Image.Image]) -> list[float]:
    """Computes how far from its target the features of each handle are found, as in DragBench."""
    prompts = [full_caption(case.before) for case in cases]
    sources = ddim_invert(pipe, to_pil(render([case.before for case in cases])), prompts, progress=False)
    results = ddim_invert(pipe, pictures, prompts, progress=False)
    distances = []
    for case, source, result in zip(cases, sources, results, strict=True):
        alike = point_map(pipe, source, place(case.before), result)
        row, column = divmod(int(alike.argmax()), alike.shape[1])
        side = EXTENT / len(alike)
        distances.append(math.dist(((column + 0.5) * side, (row + 0.5) * side), place(case.after)))
    return distances


class Bench:
    """One model, and the drags that it draws."""

    def __init__(self, model: str, found: list[Case], judge_pipe):
        self.pipe, self.cases = load_pipeline("postcard", smooth=model == "smooth"), found
        self.judge_pipe, self.reader = judge_pipe, load_reader()

    def draw(self, case: Case, way: str) -> Dragged:
        options, masked = WAYS[way]
        if options is None:
            (picture,) = decode(self.pipe, encode(self.pipe, to_pil(render([case.after]))))
            return Dragged(picture, torch.tensor([[place(case.after)]]), [], "arrived", {}, [], [])
        (picture,) = to_pil(render([case.before]))
        handles, targets = ([place(scene)] for scene in (case.before, case.after))
        mask = case.mask() if masked else None
        return drag(self.pipe, picture, full_caption(case.before), handles, targets, mask, options, progress=False)

    def measure(self, way: str, count: int, folder: Path) -> dict[str, list[float]]:
        """Measures a way on the first cases, and saves the pictures."""
        folder.mkdir(parents=True, exist_ok=True)
        rows, pictures = [], []
        for number, case in enumerate(self.cases[:count]):
            found = self.draw(case, way)
            found.picture.save(folder / f"{number:02}.png")
            pictures.append(found.picture)
            rows.append(judge(case, found.picture, self.reader) | {"steps": float(len(found.losses))})
        result = {key: [round(row[key], 4) for row in rows] for key in rows[0]}
        return result | {"matched": matched(self.judge_pipe, self.cases[:count], pictures)}

    def seconds(self, rounds: int = 2) -> dict[str, float]:
        """Mean time of each way. Ways take turns, and each round drags another case."""
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for case in self.cases[:rounds]:
            for way in WAYS:
                taken[way].append(sum(self.draw(case, way).seconds.values()))
        return {way: float(np.mean(values)) for way, values in taken.items()}


def table(results: dict, ways: Sequence[str], count: int) -> str:
    """Tabulates means over the first cases."""
    lines = ["| | | " + " | ".join(FIGURES.values()) + " |", "|---" * (len(FIGURES) + 2) + "|"]
    for way in ways:
        for model in MODELS:
            found = results.get(model, {}).get(way)
            if found is None:
                continue
            found = found | {"seconds": [results.get("seconds", {}).get(way, math.nan)]}
            cells = [f"{np.nanmean(found[key][:count]):{DIGITS[key]}}" for key in FIGURES]
            lines.append(f"| {way} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison(results: dict) -> str:
    """Tabulates the differences between smooth and base model, case by case, with the interval over cases."""
    keys = ("distance", "matched", "answer", "outside")
    lines = ["| | " + " | ".join(FIGURES[key] for key in keys) + " |", "|---" * (len(keys) + 1) + "|"]
    for way in WAYS:
        both = [results.get(model, {}).get(way) for model in MODELS]
        if None in both:
            continue
        cells = []
        for key in keys:
            change = np.array(both[1][key]) - np.array(both[0][key])
            cells.append(mean_with_interval(change[np.isfinite(change)]))
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sheet(
    found: list[Case], numbers: Sequence[int], folder: Path, ways: Sequence[str] = FULL[1:], size: int = 96
) -> Image.Image:
    """Draws cases, their true answers, and the results of several ways."""
    rows: dict[str, list[Image.Image]] = {name: [] for name in ("before", "true", *ways)}
    for number in numbers:
        case = found[number]
        before, after = to_pil(render([case.before, case.after]))
        ends = ([place(scene)] for scene in (case.before, case.after))
        rows["before"].append(mark(before, *ends, mask=case.mask()))
        rows["true"].append(after)
        for way in ways:
            with Image.open(folder / _slug(way) / f"{number:02}.png") as picture:
                rows[way].append(picture.convert("RGB"))
    return strip(rows, size=size)


def _slug(way: str) -> str:
    return way.replace(",", "").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=48)
    parser.add_argument("--fewer", type=int, default=12, help="cases for the slow ways and the ablations")
    parser.add_argument("--cache", type=Path, default=Path("runs/drag"), help="folder to keep pictures in")
    parser.add_argument("--output", type=Path, required=True, help="write figures here: .json, .md and sheets")
    options = parser.parse_args()
    results, file = resume(options)
    found = cases(options.cases)

    def write() -> None:
        file.write_text(json.dumps(results) + "\n")
        parts = {
            f"Means over {options.cases} drags": table(results, FULL, options.cases),
            f"Means over the first {options.fewer} of them": table(results, list(WAYS), options.fewer),
            "Smooth minus base, with the interval over cases (95 %)": comparison(results),
        }
        write_tables(file, parts, results)

    judge_pipe = load_pipeline("postcard")
    benches = {model: Bench(model, found, judge_pipe) for model in MODELS}
    results["machine"] = describe(judge_pipe.device)
    if "seconds" not in results:
        results["seconds"] = benches["smooth"].seconds()
        write()
    for way in WAYS:
        for model, bench in benches.items():
            rows = results.setdefault(model, {})
            if way not in rows:
                count = options.cases if way in FULL else options.fewer
                rows[way] = bench.measure(way, count, options.cache / model / _slug(way))
                print(model, way, {k: round(float(np.nanmean(v)), 3) for k, v in rows[way].items()}, flush=True)
                write()
    for model in MODELS:
        shares = results[model]["ours"]["share"]
        order = sorted(range(len(found)), key=shares.__getitem__)
        for name, numbers in (("best", order[:SHOWN]), ("worst", order[-SHOWN:])):
            sheet(found, numbers, options.cache / model).save(options.output.with_name(f"{model}-{name}.png"))
        ways = sheet(found, range(options.fewer), options.cache / model, list(WAYS)[1:], 64)
        ways.save(options.output.with_name(f"{model}-ways.png"))
    write()


if __name__ == "__main__":
    main()
