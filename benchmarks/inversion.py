"""What inversion brings back, of base and smooth model: reconstruction, edits, and the way between two real pictures.

    python benchmarks/inversion.py --output docs/results/inversion/shipped

Pictures are renders of held-out scenes with their captions, in pairs, and four that the postcard world does not hold.
Figures are written when they are there, and inversions are kept in the cache: the same command goes on where it was
broken off.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from results import resume, write_tables
from torch import Tensor

from smoothnb.evaluation import reconstruction
from smoothnb.evaluation.bootstrap import change, interval
from smoothnb.evaluation.report import describe
from smoothnb.figures import strip
from smoothnb.images import neighbour_distances, to_pil, to_pixels
from smoothnb.interpolation import interpolate
from smoothnb.inversion.ddim import ddim_invert, reconstruct
from smoothnb.inversion.inversion import Inversion
from smoothnb.inversion.null_text import null_text_invert
from smoothnb.latents import decode, encode
from smoothnb.models.load import load_pipeline
from smoothnb.postcards.pictures import beyond
from smoothnb.postcards.reader import load_reader
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import COLOURS, edit, random_scenes
from smoothnb.postcards.stream import held_out_prompts, held_out_scenes
from smoothnb.sampling import generate

MODELS = ("base", "smooth")
METRICS = {
    "mse": "MSE ↓",
    "ssim": "SSIM ↑",
    "psnr": "PSNR ↑",
    "short": "dB short of the bound",
    "worst": "worst picture",
}
DIGITS = {"mse": ".5f", "ssim": ".4f", "follows": ".0%", "kept": ".0%", "change": ""}
"""Formats of figures; two digits behind the point for all others."""
EDIT_FIGURES = {
    "follows": "new colour read", "kept": "thing kept", "answer": "dB beside the true answer",
    "unedited": "dB without the edit",
}  # fmt: skip
PATH_FIGURES = {
    "istd": "ISTD ↓", "change": "beside the first row, 95 %", "mean_distance": "mean distance",
    "ends": "dB of the ends ↑",
}  # fmt: skip
EDITS = {
    "negative-prompt inversion, 3 fixed-point steps": {"inner_steps": 0, "fixed_point_steps": 3},
    "null-text, from the prompt": {"start": "prompt"},
    "null-text, from the empty prompt": {"start": "empty"},
}
STRIPS = 3
"""How many ways between two pictures are kept as strips."""
EDITED = (1 << 40) + 2
"""Seed of the scenes whose colour is changed, which no training draws."""


def guided(pipe, found: Inversion, guidance_scale: float) -> list[Image.Image]:
    """Pictures drawn from an inversion with guidance and the empty prompt, as if nothing were amiss."""
    return generate(
        pipe, found.settings.prompts, 0, found.latents, found.settings.num_inference_steps, guidance_scale,
        progress=False,
    )  # fmt: skip


BASE_ALONE = ("DDIM without text, no guidance", "DDIM, 3 fixed-point steps, no guidance", "negative-prompt inversion")
"""Ways to invert that are compared in one model alone, as are edits: their question is not which model is smooth."""


class Bench:
    """Pictures, prompts, and the ways to invert them that are compared."""

    def __init__(self, options):
        self.options = options
        self.scenes, self.prompts = held_out_scenes(options.pictures), held_out_prompts(options.pictures)
        odd = beyond()
        self.pictures = to_pil(torch.cat([render(self.scenes), torch.stack(list(odd.values()))]))
        self.prompts += list(odd)
        self.pipes: dict[str, object] = {}

    def pipe(self, model: str):
        if model not in self.pipes:
            self.pipes[model] = load_pipeline("postcard", smooth=model == "smooth")
        return self.pipes[model]

    def ddim(self, model: str, prompts: str | list[str], fixed_point_steps: int = 0) -> Inversion:
        return ddim_invert(
            self.pipe(model), self.pictures, prompts, self.options.steps, fixed_point_steps, self.options.cache, False
        )

    def null(self, model: str, pictures: list, prompts: list[str], **options) -> Inversion:
        options = {"inner_steps": self.options.inner_steps} | options
        return null_text_invert(
            self.pipe(model), pictures, prompts, self.options.guidance_scale, self.options.steps,
            cache=self.options.cache, progress=False, **options,
        )  # fmt: skip

    def own(self, model: str) -> Inversion:
        return self.null(model, self.pictures, self.prompts, shared=False)

    def pairs(self, model: str) -> Iterator[Inversion]:
        """Of the pictures two by two, each two with one series."""
        for start in range(0, len(self.pictures), 2):
            pair = slice(start, start + 2)
            yield self.null(model, self.pictures[pair], self.prompts[pair])
            print(f"{model}: pair {start // 2 + 1} of {len(self.pictures) // 2}", flush=True)

    def reconstructions(self, model: str) -> dict[str, Callable[[], list[Image.Image]]]:
        pipe, w = self.pipe(model), self.options.guidance_scale
        return {
            "autoencoder alone": lambda: decode(pipe, encode(pipe, self.pictures)),
            "DDIM, no guidance": lambda: reconstruct(pipe, self.ddim(model, self.prompts), False),
            "DDIM without text, no guidance": lambda: reconstruct(pipe, self.ddim(model, ""), False),
            "DDIM, 3 fixed-point steps, no guidance": lambda: reconstruct(
                pipe, self.ddim(model, self.prompts, 3), False
            ),
            "DDIM, guidance": lambda: guided(pipe, self.ddim(model, self.prompts), w),
            "negative-prompt inversion": lambda: reconstruct(
                pipe, self.null(model, self.pictures, self.prompts, shared=False, inner_steps=0), False
            ),
            "null-text, own series": lambda: reconstruct(pipe, self.own(model), False),
            "null-text, one series for two": lambda: [
                picture for pair in self.pairs(model) for picture in reconstruct(pipe, pair, False)
            ],
        }

    def edits(self, model: str, folder: Path) -> dict[str, dict[str, float]]:
        """The colour in the prompt changed: how many pictures follow, and how near they are to the true answer."""
        pipe, reader = self.pipe(model), load_reader()
        scenes = [s for s, _ in zip(random_scenes(EDITED, land="meadow"), range(4 * self.options.edits), strict=False)]
        scenes = [s for s in scenes if s.thing != "none"][: self.options.edits]
        colours = [COLOURS[(COLOURS.index(s.colour) + 1 + i % 5) % 6] for i, s in enumerate(scenes)]
        prompts, wanted = (
            [f"a {c} {s.thing} in a meadow at {s.time}" for s, c in zip(scenes, chosen, strict=True)]
            for chosen in ([s.colour for s in scenes], colours)
        )
        before = to_pil(render(scenes))
        answer = to_pil(render([edit(s, colour=c) for s, c in zip(scenes, colours, strict=True)]))
        found, sheet = {}, {"before": before, "the true answer": answer}
        for name, how in EDITS.items():
            inverted = self.null(model, before, prompts, shared=False, **how)
            pictures = generate(
                pipe, wanted, 0, inverted.latents, self.options.steps, self.options.guidance_scale, inverted.series,
                progress=False,
            )  # fmt: skip
            readings = reader.read(to_pixels(pictures, pictures[0].height, pictures[0].width))
            follow = [
                r.agrees({"colour": c, "thing": s.thing}) for r, c, s in zip(readings, colours, scenes, strict=True)
            ]
            found[name] = {
                "follows": float(np.mean([f["colour"] for f in follow])),
                "kept": float(np.mean([f["thing"] for f in follow])),
                "answer": reconstruction(pictures, answer)["psnr"].mean().item(),
                "unedited": reconstruction(reconstruct(pipe, inverted, False), before)["psnr"].mean().item(),
            }
            sheet[name] = pictures
        strip({name: row[:8] for name, row in sheet.items()}, size=96).save(folder / f"{model}-edits.png")
        return found

    def paths(self, model: str, folder: Path) -> dict[str, dict]:
        """Between the two pictures of each pair: evenness of the way, and how near its ends are to the pictures."""
        pipe, ratios = self.pipe(model), np.linspace(0, 1, 11)
        own = list(self.own(model))
        names = ("one series", "own series, mixed")
        distances, psnrs = {name: [] for name in names}, {name: [] for name in names}
        for number, shared in zip(range(self.options.paths), self.pairs(model), strict=False):
            rows = {}
            pair = slice(2 * number, 2 * number + 2)
            for name, (a, b) in zip(names, (shared, own[pair]), strict=True):
                frames = rows[name] = list(interpolate(pipe, a, b, ratios, batch_size=11))
                distances[name].append(neighbour_distances(frames).tolist())
                psnrs[name] += reconstruction([frames[0], frames[-1]], self.pictures[pair])["psnr"].tolist()
            if number < STRIPS:
                strip(rows, [f"η = {r:.1f}" for r in ratios], size=96).save(folder / f"{model}-path-{number}.png")
        return {
            name: {
                "istd": float(np.std(distances[name], axis=1).mean()),
                "mean_distance": float(np.mean(distances[name])),
                "ends": float(np.mean(psnrs[name])),
                "distances": distances[name],
            }
            for name in names
        }


def summary(values: dict[str, Tensor], bound: dict[str, Tensor]) -> dict[str, float]:
    short = bound["psnr"] - values["psnr"]
    means = {name: x.mean().item() for name, x in values.items()}
    each = [round(x, 3) for x in values["psnr"].tolist()]
    return means | {"short": short.mean().item(), "worst": short.max().item(), "each": each}


def compare_paths(results: dict) -> None:
    """Notes beside each way's ISTD how it changes from the first one's, with the interval over pairs."""
    ways = [way for model in MODELS for way in results.get(model, {}).get("paths", {}).values()]
    deviations = [np.std(way["distances"], axis=1) for way in ways]
    for way, own in zip(ways, deviations, strict=True):
        low, high = interval(own, deviations[0], statistic=change)
        way["change"] = "" if way is ways[0] else f"{way['istd'] / ways[0]['istd'] - 1:+.1%}, {low:+.0%} to {high:+.0%}"


def table(results: dict, what: str, columns: Mapping[str, str], group: str | None = None) -> str:
    lines = ["| | | " + " | ".join(columns.values()) + " |", "|---" * (len(columns) + 2) + "|"]
    for model in MODELS:
        for name, found in results.get(model, {}).get(what, {}).items():
            found = found if group is None else found[group]
            cells = [f"{found[key]:{DIGITS.get(key, '.2f')}}" for key in columns]
            lines.append(f"| {model} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32, help="held-out scenes, an even number")
    parser.add_argument("--edits", type=int, default=16, help="pictures whose colour is changed")
    parser.add_argument("--paths", type=int, default=12, help="pairs to walk between")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--inner-steps", type=int, default=3, help="of null-text inversion")
    parser.add_argument("--cache", type=Path, default=Path("runs/inversions"), help="folder to keep inversions in")
    parser.add_argument("--output", type=Path, required=True, help="write figures here: .json, .md and strips")
    options = parser.parse_args()
    results, file = resume(options)
    results["machine"] = describe(load_pipeline("postcard").device)
    bench, count = Bench(options), options.pictures

    def write() -> None:
        compare_paths(results)
        file.write_text(json.dumps(results, indent=1) + "\n")
        parts = {
            f"{count} held-out renders": table(results, "reconstruction", METRICS, "held_out"),
            "Four pictures that the postcard world does not hold": table(results, "reconstruction", METRICS, "beyond"),
            f"Another colour in the prompt, {options.edits} pictures": table(results, "edits", EDIT_FIGURES),
            f"Between two pictures, {options.paths} pairs": table(results, "paths", PATH_FIGURES),
        }
        write_tables(file, parts, results)

    for model in MODELS:
        own = results.setdefault(model, {})
        rows, bound = own.setdefault("reconstruction", {}), None
        for name, draw in bench.reconstructions(model).items():
            if (name in rows and bound is not None) or (name in BASE_ALONE and model != "base"):
                continue
            found = reconstruction(draw(), bench.pictures)
            bound = bound or found
            groups = {"held_out": slice(None, count), "beyond": slice(count, None)}
            rows[name] = {
                group: summary({key: x[part] for key, x in found.items()}, {key: x[part] for key, x in bound.items()})
                for group, part in groups.items()
            }
            print(model, name, {k: round(rows[name]["held_out"][k], 4) for k in METRICS}, flush=True)
            write()
        for what, measure in {"edits": bench.edits, "paths": bench.paths}.items():
            if what not in own and (what, model) != ("edits", "smooth"):
                own[what] = measure(model, options.output.parent)
                write()
    write()


if __name__ == "__main__":
    main()
