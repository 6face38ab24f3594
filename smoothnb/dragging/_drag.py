"""Takes points of a picture and drags them to others."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from smoothnb._utils import arguments, checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.console import progress_bar, warn
from smoothnb._utils.memory import spared
from smoothnb._utils.temporarily import frozen
from smoothnb.dragging.features import Eye
from smoothnb.dragging.moving import Move, Way, move
from smoothnb.dragging.options import DragOptions
from smoothnb.dragging.origin import Origin, drawn, inverted
from smoothnb.dragging.picture_lora import knowing_picture
from smoothnb.dragging.reference import self_attention
from smoothnb.dragging.request import PointList, Request
from smoothnb.images import ImageLike, to_rgb
from smoothnb.latents import decode, encode, picture_size
from smoothnb.sampling import embed

AT_A_TIME = 8
"""Pictures on the way that are drawn in one batch."""


@dataclass(frozen=True, eq=False)
class Dragged:
    """A picture whose points were dragged.

    Attributes:
        picture: The picture after.
        paths: Where each handle was found at the start and after each step, in pixels of `picture`.
        losses: Of motion supervision, one for each step.
        reason: Why the optimization stopped: "arrived", "steps" (there were no more of them), "lost" (a handle is like
            nothing near it any more), or "interrupted".
        seconds: By stage: "lora", "inversion", "motion", "sampling".
        frames: Pictures on the way, if asked for, the first before any step, the last `picture`.
        frame_steps: For each of them, after how many steps.
    """

    picture: Image.Image
    paths: Float[Tensor, "state point 2"]
    losses: list[float]
    reason: str
    seconds: dict[str, float]
    frames: list[Image.Image] = field(repr=False)
    frame_steps: list[int] = field(repr=False)


@checked(
    prompt=checks.text,
    options=checks.of(DragOptions, "DragOptions"),
    guidance_scale=checks.number(),
    handles=checks.several,
    targets=checks.several,
)
@spared("dragging", "set options with lora_steps=0, fewer frames, or one block")
def drag(
    pipe,
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
    """Drags points of a picture to where they are wanted, in the framework of DragDiffusion (Shi et al. 2023).

    The picture is inverted (DDIM) up to a middling t, and that one noisy latent is changed until the features of the
    UNet around each handle are found at its target: motion supervision pulls them there, a stride at a time, and point
    tracking tells how far they have come. Sampling then makes a picture of it, with the keys and values of
    self-attention taken from the picture before, so that details stay.

    Everything that is attached to the pipeline is taken off afterwards, whatever happens. Interrupted (Ctrl-C), the
    optimization ends with the best that it has, and that is drawn; a drawing that is interrupted ends with what the
    model sees by then.

    Args:
        pipe: A diffusers pipeline.
        image: A picture, as `encode` takes it; None for a generated one, see `latents`.
        prompt: What is on it.
        handles: Points (x, y) to drag, in pixels of the picture that is given.
        targets: Where to, one for each.
        mask: As large as the picture; white where it may change. By default everywhere.
        options: Settings; `DRAG_DIFFUSION` has those published.
        latents: The starting noise of a generated picture, in place of `image`. Points are then in pixels of what is
            drawn from it.
        guidance_scale: w that it is drawn with; 1 for other pictures.
        height: To resize the picture to before it is dragged, in pixels; the model's own by default.
        width: To resize the picture to, in pixels; the model's own by default.
        frames: How many pictures on the way to draw, evenly over the steps: none, or at least 2. They are fewer where
            there are fewer steps.
        callback: Called at the start and after each step with its number and the distance left, in pixels. If it raises
            KeyboardInterrupt, that is as good as Ctrl-C.
        progress: Whether to show progress bars, with the distance left.

    Returns:
        The picture, and how it came about.

    Raises:
        ValueError: If points, mask or options are not as described, each named.
        FloatingPointError: If a gradient or a latent is not finite.
    """
    if (image is None) == (latents is None):
        raise ValueError("expected either a picture or the latents of a generated one (then image=None)")
    if not guidance_scale >= 1 or (image is not None and guidance_scale != 1):
        raise ValueError(
            "expected guidance_scale of at least 1 for a generated picture, and 1 for others, as they are inverted and "
            f"drawn without guidance; got {guidance_scale}"
        )
    if frames < 0 or frames == 1:
        raise ValueError(f"expected frames of 0 or at least 2, got {frames}")
    arguments.steps("num_inference_steps", options.num_inference_steps, pipe)
    blocks, layers = len(pipe.unet.up_blocks), len(self_attention(pipe.unet))
    if not all(-blocks <= block < blocks for block in options.blocks):
        raise ValueError(f"expected blocks from {-blocks} to {blocks - 1}, as the UNet has them, got {options.blocks}")
    if options.reference_layer is not None and not 0 <= options.reference_layer < layers:
        raise ValueError(f"expected reference_layer from 0 to {layers - 1}, got {options.reference_layer}")
    if latents is not None:
        latents = latents[None] if latents.ndim == 3 else latents
        if len(latents) != 1:
            raise ValueError(f"expected the latents of one picture, got those of {len(latents)}")
        size = given = tuple(side * pipe.vae_scale_factor for side in latents.shape[-2:])
    else:
        image = to_rgb(image)
        size, given = picture_size(pipe, height, width), image.size[::-1]
    request = Request.of(handles, targets, mask, given, size)
    cells = request.cells(*(side // pipe.vae_scale_factor for side in size)).to(pipe.device)
    points = (request.handles[None].to(pipe.device), request.targets[None].to(pipe.device))
    way = Way.of(*points, cells, size, options)
    texts, empty = embed(pipe, prompt), embed(pipe, "")
    eye = Eye(pipe, options.blocks, texts, size, options.standardize)

    clean = None if image is None else encode(pipe, image, *size).float()

    def states() -> list[Tensor]:
        if clean is not None:
            return inverted(pipe, clean, texts, options, progress)
        return drawn(pipe, latents, texts, guidance_scale, options, progress)

    seconds: dict[str, float] = {}
    with frozen(pipe.unet), ExitStack() as attached:
        with _timed("lora", seconds):
            if options.lora_steps:
                known = states()[0] if clean is None else clean
                attached.enter_context(knowing_picture(pipe, known, texts, options, progress))
        with _timed("inversion", seconds):
            origin = Origin(pipe, options, texts, empty, guidance_scale, states())
        with _timed("motion", seconds):
            moves, reason = _optimize(origin, eye, way, callback, progress)
        sure = [number for number, found in enumerate(moves) if not found.lost]
        best = min(sure, key=lambda number: way.left(moves[number].handles).mean().item())
        steps = sorted({round(best * i / (frames - 1)) for i in range(frames)} if frames else {best})
        goals = [moves[step].handles for step in steps]
        if reason != "interrupted":
            goals[-1] = way.targets
        with _timed("sampling", seconds):
            pictures = []
            for start in range(0, len(steps), AT_A_TIME):
                part = slice(start, start + AT_A_TIME)
                found = torch.cat([moves[step].latents for step in steps[part]])
                pictures += decode(pipe, origin.draw(eye, way, found, torch.cat(goals[part])))
    return Dragged(
        pictures[-1], torch.cat([found.handles for found in moves]).cpu(), [found.loss for found in moves[1:]],
        reason, seconds, pictures if frames else [], steps if frames else [],
    )  # fmt: skip


def _optimize(
    origin: Origin, eye: Eye, way: Way, callback: Callable[[int, float], None] | None, progress: bool
) -> tuple[list[Move], str]:
    """Every step of the optimization, and why it stopped."""
    most = origin.options.max_steps
    moves: list[Move] = []
    with progress_bar(most, "dragging", progress) as bar:
        try:
            for found in move(eye, origin.states[-1], origin.timesteps[origin.first], way, origin.step):
                moves.append(found)
                left = way.left(found.handles)
                bar.set_postfix(left=f"{left.max().item():.0f} px")
                bar.update(len(moves) > 1)
                if callback:
                    callback(len(moves) - 1, left.max().item())
                if (left <= way.arrival).all():
                    return moves, "arrived"
                if found.lost:
                    return moves, "lost"
                if len(moves) > most:
                    return moves, "steps"
        except KeyboardInterrupt:
            moves = moves or [Move(origin.states[-1], way.handles)]
            warn(f"interrupted after {len(moves) - 1} steps: the best so far is drawn")
    return moves, "interrupted"


@contextmanager
def _timed(stage: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
