"""Reports like the paper's tables, for any models: smoothness, quality and reconstruction."""

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smoothnb._utils.files import expanded, write_text
from smoothnb._utils.pipeline import Pipeline
from smoothnb.evaluation._compare import Comparison, compare, most_uneven, save_plot
from smoothnb.evaluation._istd import ISTD, istd, walk
from smoothnb.evaluation._reconstruction import reconstruction
from smoothnb.evaluation.bootstrap import change, interval
from smoothnb.evaluation.judges import Judge
from smoothnb.evaluation.path_length import path_lengths
from smoothnb.figures import strip
from smoothnb.images import save_picture
from smoothnb.inversion.ddim import ddim_invert
from smoothnb.inversion.null_text import null_text_invert
from smoothnb.latents import decode, encode
from smoothnb.models.load import fingerprint
from smoothnb.models.parts import device_of
from smoothnb.sampling import generate, generate_pixels

STRIPS = 6
"""Number of interpolations to draw with every model: those on which the baseline is most uneven."""
METRICS = {"mse": ("MSE ↓", ".5f"), "lpips": ("LPIPS ↓", ".4f"), "ssim": ("SSIM ↑", ".4f"), "psnr": ("PSNR ↑", ".2f")}


def describe(device: torch.device | str = "cpu") -> dict[str, str]:
    """Describes the device and the versions of a measurement.

    Args:
        device: The device that was measured on.

    Returns:
        "device", "torch" and "python".
    """
    cores = f"{os.cpu_count()} CPU cores"
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else cores
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def report(
    candidates: Mapping[str, Callable[[], object]],
    prompts: Sequence[str],
    judge: Judge,
    output: str | Path,
    measured: str | Path | None = None,
    pictures: Sequence[Image.Image] = (),
    picture_prompts: Sequence[str] = (),
    num_inference_steps: int = 50,
    guidance_scale: float | None = None,
    num_walks: int | None = None,
    num_path_lengths: int = 250,
    lpips: bool = False,
    batch_size: int = 22,
) -> Comparison:
    """Measures models and writes report.md, report.json and figures; an interrupted run resumes.

    The report has the paper's Tables 1 and 3 (ISTD, FID, CLIP score) and 2 (reconstruction), with intervals.

    Args:
        candidates: Functions that load a pipeline, by name; each pipeline is released before the next is loaded. The
            first is the baseline.
        prompts: Prompts of the pictures for FID and adherence; prompt i is drawn from seed i.
        judge: Measures quality and adherence.
        output: Folder to write to.
        measured: Folder of the results files of `istd`; by default the same.
        pictures: Pictures to invert and reconstruct with guidance, for which plain DDIM inversion fails.
        picture_prompts: One prompt for each of them.
        num_inference_steps: Number of sampling and inversion steps.
        guidance_scale: w of sampling and of null-text inversion; by default what each model recommends, else 7.5.
        num_walks: Number of prompts for ISTD; by default all.
        num_path_lengths: Number of prompts for PPL; 0 for no PPL.
        lpips: Whether to compute LPIPS of reconstructions; needs torchvision.
        batch_size: Number of pictures drawn at a time.

    Returns:
        The comparison of ISTDs.

    Raises:
        ValueError: If the folder holds a report with other settings or models; it is then unchanged.
    """
    output, measured = expanded(output), expanded(measured or output)
    settings = {
        "prompts": len(prompts), "walks": len(prompts[:num_walks]), "path_lengths": len(prompts[:num_path_lengths]),
        "reconstructions": len(pictures), "num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
    }  # fmt: skip
    found = _Measurements(output / "report.json", settings)
    sampling = dict(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, batch_size=batch_size)
    results: dict[str, ISTD] = {}
    walks: dict[str, dict[int, list[Image.Image]]] = {}
    for name, load in candidates.items():
        pipe = load()
        found.machine = describe(device_of(pipe))
        own = found.of(name, fingerprint(pipe))
        results[name] = istd(pipe, prompts[:num_walks], results=measured / f"{name}.jsonl", **sampling)
        if "fid" not in own:
            drawn = generate_pixels(pipe, list(prompts), range(len(prompts)), **sampling)
            own |= {"fid": judge.fid(drawn), "adherence": judge.adherence(drawn, prompts)}
            found.write()
        if "path_lengths" not in own and num_path_lengths:
            chosen = prompts[:num_path_lengths]
            own["path_lengths"] = path_lengths(pipe, chosen, judge.distances, **sampling).tolist()
            found.write()
        if "reconstruction" not in own and len(pictures):
            own["reconstruction"] = _reconstructions(
                pipe, pictures, list(picture_prompts), num_inference_steps, guidance_scale, lpips
            )
            found.write()
        # The baseline decides which interpolations are drawn.
        uneven = most_uneven(next(iter(results.values())), STRIPS)
        walks[name] = _walks(pipe, uneven, results[name], sampling)
    comparison = compare(results)
    save_plot(comparison, output / "istd.png")
    rows = {f"{number} {name}": walks[name][number] for number in uneven for name in walks}
    etas = np.linspace(0, 1, len(next(iter(rows.values()))))
    save_picture(strip(rows, [f"{eta:.1f}" for eta in etas], 80), output / "strips.png")
    write_text(output / "report.md", _markdown(comparison, found))
    return comparison


class _Measurements:
    """Measurements so far, in a file that is rewritten after each of them."""

    def __init__(self, path: Path, settings: dict):
        self.path, self.settings, self.models, self.machine = path, settings, {}, {}
        if path.is_file():
            try:
                there = json.loads(path.read_text(encoding="utf-8"))
                self.models, self.machine, _ = there["models"], there["machine"], there["settings"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} holds no report ({error}): use another folder, or remove it") from None
            if there["settings"] != settings:
                raise ValueError(
                    f"{path} was measured with {there['settings']}, not {settings}: use these, or another folder"
                )

    def of(self, name: str, model: str) -> dict:
        """Measurements of one model, by name, to read and to add to."""
        own = self.models.setdefault(name, {"model": model})
        if own["model"] != model:
            raise ValueError(f"{self.path} holds another model as {name!r} ({own['model']}; this is {model})")
        return own

    def write(self) -> None:
        content = {"models": self.models, "settings": self.settings, "machine": self.machine}
        write_text(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _reconstructions(
    pipe: Pipeline, pictures: Sequence[Image.Image], prompts: list[str], steps: int, guidance_scale: float | None,
    lpips: bool,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Reconstruction errors averaged over pictures, by method. The autoencoder alone is the lower bound."""

    def means(drawn: Sequence[Image.Image]) -> dict[str, float]:
        return {name: x.mean().item() for name, x in reconstruction(drawn, pictures, lpips).items()}

    inverted = ddim_invert(pipe, pictures, prompts, steps)
    again = generate(pipe, prompts, 0, inverted.latents, steps, guidance_scale)
    null = null_text_invert(pipe, pictures, prompts, guidance_scale, steps, shared=False)
    drawn = generate(pipe, prompts, 0, null.latents, steps, guidance_scale, null.series)
    return {
        "DDIM inversion": means(again),
        "null-text inversion": means(drawn),
        "autoencoder alone (bound)": means(decode(pipe, encode(pipe, pictures))),
    }


def _walks(pipe: Pipeline, numbers: Sequence[int], result: ISTD, sampling: dict) -> dict[int, list[Image.Image]]:
    """The pictures of interpolations as `istd` draws them, by number."""
    ratios, seed = result.settings.num_ratios, result.settings.seed
    return {
        number: generate(
            pipe, result.prompts[number], 0, walk(pipe, number, ratios, seed), **sampling, progress=False
        )
        for number in numbers
    }  # fmt: skip


def _markdown(comparison: Comparison, found: _Measurements) -> str:
    said = ", ".join(f"{k} {v}" for k, v in {**found.settings, **found.machine}.items())
    first, *_ = comparison.results.values()
    uneven = ", ".join(f"{number} {first.prompts[number]!r}" for number in most_uneven(first, STRIPS))
    parts = [
        "# Smoothness and quality",
        comparison.table(),
        _quality(comparison, found.models),
        "![ISTD and its change, with intervals of 95 %](istd.png)",
        f"The prompts on which {next(iter(comparison.results))} is most uneven: {uneven}.",
        "![The walks on these prompts](strips.png)",
    ]
    if any("reconstruction" in found.models[name] for name in comparison.results):
        parts += ["# Reconstruction of pictures", _reconstruction_table(comparison, found.models)]
    return "\n\n".join([*parts, f"{said}. ISTD counts black 0 and white 1."]) + "\n"


def _quality(comparison: Comparison, models: Mapping[str, dict]) -> str:
    """FID, adherence, and PPL with the interval of its change."""
    first = next(iter(comparison.results))
    rows = []
    for name in comparison.results:
        own, base = models[name], models[first]
        cells = {"model": name, "FID ↓": f"{own['fid']:.1f}"}
        cells["change of FID"] = "" if own is base else f"{change(own['fid'], base['fid']):+.1%}"
        if "path_lengths" in own:
            lengths, theirs = (np.asarray(m["path_lengths"]) for m in (own, base))
            low, high = interval(lengths, theirs, statistic=change)
            share = change(lengths.mean(), theirs.mean())
            cells |= {"PPL ↓": f"{lengths.mean():,.0f}", "change of PPL": "", "95 %": ""}
            if own is not base:
                cells |= {"change of PPL": f"{share:+.1%}", "95 %": f"{low:+.1%} to {high:+.1%}"}
            # The mean is dominated by a few jumps; the median shows the steps in between.
            cells["median length"] = f"{np.median(lengths):,.0f}"
        cells["adherence ↑"] = f"{own['adherence']['all']:.3f}"
        if "style" in own["adherence"]:
            cells["in style ↑"] = f"{own['adherence']['style']:.3f}"
        rows.append(cells)
    return _table(rows)


def _reconstruction_table(comparison: Comparison, models: Mapping[str, dict]) -> str:
    return _table(
        {"model": name, "method": way}
        | {title: f"{values[key]:{form}}" for key, (title, form) in METRICS.items() if key in values}
        for name in comparison.results
        for way, values in models[name].get("reconstruction", {}).items()
    )


def _table(rows: Iterable[Mapping[str, str]]) -> str:
    """Markdown table from rows by column."""
    rows = list(rows)
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
