"""Drags beside their true answers, of base and smooth model: did the thing come along, and what became of the rest?

    python benchmarks/drag.py --output docs/results/drag/shipped

Held-out scenes whose main thing, or sun or moon, moves by 16 to 48 pixels; the moved scene is rendered. The mask is
what a user would paint: the thing on its way, and a little around it. Figures are written when they are there: the same
command goes on where it was broken off.
"""

import argparse
import json
import math
import random
from collections.abc import Iterator, Sequence
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
from smoothnb.postcards.captions import full_caption
from smoothnb.postcards.reader import load_reader
from smoothnb.postcards.render import render, thing_mask
from smoothnb.postcards.scene import EXTENT, Scene, edit, random_scenes
from smoothnb.postcards.stream import HELD_OUT

MODELS = ("base", "smooth")
SUNS = 4
"""Every so-manieth case moves the sun or the moon."""
LENGTHS = (16, 48)
"""Of drags, in pixels."""
AROUND, SUN = 5, 16
"""Pixels around the thing that the mask takes in; and the mask's radius around the sun."""
NOTICED, SMEARED = 2 / 255, 4
"""A pixel has moved if its true colour changes by more than this, or one this near to it does."""
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
"""By name: options, and whether the mask is given."""
FIGURES = {
    "share": "distance left, of the drag ↓", "distance": "distance (px) ↓", "matched": "by features (px) ↓",
    "near": "within a quarter ↑", "same": "still what it was ↑", "answer": "dB to the true picture ↑",
    "outside": "dB outside ↑", "cast": "colour cast outside (of 255) ↓", "steps": "steps", "seconds": "seconds",
}  # fmt: skip
DIGITS = {
    "share": ".1%", "distance": ".1f", "matched": ".1f", "near": ".0%", "same": ".0%", "answer": ".2f",
    "outside": ".2f", "cast": ".2f", "steps": ".0f", "seconds": ".1f",
}  # fmt: skip
FULL = (TRUTH, "ours", "ours, no mask")
"""Drawn for every case; the others for the first of them, as `--fewer` says."""
SHOWN = 10
"""Of the best, and of the worst."""


@dataclass(frozen=True)
class Case:
    """A drag with its answer: scenes before and after, and the two fields of `Scene` that differ."""

    before: Scene
    after: Scene
    fields: tuple[str, str]

    def at(self, scene: Scene) -> tuple[float, float]:
        return tuple(getattr(scene, field) for field in self.fields)

    @property
    def length(self) -> float:
        return math.dist(self.at(self.before), self.at(self.after))

    def between(self, share: float) -> Scene:
        a, b = self.at(self.before), self.at(self.after)
        place = (x + (y - x) * share for x, y in zip(a, b, strict=True))
        return edit(self.before, **dict(zip(self.fields, place, strict=True)))

    def mask(self) -> Image.Image:
        way = [self.between(i / 8) for i in range(9)]
        if self.fields[0] == "x":
            covered = (thing_mask(way).amax(0, keepdim=True) > 0.05).float()
            covered = F.max_pool2d(covered, 2 * AROUND + 1, 1, AROUND)
        else:
            pixels = torch.arange(EXTENT) + 0.5
            near = [torch.hypot(pixels - s.sun_x, pixels[:, None] - s.sun_y) < SUN for s in way]
            covered = torch.stack(near).any(0)[None, None].float()
        return to_pil(covered.expand(-1, 3, -1, -1))[0]


def cases(count: int) -> Iterator[Case]:
    """Things go sideways, as their size tells how far away they are; balloons, suns and moons go anywhere."""
    rng = random.Random(HELD_OUT)
    scenes = random_scenes(HELD_OUT)
    for number in range(count):
        of_sun = number % SUNS == SUNS - 1
        for scene in scenes:
            if of_sun and (scene.weather != "clear" or scene.time not in ("noon", "night")):
                continue
            if not of_sun and scene.thing == "none":
                continue
            fields = ("sun_x", "sun_y") if of_sun else ("x", "y")
            x, y = (getattr(scene, field) for field in fields)
            length = rng.uniform(*LENGTHS)
            angle = rng.uniform(-0.6, 0.6) if of_sun or scene.thing == "balloon" else 0.0
            to = x + (length if x < EXTENT / 2 else -length) * math.cos(angle), y + length * math.sin(angle)
            edge = 12 if of_sun else scene.size / 2
            lowest = scene.horizon - 16 if of_sun else scene.horizon + 8 - edge
            if (edge < to[0] < EXTENT - edge or not of_sun) and (not angle or edge < to[1] < lowest):
                yield Case(scene, edit(scene, **dict(zip(fields, to, strict=True))), fields)
                break


def judge(case: Case, picture: Image.Image, reader) -> dict[str, float]:
    """`FIGURES` of one picture, but for those that tell how it was made, and the features' (see `matched`)."""
    pixels = to_pixels(picture, picture.height, picture.width)
    before, after = render([case.before, case.after], pixels.shape[-1]).split(1)
    moved = ((before - after).abs().amax(1, keepdim=True) > NOTICED).float()
    rest = 1 - F.max_pool2d(moved, 2 * SMEARED + 1, 1, SMEARED)
    errors = (pixels - after).square().mean(1, keepdim=True)
    found = {
        "answer": -10 * math.log10(errors.mean()),
        "outside": -10 * math.log10((errors * rest).sum() / rest.sum()) if rest.any() else math.nan,
        "cast": (((pixels - after) * rest).sum((2, 3)) / rest.sum()).abs().max().item() * 255,
    }
    if case.fields[0] == "x":
        (reading,) = reader.read(pixels)
        distance = math.dist((reading.x, reading.y), (case.after.x, case.after.y))
        kept = all(reading.factors[name] == getattr(case.after, name) for name in ("thing", "colour"))
        found |= {
            "distance": distance, "share": distance / case.length, "near": float(distance <= case.length / 4),
            "same": float(kept),
        }  # fmt: skip
    return found


def matched(pipe, cases: list[Case], pictures: list[Image.Image]) -> list[float]:
    """Of each case how far from its target the handle's features are found, as DragBench measures it."""
    prompts = [full_caption(case.before) for case in cases]
    sources = ddim_invert(pipe, to_pil(render([case.before for case in cases])), prompts, progress=False)
    results = ddim_invert(pipe, pictures, prompts, progress=False)
    distances = []
    for case, source, result in zip(cases, sources, results, strict=True):
        alike = point_map(pipe, source, case.at(case.before), result)
        row, column = divmod(int(alike.argmax()), alike.shape[1])
        side = EXTENT / len(alike)
        distances.append(math.dist(((column + 0.5) * side, (row + 0.5) * side), case.at(case.after)))
    return distances


class Bench:
    """One model, and drags by it."""

    def __init__(self, model: str, found: list[Case], judge_pipe):
        self.pipe, self.cases = load_pipeline("postcard", smooth=model == "smooth"), found
        self.judge_pipe, self.reader = judge_pipe, load_reader()

    def draw(self, case: Case, way: str) -> Dragged:
        options, masked = WAYS[way]
        if options is None:
            (picture,) = decode(self.pipe, encode(self.pipe, to_pil(render([case.after]))))
            return Dragged(picture, torch.tensor([[case.at(case.after)]]), [], "arrived", {}, [], [])
        (picture,) = to_pil(render([case.before]))
        handles, targets = ([case.at(scene)] for scene in (case.before, case.after))
        mask = case.mask() if masked else None
        return drag(self.pipe, picture, full_caption(case.before), handles, targets, mask, options, progress=False)

    def measure(self, way: str, count: int, folder: Path) -> dict[str, list[float]]:
        """Of the first cases; keeps the pictures."""
        folder.mkdir(parents=True, exist_ok=True)
        rows, pictures = [], []
        for number, case in enumerate(self.cases[:count]):
            found = self.draw(case, way)
            found.picture.save(folder / f"{number:02}.png")
            pictures.append(found.picture)
            rows.append(judge(case, found.picture, self.reader) | {"steps": float(len(found.losses))})
        result = {key: [round(row.get(key, math.nan), 4) for row in rows] for key in FIGURES if key != "seconds"}
        return result | {"matched": matched(self.judge_pipe, self.cases[:count], pictures)}

    def seconds(self, rounds: int = 2) -> dict[str, float]:
        """Of each way, by turns, each round with another case: the mean."""
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for case in self.cases[:rounds]:
            for way in WAYS:
                taken[way].append(sum(self.draw(case, way).seconds.values()))
        return {way: float(np.mean(values)) for way, values in taken.items()}


def table(results: dict, ways: Sequence[str], count: int) -> str:
    """Means over the first cases."""
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
    """Smooth less base, case by case, with the interval over cases."""
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
    """Cases with their answers, and what was made of them."""
    rows: dict[str, list[Image.Image]] = {name: [] for name in ("before", "true", *ways)}
    for number in numbers:
        case = found[number]
        before, after = to_pil(render([case.before, case.after]))
        ends = ([case.at(scene)] for scene in (case.before, case.after))
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
    parser.add_argument("--fewer", type=int, default=12, help="cases of the ways that take long, or are for comparison")
    parser.add_argument("--cache", type=Path, default=Path("runs/drag"), help="folder to keep pictures in")
    parser.add_argument("--output", type=Path, required=True, help="write figures here: .json, .md and sheets")
    options = parser.parse_args()
    results, file = resume(options)
    found = list(cases(options.cases))

    def write() -> None:
        file.write_text(json.dumps(results) + "\n")
        parts = {
            f"Means over {options.cases} drags": table(results, FULL, options.cases),
            f"Means over the first {options.fewer} of them": table(results, list(WAYS), options.fewer),
            "Smooth less base, with the interval over cases (95 %)": comparison(results),
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
        order = sorted((i for i in range(len(found)) if math.isfinite(shares[i])), key=shares.__getitem__)
        suns = [i for i in range(len(found)) if not math.isfinite(shares[i])]
        for name, numbers in (("best", order[:SHOWN]), ("worst", order[-SHOWN:]), ("suns", suns[:SHOWN])):
            sheet(found, numbers, options.cache / model).save(options.output.with_name(f"{model}-{name}.png"))
        ways = sheet(found, range(options.fewer), options.cache / model, list(WAYS)[1:], 64)
        ways.save(options.output.with_name(f"{model}-ways.png"))
    write()


if __name__ == "__main__":
    main()
