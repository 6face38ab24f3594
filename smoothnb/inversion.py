"""From a picture back to its noise: DDIM inversion, and null-text embeddings that undo what guidance adds."""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from diffusers import DDIMInverseScheduler
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb.images import ImageLike
from smoothnb.latents import encode
from smoothnb.progress import progress_bar
from smoothnb.sampling import embed, generate
from smoothnb.schedule import Schedule

Trajectory = Float[Tensor, "state image channel height width"]
Series = Float[Tensor, "step token embedding"]


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

    `inversion[i]` is the inversion of picture i alone; the series is shared.

    Attributes:
        trajectory: x̃_0 … x̃_T of DDIM inversion, float32.
        series: ∅_T … ∅_1 in the order of sampling, float32; None where there was no null-text inversion.
        settings: What it was made with.
    """

    trajectory: Trajectory
    series: Series | None
    settings: Settings

    @property
    def latents(self) -> Float[Tensor, "image channel height width"]:
        """x̃_T, what sampling starts from."""
        return self.trajectory[-1]

    def __len__(self) -> int:
        return self.trajectory.shape[1]

    def __getitem__(self, number: int) -> "Inversion":
        settings = replace(self.settings, prompts=(self.settings.prompts[number],))
        number %= len(self)
        return Inversion(self.trajectory[:, number : number + 1], self.series, settings)

    def save(self, file: str | Path) -> None:
        """Writes it as safetensors, settings in the header."""
        from safetensors.torch import save_file

        tensors = {"trajectory": self.trajectory} | ({} if self.series is None else {"series": self.series})
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous().cpu() for name, value in tensors.items()}
        save_file(tensors, file, {"settings": json.dumps(asdict(self.settings))})

    @classmethod
    def load(cls, file: str | Path, pipe=None) -> "Inversion":
        """Reads what `save` wrote.

        Args:
            file: The file.
            pipe: The pipeline to draw with; the inversion is checked to belong to it.

        Raises:
            ValueError: If the file holds no inversion, or that of another model.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
        try:
            with safe_open(str(file), "pt") as opened:
                found = json.loads((opened.metadata() or {}).get("settings", "null"))
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file} is no safetensors file: {error}") from error
        if not isinstance(found, dict) or "trajectory" not in tensors:
            raise ValueError(f"{file} holds no inversion: expected one that Inversion.save wrote")
        settings = Settings(**found | {"prompts": tuple(found["prompts"])})
        inversion = cls(tensors["trajectory"], tensors.get("series"), settings)
        if pipe is not None:
            inversion.check(pipe)
        return inversion

    def check(self, pipe) -> None:
        """Raises ValueError if the inversion was made with another model than the pipeline's."""
        if (own := fingerprint(pipe)) != self.settings.model:
            raise ValueError(
                f"this inversion belongs to another model ({self.settings.model}; the pipeline's is {own}): "
                "invert the picture again, or load the model, LoRA and smoothness that it was made with"
            )


def fingerprint(pipe) -> str:
    """Sixteen hexadecimal digits that stand for a pipeline's UNet, its LoRA and the LoRA's weight.

    A sample of each weight goes in, rounded to float16, so that it is quick and the same in every precision.
    """
    digest = hashlib.sha256()
    for name, p in sorted(pipe.unet.state_dict().items()):
        stride = max(1, p.numel() // 64)
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(p.flatten()[::stride].to("cpu", torch.float16).numpy().tobytes())
    for name, module in pipe.unet.named_modules():
        if scaling := getattr(module, "scaling", None):
            digest.update(f"{name}{scaling}{getattr(module, 'active_adapters', '')}".encode())
    return digest.hexdigest()[:16]


def _prompts(prompt: str | Sequence[str], count: int) -> tuple[str, ...]:
    prompts = (prompt,) * count if isinstance(prompt, str) else tuple(prompt)
    if len(prompts) != count:
        raise ValueError(f"expected one prompt, or one for each of {count} pictures, got {len(prompts)}")
    return prompts


def _predict(pipe, schedule: Schedule, x: Tensor, t: Tensor, embeds: Tensor) -> Tensor:
    """ε̂ in float32, in whatever type the UNet works."""
    dtype = pipe.unet.dtype
    prediction = pipe.unet(x.to(dtype), t, encoder_hidden_states=embeds.to(dtype)).sample
    return schedule.noise(x, prediction, t.expand(len(x)))


@torch.no_grad()
def ddim_invert(
    pipe,
    images: ImageLike | Sequence[ImageLike],
    prompt: str | Sequence[str] = "",
    num_inference_steps: int = 50,
    fixed_point_steps: int = 0,
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
        progress: Whether to show a progress bar.

    Returns:
        The inversion, without a null-text series.

    Raises:
        ValueError: If prompts and pictures do not pair up, or a number lies outside its range.
        FloatingPointError: If a latent is not finite.
    """
    if num_inference_steps < 1 or fixed_point_steps < 0:
        raise ValueError(
            f"expected num_inference_steps of at least 1 and fixed_point_steps of at least 0, got "
            f"{num_inference_steps} and {fixed_point_steps}"
        )
    x = encode(pipe, images).float()
    prompts = _prompts(prompt, len(x))
    embeds, schedule = embed(pipe, prompts), Schedule.of(pipe.scheduler)
    # The noise is handed over as such, whatever the model predicts.
    scheduler = DDIMInverseScheduler.from_config(pipe.scheduler.config, prediction_type="epsilon")
    scheduler.set_timesteps(num_inference_steps, pipe.device)
    trajectory = [x]
    with progress_bar(num_inference_steps, "inverting", progress) as bar:
        for t in scheduler.timesteps:
            noisier = x
            for _ in range(1 + fixed_point_steps):
                noisier = scheduler.step(_predict(pipe, schedule, noisier, t, embeds), int(t), x).prev_sample
            x = noisier
            if not torch.isfinite(x).all():
                raise FloatingPointError(f"the inversion left the numbers of {pipe.unet.dtype} at t = {int(t)}")
            trajectory.append(x)
            bar.update()
    settings = Settings(prompts, 1.0, num_inference_steps, fingerprint(pipe))
    return Inversion(torch.stack(trajectory), None, settings)


def null_text_invert(
    pipe,
    images: ImageLike | Sequence[ImageLike],
    prompt: str | Sequence[str] = "",
    guidance_scale: float = 7.5,
    num_inference_steps: int = 50,
    inner_steps: int = 10,
    tolerance: float = 1e-5,
    fixed_point_steps: int = 0,
    progress: bool = True,
) -> Inversion:
    """Null-text inversion: Eq. 4 of the supplement for one picture, Eq. 5 for several.

    Guidance drives the sampler away from the way that DDIM inversion came. One embedding ∅_t a step, in the place of
    the empty prompt's, brings it back: it is sought so that the guided step from x_t ends at the inversion's x̃_{t-1},
    for all pictures at once where they are several.

    The guided step is linear in the noise that the model finds under ∅_t. So each picture says which noise would be
    right, and what is left is least squares in ∅_t: one Gauss-Newton step, solved by conjugate gradients, each of them
    one forward and one backward pass. The best step length comes with it, where Adam (Mokady et al. 2023) creeps.
    Interrupted (Ctrl-C), the steps that are done are kept, and those that are not have the last embedding found.

    Args:
        pipe: A diffusers pipeline; no weight gets a gradient.
        images: One picture or several, as `encode` takes them.
        prompt: For all pictures, or one for each.
        guidance_scale: w, above 1.
        num_inference_steps: Of the sampler.
        inner_steps: Conjugate gradient steps for each t, at most.
        tolerance: Mean squared error of x_{t-1} at which a t is done; it may be larger where much noise is left, as in
            Mokady et al.
        fixed_point_steps: Of the DDIM inversion before, see `ddim_invert`.
        progress: Whether to show a progress bar, with the current error.

    Returns:
        The inversion with its series.

    Raises:
        ValueError: As in `ddim_invert`, or if guidance_scale is not above 1, where ∅_t has no effect.
    """
    if not guidance_scale > 1:
        raise ValueError(f"expected guidance_scale above 1, got {guidance_scale}: without guidance use ddim_invert")
    found = ddim_invert(pipe, images, prompt, num_inference_steps, fixed_point_steps, progress)
    schedule, embeds = Schedule.of(pipe.scheduler), embed(pipe, found.settings.prompts)
    null, series, x = embed(pipe, "").float(), [], found.latents
    # The noise is handed over as such, whatever the model predicts.
    scheduler = copy.deepcopy(pipe.scheduler)
    scheduler.register_to_config(prediction_type="epsilon")
    scheduler.set_timesteps(num_inference_steps, device=pipe.device)
    with progress_bar(num_inference_steps, "null text", progress) as bar:
        try:
            for index, t in enumerate(scheduler.timesteps):
                with torch.no_grad():
                    pull = guidance_scale * _predict(pipe, schedule, x, t, embeds)
                    without = scheduler.step(pull, int(t), x).prev_sample
                    # The step is linear in the noise, with the same slope everywhere.
                    slope = (scheduler.step(pull + 1, int(t), x).prev_sample - without).mean() * (1 - guidance_scale)
                    wanted = (found.trajectory[-2 - index] - without) / slope

                def predict(null: Tensor, x: Tensor = x, t: Tensor = t) -> Tensor:
                    return _predict(pipe, schedule, x, t, null.expand(len(x), -1, -1))

                limit = tolerance * (1 + 2 * index) / slope.square().item()
                null, noise = _least_squares(predict, null, wanted, inner_steps, limit, STEP[pipe.unet.dtype])
                x = without + slope * noise
                error = (x - found.trajectory[-2 - index]).square().mean().item()
                series.append(null)
                bar.set_postfix(error=f"{error:.1e}")
                bar.update()
        except KeyboardInterrupt:
            series += [null] * (num_inference_steps - len(series))
    settings = Settings(found.settings.prompts, guidance_scale, num_inference_steps, found.settings.model)
    return Inversion(found.trajectory, torch.cat(series), settings)


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


STEP = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 3e-2}
"""How far apart the two points of a directional derivative lie, as root mean square beside embeddings of about 1."""
STRAIGHT = 3
"""Conjugate gradient steps before the noise is looked at anew: so far it is taken as linear in the embedding."""


@dataclass(frozen=True)
class _Point:
    """An embedding, the noise found under it (with the graph between the two), and how that lies to the one wanted."""

    null: Tensor
    noise: Tensor
    residual: Tensor
    error: float

    @classmethod
    def at(cls, predict: Callable[[Tensor], Tensor], null: Tensor, wanted: Tensor) -> "_Point":
        with torch.enable_grad():
            null = null.detach().requires_grad_()
            noise = predict(null)
        residual = wanted - noise.detach()
        return cls(null, noise, residual, residual.square().mean().item())


def _least_squares(
    predict: Callable[[Tensor], Tensor], start: Tensor, wanted: Tensor, inner_steps: int, limit: float, step: float
) -> tuple[Tensor, Tensor]:
    """Seeks the embedding under which `predict` gives what is wanted: Gauss-Newton, solved by conjugate gradients.

    Args:
        predict: From an embedding to noise.
        start: Embedding to start from.
        wanted: Noise.
        inner_steps: Conjugate gradient steps in all.
        limit: Mean squared error at which to stop.
        step: Of the directional derivatives.

    Returns:
        The best embedding met, and the noise under it.
    """
    best, left = _Point.at(predict, start, wanted), inner_steps
    while left and best.error > limit:
        count = min(left, STRAIGHT)
        left -= count
        move = _conjugate_gradients(predict, best, count, step)
        for _ in range(3):
            there = _Point.at(predict, best.null + move, wanted)
            if there.error < best.error:
                break
            move = move / 2  # too far for a straight line
        else:
            break
        best = there
    return best.null.detach(), best.noise.detach()


def _conjugate_gradients(predict: Callable[[Tensor], Tensor], here: _Point, count: int, step: float) -> Tensor:
    """How to move the embedding so that the noise, taken as linear around here, comes nearest to the one wanted."""

    def back(residual: Tensor) -> Tensor:
        """Jᵀ residual; brought to unit size for the backward pass, as small gradients vanish in float16."""
        size = residual.square().mean().sqrt().clamp(min=1e-12)
        (gradient,) = torch.autograd.grad(here.noise, here.null, residual / size, retain_graph=True)
        return gradient * size

    residual, move = here.residual, torch.zeros_like(here.null)
    direction = gradient = back(residual)
    for number in range(count):
        h = step / direction.square().mean().sqrt().clamp(min=1e-20)
        with torch.no_grad():
            change = (predict(here.null + h * direction) - here.noise) / h
        length = gradient.square().sum() / change.square().sum().clamp(min=1e-20)
        move = move + length * direction
        if number + 1 < count:
            residual = residual - length * change
            before, gradient = gradient, back(residual)
            direction = gradient + gradient.square().sum() / before.square().sum().clamp(min=1e-20) * direction
    return move.detach()
