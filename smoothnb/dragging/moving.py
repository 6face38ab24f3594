"""The optimization of one noisy latent: motion supervision and point tracking in turn (Shi et al. 2023)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothnb.dragging.features import Eye, Look, Points
from smoothnb.dragging.motion import Offsets, around, next_places, patch, supervision, track
from smoothnb.dragging.options import SHARES, DragOptions

GRADIENT_SCALES = (2.0**10, 1.0, 2.0**-10)
"""Factors on losses, for the backward pass alone, each tried where the one before overflows: in float16 small gradients
vanish and large ones are infinite. Gradients are as large as under the first. Other types need no second one."""


@dataclass(frozen=True, eq=False)
class Way:
    """How handles are moved.

    Attributes:
        handles, targets: One row of points.
        mask: 1 where a latent may change.
        patch, search: Offsets of the places that are supervised, and of those that tracking looks at.
        stride, arrival: In pixels: how far ahead features are wanted; and how near to its target a handle has arrived.
        from_start: Whether features wanted are those the handle had at the start, or those it has now.
        penalty: Weight of the mask term; None where latents outside the mask are not changed at all.
        learning_rate: Of Adam.
        softness: Its ε, in units of the first gradient's root mean square.
    """

    handles: Points
    targets: Points
    mask: Tensor
    patch: Offsets
    search: Offsets
    stride: float
    arrival: float
    from_start: bool
    penalty: float | None
    learning_rate: float
    softness: float

    @classmethod
    def of(cls, handles: Points, targets: Points, mask: Tensor, size: tuple[int, int], options: DragOptions) -> "Way":
        """Lengths that the options leave open are scaled to a picture of this height and width.

        Raises:
            ValueError: If a length does not fit the picture.
        """
        length = {name: options.length(name, min(size)) for name in SHARES}
        return cls(
            handles, targets, mask,
            patch(length["radius"], length["spacing"]), patch(length["tracking_radius"], length["spacing"]),
            length["stride"], length["arrival"], options.wanted == "start",
            options.mask_weight if options.keep == "penalty" else None, options.learning_rate, options.softness,
        )  # fmt: skip

    def left(self, places: Points) -> Tensor:
        """Of each handle how far it is from its target, in pixels."""
        return (self.targets - places).norm(dim=-1)[0]


@dataclass(frozen=True, eq=False)
class Move:
    """The drag after some steps.

    Attributes:
        latents: Of the dragged picture.
        handles: Where the handles are found.
        loss: Of the step that led here; None at the start.
        lost: Whether a handle is like nothing near it any more.
    """

    latents: Tensor
    handles: Points
    loss: float | None = None
    lost: bool = False


def move(eye: Eye, x: Tensor, t: Tensor, way: Way, step: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Move]:
    """Moves handles towards their targets by changing the noisy latents x at t; yields the start and every step.

    A step brings the features around a handle to the next place on its way, by one step of Adam on x (motion
    supervision); the handle is then looked for near where it was (point tracking).

    Args:
        eye: Looks at latents.
        x: In float32, a batch of one.
        t: Its timestep.
        way: How to move.
        step: From prediction and x to x_{t-1}, for the mask term.

    Raises:
        FloatingPointError: If the gradient is not finite.
    """
    with torch.no_grad():
        start = eye.look(x, t)
        own = start.at(way.handles)
        wanted = start.at(around(way.handles, way.patch))
        before = step(start.prediction, x)
        limit = _unlike(start, own)
    latents = x.clone().requires_grad_()
    adam = torch.optim.Adam([latents], lr=way.learning_rate)
    handles, loss = way.handles, None
    yield Move(x, handles)
    while True:
        with torch.enable_grad():
            look = eye.look(latents, t, start)
            if loss is not None:
                with torch.no_grad():
                    handles, distances = track(look, handles, own, way.search)
                yield Move(latents.detach().clone(), handles, loss, bool((distances > limit).any()))
            if not way.from_start:
                wanted = look.at(around(handles, way.patch)).detach()
            value = supervision(look, around(next_places(handles, way.targets, way.stride), way.patch), wanted).sum()
            if way.penalty is not None:
                change = (step(look.prediction, latents) - before) * (1 - way.mask)
                value = value + way.penalty * change.abs().sum()
            latents.grad = _gradient(value, latents, way, eye.pipe.unet.dtype)
        if loss is None:
            adam.param_groups[0]["eps"] = way.softness * _size(latents.grad).item()
        adam.step()
        loss = value.item()


def follow(eye: Eye, reference: Tensor, x: Tensor, t: Tensor, way: Way, goals: Points) -> Tensor:
    """One step of motion supervision all the way to where the handles are to be, at another t.

    Args:
        eye: Looks at latents.
        reference: Of the picture before, at t.
        x: Of one or several drags, at t.
        t: Their timestep.
        way: How to move.
        goals: For each of them, where its handles are to be.

    Returns:
        x after the step, which is as long as Adam's first.
    """
    with torch.no_grad():
        before = eye.look(reference, t)
        wanted = before.at(around(way.handles, way.patch))
    with torch.enable_grad():
        latents = x.detach().requires_grad_()
        loss = supervision(eye.look(latents, t, before), around(goals, way.patch), wanted).sum()
        gradient = _gradient(loss, latents, way, eye.pipe.unet.dtype)
    return x - way.learning_rate * gradient / (gradient.abs() + way.softness * _size(gradient))


def _gradient(loss: Tensor, latents: Tensor, way: Way, dtype: torch.dtype) -> Tensor:
    """Scaled as `GRADIENT_SCALES` says; zero where the mask forbids a change."""
    scales = GRADIENT_SCALES if dtype == torch.float16 else GRADIENT_SCALES[:1]
    for scale in scales:
        # What is kept for a second try takes memory.
        (gradient,) = torch.autograd.grad(loss * scale, latents, retain_graph=scale != scales[-1])
        if torch.isfinite(gradient).all():
            break
    else:
        raise FloatingPointError("the drag's gradient is not finite: load the pipeline with dtype=torch.float32")
    gradient = gradient * (GRADIENT_SCALES[0] / scale)
    return gradient * way.mask if way.penalty is None else gradient


def _size(gradient: Tensor) -> Tensor:
    """Root mean square of each sample."""
    return gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def _unlike(look: Look, own: Tensor) -> Tensor:
    """For each handle: how far its features are from those of the picture's middling place."""
    height, width = look.size
    rows, columns = ((torch.arange(32, device=own.device) + 0.5) / 32 * side for side in (height, width))
    places = torch.cartesian_prod(columns, rows)[None]
    return (look.at(places)[:, None] - own[:, :, None]).abs().mean(-1).median(-1).values
