"""Interpolation standard deviation (ISTD): how unevenly pictures change along an interpolation."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils.checks import at_least, check_finite, within
from smoothnb._utils.console import progress_bar
from smoothnb._utils.files import data_folder
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb.evaluation.bootstrap import Interval, interval
from smoothnb.evaluation.record import Record, read_record
from smoothnb.images import neighbour_distances
from smoothnb.latents import seeded_noise, slerp
from smoothnb.models.load import fingerprint
from smoothnb.models.parts import recommended_guidance
from smoothnb.sampling import embed, generate


@dataclass(frozen=True)
class IstdSettings:
    """Settings that an ISTD depends on, besides model and prompts; results are comparable only if they are equal.

    Attributes:
        num_ratios: Number of pictures per interpolation; 11 in the paper.
        guidance_scale: As in `generate`.
        num_inference_steps: As in `generate`.
        seed: Seed of the noises, see `walk`.
        pixel_range: Values of black and white; distances scale with its width. The paper does not state its range, so
            only ratios can be compared with it.
        correction: 0 for the population standard deviation, 1 for the sample standard deviation.
        scheduler: Class of the scheduler.
        dtype: Type of the UNet.
        height, width: Size of the pictures, in pixels; None for the model's own.
    """

    num_ratios: int = 11
    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    seed: int = 0
    pixel_range: tuple[float, float] = (0.0, 1.0)
    correction: int = 0
    scheduler: str = "DDIMScheduler"
    dtype: str = "float32"
    height: int | None = None
    width: int | None = None

    def __post_init__(self) -> None:
        low, high = self.pixel_range
        # A single distance has no deviation.
        at_least(3, num_ratios=self.num_ratios)
        if not low < high:
            raise ValueError(f"expected a pixel_range from black to white, such as (0, 1), got {self.pixel_range}")
        if self.correction not in (0, 1):
            raise ValueError(f"expected correction 0 (population) or 1 (sample), got {self.correction}")


@dataclass(frozen=True, eq=False)
class ISTD:
    """Result of `istd`.

    Attributes:
        distances: Euclidean distances between neighbouring pictures, for each prompt.
        prompts: The prompts.
        settings: The settings.
        model: `fingerprint` of the pipeline.
    """

    distances: Float[Tensor, "prompt step"]
    prompts: tuple[str, ...]
    settings: IstdSettings = field(default_factory=IstdSettings)
    model: str = ""

    def __post_init__(self) -> None:
        check_finite(distances=self.distances)
        if self.distances.ndim != 2 or len(self.distances) != len(self.prompts):
            raise ValueError(
                f"expected distances of prompt × step for {len(self.prompts)} prompts, got shape "
                f"{tuple(self.distances.shape)}"
            )

    @cached_property
    def deviations(self) -> Float[Tensor, " prompt"]:
        """Standard deviation of the distances for each prompt; ISTD is their mean."""
        return self.distances.std(dim=1, correction=self.settings.correction)

    @property
    def value(self) -> float:
        """ISTD: the standard deviation of neighbour distances, averaged over prompts."""
        return self.deviations.mean().item()

    @property
    def mean_step(self) -> float:
        """Mean distance between neighbouring pictures. A model whose pictures hardly change has a low ISTD, too."""
        return self.distances.mean().item()

    @cached_property
    def relative_deviations(self) -> Float[Tensor, " prompt"]:
        """Standard deviation over mean of the distances of each prompt; 0 where nothing changes at all."""
        return self.deviations / self.distances.mean(dim=1).clamp(min=1e-12)

    @property
    def relative(self) -> float:
        """ISTD relative to the mean step, which is blind to how much pictures change: mean over prompts."""
        return self.relative_deviations.mean().item()

    @property
    def cliff(self) -> float:
        """Largest step of a walk as a share of its length, 0 to 1: mean over prompts.

        On walks cut finely (`num_ratios=61` and more) it tells a jump from a fast stretch: cut more finely, a fast
        stretch falls apart into small steps and a jump stays one step. No choice of ratios along the path hides it.
        """
        return (self.distances.amax(dim=1) / self.distances.sum(dim=1).clamp(min=1e-12)).mean().item()

    @cached_property
    def interval(self) -> Interval:
        """95 % confidence interval of `value`, by bootstrap over prompts."""
        return interval(self.deviations.numpy())

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, some: slice) -> "ISTD":
        """The result for some of the prompts: `result[:64]`."""
        return replace(self, distances=self.distances[some], prompts=self.prompts[some])

    def save(self, path: str | Path) -> Path:
        """Saves the result as JSON lines, in the format of `istd(results=…)`.

        Raises:
            ValueError: If the file exists with other results.
        """
        record = Record(path, _about(self.model, self.settings, self.prompts))
        for number, row in enumerate(self.distances):
            if number not in record.rows:
                record.add(number, _shortest(row))
        return record.path

    @classmethod
    def load(cls, path: str | Path) -> "ISTD":
        """Loads a file that `save` or `istd(results=…)` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no results, or only some of the prompts.
        """
        about, rows = read_record(path)
        prompts = tuple(about["prompts"])
        if missing := [number for number in range(len(prompts)) if number not in rows]:
            raise ValueError(
                f"{path} holds {len(rows)} of {len(prompts)} prompts; the first one missing is number {missing[0]}. "
                "Call istd with the same settings and this file as results to measure the rest"
            )
        settings = about["settings"]
        settings = IstdSettings(**settings | {"pixel_range": tuple(settings["pixel_range"])})
        return cls(_table(rows), prompts, settings, about["model"])

    def __repr__(self) -> str:
        low, high = self.interval
        return f"ISTD {self.value:.2f} (95 %: {low:.2f} to {high:.2f}), {len(self.prompts)} prompts, model {self.model}"


def example_istd(name: str) -> ISTD:
    """Loads an ISTD of a postcard model, measured on 500 prompts, that comes with the package.

    Args:
        name: "base"; "smooth", the LoRA that comes with it; "lambda-0.1" or "lambda-10", trained alike with another
            weight of the regularizer.

    Raises:
        ValueError: If there is no result of that name.
    """
    files = {path.stem: path for path in sorted((data_folder() / "istd").glob("*.jsonl"))}
    if name not in files:
        raise ValueError(f"expected one of {', '.join(files)}, got {name!r}")
    return ISTD.load(files[name])


def walk(
    pipe: Pipeline, number: int, num_ratios: int = 11, seed: int = 0, height: int | None = None,
    width: int | None = None,
) -> Float[Tensor, "ratio channel height width"]:  # fmt: skip
    """The noises of interpolation `number` of `istd`: its ends depend on (seed, number) only."""
    first = (seed * 1_000_003 + number) * 2
    return slerp(*seeded_noise(pipe, [first, first + 1], height, width), np.linspace(0, 1, num_ratios))


@oom_hint("measuring ISTD", "give a smaller batch_size; finished prompts are kept in the results file")
def istd(
    pipe: Pipeline,
    prompts: str | Sequence[str],
    num_ratios: int = 11,
    guidance_scale: float | None = None,
    num_inference_steps: int = 50,
    seed: int = 0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    correction: int = 0,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 22,
    results: str | Path | None = None,
    progress: bool = True,
) -> ISTD:
    """Interpolation standard deviation, as the supplement defines it in A.3.

    For each prompt, pictures are drawn from slerps between two noises at evenly spaced ratios from 0 to 1, with 8 bits
    per channel. ISTD is the standard deviation of the distances between neighbouring pictures, averaged over prompts.
    It is 0 if every step changes the picture by the same amount.

    Under `accelerate launch`, processes share the prompts. On a CPU the result does not depend on the number of
    processes, given the same batch size and number of threads.

    Args:
        pipe: A diffusers pipeline.
        prompts: One or more prompts.
        num_ratios: Number of pictures per interpolation, at least 3; 11 in the paper.
        guidance_scale: As in `generate`; 7.5 in the paper.
        num_inference_steps: As in `generate`; 50 in the paper.
        seed: Seed of the noises. Those of prompt i depend on (seed, i) only, so that all models get the same.
        pixel_range: Values of black and white; the paper's are not known, see `IstdSettings`.
        correction: 0 for the population standard deviation, 1 for the sample standard deviation.
        height: Height of the pictures, in pixels; by default the model's own.
        width: Width of the pictures, in pixels; by default the model's own.
        batch_size: Number of pictures drawn at a time; several prompts share a batch.
        results: File to which each finished prompt is appended. If it exists, with the same model, prompts and
            settings, only the missing prompts are measured.
        progress: Whether to show a progress bar on the main process.

    Returns:
        The value, its interval, and all distances.

    Raises:
        ValueError: If there are no prompts, a number lies outside its range, or the results file belongs to another
            measurement; it is then unchanged.
    """
    check_pipeline(pipe, num_inference_steps)
    at_least(1, batch_size=batch_size)
    # `walk` makes two seeds of torch from each.
    within(-(2**42), 2**42, seed=seed)
    settings = IstdSettings(
        num_ratios, recommended_guidance(pipe, guidance_scale), int(num_inference_steps), int(seed),
        tuple(map(float, pixel_range)), correction, "DDIMScheduler", str(pipe.unet.dtype).removeprefix("torch."),
        height, width,
    )  # fmt: skip
    prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    if not prompts:
        raise ValueError("expected at least one prompt, got none")
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list, gather_object

    state, model = PartialState(), fingerprint(pipe)
    record = None
    if results is not None and state.is_main_process:
        record = Record(results, _about(model, settings, prompts))
    (rows,) = broadcast_object_list([record.rows if record else {}])
    rows = dict(rows)
    # Batches depend on the prompts' numbers only, as kernels round differently for other batch sizes.
    together = max(1, batch_size // num_ratios)
    groups = [range(first, min(first + together, len(prompts))) for first in range(0, len(prompts), together)]
    todo = [group for group in groups if any(number not in rows for number in group)]
    with progress_bar(len(prompts), "prompts", progress and state.is_main_process) as bar:
        bar.update(len(rows))
        for first in range(0, len(todo), state.num_processes):
            mine = todo[first + state.process_index :][:1]  # Empty at the end, if there are more processes than groups.
            found = [pair for group in mine for pair in _measured(pipe, prompts, group, settings, batch_size)]
            for number, distances in gather_object(found):
                if number in rows:
                    continue
                rows[number] = distances
                if record:
                    record.add(number, distances)
                bar.update()
    return ISTD(_table(rows), prompts, settings, model)


def _measured(
    pipe: Pipeline, prompts: Sequence[str], numbers: Sequence[int], settings: IstdSettings, batch_size: int
) -> list[tuple[int, list[float]]]:
    """Number and distances of each of these prompts."""
    ratios = settings.num_ratios
    frames = generate(
        pipe, embed(pipe, [prompts[i] for i in numbers]).repeat_interleave(ratios, 0),
        latents=torch.cat([walk(pipe, i, ratios, settings.seed, settings.height, settings.width) for i in numbers]),
        num_inference_steps=settings.num_inference_steps, guidance_scale=settings.guidance_scale,
        batch_size=batch_size, progress=False,
    )  # fmt: skip
    walks = (frames[first : first + ratios] for first in range(0, len(frames), ratios))
    return [
        (number, _shortest(neighbour_distances(walked, settings.pixel_range)))
        for number, walked in zip(numbers, walks, strict=True)
    ]


def _about(model: str, settings: IstdSettings, prompts: Sequence[str]) -> dict:
    # Settings that are None are omitted: files written before a setting existed can still be resumed.
    stated = {name: value for name, value in asdict(settings).items() if value is not None}
    return {"model": model, "settings": stated, "prompts": list(prompts)}


def _shortest(row: Tensor) -> list[float]:
    """The shortest decimals that give the same float32."""
    return [float(str(value)) for value in row.numpy()]


def _table(rows: dict[int, list[float]]) -> Float[Tensor, "prompt step"]:
    return torch.tensor([rows[number] for number in sorted(rows)], dtype=torch.float32)
