"""Where the exact sampler jumps: a world small enough to compute its perfect denoiser.

    python benchmarks/exact_world.py --output docs/results/exact_world

A picture of this world is one bump of width w (its standard deviation) at a place u ~ N(0, s²) on a line of 64 pixels.
The perfect prediction is then a weighted mean over all places, x̂_0 = E[x_0 | x_t], and DDIM with it is exact up to the
size of its steps. Each row of the table is one ratio s / w:

- the cliff: the largest of 60 steps of a slerp between two noises, as a share of the path's length;
- the relative form of ISTD: standard deviation over mean of the 10 steps between 11 frames;
- the spread at one t (standard deviation over mean) of the regularizer's lengths √(1-ᾱ_t) ‖J_εᵀ Δx̂_0‖ =
  √ᾱ_t ‖Cov[x_0 | x_t] Δx̂_0‖, for random directions Δx̂_0 (mean over t) and summed over all directions, tr Cov[x_0 | x_t]
  (at the t where it is largest): what is uneven is hidden by the randomness of the directions;
- the share of the variance of the lengths that lies between timesteps;
- the timestep at which the place is decided: where the variance of u, given x_t, has fallen to half.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from diffusers import DDIMScheduler

from smoothnb.latents import slerp

PIXELS, WIDTH, WALKS, STEPS = 64, 4.0, 40, 100
RATIOS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
ALPHA_BAR = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear").alphas_cumprod.double()


class World:
    """Pictures of one bump, on a grid of places with their probabilities, scaled to unit variance."""

    def __init__(self, ratio: float):
        self.places = torch.linspace(-4, 4, 401, dtype=torch.float64) * ratio * WIDTH
        self.prior = torch.softmax(-((self.places / (ratio * WIDTH)) ** 2) / 2, 0)
        pixels = torch.arange(PIXELS, dtype=torch.float64) - PIXELS / 2
        bumps = torch.exp(-(((pixels - self.places[:, None]) / WIDTH) ** 2) / 2)
        bumps = bumps - self.prior @ bumps
        self.pictures = bumps / (self.prior @ bumps**2).mean().sqrt()

    def posterior(self, x: torch.Tensor, t: int) -> torch.Tensor:
        """Probability of each place given x_t, by Bayes' rule."""
        a = ALPHA_BAR[t]
        distance = a.sqrt() * x @ self.pictures.T - a * self.pictures.square().sum(1) / 2
        return torch.softmax(distance / (1 - a) + self.prior.log(), 1)

    def draw(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures and places that DDIM makes of noises x."""
        times = torch.arange(1, 1000, 1000 // STEPS).flip(0).tolist()
        for t, after in zip(times, [*times[1:], 0], strict=True):
            chance, a, b = self.posterior(x, t), ALPHA_BAR[t], ALPHA_BAR[after]
            clean = chance @ self.pictures
            x = b.sqrt() * clean + (1 - b).sqrt() * (x - a.sqrt() * clean) / (1 - a).sqrt()
        return clean, chance @ self.places

    def lengths(self, t: int, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, float]:
        """The regularizer's lengths at one t, tr Cov[x_0 | x_t], and the share of the variance of u still undecided."""
        u = torch.multinomial(self.prior, count, True, generator=generator)
        noise, delta = torch.randn(2, count, PIXELS, dtype=torch.float64, generator=generator)
        a = ALPHA_BAR[t]
        chance = self.posterior(a.sqrt() * self.pictures[u] + (1 - a).sqrt() * noise, t)
        off = self.pictures - (chance @ self.pictures)[:, None]
        delta = delta / delta.norm(dim=1, keepdim=True)
        along = (off @ delta[:, :, None]).squeeze(2) * chance
        moved = (along[:, None] @ off).squeeze(1)
        undecided = chance @ self.places**2 - (chance @ self.places) ** 2
        trace = (off.square().sum(2) * chance).sum(1)
        return a.sqrt() * moved.norm(dim=1), trace, (undecided.mean() / (self.prior @ self.places**2)).item()


def measure(ratio: float) -> dict[str, float]:
    """One row of the table."""
    world, generator = World(ratio), torch.Generator().manual_seed(0)
    cliffs, relative = [], []
    for _ in range(WALKS):
        a, b = torch.randn(2, 1, PIXELS, dtype=torch.float64, generator=generator)
        frames, _ = world.draw(slerp(a, b, np.linspace(0, 1, 61)).double().flatten(1))
        fine, coarse = (frames[::every].diff(dim=0).norm(dim=1) for every in (1, 6))
        cliffs.append((fine.max() / fine.sum()).item())
        relative.append((coarse.std(correction=0) / coarse.mean()).item())
    times = list(range(20, 1000, 40))
    lengths, traces, undecided = zip(*(world.lengths(t, 200, generator) for t in times), strict=True)
    lengths, traces = torch.stack(lengths), torch.stack(traces)
    within = lengths.var(1, correction=0).mean()
    decided = next((t for t, share in zip(times[::-1], undecided[::-1], strict=True) if share < 0.5), 0)
    return {
        "cliff": float(np.mean(cliffs)), "relative": float(np.mean(relative)),
        "random": (lengths.std(1, correction=0) / lengths.mean(1)).mean().item(),
        "all": (traces.std(1, correction=0) / traces.mean(1)).max().item(),
        "between": (1 - within / lengths.var(correction=0)).item(), "decided": float(decided),
    }  # fmt: skip


def plot(results: dict[float, dict[str, float]], file: Path) -> None:
    """Places along walks of four worlds, and the cliff by ratio."""
    figure, axes = plt.subplots(1, 5, figsize=(13, 2.8), layout="constrained", width_ratios=(1, 1, 1, 1, 1.4))
    etas = np.linspace(0, 1, 241)
    for axis, ratio in zip(axes, (0.5, 1.0, 2.0, 4.0), strict=False):
        world, generator = World(ratio), torch.Generator().manual_seed(3)
        for _ in range(5):
            a, b = torch.randn(2, 1, PIXELS, dtype=torch.float64, generator=generator)
            _, places = world.draw(slerp(a, b, etas).double().flatten(1))
            axis.plot(etas, places / (ratio * WIDTH), lw=1.5)
        axis.set(title=f"s / w = {ratio:g}", xlabel="η", ylim=(-3, 3))
    axes[0].set_ylabel("place u / s")
    axes[-1].plot(list(results), [100 * row["cliff"] for row in results.values()], "o-", color="#c8553d")
    axes[-1].set(xlabel="s / w", ylabel="cliff (% of the path)", ylim=0)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="write figures here: .json, .md and .png")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    results = {ratio: measure(ratio) for ratio in RATIOS}
    rows = [
        "| s / w | cliff | relative ISTD | spread, random directions | spread, all directions | variance between t | "
        "decided at t |",
        "|---" * 7 + "|",
    ]
    rows += [
        f"| {ratio:g} | {r['cliff']:.1%} | {r['relative']:.2f} | {r['random']:.2f} | {r['all']:.2f} | "
        f"{r['between']:.0%} | {r['decided']:.0f} |"
        for ratio, r in results.items()
    ]
    options.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    table = "\n".join(rows)
    options.output.with_suffix(".md").write_text(f"{table}\n\n{WALKS} walks for each ratio, {STEPS} steps of DDIM.\n")
    plot(results, options.output.with_suffix(".png"))
    print(table)


if __name__ == "__main__":
    main()
