"""Optimization of one noisy latent by motion supervision and point tracking (Shi et al. 2023)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothnb.dragging.features import FeatureExtractor, Features, Points
from smoothnb.dragging.motion import around, next_positions, patch, supervision_loss, track
from smoothnb.dragging.options import DragOptions

GRADIENT_SCALES = (2.0**10, 1.0, 2.0**-10)
"""Factors on the loss for the backward pass, tried in turn until the gradient is finite: in float16 small gradients
underflow and large ones overflow. Other types need only the first. Gradients are returned as under the first."""


@dataclass(frozen=True, eq=False)
class DragTask:
    """What `drag` is asked to do, on the device and at the size of the model.

    Attributes:
        handles, targets: Points, one row.
        mask: 1 where a latent may change.
        options: With every length set, see `DragOptions.resolved`.
    """

    handles: Points
    targets: Points
    mask: Tensor
    options: DragOptions

    def distances(self, points: Points) -> Tensor:
        """Distance from each handle to its target, in pixels."""
        return (self.targets - points).norm(dim=-1)[0]


@dataclass(frozen=True, eq=False)
class DragState:
    """State of the optimization after some steps.

    Attributes:
        latents: The optimized latents.
        handles: Tracked positions of the handles.
        loss: Loss of the last step; None at the start.
        lost: Whether the features of a handle can no longer be found near it.
    """

    latents: Tensor
    handles: Points
    loss: float | None = None
    lost: bool = False


def optimize(
    extract: FeatureExtractor, x: Tensor, t: Tensor, task: DragTask, step: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[DragState]:
    """Moves the handles towards their targets by changing the noisy latents x at t.

    Each step is one step of Adam on x under motion supervision, followed by point tracking.

    Args:
        extract: The feature extractor.
        x: In float32, a batch of one.
        t: Its timestep.
        task: Points, mask and options.
        step: The sampler's step from a prediction and x_t to x_{t-1}, for the mask term.

    Yields:
        The state at the start and after every step.

    Raises:
        FloatingPointError: If the gradient is not finite.
    """
    options = task.options
    supervised, searched = (patch(r, options.spacing) for r in (options.radius, options.tracking_radius))
    with torch.no_grad():
        start = extract(x, t)
        initial = start.at(task.handles)
        wanted = start.at(around(task.handles, supervised))
        before = step(start.prediction, x)
        limit = _median_distance(start, initial)
    latents = x.clone().requires_grad_()
    adam = torch.optim.Adam([latents], lr=options.learning_rate)
    handles, loss = task.handles, None
    yield DragState(x, handles)
    while True:
        with torch.enable_grad():
            features = extract(latents, t, start)
            if loss is not None:
                with torch.no_grad():
                    handles, distances = track(features, handles, initial, searched)
                yield DragState(latents.detach().clone(), handles, loss, bool((distances > limit).any()))
            if options.wanted == "now":
                wanted = features.at(around(handles, supervised)).detach()
            goals = around(next_positions(handles, task.targets, options.stride), supervised)
            value = supervision_loss(features, goals, wanted).sum()
            if options.keep == "penalty":
                change = (step(features.prediction, latents) - before) * (1 - task.mask)
                value = value + options.mask_weight * change.abs().sum()
            latents.grad = _gradient(value, latents, task, extract.pipe.unet.dtype)
        if loss is None:
            adam.param_groups[0]["eps"] = options.softness * _rms(latents.grad).item()
        adam.step()
        loss = value.item()


def supervise(
    extract: FeatureExtractor, reference: Tensor, x: Tensor, t: Tensor, task: DragTask, goals: Points
) -> Tensor:
    """Applies one step of motion supervision that pulls the handles all the way to their goals, during sampling.

    Args:
        extract: The feature extractor.
        reference: Latents of the source picture at t.
        x: Latents of one or several drags at t.
        t: Their timestep.
        task: Points, mask and options.
        goals: Final positions of the handles for each of them.

    Returns:
        x after the step, which is as long as Adam's first.
    """
    options = task.options
    offsets = patch(options.radius, options.spacing)
    with torch.no_grad():
        before = extract(reference, t)
        wanted = before.at(around(task.handles, offsets))
    with torch.enable_grad():
        latents = x.detach().requires_grad_()
        loss = supervision_loss(extract(latents, t, before), around(goals, offsets), wanted).sum()
        gradient = _gradient(loss, latents, task, extract.pipe.unet.dtype)
    return x - options.learning_rate * gradient / (gradient.abs() + options.softness * _rms(gradient))


def _gradient(loss: Tensor, latents: Tensor, task: DragTask, dtype: torch.dtype) -> Tensor:
    """The gradient, scaled as `GRADIENT_SCALES` describes, and zero where the mask forbids a change."""
    scales = GRADIENT_SCALES if dtype == torch.float16 else GRADIENT_SCALES[:1]
    for scale in scales:
        # The graph that is kept for another try takes memory.
        (gradient,) = torch.autograd.grad(loss * scale, latents, retain_graph=scale != scales[-1])
        if torch.isfinite(gradient).all():
            break
    else:
        raise FloatingPointError("the drag's gradient is not finite: load the pipeline with dtype=torch.float32")
    gradient = gradient * (GRADIENT_SCALES[0] / scale)
    return gradient * task.mask if task.options.keep == "exact" else gradient


def _rms(gradient: Tensor) -> Tensor:
    """Root mean square of each sample."""
    return gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


def _median_distance(features: Features, initial: Tensor) -> Tensor:
    """For each handle, the median distance of its features from those of all places of the picture."""
    height, width = features.size
    middles = torch.arange(0.5, 32, device=initial.device, dtype=initial.dtype) / 32
    rows, columns = (middles * side for side in (height, width))
    places = torch.cartesian_prod(columns, rows)[None]
    return (features.at(places)[:, None] - initial[:, :, None]).abs().mean(-1).median(-1).values
