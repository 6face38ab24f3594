"""Compares inversions on the base and on the smooth model: reconstructions, edits, and paths between two pictures.

    python benchmarks/inversion.py --output docs/results/inversion/shipped

The pictures are renders of held-out scenes with their captions, in pairs, and four pictures that no scene has. Results
are written as soon as they are measured, and inversions are cached, so the same command resumes a run that was
interrupted.
"""

import argparse
import itertools
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
from smoothnb.models.parts import recommended_guidance
from smoothnb.postcards.captions import GRAMMAR, edit_as_stated, full_caption, names
from smoothnb.postcards.pictures import beyond
from smoothnb.postcards.reader import load_reader
from smoothnb.postcards.render import render
from smoothnb.postcards.scene import random_scenes
from smoothnb.postcards.stream import HELD_OUT, held_out_prompts, held_out_scenes
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
"""Formats of figures; all others have two decimals."""
EDIT_FIGURES = {
    "follows": "new colour read ↑", "kept": "rest kept ↑", "answer": "dB to the true edit ↑",
    "unedited": "dB without the edit ↑",
}  # fmt: skip
PATH_FIGURES = {
    "istd": "ISTD ↓", "change": "change from the first row, 95 %", "mean_distance": "mean distance",
    "ends": "dB of the ends ↑",
}  # fmt: skip
EDITS = {
    "negative-prompt inversion, 3 fixed-point steps": {"inner_steps": 0, "fixed_point_steps": 3},
    "null-text, from the prompt": {"start": "prompt"},
    "null-text, from the empty prompt": {"start": "empty"},
}
STRIPS = 3
"""Number of paths that are saved as strips."""


def guided(pipe, found: Inversion, guidance_scale: float) -> list[Image.Image]:
    """Draws pictures from a DDIM inversion with guidance against the empty prompt, which does not reproduce them."""
    return generate(
        pipe, found.settings.prompts, 0, found.latents, found.settings.num_inference_steps, guidance_scale,
        progress=False,
    )  # fmt: skip


BASE_ALONE = ("DDIM without text, no guidance", "DDIM, 3 fixed-point steps, no guidance", "negative-prompt inversion")
"""Inversions that are measured on the base model alone, as edits are, because they do not compare the models."""


class Bench:
    """Pictures, prompts, and the inversions that are compared."""

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
            self.pipe(model), self.pictures, prompts, self.options.steps, fixed_point_steps, cache=self.options.cache,
            progress=False,
        )  # fmt: skip

    def null(self, model: str, pictures: list, prompts: list[str], **options) -> Inversion:
        options = {"inner_steps": self.options.inner_steps} | options
        return null_text_invert(
            self.pipe(model), pictures, prompts, self.options.guidance_scale, self.options.steps,
            cache=self.options.cache, progress=False, **options,
        )  # fmt: skip

    def own(self, model: str) -> Inversion:
        return self.null(model, self.pictures, self.prompts, shared=False)

    def pairs(self, model: str) -> Iterator[Inversion]:
        """Inverts the pictures two by two, each pair with one series."""
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
        """Draws pictures again with another colour in the prompt, and compares them with the true edits."""
        pipe, reader, colours = self.pipe(model), load_reader(), list(GRAMMAR["colour"])
        coloured = (s for s in random_scenes(HELD_OUT) if "colour" in names(s))
        scenes = list(itertools.islice(coloured, self.options.edits))
        after = [
            edit_as_stated(s, colours[(colours.index(names(s)["colour"]) + 1 + i % 6) % 7])
            for i, s in enumerate(scenes)
        ]
        prompts, wanted = ([full_caption(s) for s in chosen] for chosen in (scenes, after))
        before = to_pil(render(scenes))
        answer = to_pil(render(after))
        found, sheet = {}, {"before": before, "true edit": answer}
        for name, how in EDITS.items():
            inverted = self.null(model, before, prompts, shared=False, **how)
            pictures = generate(
                pipe, wanted, 0, inverted.latents, self.options.steps, self.options.guidance_scale, inverted.series,
                progress=False,
            )  # fmt: skip
            readings = reader.read(to_pixels(pictures, pictures[0].height, pictures[0].width))
            right = [r.agrees(names(s)) | {"one": r.count == 1} for r, s in zip(readings, after, strict=True)]
            found[name] = {
                "follows": float(np.mean([r.pop("colour") for r in right])),
                "kept": float(np.mean([ok for r in right for ok in r.values()])),
                "answer": reconstruction(pictures, answer)["psnr"].mean().item(),
                "unedited": reconstruction(reconstruct(pipe, inverted, False), before)["psnr"].mean().item(),
            }
            sheet[name] = pictures
        strip({name: row[:8] for name, row in sheet.items()}, size=96).save(folder / f"{model}-edits.png")
        return found

    def paths(self, model: str, folder: Path) -> dict[str, dict]:
        """Walks between the pictures of each pair: how even the path is, and how close its ends are to the pictures."""
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
    """Adds the change of each ISTD from the first row's, with the interval over pairs."""
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
    parser.add_argument("--edits", type=int, default=16, help="number of pictures whose colour is changed")
    parser.add_argument("--paths", type=int, default=12, help="number of pairs to walk between")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance-scale", type=float, help="by default what the model recommends")
    parser.add_argument("--inner-steps", type=int, default=3, help="of null-text inversion")
    parser.add_argument("--cache", type=Path, default=Path("runs/inversions"), help="folder to keep inversions in")
    parser.add_argument("--output", type=Path, required=True, help="write figures here: .json, .md and strips")
    options = parser.parse_args()
    base = load_pipeline("postcard")
    options.guidance_scale = recommended_guidance(base, options.guidance_scale)
    results, file = resume(options)
    results["machine"] = describe(base.device)
    bench, count = Bench(options), options.pictures

    def write() -> None:
        compare_paths(results)
        file.write_text(json.dumps(results, indent=1) + "\n")
        parts = {
            f"{count} held-out renders": table(results, "reconstruction", METRICS, "held_out"),
            "Four pictures that no scene has": table(results, "reconstruction", METRICS, "beyond"),
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
