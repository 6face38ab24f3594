"""Models side by side: the same prompts, the same noises, and how sure their difference is."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from smoothnb._utils import arguments, checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.files import atomic_write
from smoothnb.evaluation._istd import ISTD, istd
from smoothnb.evaluation.bootstrap import Interval, change, interval
from smoothnb.models.lora import blended

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Comparison:
    """Result of `compare`; in a notebook it shows itself as its table.

    Attributes:
        results: By name; the first is what the others are compared with.
    """

    results: dict[str, ISTD]

    def change(self, name: str) -> tuple[float, Interval]:
        """By what share a model's ISTD differs from the first one's, -0.5 for half of it, and where that lies at 95 %.

        The bootstrap is paired: it draws prompts, and both models' deviations on them.
        """
        first, own = (self.results[n].deviations.double().numpy() for n in (next(iter(self.results)), name))
        return float(change(own.mean(), first.mean())), interval(own, first, statistic=change)

    def smoother(self, name: str) -> float:
        """The share of prompts on which a model's deviation is smaller than the first one's."""
        first, own = (self.results[n].deviations for n in (next(iter(self.results)), name))
        return (own < first).double().mean().item()

    def table(self) -> str:
        """Markdown, one row a model."""
        first = next(iter(self.results))
        lines = [f"| model | ISTD ↓ | 95 % | beside {first} | 95 % | smoother on |", "|---|---|---|---|---|---|"]
        for name, result in self.results.items():
            low, high = result.interval
            cells = [name, f"{result.value:.2f}", f"{low:.2f} to {high:.2f}", "", "", ""]
            if name != first:
                share, (low, high) = self.change(name)
                cells[3:] = [f"{share:+.1%}", f"{low:+.1%} to {high:+.1%}", f"{self.smoother(name):.0%} of prompts"]
            lines.append(f"| {' | '.join(cells)} |")
        return "\n".join(lines)

    _repr_markdown_ = table

    def plot(self) -> "Figure":
        """ISTD of each model, and its change from the first, with their intervals."""
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


@checked(prompts=checks.texts)
def compare(
    candidates: Mapping[str, object], prompts: str | Sequence[str] = (), results: str | Path | None = None, **settings
) -> Comparison:
    """Measures several models on the same prompts and noises, and compares them.

        sn.compare({"base": base, "smooth": smooth}, prompts)
        sn.compare({f"{s:.0%}": (smooth, s) for s in (0, 0.5, 1)}, prompts)
        sn.compare({"base": sn.ISTD.load("base.jsonl"), "mine": sn.ISTD.load("mine.jsonl")})

    Args:
        candidates: By name, a pipeline; or a pipeline with its smooth LoRA and the smoothness to give it meanwhile; or
            an ISTD measured before. The first is what the others are compared with.
        prompts: As in `istd`, for those that are still to be measured.
        results: Folder for files that grow while `istd` measures, one a name.
        settings: Of `istd`.

    Returns:
        The comparison, with `table`, `plot` and `change`.

    Raises:
        ValueError: If there are less than two, or they were measured with other prompts or settings; or as `istd`.
    """
    if not isinstance(candidates, Mapping) or not all(isinstance(name, str) for name in candidates):
        raise TypeError(f"expected candidates by name, got {checks.shown(candidates)}")
    if len(candidates) < 2:
        raise ValueError(f"expected at least two models to compare, got {len(candidates)}")
    if results is not None:
        for name in candidates:
            if Path(name).name != name:
                raise ValueError(f"expected names that can be those of files, got {name!r}")
    found = {}
    for name, candidate in candidates.items():
        if isinstance(candidate, ISTD):
            found[name] = candidate
            continue
        pipe, strength = candidate if isinstance(candidate, tuple) and len(candidate) == 2 else (candidate, None)
        arguments.pipeline(f"candidate {name!r}", pipe)
        file = None if results is None else Path(results) / f"{name}.jsonl"
        with nullcontext() if strength is None else blended(pipe, strength):
            found[name] = istd(pipe, prompts, results=file, **settings)
    (first, base), *others = found.items()
    for name, result in others:
        if result.prompts != base.prompts or result.settings != base.settings:
            what = "prompts" if result.prompts != base.prompts else "settings"
            raise ValueError(
                f"{name} and {first} were measured with different {what}, so their difference says nothing about the "
                f"models: {_short(getattr(result, what))} and {_short(getattr(base, what))}"
            )
    return Comparison(found)


def save_plot(comparison: Comparison, path: Path) -> None:
    """Writes the plot of a comparison, whole or not at all.

    Args:
        comparison: What `compare` gave.
        path: A file that ends in .png, .svg or .pdf.

    Raises:
        ValueError: If the ending is another.
        OSError: If it cannot be written.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in ("png", "svg", "pdf"):
        raise ValueError(f"expected a file that ends in .png, .svg or .pdf, got {path.name!r}")
    with atomic_write(path) as partial:
        comparison.plot().savefig(partial, dpi=120, format=form)


def _short(what: object) -> str:
    return f"{len(what)} of them, from {what[0]!r}" if isinstance(what, tuple) else str(what)


def unevenest(result: ISTD, count: int) -> list[int]:
    """Numbers of the prompts on which a model is most uneven, the worst first."""
    return np.argsort(-result.deviations.numpy(), kind="stable")[:count].tolist()
