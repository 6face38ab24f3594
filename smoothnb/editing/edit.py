"""Text editing: prompt switching (the paper's method), attention control, and SDEdit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import at_least, within
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline
from smoothnb.editing.attention import Control, lend
from smoothnb.images import to_pil
from smoothnb.inversion.inversion import Inversion, prompts_for
from smoothnb.latents import Seeds, seeded_noise
from smoothnb.models.parts import device_of, recommended_guidance, uncompiled
from smoothnb.sampling import Step, denoise, embed, guided_noise, scheduler_for

SWITCH = {"switch": 0.8, "attention": 0.6, "sdedit": 0.6}
"""The methods, and their default `switch`."""
GUIDANCE = 3.0
"""Default guidance scale for inversions without one; low, so that the picture is preserved."""
BLEND_AFTER, BLEND_THRESHOLD = 0.2, 0.5
"""Fraction of the steps before the mask is used, as early attention is vague; and the mask's threshold, relative to
the maximum."""


@dataclass(frozen=True)
class _Task:
    """Inputs of an edit, in the UNet's type.

    Attributes:
        trajectory: x̃_0 … x̃_T.
        source, target: Embeddings of the prompts, one for each picture.
        null: Unconditional embeddings, for each step and picture.
        guided: Whether the source prompt is guided too, which a null-text series requires.
        limit: t at which the switch happens.
    """

    pipe: Pipeline
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


def edit_text(
    pipe: Pipeline,
    inversion: Inversion,
    target_prompt: str | Sequence[str],
    switch: float | None = None,
    method: str = "switch",
    layout_switch: float = 0.3,
    blend: str | Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
    lend_padding: bool = False,
    guidance_scale: float | None = None,
    seed: Seeds = 0,
) -> Iterator[Step]:
    """Edits pictures by drawing them again from their inversion with another prompt; yields every step.

    `finish` runs the steps and decodes the pictures: `finish(pipe, edit_text(pipe, inversion, "a blue house"))`.

    The methods differ in what preserves the picture until t = switch · T:

    - "switch" (Guo et al. 2024): sampling uses the source prompt until then, and the target prompt afterwards.
    - "attention" (Hertz et al. 2022): sampling uses the target prompt throughout. Until then its words take the
      cross-attention maps of the matching words of the source prompt, and until t = layout_switch · T self-attention
      maps are those of the source. The source comes from the inversion's trajectory, so it is exact. With `blend`,
      everything outside the region of some words is restored from the trajectory after each step.
    - "sdedit" (Meng et al. 2022): sampling starts at that t, from the picture with fresh noise.

    A null-text series replaces the unconditional embeddings, at the guidance scale that it was made for. As it
    reproduces the source at that scale, a lower scale such as 2 or 3 often gives a gentler edit. Without a series, the
    source prompt is not guided, as it was inverted without guidance, and the target is guided against the empty prompt.

    Args:
        pipe: A diffusers pipeline. Its attention processors are restored after each step.
        inversion: Result of `null_text_invert` or `ddim_invert`.
        target_prompt: One prompt for all pictures, or one for each.
        switch: In [0, 1]: the fraction of the sampling that is free to change. 0 keeps the picture; by default 0.8 for
            "switch", 0.6 for the others.
        method: "switch", "attention" or "sdedit".
        layout_switch: For "attention", in [0, 1]: the same for the layout; 1 does not preserve it at all.
        blend: For "attention": one or several phrases of either prompt to whose region the edit is confined. "red
            house" of the source confines a blue house to the place of the red one; to replace a thing, name both.
        weights: For "attention": factors on the attention to words of the target prompt.
        lend_padding: For "attention": whether the maps of start, end and padding tokens are replaced too, as in Hertz
            et al. In a causal text encoder the last tokens summarize the whole prompt.
        guidance_scale: w, at least 1; by default that of the inversion's series, else 3.
        seed: For "sdedit": seed of the noise, one for all pictures, or one for each.

    Returns:
        An iterator over steps, for "sdedit" from its first one on. Arguments are checked when the function is called.

    Raises:
        ValueError: If the inversion belongs to another model, the target prompt is empty or equal to the source, a word
            is in neither prompt, an option belongs to another method, or a number is out of range.
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
    within(0, 1, switch=switch, layout_switch=layout_switch)
    if guidance_scale is None:
        guidance_scale = GUIDANCE if inversion.series is None else settings.guidance_scale
    guidance_scale = recommended_guidance(pipe, guidance_scale)

    null = embed(pipe, "")[None] if inversion.series is None or method == "sdedit" else inversion.series
    source, target, null, trajectory = (
        x.to(device_of(pipe), pipe.unet.dtype)
        for x in (embed(pipe, settings.prompts), embed(pipe, targets), null, inversion.trajectory)
    )
    last = len(pipe.scheduler.alphas_cumprod)
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


@oom_hint("collecting attention maps", "give the inversion of fewer pictures, inversion[i]")
@torch.no_grad()
@uncompiled
def word_map(pipe: Pipeline, inversion: Inversion, word: str, every: int = 5) -> list[Image.Image]:
    """Maps the attention from pixels to a word of the prompt, which `edit_text` blends by.

    Attention to the word's tokens is summed over heads, layers and steps (Hertz et al. 2022).

    Args:
        pipe: A diffusers pipeline.
        inversion: Inversion of the pictures.
        word: A word of their prompts, or several consecutive ones.
        every: Uses every n-th state of the trajectory.

    Returns:
        One map for each picture, as large as its latents: white where attention is strongest.

    Raises:
        ValueError: If the inversion belongs to another model, or no prompt has the word.
    """
    inversion.check(pipe)
    at_least(1, every=every)
    prompts = inversion.settings.prompts
    trajectory = inversion.trajectory[1:].to(device_of(pipe), pipe.unet.dtype)
    control = Control.of(pipe, prompts, prompts, tuple(trajectory.shape[-2:]), [word])
    control.words = control.layout = False
    texts = torch.cat([embed(pipe, prompts)] * 3)
    timesteps = scheduler_for(pipe, len(trajectory)).timesteps.flip(0)
    with lend(pipe.unet, control):
        for x, t in zip(trajectory[::every], timesteps[::every], strict=True):
            pipe.unet(torch.cat([x] * 3), t, encoder_hidden_states=texts)
    return to_pil(control.seen().expand(-1, 3, -1, -1))


def check_prompts(sources: Sequence[str], targets: Sequence[str], weights: Mapping[str, float]) -> None:
    """Raises ValueError if a target is empty or equal to its source."""
    for source, target in zip(sources, targets, strict=True):
        if not target.strip():
            raise ValueError("the target prompt is empty: describe the edited picture")
        if target.lower().split() == source.lower().split() and not weights:
            raise ValueError(
                f"the target prompt is equal to the source prompt ({source!r}), so nothing would change: change a word "
                'of it, or give one another weight, method="attention", weights={"word": 2.0}'
            )


def _switch(task: _Task) -> Iterator[Step]:
    def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
        if t > task.limit:
            scale = task.guidance_scale if task.guided else 1
            return guided_noise(task.pipe, x, t, task.source, task.null[index], scale)
        return guided_noise(task.pipe, x, t, task.target, task.null[index], task.guidance_scale)

    return denoise(task.pipe, task.trajectory[-1], noise, task.steps)


def _sdedit(task: _Task, seed: Seeds) -> Iterator[Step]:
    def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
        return guided_noise(task.pipe, x, t, task.target, task.null[index], task.guidance_scale)

    scheduler = scheduler_for(task.pipe, task.steps)
    timesteps = scheduler.timesteps
    first = int((timesteps > task.limit).sum())
    if first == task.steps:
        raise ValueError("this switch leaves no step to draw: use a larger one")
    size = (side * task.pipe.vae_scale_factor for side in task.trajectory.shape[-2:])
    fresh = seeded_noise(task.pipe, seed, *size)
    if fresh.ndim == 4 and len(fresh) not in (1, task.trajectory.shape[1]):
        raise ValueError(f"expected one seed, or one for each of {task.trajectory.shape[1]} pictures, got {len(fresh)}")
    fresh = (fresh[None] if fresh.ndim == 3 else fresh).expand_as(task.trajectory[0])
    start = scheduler_for(task.pipe, task.steps).add_noise(task.trajectory[0], fresh, timesteps[first])
    return denoise(task.pipe, start, noise, task.steps, first)


def _attention(task: _Task, control: Control, layout_limit: float) -> Iterator[Step]:
    unet = getattr(task.pipe.unet, "_orig_mod", task.pipe.unet)

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
