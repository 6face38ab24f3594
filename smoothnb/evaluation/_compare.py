"""Paired comparison of models on the same prompts and noises."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smoothnb._utils.files import atomic_write, expanded
from smoothnb._utils.pipeline import Pipeline
from smoothnb.evaluation._istd import ISTD, istd
from smoothnb.evaluation.bootstrap import Interval, change, interval
from smoothnb.models.lora import blended

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Candidate = Pipeline | tuple[Pipeline, float] | ISTD
"""A pipeline, a pipeline and a temporary smoothness, or what was measured before."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Result of `compare`; notebooks display its table.

    Attributes:
        results: ISTD by name; the first is the baseline.
    """

    results: dict[str, ISTD]

    def change(self, name: str) -> tuple[float, Interval]:
        """Relative change of a model's ISTD from the baseline (-0.5 is half of it), and its 95 % confidence interval.

        The bootstrap is paired: it resamples prompts, with the deviations of both models.
        """
        first, own = (self.results[n].deviations.double().numpy() for n in (next(iter(self.results)), name))
        return float(change(own.mean(), first.mean())), interval(own, first, statistic=change)

    def smoother(self, name: str) -> float:
        """Fraction of prompts on which a model's deviation is smaller than the baseline's."""
        first, own = (self.results[n].deviations for n in (next(iter(self.results)), name))
        return (own < first).double().mean().item()

    def table(self) -> str:
        """Markdown table with one row per model."""
        first = next(iter(self.results))
        heads = ["model", "ISTD ↓", "95 %", f"change from {first}", "95 %", "smoother on", "ISTD / mean step ↓"]
        lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for name, result in self.results.items():
            low, high = result.interval
            cells = [name, f"{result.value:.2f}", f"{low:.2f} to {high:.2f}", "", "", "", f"{result.relative:.2f}"]
            if name != first:
                share, (low, high) = self.change(name)
                cells[3:6] = [f"{share:+.1%}", f"{low:+.1%} to {high:+.1%}", f"{self.smoother(name):.0%} of prompts"]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    _repr_markdown_ = table

    def plot(self) -> "Figure":
        """Plots the ISTD of each model, and its change from the baseline, with intervals."""
        from matplotlib.figure import Figure

        names = list(self.results)
        figure = Figure(figsize=(8, 0.9 + 0.4 * len(names)), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        changes = {name: self.change(name) for name in names[1:]}
        shown = {
            "ISTD": {name: (result.value, result.interval) for name, result in self.results.items()},
            f"change from {names[0]}, %": {
                name: (100 * share, (100 * low, 100 * high)) for name, (share, (low, high)) in changes.items()
            },
        }
        for ax, (title, values) in zip(panels, shown.items(), strict=True):
            for name, (value, (low, high)) in values.items():
                y = names.index(name)
                ax.plot([low, high], [y, y], color="#9bb8cd", linewidth=5, solid_capstyle="butt")
                ax.plot(value, y, "o", color="#2f6690", markersize=7)
            ax.set_xlabel(title)
            ax.spines[["top", "right"]].set_visible(False)
            ax.margins(x=0.15)
        panels[0].set_xlim(left=0)
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.5, -0.5)
        panels[1].axvline(0, color="#888888", linewidth=1)
        return figure


def compare(
    candidates: Mapping[str, Candidate],
    prompts: str | Sequence[str] = (),
    results: str | Path | None = None,
    **settings,
) -> Comparison:
    """Compares models on the same prompts and noises.

        sn.compare({"base": base, "smooth": smooth}, prompts)
        sn.compare({f"{s:.0%}": (smooth, s) for s in (0, 0.5, 1)}, prompts)
        sn.compare({"base": sn.ISTD.load("base.jsonl"), "mine": sn.ISTD.load("mine.jsonl")})

    Args:
        candidates: By name: a pipeline, a pair of a pipeline and a temporary smoothness, or an ISTD measured before.
            The first is the baseline.
        prompts: As in `istd`, for candidates that are still to be measured.
        results: Folder for the results files of `istd`, one for each name.
        settings: Settings of `istd`.

    Returns:
        The comparison, with `table`, `plot` and `change`.

    Raises:
        ValueError: If there are fewer than two candidates, or they were measured with different prompts or settings; or
            as in `istd`.
    """
    if len(candidates) < 2:
        raise ValueError(f"expected at least two models to compare, got {len(candidates)}")
    if results is not None:
        for name in candidates:
            if Path(name).name != name:
                raise ValueError(f"expected names that are valid file names, got {name!r}")
    found = {}
    for name, candidate in candidates.items():
        if isinstance(candidate, ISTD):
            found[name] = candidate
            continue
        pipe, strength = candidate if isinstance(candidate, tuple) and len(candidate) == 2 else (candidate, None)
        file = None if results is None else expanded(results) / f"{name}.jsonl"
        with nullcontext() if strength is None else blended(pipe, strength):
            found[name] = istd(pipe, prompts, results=file, **settings)
    (first, base), *others = found.items()
    for name, result in others:
        if result.prompts != base.prompts or result.settings != base.settings:
            what = "prompts" if result.prompts != base.prompts else "settings"
            raise ValueError(
                f"{name} and {first} were measured with different {what}, so they cannot be "
                f"compared: {_short(getattr(result, what))} and {_short(getattr(base, what))}"
            )
    return Comparison(found)


def save_plot(comparison: Comparison, path: Path) -> None:
    """Saves the plot of a comparison.

    Args:
        comparison: The comparison.
        path: A .png, .svg or .pdf file.

    Raises:
        ValueError: If the file has another suffix.
        OSError: If it cannot be written.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in ("png", "svg", "pdf"):
        raise ValueError(f"expected a .png, .svg or .pdf file, got {path.name!r}")
    with atomic_write(path) as partial:
        comparison.plot().savefig(partial, dpi=120, format=form)


def _short(what: object) -> str:
    return f"{len(what)} of them, from {what[0]!r}" if isinstance(what, tuple) else str(what)


def most_uneven(result: ISTD, count: int) -> list[int]:
    """Indices of the prompts with the largest deviations, the largest first."""
    return np.argsort(-result.deviations.numpy(), kind="stable")[:count].tolist()
