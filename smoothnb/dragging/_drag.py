"""Drag editing: moves points of a picture to target positions."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils.checks import PointList
from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.memory import oom_hint
from smoothnb._utils.pipeline import Pipeline, check_latents, check_pipeline
from smoothnb._utils.temporarily import frozen
from smoothnb.dragging.features import FeatureExtractor
from smoothnb.dragging.moving import DragState, DragTask, optimize
from smoothnb.dragging.options import DragOptions
from smoothnb.dragging.picture_lora import picture_lora
from smoothnb.dragging.request import Request
from smoothnb.dragging.source import Source, inverted_states, sampled_states
from smoothnb.images import ImageLike, to_rgb
from smoothnb.latents import decode, encode, picture_size
from smoothnb.models.parts import uncompiled
from smoothnb.sampling import embed

DRAW_BATCH = 8
"""Number of intermediate pictures that are sampled in one batch."""


@dataclass(frozen=True, eq=False)
class Dragged:
    """Result of `drag`.

    Attributes:
        picture: The edited picture.
        paths: Tracked position of each handle at the start and after each step, in pixels of `picture`.
        losses: Motion supervision loss of each step.
        reason: Why the optimization stopped: "arrived", "steps" (it reached `max_steps`), "lost" (nothing near a handle
            resembles it any more), or "interrupted".
        seconds: Time of each stage: "lora", "inversion", "motion", "sampling".
        frames: Intermediate pictures if requested: the first is before any step, the last is `picture`.
        frame_steps: Number of optimization steps before each frame.
    """

    picture: Image.Image
    paths: Float[Tensor, "state point 2"]
    losses: list[float]
    reason: str
    seconds: dict[str, float]
    frames: list[Image.Image] = field(repr=False)
    frame_steps: list[int] = field(repr=False)


@oom_hint("dragging", "give options with lora_steps=0, fewer frames, or a single block")
@uncompiled
def drag(
    pipe: Pipeline,
    image: ImageLike | None,
    prompt: str,
    handles: PointList,
    targets: PointList,
    mask: ImageLike | None = None,
    options: DragOptions = DragOptions(),  # noqa: B008 (it is frozen)
    latents: Float[Tensor, "*one channel height width"] | None = None,
    guidance_scale: float = 1.0,
    height: int | None = None,
    width: int | None = None,
    frames: int = 0,
    callback: Callable[[int, float], None] | None = None,
    progress: bool = True,
) -> Dragged:
    """Drags points of a picture to target positions, following DragDiffusion (Shi et al. 2023).

    DDIM inversion takes the picture to a noisy latent at an intermediate timestep t. Motion supervision changes this
    latent, one stride at a time, until the UNet's features around each handle appear at its target; point tracking
    measures the progress. The result is sampled from the latent, with keys and values of self-attention taken from the
    source picture to preserve its details.

    The pipeline is left as it was, after errors too. On Ctrl-C the optimization stops and the best state so far is
    drawn; Ctrl-C during sampling returns the model's estimate of the picture at that step.

    Args:
        pipe: A diffusers pipeline.
        image: The picture, in any form that `encode` takes; None to drag in a generated picture, see `latents`.
        prompt: A description of the picture.
        handles: Points (x, y) to drag, in pixels of the given picture.
        targets: One target for each handle.
        mask: A picture of the same size: white and opaque where the picture may change, black or transparent where it
            may not. By default it may change everywhere.
        options: Settings; `DRAG_DIFFUSION` holds the published ones.
        latents: Starting noise of a generated picture, instead of `image`. Points are then in pixels of the picture
            that is drawn from it.
        guidance_scale: w with which the generated picture is drawn; must be 1 for other pictures.
        height: Height to resize the picture to before the drag, in pixels; by default the model's own.
        width: Width to resize the picture to, in pixels; by default the model's own.
        frames: Number of intermediate pictures to draw, spread evenly over the steps: 0, or at least 2. There are fewer
            if there are fewer steps.
        callback: Called at the start and after each step with the number of steps and the largest remaining distance
            in pixels. It can raise KeyboardInterrupt to stop, like Ctrl-C.
        progress: Whether to show progress bars.

    Returns:
        The edited picture, with the paths of its handles, losses and times.

    Raises:
        ValueError: If points, mask or options are invalid.
        FloatingPointError: If a gradient or a latent is not finite.
    """
    check_pipeline(pipe)
    if (image is None) == (latents is None):
        raise ValueError("expected either a picture, or image=None and the latents of a generated one")
    if not 1 <= guidance_scale < math.inf or (image is not None and guidance_scale != 1):
        raise ValueError(
            "expected guidance_scale of at least 1 for a generated picture, and 1 for others, which are inverted and "
            f"drawn without guidance; got {guidance_scale}"
        )
    if frames < 0 or frames == 1:
        raise ValueError(f"expected frames of 0 or at least 2, got {frames}")
    if latents is not None:
        check_latents(pipe, latents)
        latents = latents[None] if latents.ndim == 3 else latents
        if len(latents) != 1:
            raise ValueError(f"expected the latents of one picture, got those of {len(latents)}")
        size = given = tuple(side * pipe.vae_scale_factor for side in latents.shape[-2:])
    else:
        image = to_rgb(image)
        size, given = picture_size(pipe, height, width), image.size[::-1]
    options = options.resolved(pipe, size)
    task = Request.of(handles, targets, mask, given, size).task(pipe, options)
    texts, empty = embed(pipe, prompt), embed(pipe, "")
    extract = FeatureExtractor(pipe, options.blocks, texts, size, options.standardize)
    clean = None if image is None else encode(pipe, image, *size).float()

    def states() -> list[Tensor]:
        if clean is not None:
            return inverted_states(pipe, clean, texts, options, progress)
        return sampled_states(pipe, latents, texts, guidance_scale, options, progress)

    seconds: dict[str, float] = {}
    with frozen(pipe.unet), ExitStack() as stack:
        with _timed("lora", seconds):
            if options.lora_steps:
                x0 = states()[0] if clean is None else clean
                stack.enter_context(picture_lora(pipe, x0, texts, options, progress))
        with _timed("inversion", seconds):
            source = Source(pipe, options, texts, empty, guidance_scale, states())
        with _timed("motion", seconds):
            steps, reason = _optimize(source, extract, task, callback, progress)
        tracked = [number for number, state in enumerate(steps) if not state.lost]
        best = min(tracked, key=lambda number: task.distances(steps[number].handles).mean().item())
        shown = sorted({round(best * i / (frames - 1)) for i in range(frames)} if frames else {best})
        goals = [steps[number].handles for number in shown]
        if reason != "interrupted":
            goals[-1] = task.targets
        with _timed("sampling", seconds):
            pictures = []
            for start in range(0, len(shown), DRAW_BATCH):
                batch = slice(start, start + DRAW_BATCH)
                x = torch.cat([steps[number].latents for number in shown[batch]])
                pictures += decode(pipe, source.draw(extract, task, x, torch.cat(goals[batch])))
    return Dragged(
        pictures[-1], torch.cat([state.handles for state in steps]).cpu(), [state.loss for state in steps[1:]],
        reason, seconds, pictures if frames else [], shown if frames else [],
    )  # fmt: skip


def _optimize(
    source: Source,
    extract: FeatureExtractor,
    task: DragTask,
    callback: Callable[[int, float], None] | None,
    progress: bool,
) -> tuple[list[DragState], str]:
    """All states of the optimization, and why it stopped."""
    steps: list[DragState] = []
    with progress_bar(task.options.max_steps, "dragging", progress) as bar:
        try:
            for state in optimize(extract, source.states[-1], source.timestep, task, source.step):
                steps.append(state)
                distances = task.distances(state.handles)
                bar.set_postfix(left=f"{distances.max().item():.0f} px")
                bar.update(len(steps) > 1)
                if callback:
                    callback(len(steps) - 1, distances.max().item())
                if (distances <= task.options.arrival).all():
                    return steps, "arrived"
                if state.lost:
                    return steps, "lost"
                if len(steps) > task.options.max_steps:
                    return steps, "steps"
        except KeyboardInterrupt:
            steps = steps or [DragState(source.states[-1], task.handles)]
            warn(f"interrupted after {len(steps) - 1} steps: the best so far is drawn")
    return steps, "interrupted"


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
