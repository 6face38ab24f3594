"""`Inversion`, which holds pictures as noise, and the cache of inversions."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import check_finite
from smoothnb._utils.console import warn
from smoothnb._utils.files import atomic_write, expanded, read_weights
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb.images import ImageLike, as_list, to_rgb
from smoothnb.models.load import fingerprint
from smoothnb.models.parts import device_of


def name_of(pipe: Pipeline) -> str:
    """The type that a pipeline's UNet works in, as text."""
    return str(pipe.unet.dtype).removeprefix("torch.")


Trajectory = Float[Tensor, "state image channel height width"]
Series = Float[Tensor, "step series token embedding"]


@dataclass(frozen=True)
class Settings:
    """Settings of an inversion that drawing from it needs again.

    Attributes:
        prompts: One for each picture.
        guidance_scale: w of the null-text series; 1 without one.
        num_inference_steps: Number of sampler steps.
        model: `fingerprint` of the pipeline.
        signs: The fingerprint of its signs alone, which another precision has too.
        dtype: Of its weights; None in files that do not know it.
    """

    prompts: tuple[str, ...]
    guidance_scale: float
    num_inference_steps: int
    model: str
    signs: str | None = None
    dtype: str | None = None

    @classmethod
    def of(cls, pipe: Pipeline, prompts: tuple[str, ...], num_inference_steps: int) -> "Settings":
        """Those of an inversion without guidance."""
        exact, signs = fingerprint(pipe), fingerprint(pipe, exact=False)
        return cls(prompts, 1.0, int(num_inference_steps), exact, signs, name_of(pipe))


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures as noise, from which `reconstruct`, `interpolate` and `edit_text` draw them.

    `inversion[i]` is the inversion of picture i alone, with its own series or the shared one.

    Attributes:
        trajectory: x̃_0 … x̃_T of DDIM inversion, float32.
        series: Null-text embeddings ∅_T … ∅_1 in sampling order, float32: one series shared by all pictures, or one for
            each. None without null-text inversion.
        settings: Settings of the inversion.
    """

    trajectory: Trajectory
    series: Series | None
    settings: Settings

    def __post_init__(self) -> None:
        prompts, steps = len(self.settings.prompts), self.settings.num_inference_steps
        check_finite(trajectory=self.trajectory)
        shape = tuple(self.trajectory.shape)
        if len(shape) != 5 or shape[:2] != (steps + 1, prompts):
            raise ValueError(
                f"expected a trajectory of {steps + 1} states × {prompts} pictures × channel × height × width, for "
                f"{steps} steps and {prompts} prompts, got shape {shape}"
            )
        if self.series is not None:
            check_finite(series=self.series)
            shape = tuple(self.series.shape)
            if len(shape) != 4 or shape[0] != steps or shape[1] not in (1, prompts):
                raise ValueError(f"expected a series of {steps} steps × 1 or {prompts} pictures, got shape {shape}")

    @property
    def latents(self) -> Float[Tensor, "image channel height width"]:
        """x̃_T, the starting noise of sampling."""
        return self.trajectory[-1]

    def __len__(self) -> int:
        return self.trajectory.shape[1]

    def __getitem__(self, number: int) -> "Inversion":
        settings = replace(self.settings, prompts=(self.settings.prompts[number],))
        own = slice(number % len(self), number % len(self) + 1)
        shared = self.series is None or self.series.shape[1] == 1
        return Inversion(self.trajectory[:, own], self.series if shared else self.series[:, own], settings)

    def save(self, file: str | Path) -> None:
        """Saves the inversion as safetensors, with its settings in the header.

        Raises:
            OSError: If the file cannot be written; an existing file is left as it was.
        """
        from safetensors.torch import save_file

        tensors = {"trajectory": self.trajectory} | ({} if self.series is None else {"series": self.series})
        tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
        with atomic_write(file) as partial:
            save_file(tensors, partial, {"settings": json.dumps(asdict(self.settings))})

    @classmethod
    def load(
        cls, file: str | Path, pipe: Pipeline | None = None, num_inference_steps: int | None = None
    ) -> "Inversion":
        """Loads an inversion that `save` wrote.

        Args:
            file: The file.
            pipe: The pipeline to draw with: the inversion must belong to it, and is moved to its device.
            num_inference_steps: If given, the number of steps that the inversion must have.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds no inversion, or one of another model or number of steps.
        """
        tensors, header = read_weights(expanded(file))
        try:
            settings = json.loads(header.get("settings", "null"))
            settings = Settings(**settings | {"prompts": tuple(settings["prompts"])})
            inversion = cls(tensors["trajectory"], tensors.get("series"), settings)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{file} holds no inversion ({error}): expected one that Inversion.save wrote") from None
        steps = settings.num_inference_steps
        if num_inference_steps not in (None, steps):
            raise ValueError(
                f"{file} was inverted with {steps} steps, not {num_inference_steps}: draw it with num_inference_steps="
                f"{steps}, or invert the picture again"
            )
        if pipe is None:
            return inversion
        inversion.check(pipe)
        device = device_of(pipe)
        series = None if inversion.series is None else inversion.series.to(device)
        return replace(inversion, trajectory=inversion.trajectory.to(device), series=series)

    def check(self, pipe: Pipeline) -> None:
        """Raises ValueError if the inversion was made with another model than the pipeline's."""
        check_pipeline(pipe)
        settings = self.settings
        if (own := fingerprint(pipe)) == settings.model:
            return
        # In bfloat16 a model has other numbers, of the same signs.
        if settings.dtype in (None, name_of(pipe)) or fingerprint(pipe, exact=False) != settings.signs:
            raise ValueError(
                f"this inversion belongs to another model ({self.settings.model}; the pipeline's is {own}): "
                "invert the picture again, or load the model, LoRA and smoothness that it was made with"
            )


@dataclass(frozen=True)
class PictureBatch:
    """Decoded pictures, in mode RGB."""

    pictures: list[Image.Image]

    @classmethod
    def of(cls, images: ImageLike | Iterable[ImageLike]) -> "PictureBatch":
        """Decodes pictures in any form that `encode` takes, iterators included."""
        return cls([to_rgb(image) for image in as_list(images)])

    @cached_property
    def digest(self) -> str:
        """Hash of sizes and pixels."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            digest.update(str(picture.size).encode() + picture.tobytes())
        return digest.hexdigest()


def cached(
    invert: Callable[[], tuple[Inversion, bool]],
    cache: str | Path | None,
    pipe: Pipeline,
    batch: PictureBatch,
    **settings: object,
) -> Inversion:
    """Looks an inversion up in a cache by pictures, model and settings; otherwise computes and stores it.

    A damaged file only warns, and so does a failed write: the inversion is still returned.

    Args:
        invert: Computes the inversion, and says whether it is complete; an incomplete one is not stored.
        cache: The folder; None for no cache.
        pipe: A diffusers pipeline.
        batch: The pictures.
        settings: Everything else that the result depends on.
    """
    if cache is None:
        return invert()[0]
    key = f"{fingerprint(pipe)}{pipe.unet.dtype}{sorted(settings.items())}{batch.digest}"
    file = expanded(cache) / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"
    if file.is_file():
        try:
            return Inversion.load(file, pipe)
        except (OSError, ValueError) as error:
            warn(f"the damaged file {file.name} in the cache is ignored, and the picture inverted again: {error}")
    inversion, complete = invert()
    if complete:
        try:
            inversion.save(file)
        except OSError as error:
            warn(f"the inversion could not be stored in the cache: {error}")
    return inversion


def prompts_for(prompt: str | Sequence[str], count: int) -> tuple[str, ...]:
    """One prompt for each of `count` pictures.

    Raises:
        ValueError: If prompts and pictures differ in number.
    """
    prompts = (prompt,) * count if isinstance(prompt, str) else tuple(prompt)
    if len(prompts) != count:
        raise ValueError(f"expected one prompt, or one for each of {count} pictures, got {len(prompts)}")
    return prompts
