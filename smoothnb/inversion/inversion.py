"""From a picture back to its noise: DDIM inversion, and what an inversion is kept as."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import DDIMInverseScheduler
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.checks import expanded
from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.files import read_weights, replacing
from smoothnb._utils.memory import spared
from smoothnb.images import ImageLike, as_list, to_rgb
from smoothnb.latents import encode, picture_size
from smoothnb.models.load import fingerprint
from smoothnb.sampling import embed, generate
from smoothnb.schedule import Schedule

Trajectory = Float[Tensor, "state image channel height width"]
Series = Float[Tensor, "step series token embedding"]


@dataclass(frozen=True)
class Settings:
    """What an inversion was made with, and what drawing from it needs again.

    Attributes:
        prompts: One for each picture.
        guidance_scale: w that the null-text series was made for; 1 where there is none.
        num_inference_steps: Of the sampler.
        model: `fingerprint` of the pipeline.
    """

    prompts: tuple[str, ...]
    guidance_scale: float
    num_inference_steps: int
    model: str


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures as noise: what `reconstruct` and `interpolate` draw them from.

    `inversion[i]` is the inversion of picture i alone, with the series that it shares or its own.

    Attributes:
        trajectory: x̃_0 … x̃_T of DDIM inversion, float32.
        series: ∅_T … ∅_1 in the order of sampling, one shared by all pictures or one for each, float32; None where
            there was no null-text inversion.
        settings: What it was made with.
    """

    trajectory: Trajectory
    series: Series | None
    settings: Settings

    def __post_init__(self) -> None:
        prompts, steps = len(self.settings.prompts), self.settings.num_inference_steps
        shape = tuple(checks.finite("trajectory", self.trajectory).shape)
        if len(shape) != 5 or shape[:2] != (steps + 1, prompts):
            raise ValueError(
                f"expected a trajectory of {steps + 1} states × {prompts} pictures × channel × height × width, for "
                f"{steps} steps and {prompts} prompts, got shape {shape}"
            )
        if self.series is not None:
            shape = tuple(checks.finite("series", self.series).shape)
            if len(shape) != 4 or shape[0] != steps or shape[1] not in (1, prompts):
                raise ValueError(f"expected a series of {steps} steps × 1 or {prompts} pictures, got shape {shape}")

    @property
    def latents(self) -> Float[Tensor, "image channel height width"]:
        """x̃_T, what sampling starts from."""
        return self.trajectory[-1]

    def __len__(self) -> int:
        return self.trajectory.shape[1]

    def __getitem__(self, number: int) -> "Inversion":
        settings = replace(self.settings, prompts=(self.settings.prompts[number],))
        own = slice(number % len(self), number % len(self) + 1)
        shared = self.series is None or self.series.shape[1] == 1
        return Inversion(self.trajectory[:, own], self.series if shared else self.series[:, own], settings)

    def save(self, file: str | Path) -> None:
        """Writes it as safetensors, settings in the header.

        Raises:
            OSError: If the file cannot be written; what was there before is untouched.
        """
        from safetensors.torch import save_file

        tensors = {"trajectory": self.trajectory} | ({} if self.series is None else {"series": self.series})
        tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
        with replacing(Path(file)) as partial:
            save_file(tensors, partial, {"settings": json.dumps(asdict(self.settings))})

    @classmethod
    @checked(num_inference_steps=checks.whole(1))
    def load(cls, file: str | Path, pipe=None, num_inference_steps: int | None = None) -> "Inversion":
        """Reads what `save` wrote.

        Args:
            file: The file.
            pipe: The pipeline to draw with; the inversion is checked to belong to it, and is put on its device.
            num_inference_steps: That it is meant to be drawn with, to be checked.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds no inversion, or that of another model or step count.
        """
        tensors, header = read_weights(expanded(file))
        try:
            found = json.loads(header.get("settings", "null"))
            settings = Settings(**found | {"prompts": tuple(found["prompts"])})
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
        series = None if inversion.series is None else inversion.series.to(pipe.device)
        return replace(inversion, trajectory=inversion.trajectory.to(pipe.device), series=series)

    def check(self, pipe) -> None:
        """Raises ValueError if the inversion was made with another model than the pipeline's."""
        if (own := fingerprint(pipe)) != self.settings.model:
            raise ValueError(
                f"this inversion belongs to another model ({self.settings.model}; the pipeline's is {own}): "
                "invert the picture again, or load the model, LoRA and smoothness that it was made with"
            )


INVERSION = checks.of(Inversion, "an inversion, such as ddim_invert gives")
"""The rule for an argument that is one."""


def cache_file(
    cache: str | Path | None, pipe, images: ImageLike | Sequence[ImageLike], **settings: object
) -> Path | None:
    """Where the inversion of these pictures is kept, for this model and these settings; None without a cache."""
    if cache is None:
        return None
    digest = hashlib.sha256(f"{fingerprint(pipe)}{pipe.unet.dtype}{sorted(settings.items())}".encode())
    for image in as_list(images):
        rgb = to_rgb(image)
        digest.update(str(rgb.size).encode() + rgb.tobytes())
    return Path(cache).expanduser() / f"{digest.hexdigest()[:32]}.safetensors"


def cached(file: Path | None, pipe) -> Inversion | None:
    """What a cache holds, if it holds it whole; a damaged file is named, and passed over."""
    if file is None or not file.is_file():
        return None
    try:
        return Inversion.load(file, pipe)
    except (OSError, ValueError) as error:
        warn(f"the cache's {file.name} is passed over, and the picture inverted anew: {error}")
        return None


def keep(inversion: Inversion, file: Path | None) -> bool:
    """Puts an inversion into a cache; where that fails, it is said, as the inversion itself is too dear to be lost."""
    if file is None:
        return False
    try:
        inversion.save(file)
    except OSError as error:
        warn(f"the inversion is not kept in the cache: {error}")
        return False
    return True


def prompts_for(prompt: str | Sequence[str], count: int) -> tuple[str, ...]:
    """One prompt for each of so many pictures.

    Raises:
        ValueError: If they do not pair up.
    """
    prompts = (prompt,) * count if isinstance(prompt, str) else tuple(prompt)
    if len(prompts) != count:
        raise ValueError(f"expected one prompt, or one for each of {count} pictures, got {len(prompts)}")
    return prompts


def predict(pipe, schedule: Schedule, x: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
    """ε̂ in float32, in whatever type the UNet works."""
    dtype = pipe.unet.dtype
    prediction = pipe.unet(x.to(dtype), t, encoder_hidden_states=embeds.to(dtype)).sample
    return schedule.noise(x, prediction, t.expand(len(x)))


def climb(pipe, x: Tensor, embeds: Tensor, num_inference_steps: int, fixed_point_steps: int = 0) -> Iterator[Tensor]:
    """The steps of `ddim_invert`: from x_0 in float32, yields x̃_1 … x̃_T.

    Raises:
        FloatingPointError: If a latent is not finite.
    """
    schedule = Schedule.of(pipe.scheduler)
    # The noise is handed over as such, whatever the model predicts.
    scheduler = DDIMInverseScheduler.from_config(pipe.scheduler.config, prediction_type="epsilon")
    scheduler.set_timesteps(num_inference_steps, pipe.device)
    for t in scheduler.timesteps:
        noisier = x
        for _ in range(1 + fixed_point_steps):
            with torch.no_grad():
                noisier = scheduler.step(predict(pipe, schedule, noisier, t, embeds), int(t), x).prev_sample
        x = noisier
        if not torch.isfinite(x).all():
            raise FloatingPointError(f"the inversion left the numbers of {pipe.unet.dtype} at t = {int(t)}")
        yield x


@checked(prompt=checks.texts)
@spared("inverting pictures", "give fewer pictures at a time")
@torch.no_grad()
def ddim_invert(
    pipe,
    images: ImageLike | Sequence[ImageLike],
    prompt: str | Sequence[str] = "",
    num_inference_steps: int = 50,
    fixed_point_steps: int = 0,
    height: int | None = None,
    width: int | None = None,
    cache: str | Path | None = None,
    progress: bool = True,
) -> Inversion:
    """DDIM inversion (Song et al. 2020): the sampler run backwards, without guidance.

    A step from t-1 to t needs the noise that the model finds at x_t, which is what is sought; DDIM takes that at
    x_{t-1} instead, and the errors add up. Each fixed-point step puts the x_t found so far in its place: a few of them,
    and sampling without guidance leads back to the picture.

    Args:
        pipe: A diffusers pipeline.
        images: One picture or several, as `encode` takes them.
        prompt: For all pictures, or one for each; "" to invert without text.
        num_inference_steps: Of the sampler that shall lead back.
        fixed_point_steps: See above; each costs as much as the inversion itself.
        height: To resize to, in pixels; the model's own by default.
        width: To resize to, in pixels; the model's own by default.
        cache: Folder in which inversions are kept, and looked for by picture, model and settings.
        progress: Whether to show a progress bar.

    Returns:
        The inversion, without a null-text series.

    Raises:
        ValueError: If prompts and pictures do not pair up, or a number or size lies outside its range.
        FloatingPointError: If a latent is not finite.
    """
    file = cache_file(
        cache, pipe, images, prompt=prompt, num_inference_steps=num_inference_steps,
        fixed_point_steps=fixed_point_steps, size=picture_size(pipe, height, width),
    )  # fmt: skip
    if (there := cached(file, pipe)) is not None:
        return there
    x = encode(pipe, images, height, width).float()
    prompts = prompts_for(prompt, len(x))
    trajectory = [x]
    with progress_bar(num_inference_steps, "inverting", progress) as bar:
        for noisier in climb(pipe, x, embed(pipe, prompts), num_inference_steps, fixed_point_steps):
            trajectory.append(noisier)
            bar.update()
    inversion = Inversion(torch.stack(trajectory), None, Settings(prompts, 1.0, num_inference_steps, fingerprint(pipe)))
    keep(inversion, file)
    return inversion


@checked(inversion=INVERSION)
def reconstruct(pipe, inversion: Inversion, progress: bool = True) -> list[Image.Image]:
    """Draws the pictures of an inversion again.

    Raises:
        ValueError: If the inversion belongs to another model.
    """
    inversion.check(pipe)
    settings = inversion.settings
    return generate(
        pipe, settings.prompts, 0, inversion.latents, settings.num_inference_steps, settings.guidance_scale,
        "" if inversion.series is None else inversion.series, progress=progress,
    )  # fmt: skip
