"""Edits in words beside their true answers, of base and smooth model: is the edit there, and what became of the rest?

    python benchmarks/editing.py --output docs/results/editing/shipped

Held-out scenes, each with a local edit (another colour or thing) and a global one (another time, land or weather), and
prompts that leave nothing out. Figures are written when they are there, and inversions are kept in the cache: the same
command goes on where it was broken off.
"""

import argparse
import itertools
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from results import mean_with_interval, resume, write_tables

from smoothnb.editing.edit import edit_text
from smoothnb.evaluation.report import describe
from smoothnb.figures import strip
from smoothnb.images import to_pil, to_pixels
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.inversion.inversion import Inversion
from smoothnb.inversion.null_text import null_text_invert
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.captions import full_caption
from smoothnb.postcards.reader import load_reader
from smoothnb.postcards.render import render, thing_mask
from smoothnb.postcards.scene import COLOURS, FACTORS, Scene, edit, random_scenes
from smoothnb.postcards.stream import HELD_OUT
from smoothnb.sampling import finish

MODELS = ("base", "smooth")
STANDING = ("house", "pine", "lighthouse")
"""Things that may stand in for one another in the same place."""
WAYS = {
    "null-text, switch 1, guidance 7.5": ("null", {"switch": 1.0}),
    "null-text, switch 0.8, guidance 7.5 (the paper)": ("null", {"switch": 0.8}),
    "null-text, switch 0.8, guidance 2": ("null", {"switch": 0.8, "guidance_scale": 2.0}),
    "DDIM, switch 0.4": ("ddim", {"switch": 0.4}),
    "DDIM, switch 0.6": ("ddim", {"switch": 0.6}),
    "DDIM, switch 0.8": ("ddim", {"switch": 0.8}),
    "DDIM, switch 1": ("ddim", {"switch": 1.0}),
    "DDIM, attention": ("ddim", {"method": "attention"}),
    "SDEdit, switch 0.6": ("ddim", {"method": "sdedit"}),
}
"""How an edit is made: the inversion it starts from, and the options of `edit_text`."""
FIGURES = {
    "found": "edit found ↑", "kept": "rest kept ↑", "answer": "dB to the true edit ↑",
    "outside": "dB outside the thing ↑", "moved": "pixels moved ↓", "seconds": "seconds an edit",
}  # fmt: skip
DIGITS = {"found": ".1%", "kept": ".1%", "answer": ".2f", "outside": ".2f", "moved": ".1f", "seconds": ".2f"}
SHOWN = 8
"""Scenes on a sheet."""
MARGIN = 4
"""Pixels around the thing that count as its own: the autoencoder smears its outline."""


def cases(count: int) -> dict[str, list[tuple[Scene, Scene]]]:
    """Scenes that have a thing, each before and after a local and a global edit."""
    rng = random.Random(HELD_OUT)
    scenes = itertools.islice((s for s in random_scenes(HELD_OUT) if s.thing != "none"), count)

    def other(scene: Scene, factor: str, values: Sequence[str]) -> Scene:
        return edit(scene, **{factor: rng.choice([v for v in values if v != getattr(scene, factor)])})

    found: dict[str, list[tuple[Scene, Scene]]] = {"local": [], "global": []}
    for number, scene in enumerate(scenes):
        of_thing = number % 2 and scene.thing in STANDING
        local = other(scene, "thing", STANDING) if of_thing else other(scene, "colour", COLOURS)
        factor = ("time", "land", "weather")[number % 3]
        factor = "time" if factor == "land" and scene.thing == "sailboat" else factor
        found["local"].append((scene, local))
        found["global"].append((scene, other(scene, factor, FACTORS[factor])))
    return found


def judge(pictures: Sequence[Image.Image], pairs: Sequence[tuple[Scene, Scene]], reader) -> dict[str, list[float]]:
    """Of each edited picture: `FIGURES`, but for the seconds."""
    before, after = ([pair[i] for pair in pairs] for i in (0, 1))
    pixels = to_pixels(pictures, pictures[0].height, pictures[0].width)
    errors = (pixels - render(after, pixels.shape[-1])).square().mean(1, keepdim=True)
    mask = torch.maximum(thing_mask(before, pixels.shape[-1]), thing_mask(after, pixels.shape[-1]))
    rest = (F.max_pool2d(mask, 2 * MARGIN + 1, 1, MARGIN) < 0.01).float()
    readings = reader.read(pixels)
    changed = [[f for f in FACTORS if getattr(a, f) != getattr(b, f)] for a, b in pairs]
    right = [{f: r.factors[f] == getattr(scene, f) for f in FACTORS} for r, scene in zip(readings, after, strict=True)]
    return {
        "found": [float(all(r[f] for f in names)) for r, names in zip(right, changed, strict=True)],
        "kept": [float(np.mean([r[f] for f in FACTORS if f not in n])) for r, n in zip(right, changed, strict=True)],
        "answer": (-10 * errors.flatten(1).mean(1).log10()).tolist(),
        "outside": (-10 * ((errors * rest).flatten(1).sum(1) / rest.flatten(1).sum(1)).log10()).tolist(),
        "moved": [float(np.hypot(r.x - scene.x, r.y - scene.y)) for r, scene in zip(readings, after, strict=True)],
    }


class Bench:
    """One model, and inversions of the scenes by it."""

    def __init__(self, model: str, options, pairs: dict[str, list[tuple[Scene, Scene]]]):
        self.pipe, self.options, self.pairs = load_pipeline("postcard", smooth=model == "smooth"), options, pairs
        self.scenes = [before for before, _ in pairs["local"]]
        self.prompts = [full_caption(scene) for scene in self.scenes]
        self.reader, self._found = load_reader(), {}

    def inversions(self, kind: str) -> list[Inversion]:
        """In batches."""
        if kind not in self._found:
            own, options = [], self.options
            for start in range(0, len(self.scenes), options.batch_size):
                batch = slice(start, start + options.batch_size)
                pictures, prompts = to_pil(render(self.scenes[batch])), self.prompts[batch]
                if kind == "null":
                    own.append(
                        null_text_invert(
                            self.pipe, pictures, prompts, num_inference_steps=options.steps, shared=False,
                            inner_steps=options.inner_steps, cache=options.cache, progress=False,
                        )
                    )  # fmt: skip
                else:
                    own.append(ddim_invert(self.pipe, pictures, prompts, options.steps, 0, options.cache, False))
            self._found[kind] = own
        return self._found[kind]

    def draw(self, kind: str, way: str, number: int) -> list[Image.Image]:
        """The edits of one batch."""
        inversion, options = WAYS[way]
        batch, start = self.inversions(inversion)[number], number * self.options.batch_size
        own = self.pairs[kind][start : start + len(batch)]
        if options.get("method") == "attention" and kind == "local":
            options = options | {"blend": sorted({f"{scene.colour} {scene.thing}" for pair in own for scene in pair})}
        steps = edit_text(self.pipe, batch, [full_caption(after) for _, after in own], seed=number, **options)
        return finish(self.pipe, steps, progress=False)

    def measure(self, kind: str, way: str) -> dict[str, list[float]]:
        batches = range(len(self.inversions(WAYS[way][0])))
        pictures = [picture for number in batches for picture in self.draw(kind, way, number)]
        return judge(pictures, self.pairs[kind], self.reader)

    def seconds(self, rounds: int = 3) -> dict[str, float]:
        """Of each way, for one picture alone, drawn by turns: the median."""
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        target = full_caption(self.pairs["local"][0][1])
        found = {kind: self.inversions(kind)[0][0] for kind in ("null", "ddim")}
        for _ in range(rounds):
            for way, (inversion, options) in WAYS.items():
                start = time.perf_counter()
                finish(self.pipe, edit_text(self.pipe, found[inversion], target, **options), progress=False)
                taken[way].append(time.perf_counter() - start)
        return {way: float(np.median(values)) for way, values in taken.items()}


def table(results: dict, kind: str) -> str:
    columns = {k: v for k, v in FIGURES.items() if k != "outside" or kind == "local"}
    lines = ["| | | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 2) + "|"]
    for model in MODELS:
        for way, found in results.get(model, {}).get(kind, {}).items():
            found = found | {"seconds": results.get("seconds", {}).get(way, np.nan)}
            cells = [f"{np.mean(found[key]):{DIGITS[key]}}" for key in columns]
            lines.append(f"| {model} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison(results: dict) -> str:
    """Smooth less base, case by case, with the interval over cases."""
    lines = ["| | | " + " | ".join(FIGURES[k] for k in ("found", "answer", "outside")) + " |", "|---|---|---|---|---|"]
    for kind in ("local", "global"):
        for way in WAYS:
            both = [results.get(model, {}).get(kind, {}).get(way) for model in MODELS]
            if None in both:
                continue
            cells = []
            for key in ("found", "answer", "outside"):
                if (kind, key) == ("global", "outside"):
                    cells.append("")
                    continue
                change = np.array(both[1][key]) - np.array(both[0][key])
                cells.append(mean_with_interval(change))
            lines.append(f"| {kind} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def at_equal_success(results: dict) -> str:
    """What switching leaves of the rest where both models find as many local edits: read off between the switches."""
    ways = [way for way in WAYS if way.startswith("DDIM, switch")]
    both = [results.get(model, {}).get("local", {}) for model in MODELS]
    if any(way not in rows for rows in both for way in ways):
        return ""
    found, outside = (np.array([[rows[way][key] for way in ways] for rows in both]) for key in ("found", "outside"))

    def read_off(share: float, chosen: np.ndarray) -> list[float]:
        means = [
            (np.maximum.accumulate(f[:, chosen].mean(1)), o[:, chosen].mean(1))
            for f, o in zip(found, outside, strict=True)
        ]
        return [np.interp(share, shares, values) for shares, values in means]

    count = found.shape[-1]
    drawn = np.random.default_rng(0).integers(count, size=(2000, count))
    lines = ["| edits found | base | smooth | smooth less base, 95 % |", "|---|---|---|---|"]
    for share in (0.85, 0.9):
        base, smooth = read_off(share, np.arange(count))
        low, high = np.percentile([np.subtract(*read_off(share, rows)[::-1]) for rows in drawn], (2.5, 97.5))
        lines.append(f"| {share:.0%} | {base:.2f} | {smooth:.2f} | {smooth - base:+.2f} ({low:+.2f} to {high:+.2f}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=64, help="each is edited twice")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--inner-steps", type=int, default=2, help="of null-text inversion")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--cache", type=Path, default=Path("runs/inversions"), help="folder to keep inversions in")
    parser.add_argument("--output", type=Path, required=True, help="write figures here: .json, .md and sheets")
    options = parser.parse_args()
    results, file = resume(options)
    pairs = cases(options.scenes)

    def write() -> None:
        file.write_text(json.dumps(results) + "\n")
        parts = {f"{kind.capitalize()} edits, {options.scenes} scenes": table(results, kind) for kind in pairs}
        parts["Smooth less base, with the interval over scenes (95 %)"] = comparison(results)
        parts["dB outside the thing at equal success, switching from DDIM inversion"] = at_equal_success(results)
        write_tables(file, parts, results)

    for model in MODELS:
        bench = Bench(model, options, pairs)
        results["machine"] = describe(bench.pipe.device)
        for kind, own in pairs.items():
            rows = results.setdefault(model, {}).setdefault(kind, {})
            for way in WAYS:
                if way not in rows:
                    measured = bench.measure(kind, way)
                    rows[way] = {key: [round(x, 3) for x in values] for key, values in measured.items()}
                    print(model, kind, way, {k: round(float(np.mean(v)), 3) for k, v in rows[way].items()}, flush=True)
                    write()
            sheet = options.output.with_name(f"{model}-{kind}.png")
            if not sheet.is_file():
                before, after = (to_pil(render([pair[i] for pair in own[:SHOWN]])) for i in (0, 1))
                drawn = {way: bench.draw(kind, way, 0)[:SHOWN] for way in WAYS if "switch 1" not in way}
                strip({"before": before, "true edit": after} | drawn, size=80).save(sheet)
        if "seconds" not in results:
            results["seconds"] = bench.seconds()
            write()
    write()


if __name__ == "__main__":
    main()
