"""The source picture of a drag: the sampler's states on the way to it, and sampling of its edits."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.pipeline import Pipeline
from smoothnb.dragging.features import FeatureExtractor, Points
from smoothnb.dragging.moving import DragTask, supervise
from smoothnb.dragging.options import DragOptions
from smoothnb.dragging.reference import reference_attention
from smoothnb.inversion.ddim import ddim_inverse_steps
from smoothnb.models.parts import device_of
from smoothnb.sampling import denoise, guided_noise, sample, scheduler_for


@dataclass(frozen=True, eq=False)
class Source:
    """The source picture as states of the sampler.

    Attributes:
        pipe: A diffusers pipeline.
        options: Options of the drag.
        texts, empty: Embeddings of the prompt and of the empty prompt.
        guidance_scale: w; 1 is no guidance.
        states: x_0 … x_t in float32, where t is the timestep of the optimization.
    """

    pipe: Pipeline
    options: DragOptions
    texts: Tensor
    empty: Tensor
    guidance_scale: float
    states: list[Tensor]

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheduler", scheduler_for(self.pipe, self.options.num_inference_steps))

    @property
    def first(self) -> int:
        """Index of the sampling step that starts from x_t."""
        return self.options.num_inference_steps - self.options.steps_from_noise

    @property
    def timestep(self) -> Tensor:
        """t of the optimization."""
        return self.scheduler.timesteps[self.first]

    def step(self, prediction: Tensor, x: Tensor) -> Tensor:
        """The sampler's step from x_t and the prediction there to x_{t-1}."""
        return self.scheduler.step(prediction, self.timestep, x).prev_sample

    def state(self, index: int) -> Tensor:
        """The state that sampling step `index` starts from."""
        return self.states[self.options.num_inference_steps - index]

    @torch.no_grad()
    def draw(self, extract: FeatureExtractor, task: DragTask, latents: Tensor, goals: Points) -> Tensor:
        """Samples from latents at t with reference attention, the mask, and continued supervision.

        Args:
            extract: The feature extractor.
            task: Points, mask and options.
            latents: In float32, one or several.
            goals: Final positions of the handles for each of them.

        Returns:
            Clean latents.
        """
        options, unet, timesteps = self.options, self.pipe.unet, self.scheduler.timesteps
        texts = self.texts.expand(1 + len(latents), -1, -1)

        def noise(index: int, t: Tensor, x: Tensor) -> Tensor:
            both = torch.cat([self.state(index), x]).to(unet.dtype)
            groups = 1 if self.guidance_scale == 1 else 2
            attention = reference_attention(unet, groups, options.reference_layer)
            with attention if options.reference_attention else nullcontext():
                return guided_noise(self.pipe, both, t, texts, self.empty, self.guidance_scale)[1:].float()

        def supervised(index: int, x: Tensor) -> Tensor:
            if index - self.first >= round(options.follow * options.num_inference_steps) or index >= len(timesteps):
                return x
            return supervise(extract, self.state(index), x, timesteps[index], task, goals)

        def settle(index: int, x: Tensor) -> Tensor:
            kept = torch.where(task.mask > 0, x, self.state(index + 1)) if options.keep == "exact" else x
            return supervised(index + 1, kept)

        x = supervised(self.first, latents)
        step = None
        try:
            for step in denoise(self.pipe, x, noise, options.num_inference_steps, self.first, settle):
                x = step.latents
        except KeyboardInterrupt:
            if step is None:
                raise
            warn("interrupted while sampling: the picture is the model's estimate at the last step")
            return step.x0
        return x


def inverted_states(pipe: Pipeline, clean: Tensor, texts: Tensor, options: DragOptions, progress: bool) -> list[Tensor]:
    """x_0 … x_t of a picture, by DDIM inversion."""
    states = ddim_inverse_steps(pipe, clean, texts, options.num_inference_steps)
    return [clean, *_collect(states, options.steps_from_noise, progress)]


def sampled_states(
    pipe: Pipeline, noise: Tensor, texts: Tensor, guidance_scale: float, options: DragOptions, progress: bool
) -> list[Tensor]:
    """x_0 … x_t of a generated picture, by sampling it again from its noise."""
    steps = options.num_inference_steps
    start = noise.to(device_of(pipe)).float()
    states = (step.latents.float() for step in sample(pipe, texts, noise, 0, steps, guidance_scale))
    return [start, *_collect(states, steps, progress)][::-1][: options.steps_from_noise + 1]


def _collect(states: Iterator[Tensor], count: int, progress: bool) -> Iterator[Tensor]:
    with progress_bar(count, "inverting", progress) as bar:
        for x in islice(states, count):
            bar.update()
            yield x
