"""Where a drag begins: the picture before, and the noisy latents on the way to it."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from smoothnb._utils.console import progress_bar, warn
from smoothnb.dragging.features import Eye, Points
from smoothnb.dragging.moving import Way, follow
from smoothnb.dragging.options import DragOptions
from smoothnb.dragging.reference import refer
from smoothnb.inversion.inversion import climb
from smoothnb.sampling import denoise, guided_noise, sample, scheduler_for


@dataclass(frozen=True, eq=False)
class Origin:
    """The picture before, as states of the sampler; and how others are drawn beside it.

    Attributes:
        pipe: A diffusers pipeline.
        options: Of the drag.
        texts, empty: Embeddings of the prompt, and of the empty one.
        guidance_scale: w; 1 is no guidance.
        states: x_0 … x_t in float32, t being where the drag takes place.
    """

    pipe: object
    options: DragOptions
    texts: Tensor
    empty: Tensor
    guidance_scale: float
    states: list[Tensor]

    def step(self, prediction: Tensor, x: Tensor) -> Tensor:
        """From x_t and what is predicted there to x_{t-1}."""
        return self._scheduler.step(prediction, self.timesteps[self.first], x).prev_sample

    @property
    def timesteps(self) -> Tensor:
        """t of each of the sampler's steps, falling."""
        return self._scheduler.timesteps

    @cached_property
    def _scheduler(self):
        return scheduler_for(self.pipe, self.options.num_inference_steps)

    @property
    def first(self) -> int:
        """Index of the step that leads on from x_t."""
        return self.options.num_inference_steps - self.options.count

    def state(self, index: int) -> Tensor:
        """x that step `index` starts from."""
        return self.states[self.options.num_inference_steps - index]

    @torch.no_grad()
    def draw(self, eye: Eye, way: Way, latents: Tensor, goals: Points) -> Tensor:
        """Samples from latents at t, with reference attention, the mask, and supervision that goes on.

        Args:
            eye: Looks at latents.
            way: How handles are moved.
            latents: In float32, one or several.
            goals: For each, where its handles are to be.

        Returns:
            Their clean latents.
        """
        options, unet, timesteps = self.options, self.pipe.unet, self.timesteps
        texts = self.texts.expand(1 + len(latents), -1, -1)

        def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
            both = torch.cat([self.pipe.scheduler.scale_model_input(self.state(index), t), x]).to(unet.dtype)
            groups = 1 if self.guidance_scale == 1 else 2
            with refer(unet, groups, options.reference_layer) if options.reference_attention else nullcontext():
                return guided_noise(self.pipe, both, t, texts, self.empty, self.guidance_scale)[1:].float()

        def supervised(index: int, x: Tensor) -> Tensor:
            if index - self.first >= round(options.follow * options.num_inference_steps) or index >= len(timesteps):
                return x
            return follow(eye, self.state(index), x, timesteps[index], way, goals)

        def settle(index: int, x: Tensor) -> Tensor:
            kept = torch.where(way.mask > 0, x, self.state(index + 1)) if way.penalty is None else x
            return supervised(index + 1, kept)

        x = supervised(self.first, latents)
        step = None
        try:
            for step in denoise(self.pipe, x, noise, options.num_inference_steps, self.first, settle):
                x = step.latents
        except KeyboardInterrupt:
            if step is None:
                raise
            warn("interrupted while sampling: the picture is what the model saw by then")
            return step.x0
        return x


def inverted(pipe, clean: Tensor, texts: Tensor, options: DragOptions, progress: bool) -> list[Tensor]:
    """x_0 … x_t of a picture, by DDIM inversion."""
    return _collect([clean], climb(pipe, clean, texts, options.num_inference_steps), options.count, progress)


def drawn(
    pipe, noise: Tensor, texts: Tensor, guidance_scale: float, options: DragOptions, progress: bool
) -> list[Tensor]:
    """x_0 … x_t of a generated picture, by drawing it from its noise."""
    steps = options.num_inference_steps
    start = noise.to(pipe.device).float() * pipe.scheduler.init_noise_sigma
    states = (step.latents.float() for step in sample(pipe, texts, noise, 0, steps, guidance_scale))
    return _collect([start], states, steps, progress)[::-1][: options.count + 1]


def _collect(states: list[Tensor], more: Iterator[Tensor], count: int, progress: bool) -> list[Tensor]:
    with progress_bar(count, "finding the way to the picture", progress) as bar:
        for x in islice(more, count):
            states.append(x)
            bar.update()
    return states
