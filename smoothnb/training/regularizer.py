"""Step-wise variation regularization (Eq. 10), and its gradient without a double backward pass."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from smoothnb.schedule import PerSample, Samples, Schedule, Timesteps, checked_timesteps
from smoothnb.training.losses import Predict, denoising_loss

Method = Literal["finite_difference", "exact"]

POINTS = {torch.float32: (0.0, 3e-4), torch.float16: (-0.01, 0.01), torch.bfloat16: (-0.02, 0.02)}
"""The two points of the finite difference: offsets from the noise, as root mean square (that of the noise is 1).

If they are too far apart, the difference is no longer the derivative; if too close, rounding dominates. The less
precise the type, the farther apart the best points. In float32 one of them can be the noise itself, which saves a
forward pass; at larger distances only central differences are accurate enough.
"""


def unit_directions(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Samples:
    """Draws Δx̂_0 of the regularizer uniformly from the unit sphere, for each sample.

    Args:
        shape: Batch axis first.
        generator: Source of the random numbers; by default PyTorch's global one on the CPU.

    Returns:
        Directions in float32, on the generator's device.

    Raises:
        ValueError: If the shape has no axis after the batch axis, or an empty one.
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"expected shape with a batch axis and at least one more, none empty, got {tuple(shape)}")
    directions = torch.randn(
        shape, generator=generator, dtype=torch.float32, device=None if generator is None else generator.device
    )
    return directions / _lengths(directions)


def _lengths(x: Tensor) -> Tensor:
    """The length of each sample, shaped to broadcast over the batch."""
    return x.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1))


class RunningConstant:
    """The constant a of the regularizer: the target of √(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖, one number for all t in the paper.

    It starts at the mean of the first batch and is an exponential moving average afterwards. (If it starts at 0, as in
    the authors' code, it pulls all lengths towards 0 during the first hundreds of steps.)

    Lengths differ far more between timesteps than at one timestep. With several ranges of t, each has its own a, and
    the regularizer sees only what is uneven at one noise level, which is what a path between two noises runs through.

    Args:
        weight: Weight of a new batch; 0.01 in the paper.
        reduce: Averages a tensor over all processes, so that all have the same a.
        ranges: Number of ranges of t of equal width with an a of their own, at least 1.
        relative: Whether the regularizer is (length / a - 1)² rather than (length - a)², so that each range counts
            alike whatever its lengths.

    Attributes:
        values: The a of each range; NaN before the first sample of a range.
    """

    def __init__(
        self,
        weight: float = 0.01,
        reduce: Callable[[Tensor], Tensor] = lambda mean: mean,
        ranges: int = 1,
        relative: bool = False,
    ):
        if not 0 <= weight <= 1 or ranges < 1:
            raise ValueError(f"expected a weight in [0, 1] and at least one range, got {weight} and {ranges}")
        self.weight, self.reduce, self.ranges, self.relative = weight, reduce, ranges, relative
        self.values = torch.full((ranges,), torch.nan)

    @property
    def value(self) -> float | None:
        """Mean of a over the ranges seen so far, or None before the first batch."""
        return None if self.values.isnan().all() else self.values.nanmean().item()

    @torch.no_grad()
    def update(self, lengths: PerSample, times: PerSample | None = None) -> PerSample:
        """Updates a with the lengths of a batch.

        Args:
            lengths: √(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖ of each sample.
            times: t of each sample as a fraction of the number of timesteps, in [0, 1); needed for several ranges.

        Returns:
            The a of each sample, without gradient.
        """
        row = (torch.zeros_like(lengths) if times is None else times.to(lengths) * self.ranges).long()
        sums, counts = torch.zeros(2, self.ranges, device=lengths.device)
        sums.index_add_(0, row, lengths.float())
        counts.index_add_(0, row, torch.ones_like(lengths, dtype=torch.float32))
        sums, counts = self.reduce(torch.stack([sums, counts])).cpu()
        means = sums / counts
        moved = torch.where(self.values.isnan(), means, self.values.lerp(means, self.weight))
        self.values = torch.where(counts > 0, moved, self.values)
        return self.values.to(lengths.device)[row]

    def state_dict(self) -> dict[str, list[float]]:
        return {"values": self.values.tolist()}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.values = torch.tensor(state["values"])


@dataclass(frozen=True)
class Variation:
    """How much the predicted clean sample changes with the noise, for each sample of a batch.

    Attributes:
        lengths: √(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖.
        directions: J_εᵀ Δx̂_0 normalized to length 1: the direction of the noise in which x̂_0 moves farthest along
            Δx̂_0.
        prediction: The model's prediction, with its graph if that was retained.
    """

    lengths: PerSample
    directions: Samples
    prediction: Samples


def variation(
    predict: Predict,
    schedule: Schedule,
    x0: Samples,
    noise: Samples,
    timesteps: Timesteps,
    delta: Samples,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> Variation:
    """Computes J_εᵀ Δx̂_0 by one backward pass from the predicted clean sample to the noise.

    With x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε and x̂_0 = (x_t - √(1-ᾱ_t) ε_θ(x_t, t)) / √ᾱ_t for a fixed x_0, J_ε is the Jacobian
    ∂x̂_0/∂ε. Δx̂_0 is a random unit vector, not a difference of two samples; J_εᵀ Δx̂_0 is the gradient of ⟨x̂_0, Δx̂_0⟩
    with respect to ε. Models with another prediction have the x_t and x̂_0 of `Schedule`, and σ_t for √(1-ᾱ_t).

    Args:
        predict: The model.
        schedule: Its noise schedule.
        x0: Clean samples.
        noise: ε.
        timesteps: t of each sample.
        delta: Δx̂_0, see `unit_directions`.
        create_graph: Whether the result can be differentiated again.
        retain_graph: Whether the prediction can be differentiated again.

    Returns:
        The lengths and directions, in float32.
    """
    timesteps = timesteps.to(x0.device)
    with torch.enable_grad():
        noise = noise.detach().requires_grad_()
        x_t = schedule.add_noise(x0, noise, timesteps)
        prediction = predict(x_t, timesteps)
        clean = schedule.clean(x_t, prediction, timesteps)
        # Scaled to unit root mean square rather than unit length, as small gradients underflow in float16.
        size = delta[0].numel() ** 0.5
        pushed = (clean * delta * size).sum()
        (gradient,) = torch.autograd.grad(
            pushed, noise, create_graph=create_graph, retain_graph=create_graph or retain_graph
        )
    gradient = gradient.float() / size
    _, sigma = schedule.scales(timesteps, noise)
    lengths = _lengths(gradient)
    return Variation((sigma * lengths).flatten(), gradient / lengths, prediction)


def objective_parts(
    predict: Predict,
    schedule: Schedule,
    x0: Samples,
    noise: Samples,
    timesteps: Timesteps,
    delta: Samples,
    a: RunningConstant,
    min_snr_gamma: float | None = None,
    points: tuple[float, float] = POINTS[torch.float32],
) -> Iterator[tuple[PerSample, PerSample]]:
    """Yields L_base and L_reg in two parts, each with its own graph, so that only one graph is in memory at a time.

    With J_εᵀ Δx̂_0 = ‖J_εᵀ Δx̂_0‖ u, the gradient of the length with respect to the weights is that of ⟨Δx̂_0, J_ε u⟩
    with u fixed, and J_ε u is approximated by the finite difference of x̂_0 along u. This needs no double backward pass,
    so any attention kernel, gradient checkpointing and compiled models work. The cost is two forward and three backward
    passes if one of the points is the noise itself, else three of each. L_base is averaged over the two points, each of
    which is as good a sample of the noise as ε.

    Args:
        predict: The model.
        schedule: Its noise schedule.
        x0: Clean samples.
        noise: ε.
        timesteps: t of each sample.
        delta: Δx̂_0, see `unit_directions`.
        a: The running constant; it is updated with this batch.
        min_snr_gamma: As in `base_loss`.
        points: The points of the finite difference, see `POINTS`.

    Yields:
        Two pairs of parts of L_base and L_reg, for each sample. The parts and their gradients sum to those of the
        losses.
    """
    low, high = (point * delta[0].numel() ** 0.5 for point in points)
    here = variation(predict, schedule, x0, noise, timesteps, delta, retain_graph=low == 0)
    target = a.update(here.lengths, timesteps / len(schedule))
    weight = target**-2 if a.relative else torch.ones_like(target)
    excess = here.lengths - target
    _, sigma = schedule.scales(timesteps, x0)
    for sign, point in ((-1, low), (1, high)):
        shifted = (noise + point * here.directions).to(noise.dtype)
        x_t = schedule.add_noise(x0, shifted, timesteps)
        prediction = here.prediction if point == 0 else predict(x_t, timesteps)
        base = denoising_loss(prediction, schedule, x0, shifted, timesteps, min_snr_gamma)
        clean = schedule.clean(x_t, prediction, timesteps)
        length = sign * (sigma * delta * clean).flatten(1).sum(1) / (high - low)
        # Only the gradient of `length` is used: its value is inaccurate, and the exact length is known.
        yield base / 2, weight * (excess.square() / 2 + 2 * excess * (length - length.detach()))


def variation_regularizer(
    predict: Predict,
    schedule: Schedule,
    x0: Samples,
    noise: Samples,
    timesteps: Timesteps,
    delta: Samples,
    a: RunningConstant,
    method: Method = "finite_difference",
    points: tuple[float, float] | None = None,
) -> PerSample:
    """Step-wise variation regularization: (√(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖ - a)² (Guo et al. 2024, Eq. 10).

    If it is small, a step in the noise changes the picture by the same amount everywhere, so a path between two noises
    has no jumps. See `variation` for J_ε and Δx̂_0.

    Args:
        predict: The model.
        schedule: Its noise schedule.
        x0: Clean samples.
        noise: ε.
        timesteps: t of each sample.
        delta: Δx̂_0, see `unit_directions`.
        a: The running constant; it is updated with this batch. It decides whether the regularizer is the paper's.
        method: "finite_difference" needs no double backward pass, see `objective_parts`. "exact" differentiates twice,
            as the paper does: it is slower, needs several times the memory, and uses the slowest attention kernel.
        points: The points of the finite difference; by default those in `POINTS` for the dtype of the noise.

    Returns:
        The regularizer of each sample.
    """
    timesteps = checked_timesteps(schedule, timesteps, x0=x0, noise=noise, delta=delta)
    if method == "exact":
        # Only this attention kernel has a second derivative. The backend is chosen in the forward pass.
        with sdpa_kernel(SDPBackend.MATH):
            here = variation(predict, schedule, x0, noise, timesteps, delta, create_graph=True)
        target = a.update(here.lengths, timesteps / len(schedule))
        return (here.lengths / target - 1 if a.relative else here.lengths - target).square()
    if method != "finite_difference":
        raise ValueError(f"expected method as finite_difference or exact, got {method!r}")
    points = POINTS.get(noise.dtype, POINTS[torch.float32]) if points is None else points
    parts = objective_parts(predict, schedule, x0, noise, timesteps, delta, a, points=points)
    return torch.stack([regularizer for _, regularizer in parts]).sum(0)
