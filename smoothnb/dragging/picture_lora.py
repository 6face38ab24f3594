"""A LoRA fitted to one picture, which preserves its details in an edit (Shi et al. 2023)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from smoothnb._utils.console import progress_bar
from smoothnb._utils.pipeline import Pipeline
from smoothnb.dragging.options import DragOptions
from smoothnb.models.lora import stacked_lora
from smoothnb.schedule import Schedule

NAME = "picture"
"""Name of the adapter."""
BATCH = 4
"""Noise samples per training step, as published."""


@contextmanager
def picture_lora(
    pipe: Pipeline, x0: Tensor, embeds: Tensor, options: DragOptions, progress: bool = True
) -> Iterator[None]:
    """Temporarily adds a LoRA that is trained on one picture, on top of the smooth LoRA if there is one.

    The loss is Eq. 2 of the supplement, unweighted, as in DragDiffusion.

    Args:
        pipe: A diffusers pipeline.
        x0: Latents of the picture, a batch of one.
        embeds: Embedding of its prompt.
        options: Steps, rank, learning rate and seed.
        progress: Whether to show a progress bar.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        with stacked_lora(pipe.unet, options.lora_rank, NAME) as weights:
            _train(pipe, weights, x0, embeds, options, progress)
            yield


def _train(
    pipe: Pipeline, weights: list[nn.Parameter], x0: Tensor, embeds: Tensor, options: DragOptions, progress: bool
) -> None:
    unet, schedule, dtype = pipe.unet, Schedule.of(pipe.scheduler), pipe.unet.dtype
    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.Adam(weights, lr=options.lora_learning_rate)
    shape = (BATCH, *x0.shape[1:])
    x0, embeds = x0.expand(shape), embeds.to(dtype).expand(BATCH, -1, -1)
    with torch.enable_grad(), progress_bar(options.lora_steps, "LoRA of the picture", progress) as bar:
        for _ in range(options.lora_steps):
            noise = torch.randn(shape, generator=generator, dtype=torch.float32).to(x0.device)
            t = torch.randint(len(schedule), (BATCH,), generator=generator).to(x0.device)
            x = schedule.add_noise(x0, noise, t)
            prediction = unet(x.to(dtype), t, encoder_hidden_states=embeds).sample.float()
            # Summed over pixels, as gradients of the mean underflow in float16; Adam is invariant to the factor.
            loss = (prediction - schedule.target(x0, noise, t)).square().flatten(1).sum(1).mean()
            if not torch.isfinite(loss):
                raise FloatingPointError("training the picture's LoRA diverged: lower lora_learning_rate")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            bar.update()
    for weight in weights:
        weight.requires_grad_(False)
