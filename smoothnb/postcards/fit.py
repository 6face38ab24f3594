"""The loop that trains each part of the postcard model: seeded, resumable, with an average of the weights."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from smoothnb.training.checkpoints import load_checkpoint, save_atomically


def warmup_cosine(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: up in a line, then down to zero along half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    model: nn.Module,
    loss: Callable[[torch.Generator, int], Tensor],
    *,
    steps: int,
    optimizers: Sequence[torch.optim.Optimizer],
    warmup: int = 50,
    ema_decay: float = 0.999,
    seed: int = 0,
    checkpoint: Path,
    save_every: int = 250,
    on_save: Callable[[int], None] | None = None,
) -> None:
    """Trains a model in place; afterwards it holds the average of its weights.

    A run that was stopped goes on from its last checkpoint. Each step draws from a generator seeded by
    (seed, step), so a resumed run sees the data that an unbroken one would have seen.

    Args:
        model: What to train.
        loss: Draws a batch with the generator it is given, for the step it is given, and returns a scalar.
        steps: Length of the whole run, from its very start.
        optimizers: Each with its learning rate at its height.
        warmup: Steps over which the learning rates rise.
        ema_decay: Decay of the running average of the weights (diffusers' `EMAModel`, with its warm-up).
        seed: Of the data.
        checkpoint: File that holds the state of the run.
        save_every: Steps between checkpoints.
        on_save: Called after each checkpoint with the step, while the model holds the averaged weights: the place
            for a contact sheet.

    Raises:
        FloatingPointError: If the loss is no longer finite; the last checkpoint stays as it is.
    """
    heights = [o.param_groups[0]["lr"] for o in optimizers]
    ema = EMAModel(model.parameters(), decay=ema_decay, use_ema_warmup=True, power=3 / 4)
    start = 0
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        ema.load_state_dict(state["ema"])
        start = state["step"]
    ema.to(next(model.parameters()).device)
    generator = torch.Generator()
    running = None
    with tqdm(range(start, steps), initial=start, total=steps, mininterval=2) as bar:
        for step in bar:
            generator.manual_seed(seed * 1_000_003 + step)
            for optimizer, height in zip(optimizers, heights, strict=True):
                optimizer.param_groups[0]["lr"] = height * warmup_cosine(step, steps, warmup)
            value = loss(generator, step)
            if not torch.isfinite(value):
                raise FloatingPointError(
                    f"the loss is {value.item()} at step {step}, learning rates "
                    f"{[o.param_groups[0]['lr'] for o in optimizers]}; the last good checkpoint is {checkpoint}: start "
                    "again from it with lower learning rates"
                )
            model.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.step()
            ema.step(model.parameters())
            running = value.item() if running is None else 0.95 * running + 0.05 * value.item()
            bar.set_postfix(loss=f"{running:.4f}", refresh=False)
            if (step + 1) % save_every == 0 or step + 1 == steps:
                state = {"model": model.state_dict(), "ema": ema.state_dict(), "step": step + 1}
                save_atomically(state | {"optimizers": [o.state_dict() for o in optimizers]}, checkpoint)
                if on_save is not None:
                    ema.store(model.parameters())
                    ema.copy_to(model.parameters())
                    on_save(step + 1)
                    ema.restore(model.parameters())
    ema.copy_to(model.parameters())
