"""Interpolation standard deviation: how unevenly the picture changes on an even walk between two noises."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.console import progress_bar
from smoothnb._utils.files import data_folder
from smoothnb._utils.memory import oom_hint
from smoothnb.evaluation.bootstrap import Interval, interval
from smoothnb.evaluation.record import Record, read_record
from smoothnb.images import neighbour_distances
from smoothnb.latents import seeded_noise, slerp
from smoothnb.models.load import fingerprint
from smoothnb.sampling import embed, generate


@dataclass(frozen=True)
class IstdSettings:
    """What an ISTD depends on beside the model and the prompts. Two can be compared where these are the same.

    Attributes:
        num_ratios: Pictures on each walk; 11 in the paper.
        guidance_scale: As in `generate`.
        num_inference_steps: As in `generate`.
        seed: Of the noises, see `walk`.
        pixel_range: What black and white count. Distances grow with its width. The paper does not say which it used,
            so its absolute values can be compared with nobody's; ratios can.
        correction: Of the standard deviation: 0 divides by the number of distances (population), 1 by one less
            (sample).
        scheduler: Class of the sampler.
        dtype: Of the UNet.
        height, width: Of the pictures, in pixels; None for the model's own.
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
        if self.num_ratios < 3:
            raise ValueError(f"expected at least three ratios, as one distance cannot vary, got {self.num_ratios}")
        if not low < high:
            raise ValueError(f"expected a pixel_range from black to white, such as (0, 1), got {self.pixel_range}")
        if self.correction not in (0, 1):
            raise ValueError(f"expected correction 0 (population) or 1 (sample), got {self.correction}")


@dataclass(frozen=True, eq=False)
class ISTD:
    """Result of `istd`: `value`, its `interval`, and what they come from.

    Attributes:
        distances: Between neighbouring pictures, for each prompt; Euclidean, over all pixels and channels.
        prompts: What was drawn.
        settings: How.
        model: Its `fingerprint`.
    """

    distances: Float[Tensor, "prompt step"]
    prompts: tuple[str, ...]
    settings: IstdSettings = field(default_factory=IstdSettings)
    model: str = ""

    def __post_init__(self) -> None:
        if checks.finite("distances", self.distances).ndim != 2 or len(self.distances) != len(self.prompts):
            raise ValueError(
                f"expected distances of prompt × step for {len(self.prompts)} prompts, got shape "
                f"{tuple(self.distances.shape)}"
            )

    @cached_property
    def deviations(self) -> Float[Tensor, " prompt"]:
        """Standard deviation of the distances of each prompt: ISTD is their mean."""
        return self.distances.std(dim=1, correction=self.settings.correction)

    @property
    def value(self) -> float:
        """ISTD: mean over prompts of the standard deviation of neighbours' distances."""
        return self.deviations.mean().item()

    @cached_property
    def interval(self) -> Interval:
        """Where `value` lies, at 95 %, if other prompts are drawn: bootstrap over prompts."""
        return interval(self.deviations.numpy())

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, some: slice) -> "ISTD":
        """The same of some of the prompts: `result[:64]`."""
        return replace(self, distances=self.distances[some], prompts=self.prompts[some])

    def save(self, path: str | Path) -> Path:
        """Writes it as lines of JSON, in the form of the file that `istd` lets grow.

        Raises:
            ValueError: If the file is there, with other results.
        """
        record = Record(path, _about(self.model, self.settings, self.prompts))
        for number, row in enumerate(self.distances):
            if number not in record.rows:
                record.add(number, _shortest(row))
        return record.path

    @classmethod
    def load(cls, path: str | Path) -> "ISTD":
        """Reads what `save` wrote, or `istd` with `results`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it holds no results, or some prompts are still to be measured.
        """
        about, rows = read_record(path)
        prompts = tuple(about["prompts"])
        if missing := [number for number in range(len(prompts)) if number not in rows]:
            raise ValueError(
                f"{path} holds {len(rows)} of {len(prompts)} prompts; the first one missing is number {missing[0]}. "
                "Call istd with the same settings and this file as results: it goes on from here"
            )
        settings = about["settings"]
        settings = IstdSettings(**settings | {"pixel_range": tuple(settings["pixel_range"])})
        return cls(_table(rows), prompts, settings, about["model"])

    def __repr__(self) -> str:
        low, high = self.interval
        return f"ISTD {self.value:.2f} (95 %: {low:.2f} to {high:.2f}), {len(self.prompts)} prompts, model {self.model}"


@checked(name=checks.text)
def example_istd(name: str) -> ISTD:
    """What was measured of a postcard model with 500 prompts, and comes with the package.

    Args:
        name: "base"; "smooth", the LoRA that comes with it; "lambda-0.1" or "lambda-10", trained alike with another
            weight of the regularizer.

    Raises:
        ValueError: If nothing of that name was measured.
    """
    files = {path.stem: path for path in sorted((data_folder() / "istd").glob("*.jsonl"))}
    if name not in files:
        raise ValueError(f"expected one of {', '.join(files)}, got {name!r}")
    return ISTD.load(files[name])


def walk(
    pipe, number: int, num_ratios: int = 11, seed: int = 0, height: int | None = None, width: int | None = None
) -> Float[Tensor, "ratio channel height width"]:
    """The noises of one of `istd`'s walks: between two that depend on (seed, number) alone, at even ratios."""
    first = (seed * 1_000_003 + number) * 2
    return slerp(*seeded_noise(pipe, [first, first + 1], height, width), np.linspace(0, 1, num_ratios))


SEED = checks.within(-(2**42), 2**42)
"""Of walks: two seeds of torch are made of one of these."""


@checked(prompts=checks.texts, num_ratios=checks.whole(), seed=SEED, correction=checks.whole())
@oom_hint("measuring ISTD", "give a smaller batch_size; what is in the file of results stays")
def istd(
    pipe,
    prompts: str | Sequence[str],
    num_ratios: int = 11,
    guidance_scale: float = 7.5,
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

    For each prompt two noises are drawn, mixed by slerp at even ratios from 0 to 1, and each mix is made a picture, of
    8 bits a channel. The distances between neighbouring pictures have a standard deviation; ISTD is its mean over
    prompts. It is 0 where each step changes the picture by as much as any other.

    Started by `accelerate launch`, processes share the prompts. On a CPU the numbers are the same to the last bit
    however many share, for the same batch size and number of threads.

    Args:
        pipe: A diffusers pipeline.
        prompts: What to draw, at least one.
        num_ratios: Pictures on each walk, at least 3; 11 in the paper.
        guidance_scale: As in `generate`; 7.5 in the paper.
        num_inference_steps: As in `generate`; 50 in the paper.
        seed: Of the noises: those of prompt i depend on (seed, i) alone, so that all models see the same (`walk`).
        pixel_range: What black and white count; the paper's is not known, see `IstdSettings`.
        correction: 0 for the standard deviation of a population, 1 for that of a sample.
        height: Of the pictures, in pixels; the model's own by default.
        width: Of the pictures, in pixels; the model's own by default.
        batch_size: Pictures drawn at a time; several prompts share a batch. If memory runs out, give a smaller one.
        results: File that grows by a line with each finished prompt. If it is there, with the same model, prompts and
            settings, only what is missing is measured: a run that was killed goes on.
        progress: Whether to show a progress bar, on the first process.

    Returns:
        The value, its interval, and all distances.

    Raises:
        ValueError: If there are no prompts, a number lies outside its range, or the file of results belongs to another
            measurement; it is left as it was.
    """
    settings = IstdSettings(
        num_ratios, guidance_scale, num_inference_steps, seed, tuple(map(float, pixel_range)), correction,
        type(pipe.scheduler).__name__, str(pipe.unet.dtype).removeprefix("torch."), height, width,
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
    # What shares a batch is settled by number alone: kernels round otherwise in batches of another size.
    together = max(1, batch_size // num_ratios)
    groups = [range(first, min(first + together, len(prompts))) for first in range(0, len(prompts), together)]
    todo = [group for group in groups if any(number not in rows for number in group)]
    with progress_bar(len(prompts), "prompts", progress and state.is_main_process) as bar:
        bar.update(len(rows))
        for first in range(0, len(todo), state.num_processes):
            mine = todo[first + state.process_index :][:1]  # None at the end, where processes are more than groups.
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
    pipe, prompts: Sequence[str], numbers: Sequence[int], settings: IstdSettings, batch_size: int
) -> list[tuple[int, list[float]]]:
    """Of each of these prompts its number and distances."""
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
    # What is not set is not written either: files of before there was such a setting can be gone on with.
    stated = {name: value for name, value in asdict(settings).items() if value is not None}
    return {"model": model, "settings": stated, "prompts": list(prompts)}


def _shortest(row: Tensor) -> list[float]:
    """Numbers of as many digits as bring the same float32 back."""
    return [float(str(value)) for value in row.numpy()]


def _table(rows: dict[int, list[float]]) -> Float[Tensor, "prompt step"]:
    return torch.tensor([rows[number] for number in sorted(rows)])
