"""Descent on a small matrix, in the axes along which its gradients lie: SOAP (Vyas et al. 2024)."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

Matrices = Float[Tensor, "problem row column"]

MOMENTUM = 0.5
"""Low, as a null-text embedding is sought in a few steps, each on a slightly different problem."""
REMEMBERED = ("first", "second", "rows", "columns", "left", "right")
MEMORY = 0.95
"""Weight of the past in the averages of squares."""


class Soap:
    """Adam in the eigenbasis of the gradients' row and column covariances; one problem, or several independent ones.

    Adam scales each entry by itself, which helps little where the slow directions lie across entries, as they do for
    embeddings that act through key and value projections. In the basis of the covariances they come apart.
    """

    def __init__(self) -> None:
        self._steps = 0

    def state_dict(self) -> dict[str, Tensor]:
        """What it knows of the problem, to go on from."""
        return {"steps": torch.tensor(self._steps)} | {
            name: getattr(self, f"_{name}") for name in REMEMBERED if self._steps
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from what `state_dict` gave."""
        self._steps = int(state["steps"])
        for name in REMEMBERED if self._steps else ():
            setattr(self, f"_{name}", state[name])

    def direction(self, gradients: Matrices, turn: bool = True) -> Matrices:
        """The gradients, scaled in that basis; of unit root mean square for each problem, whatever their own scale.

        Args:
            gradients: One for each problem.
            turn: Whether to take up the basis of the gradients so far, or to keep the last one, which is cheaper.
        """
        g = _unit(gradients)
        if not self._steps:
            self._first = self._second = self._rows = self._columns = torch.zeros((), device=g.device)
        self._rows, self._columns = _average(self._rows, g @ g.mT, MEMORY), _average(self._columns, g.mT @ g, MEMORY)
        self._steps += 1
        if turn or self._steps == 1:
            self._left, self._right = (torch.linalg.eigh(c).eigenvectors for c in (self._rows, self._columns))
        self._first = _average(self._first, g, MOMENTUM)
        self._second = _average(self._second, (self._left.mT @ g @ self._right).square(), MEMORY)
        turned = self._left.mT @ self._first @ self._right
        scale = (self._second / (1 - MEMORY**self._steps)).sqrt() + 1e-3
        return _unit(self._left @ (turned / scale) @ self._right.mT)


def _average(before: Tensor, new: Tensor, weight: float) -> Tensor:
    return weight * before + (1 - weight) * new


def _unit(x: Tensor) -> Tensor:
    """Brought to a root mean square of 1 for each problem; zeros stay zeros."""
    return x / x.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp(min=1e-20)
