"""How smooth a postcard model is, and what that costs: ISTD, FID on Reader features, prompt adherence.

    python benchmarks/smoothness.py base smooth=data/postcard-smooth --output docs/results/smooth/shipped

A model is the base model, or a name and the folder that `smoothnb train` wrote. All see the same prompts and noises.
Each model's figures are written when they are there: the same command again measures only those that are missing.
Beside them comes a sheet of strips: the six walks on which the first model is most uneven, as each model draws them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from diffusers import UNet2DConditionModel
from matplotlib.figure import Figure

from smoothnb.evaluation import istd, walk
from smoothnb.lora import WEIGHTS, attach_lora
from smoothnb.machine import describe
from smoothnb.models import load_pipeline
from smoothnb.postcards.captions import stated
from smoothnb.postcards.evaluate import adherence, draw, fid, renders_taken_for_real
from smoothnb.postcards.reader import load_reader
from smoothnb.postcards.stream import held_out_prompts
from smoothnb.sampling import generate
from smoothnb.widgets import strip

COLUMNS = {"istd": "ISTD ↓", "istd_change": "beside base", "interval": "95 %", "open": "time of day open",
           "given": "time of day given", "mean_distance": "mean distance", "fid": "FID ↓", "fid_change": "beside base",
           "adherence": "adherence ↑"}  # fmt: skip


def load(folder: Path | None):
    """The base pipeline, or one with what `smoothnb train` wrote: a LoRA, or a whole UNet."""
    pipe = load_pipeline("postcard")
    if folder is not None and (folder / WEIGHTS).is_file():
        attach_lora(pipe, folder)
    elif folder is not None:
        unet = UNet2DConditionModel.from_pretrained(folder / "unet")
        pipe.unet = unet.to(pipe.device, pipe.unet.dtype)
    return pipe


def measure(pipe, walks: int, pictures: int, steps: int) -> dict:
    """ISTD over so many held-out prompts; FID and adherence over so many pictures."""
    result = istd(pipe, held_out_prompts(walks), num_inference_steps=steps)
    reader, prompts = load_reader(), held_out_prompts(pictures)
    drawn = draw(pipe, prompts, steps)
    return {
        "istd": result.value,
        "mean_distance": result.distances.mean().item(),
        "fid": fid(reader, list(drawn.split(32)), renders_taken_for_real(4 * pictures)),
        "adherence": adherence(reader, drawn, prompts)["all"],
        "distances": [[round(d, 4) for d in row] for row in result.distances.tolist()],
    }


def deviations(figures: dict) -> np.ndarray:
    """Of the distances on each walk: ISTD is their mean."""
    return np.asarray(figures["distances"]).std(axis=1)


def interval(ours: np.ndarray, base: np.ndarray) -> tuple[float, float]:
    """Of the relative change of ISTD, 95 %: bootstrap over walks, which both models walked."""
    drawn = np.random.default_rng(0).integers(len(base), size=(10_000, len(base)))
    low, high = np.percentile(ours[drawn].mean(1) / base[drawn].mean(1) - 1, (2.5, 97.5))
    return low, high


def table(models: dict[str, dict]) -> str:
    """Markdown; changes are relative to the model named base, where there is one."""
    lines = ["| model | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    by_walk = {name: deviations(figures) for name, figures in models.items()}
    walks = len(next(iter(by_walk.values())))
    given = np.array(["time" in stated(prompt) for prompt in held_out_prompts(walks)])
    base = models.get("base")
    for name, figures in models.items():
        own = by_walk[name]
        cells = dict.fromkeys(COLUMNS, "") | {key: f"{figures[key]:.2f}" for key in ("istd", "mean_distance")}
        cells |= {"fid": f"{figures['fid']:.0f}", "adherence": f"{figures['adherence']:.1%}"}
        for key, chosen in (("open", own[~given]), ("given", own[given])):
            cells[key] = f"{chosen.mean():.2f}" if len(chosen) else ""
        if base and name != "base":
            cells |= {f"{key}_change": f"{figures[key] / base[key] - 1:+.1%}" for key in ("istd", "fid")}
            low, high = interval(own, by_walk["base"])
            cells["interval"] = f"{low:+.0%} to {high:+.0%}"
        lines.append(f"| {name} | " + " | ".join(cells.values()) + " |")
    return "\n".join(lines)


def plot(models: dict[str, dict], file: Path) -> None:
    """ISTD and FID of each model as bars."""
    figure = Figure(figsize=(8, 0.5 + 0.35 * len(models)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for ax, key, form in zip(panels, ("istd", "fid"), ("%.2f", "%.0f"), strict=True):
        values = [figures[key] for figures in models.values()]
        ax.bar_label(ax.barh(list(models), values, color="#2f6690", height=0.6), fmt=form, fontsize=8, padding=3)
        ax.set_xlabel(COLUMNS[key])
        ax.margins(x=0.15)
    ax.invert_yaxis()
    figure.savefig(file, dpi=120)


def uneven(figures: dict, count: int) -> list[int]:
    """Numbers of the walks on which a model's distances vary most."""
    return np.argsort(-deviations(figures), stable=True)[:count].tolist()


def strips(models: dict[str, Path | None], numbers: list[int], prompts: list[str], steps: int, file: Path) -> None:
    """Walks of those numbers, model under model."""
    pipes = {name: load(folder) for name, folder in models.items()}
    rows = {}
    for number in numbers:
        print(f"{number}: {prompts[number]}")
        for name, pipe in pipes.items():
            frames = generate(
                pipe, prompts[number], latents=walk(pipe, number), num_inference_steps=steps, progress=False
            )
            rows[f"{number} {name}"] = frames
    strip(rows, [f"{i / 10:.1f}" for i in range(11)], size=96).save(file)


class Results:
    """Figures by model in a JSON file, beside the settings and the machine they were measured with."""

    def __init__(self, stem: Path, settings: dict):
        self.stem, self.settings, self.models, self.machine = stem, settings, {}, {}
        stem.parent.mkdir(parents=True, exist_ok=True)
        if (file := stem.with_suffix(".json")).is_file():
            found = json.loads(file.read_text())
            if found["settings"] != settings:
                raise SystemExit(f"{file} was measured with {found['settings']}, not {settings}: give another --output")
            self.models, self.machine = found["models"], found["machine"]

    def add(self, name: str, figures: dict, device) -> None:
        self.models[name], self.machine = figures, describe(device)
        self.write()

    def write(self) -> None:
        """The figures as JSON, as a table, and as bars."""
        results = {"models": self.models, "settings": self.settings, "machine": self.machine}
        self.stem.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
        said = [f"{value} {key}" for key, value in self.settings.items()]
        said += [f"{key} {value}" for key, value in self.machine.items()]
        self.stem.with_suffix(".md").write_text(f"{table(self.models)}\n\n{', '.join(said)}\n")
        plot(self.models, self.stem.with_suffix(".png"))


def measuring_options(parser: argparse.ArgumentParser, walks: int, pictures: int, steps: int) -> None:
    parser.add_argument("--walks", type=int, default=walks, help="prompts of ISTD, eleven pictures each")
    parser.add_argument("--pictures", type=int, default=pictures, help="pictures for FID and adherence")
    parser.add_argument("--steps", type=int, default=steps, help="of sampling")
    parser.add_argument("--output", type=Path, required=True, help="write figures here: .json, .md and .png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="base, or name=folder")
    measuring_options(parser, 64, 256, 50)
    options = parser.parse_args()
    settings = {key: getattr(options, key) for key in ("walks", "pictures", "steps")}
    results = Results(options.output, settings)
    models = {name: Path(folder) if folder else None for name, _, folder in (m.partition("=") for m in options.models)}
    for name, folder in models.items():
        if name not in results.models:
            pipe = load(folder)
            results.add(name, measure(pipe, **settings), pipe.device)
    results.write()
    print(table(results.models))
    sheet = options.output.with_name(f"{options.output.name}-strips.png")
    if not sheet.is_file():
        numbers = uneven(results.models[next(iter(models))], 6)
        strips(models, numbers, held_out_prompts(options.walks), options.steps, sheet)


if __name__ == "__main__":
    main()
