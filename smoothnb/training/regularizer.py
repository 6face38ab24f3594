"""Step-wise variation regularization, which makes a model smooth, and its gradient without a double backward."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb.schedule import PerSample, Samples, Schedule, Timesteps, check_problem
from smoothnb.training.losses import SCHEDULE, Predict, denoising_loss

Method = Literal["finite_difference", "exact"]

POINTS = {torch.float32: (0.0, 3e-4), torch.float16: (-0.01, 0.01), torch.bfloat16: (-0.02, 0.02)}
"""Where the finite difference is taken: two offsets from the noise, as root mean square beside the noise's own of 1.

Too far apart, and the difference no longer is the derivative; too near, and it drowns in rounding. The fewer digits a
type has, the farther apart the best points lie. In float32 there is room for one of them to be the noise itself, which
spares a forward pass; farther apart than that, only points on both sides of it are good enough.
"""


@checked(shape=checks.several, generator=checks.of(torch.Generator, "a torch.Generator"))
def unit_directions(shape: tuple[int, ...], generator: torch.Generator | None = None) -> Samples:
    """Δx̂_0 of the regularizer: drawn evenly from the sphere, each sample of length 1; float32, on the CPU."""
    shape = tuple(checks.whole(1)("shape", side) for side in shape)
    if len(shape) < 2:
        raise ValueError(f"expected shape with a batch axis and at least one more, got {shape}")
    directions = torch.randn(shape, generator=generator)
    return directions / _lengths(directions)


def _lengths(x: Tensor) -> Tensor:
    """The length of each sample, shaped to divide the batch by it."""
    return x.flatten(1).norm(dim=1).reshape(-1, *(1,) * (x.ndim - 1))


class RunningConstant:
    """a of the regularizer: the length that √(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖ is pulled to, one number over all t.

    It starts at the first batch's mean and follows later ones as an exponential moving average. (Started at 0, as in
    the code that the paper's authors released, it pulls all lengths towards 0 for the first hundreds of steps.)

    Args:
        weight: Of a new batch; 0.01 in the paper.
        reduce: Averages a number over all processes, so that each has the same a.

    Attributes:
        value: a, or None before the first batch.
    """

    @checked(weight=checks.number(0, 1))
    def __init__(self, weight: float = 0.01, reduce: Callable[[Tensor], Tensor] = lambda mean: mean):
        self.weight, self.reduce = weight, reduce
        self.value: float | None = None

    @checked(lengths=checks.floating)
    def update(self, lengths: PerSample) -> float:
        """Takes one batch's lengths in and returns a, a plain number: no gradient flows through it."""
        mean = float(self.reduce(lengths.detach().mean()))
        self.value = mean if self.value is None else self.value + self.weight * (mean - self.value)
        return self.value

    def state_dict(self) -> dict[str, float | None]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        self.value = state["value"]


@dataclass(frozen=True)
class Variation:
    """How far the predicted picture moves with the noise, for each sample of a batch.

    Attributes:
        lengths: √(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖.
        directions: J_εᵀ Δx̂_0 brought to length 1: of all directions of the noise, the one in which the picture
            moves farthest along Δx̂_0.
        prediction: What the model said, with the graph behind it where that was to be kept.
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
    """J_εᵀ Δx̂_0, by one backward pass from the predicted picture to the noise.

    With x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε and x̂_0 = (x_t - √(1-ᾱ_t) ε_θ(x_t, t)) / √ᾱ_t, both for a fixed x_0, J_ε is
    ∂x̂_0/∂ε: entry (i, j) says how far value i of the picture that the model makes out moves when value j of the noise
    does. Δx̂_0 is no difference of two pictures but a random direction among pictures, of length 1. J_εᵀ Δx̂_0 then is
    the gradient of ⟨x̂_0, Δx̂_0⟩ with respect to ε.

    Args:
        predict: The model.
        schedule: Its noise schedule.
        x0: Clean samples.
        noise: ε.
        timesteps: t of each sample.
        delta: Δx̂_0, see `unit_directions`.
        create_graph: Whether the result can be differentiated once more.
        retain_graph: Whether the prediction can be.

    Returns:
        The lengths and directions, in float32.
    """
    with torch.enable_grad():
        noise = noise.detach().requires_grad_()
        x_t = schedule.add_noise(x0, noise, timesteps)
        prediction = predict(x_t, timesteps)
        clean = schedule.clean(x_t, prediction, timesteps)
        # Of unit root mean square rather than unit length: in float16, small gradients would vanish.
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
    """L_base and L_reg in two parts: each may be sent backward before the next is computed, so that only one graph at
    a time is held in memory.

    With J_εᵀ Δx̂_0 = ‖J_εᵀ Δx̂_0‖ u, the gradient of the length with respect to the weights is that of ⟨Δx̂_0, J_ε u⟩
    with u held fixed, and J_ε u is the difference of x̂_0 at two points along u, divided by their distance. So there is
    no double backward: only ordinary passes, whatever the attention kernel, with gradient checkpointing and compiled
    models alike. Where one of the points is the noise itself, two passes forward and three backward; else three of
    each. L_base is averaged over the points: each is a draw of noise as good as ε.

    Args:
        predict: The model.
        schedule: Its noise schedule.
        x0: Clean samples.
        noise: ε.
        timesteps: t of each sample.
        delta: Δx̂_0, see `unit_directions`.
        a: The running constant; it takes this batch in.
        min_snr_gamma: As in `base_loss`.
        points: Of the finite difference, see `POINTS`.

    Yields:
        Twice a share of L_base and of L_reg, for each sample. The shares sum up to the losses, and so do their
        gradients.
    """
    low, high = (point * delta[0].numel() ** 0.5 for point in points)
    here = variation(predict, schedule, x0, noise, timesteps, delta, retain_graph=low == 0)
    excess = here.lengths - a.update(here.lengths)
    _, sigma = schedule.scales(timesteps, x0)
    for sign, point in ((-1, low), (1, high)):
        shifted = (noise + point * here.directions).to(noise.dtype)
        x_t = schedule.add_noise(x0, shifted, timesteps)
        prediction = here.prediction if point == 0 else predict(x_t, timesteps)
        base = denoising_loss(prediction, schedule, x0, shifted, timesteps, min_snr_gamma)
        clean = schedule.clean(x_t, prediction, timesteps)
        length = sign * (sigma * delta * clean).flatten(1).sum(1) / (high - low)
        # Only the gradient of `length` counts: its value would suffer from rounding, and that of ℓ is known.
        yield base / 2, excess.square() / 2 + 2 * excess * (length - length.detach())


@checked(schedule=SCHEDULE)
def variation_regularizer(
    predict: Predict,
    schedule: Schedule,
    x0: Samples,
    noise: Samples,
    timesteps: Timesteps,
    delta: Samples,
    a: RunningConstant,
    method: Method = "finite_difference",
    points: tuple[float, float] = POINTS[torch.float32],
) -> PerSample:
    """Step-wise variation regularization: (√(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖ - a)² (Guo et al. 2024, Eq. 10).

    Where it is small, a step of the noise moves the picture equally far wherever one stands: the way from one noise to
    another has no cliffs. See `variation` for what J_ε and Δx̂_0 are.

    Args:
        predict: The model.
        schedule: Its noise schedule.
        x0: Clean samples.
        noise: ε.
        timesteps: t of each sample.
        delta: Δx̂_0, see `unit_directions`.
        a: The running constant; it takes this batch in.
        method: "finite_difference" has no double backward, see `objective_parts`. "exact" differentiates twice, as the
            paper does: slower, several times the memory, and attention falls back to its plainest kernel.
        points: Of the finite difference, see `POINTS`.

    Returns:
        The regularizer of each sample.
    """
    check_problem(schedule, timesteps, x0=x0, noise=noise, delta=delta)
    checks.of(RunningConstant, "a RunningConstant")("a", a)
    if method == "exact":
        # No other kernel of attention has a second derivative. The backend is chosen in the forward pass alone.
        with sdpa_kernel(SDPBackend.MATH):
            here = variation(predict, schedule, x0, noise, timesteps, delta, create_graph=True)
        return (here.lengths - a.update(here.lengths)).square()
    if method != "finite_difference":
        raise ValueError(f"expected method as finite_difference or exact, got {method!r}")
    parts = objective_parts(predict, schedule, x0, noise, timesteps, delta, a, points=points)
    return torch.stack([regularizer for _, regularizer in parts]).sum(0)
