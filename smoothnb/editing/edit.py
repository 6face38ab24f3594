"""Another prompt for a picture that is there: switching prompts (the paper's way), attention control, and SDEdit."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.memory import oom_hint
from smoothnb.editing.attention import Control, lend
from smoothnb.images import to_pil
from smoothnb.inversion.inversion import INVERSION, Inversion, prompts_for
from smoothnb.latents import seeded_noise
from smoothnb.sampling import Step, denoise, embed, guided_noise, scheduler_for

SWITCH = {"switch": 0.8, "attention": 0.6, "sdedit": 0.6}
"""The methods, and what `switch` is where nobody says."""
GUIDANCE = 3.0
"""Guidance scale where the inversion has none of its own: gentle, as the picture is to stay."""
BLEND_AFTER, BLEND_THRESHOLD = 0.2, 0.5
"""Part of the steps without a mask, as attention wanders at first; and which looks count, the strongest being 1."""


@dataclass(frozen=True)
class _Task:
    """An inversion and what shall become of it, in the UNet's type.

    Attributes:
        trajectory: x̃_0 … x̃_T.
        source, target: Embeddings, one for each picture.
        null: What guidance leads away from, for each step and picture.
        guided: Whether the source is drawn with guidance too, as a null-text series wants it.
        limit: t up to which the picture is let go.
    """

    pipe: object
    trajectory: Tensor
    source: Tensor
    target: Tensor
    null: Tensor
    guided: bool
    guidance_scale: float
    limit: float

    @property
    def steps(self) -> int:
        return len(self.null)


@checked(inversion=INVERSION, switch=checks.number(), layout_switch=checks.number())
def edit_text(
    pipe,
    inversion: Inversion,
    target_prompt: str | Sequence[str],
    switch: float | None = None,
    method: str = "switch",
    layout_switch: float = 0.3,
    blend: str | Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    lend_padding: bool = False,
    guidance_scale: float | None = None,
    seed: int | Sequence[int] = 0,
) -> Iterator[Step]:
    """Draws a picture again from its inversion, with another prompt, and yields every step.

    `finish` runs the steps to their end and gives pictures: `finish(pipe, edit_text(pipe, inversion, "a blue house"))`.

    The methods differ in what holds the picture until it is let go, at t = switch · T:

    - "switch" (Guo et al. 2024): the source prompt. From there on, the target prompt stands in its place.
    - "attention" (Hertz et al. 2022): the target prompt is there from the beginning, but until then each word of it
      looks where its like in the source prompt looks, and until t = layout_switch · T pixels look at one another as
      they do in the source. The source itself is not drawn: it is taken from the inversion's trajectory, which is
      exact. With `blend`, all but the place of some words is put back from there after each step.
    - "sdedit" (Meng et al. 2022): the picture itself, with fresh noise as strong as that of t on it.

    With a null-text series, guidance leads away from that, at the scale it was made for. As the series makes the source
    come out under any guidance, it stands where the source prompt does, and a high scale exaggerates the edit: try 2 or
    3. Without a series, the source is held without guidance, as it was inverted, and guidance towards the target leads
    away from the empty prompt.

    Args:
        pipe: A diffusers pipeline. Its attention processors are in their places again after each step.
        inversion: Of `null_text_invert` or `ddim_invert`.
        target_prompt: For all pictures, or one for each.
        switch: In [0, 1]: how much of the sampling is let go. 0 keeps the picture; by default 0.8 for "switch", 0.6 for
            the others.
        method: "switch", "attention" or "sdedit".
        layout_switch: For "attention", in [0, 1]: likewise for the layout. 1 holds none.
        blend: For "attention": a phrase or several, of either prompt, to whose place the edit is confined. "red house"
            of the source confines a blue one to where the red one stood; for another thing name both.
        weights: For "attention": factors on how strongly the picture is drawn to words of the target prompt.
        lend_padding: For "attention": whether start, end and padding tokens look where those of the source do, as Hertz
            et al. have it. In a causal text encoder the last ones hold the whole prompt.
        guidance_scale: w, at least 1; by default the inversion's own where there is a series, else 3.
        seed: For "sdedit": of the noise, one for all pictures, or one for each.

    Returns:
        An iterator over steps, all but those that "sdedit" leaves out. Arguments are checked at once.

    Raises:
        ValueError: If the inversion is another model's, the target is empty or nothing but the source again, a word is
            in no prompt, an option belongs to another method, or a number lies outside its range.
    """
    inversion.check(pipe)
    settings, count = inversion.settings, len(inversion)
    targets = prompts_for(target_prompt, count)
    weights = dict(weights or {})
    blend = [blend] if isinstance(blend, str) else list(blend)
    if method not in SWITCH:
        raise ValueError(f"expected a method of {', '.join(SWITCH)}, got {method!r}")
    if method != "attention" and (weights or blend):
        raise ValueError(f'blend and weights need attention control: method="attention", not {method!r}')
    check_prompts(settings.prompts, targets, weights)
    switch = SWITCH[method] if switch is None else switch
    for name, share in (("switch", switch), ("layout_switch", layout_switch)):
        if not 0 <= share <= 1:
            raise ValueError(f"expected {name} in [0, 1] (0 holds the picture to the end), got {share}")
    if guidance_scale is None:
        guidance_scale = GUIDANCE if inversion.series is None else settings.guidance_scale
    if not 1 <= guidance_scale < math.inf:
        raise ValueError(f"expected guidance_scale of at least 1 (1 is no guidance), got {guidance_scale}")

    null = embed(pipe, "")[None] if inversion.series is None or method == "sdedit" else inversion.series
    source, target, null, trajectory = (
        x.to(pipe.device, pipe.unet.dtype)
        for x in (embed(pipe, settings.prompts), embed(pipe, targets), null, inversion.trajectory)
    )
    last = pipe.scheduler.config.num_train_timesteps
    task = _Task(
        pipe, trajectory, source, target, null.expand(settings.num_inference_steps, count, -1, -1),
        inversion.series is not None, guidance_scale, switch * last,
    )  # fmt: skip
    if method == "switch":
        return _switch(task)
    if method == "sdedit":
        return _sdedit(task, seed)
    size = tuple(trajectory.shape[-2:])
    control = Control.of(pipe, settings.prompts, targets, size, blend, weights, lend_padding)
    return _attention(task, control, layout_switch * last)


@checked(inversion=INVERSION, word=checks.text)
@oom_hint("looking at attention", "give the inversion of fewer pictures, inversion[i]")
@torch.no_grad()
def word_map(pipe, inversion: Inversion, word: str, every: int = 5) -> list[Image.Image]:
    """Where a word of the prompt is looked at while its picture is drawn: what `edit_text` blends by.

    Attention from pixels to the word's tokens, summed over heads, layers and steps (Hertz et al. 2022).

    Args:
        pipe: A diffusers pipeline.
        inversion: Of the pictures.
        word: A word of their prompts, or several in a row.
        every: Looks at every so-manieth state of the trajectory.

    Returns:
        For each picture the map, as large as its latents: white where the word is looked at most.

    Raises:
        ValueError: If the inversion is another model's, or no prompt has the word.
    """
    inversion.check(pipe)
    prompts = inversion.settings.prompts
    trajectory = inversion.trajectory[1:].to(pipe.device, pipe.unet.dtype)
    control = Control.of(pipe, prompts, prompts, tuple(trajectory.shape[-2:]), [word])
    control.words = control.layout = False
    texts = torch.cat([embed(pipe, prompts)] * 3)
    timesteps = scheduler_for(pipe, len(trajectory)).timesteps.flip(0)
    with lend(pipe.unet, control):
        for x, t in zip(trajectory[::every], timesteps[::every], strict=True):
            pipe.unet(torch.cat([x] * 3), t, encoder_hidden_states=texts)
    return to_pil(control.seen().expand(-1, 3, -1, -1))


def check_prompts(sources: Sequence[str], targets: Sequence[str], weights: Mapping[str, float]) -> None:
    """Raises ValueError if a target is empty or its source again."""
    for source, target in zip(sources, targets, strict=True):
        if not target.strip():
            raise ValueError("the target prompt is empty: say what the edited picture shall show")
        if target.lower().split() == source.lower().split() and not weights:
            raise ValueError(
                f"the target prompt is the source prompt again ({source!r}), so nothing would change: change a word of "
                'it, or give one another weight, method="attention", weights={"word": 2.0}'
            )


def _switch(task: _Task) -> Iterator[Step]:
    def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
        if t > task.limit:
            scale = task.guidance_scale if task.guided else 1
            return guided_noise(task.pipe, x, t, task.source, task.null[index], scale)
        return guided_noise(task.pipe, x, t, task.target, task.null[index], task.guidance_scale)

    return denoise(task.pipe, task.trajectory[-1], noise, task.steps)


def _sdedit(task: _Task, seed: int | Sequence[int]) -> Iterator[Step]:
    def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
        return guided_noise(task.pipe, x, t, task.target, task.null[index], task.guidance_scale)

    timesteps = scheduler_for(task.pipe, task.steps).timesteps
    first = int((timesteps > task.limit).sum())
    if first == task.steps:
        raise ValueError("this switch leaves no step to draw: give a larger one")
    size = (side * task.pipe.vae_scale_factor for side in task.trajectory.shape[-2:])
    fresh = seeded_noise(task.pipe, seed, *size)
    if fresh.ndim == 4 and len(fresh) not in (1, task.trajectory.shape[1]):
        raise ValueError(f"expected one seed, or one for each of {task.trajectory.shape[1]} pictures, got {len(fresh)}")
    fresh = (fresh[None] if fresh.ndim == 3 else fresh).expand_as(task.trajectory[0])
    start = task.pipe.scheduler.add_noise(task.trajectory[0], fresh, timesteps[first])
    return denoise(task.pipe, start, noise, task.steps, first)


def _attention(task: _Task, control: Control, layout_limit: float) -> Iterator[Step]:
    unet = task.pipe.unet

    def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
        control.words, control.layout = bool(t > task.limit), bool(t > layout_limit)
        three = torch.cat([task.trajectory[-1 - index], x, x])
        texts = torch.cat([task.source, task.target, task.null[index]])
        with lend(unet, control):
            _, within, without = unet(three, t, encoder_hidden_states=texts).sample.chunk(3)
        return without + task.guidance_scale * (within - without)

    def settle(index: int, x: Tensor) -> Tensor:
        if not control.blends or index < BLEND_AFTER * task.steps:
            return x
        return torch.where(control.mask(BLEND_THRESHOLD), x, task.trajectory[-2 - index])

    return denoise(task.pipe, task.trajectory[-1], noise, task.steps, settle=settle)
