"""SOAP, Adam in the eigenbasis of Shampoo (Vyas et al. 2024), for small matrices."""

import torch
from jaxtyping import Float
from torch import Tensor

Matrices = Float[Tensor, "problem row column"]

MOMENTUM = 0.5
"""Low, as a null-text embedding gets only a few steps, each on a slightly different problem."""
MEMORY = 0.95
"""Decay of the averages of squares."""


class Soap:
    """Adam in the eigenbasis of the gradients' row and column covariances; one problem, or several independent ones.

    Adam scales each entry separately, which helps little if the slow directions mix entries, as they do for embeddings
    that act through key and value projections. The eigenbasis of the covariances separates these directions.
    """

    def __init__(self) -> None:
        self._steps = 0

    def direction(self, gradients: Matrices, turn: bool = True) -> Matrices:
        """The preconditioned gradients, scaled to a root mean square of 1 for each problem.

        Args:
            gradients: One matrix for each problem.
            turn: Whether to update the eigenbasis, which costs an eigendecomposition.
        """
        g = _unit(gradients)
        if not self._steps:
            self._first = self._second = self._rows = self._columns = torch.zeros((), device=g.device)
        self._rows, self._columns = _average(self._rows, g @ g.mT, MEMORY), _average(self._columns, g.mT @ g, MEMORY)
        self._steps += 1
        if turn or self._steps == 1:
            self._left, self._right = (_axes(c) for c in (self._rows, self._columns))
        self._first = _average(self._first, g, MOMENTUM)
        self._second = _average(self._second, (self._left.mT @ g @ self._right).square(), MEMORY)
        turned = self._left.mT @ self._first @ self._right
        scale = (self._second / (1 - MEMORY**self._steps)).sqrt() + 1e-3
        return _unit(self._left @ (turned / scale) @ self._right.mT)


def _axes(covariances: Tensor) -> Tensor:
    """Eigenvectors, which PyTorch does not compute on Apple's GPUs."""
    here = covariances.cpu() if covariances.device.type == "mps" else covariances
    return torch.linalg.eigh(here).eigenvectors.to(covariances.device)


def _average(before: Tensor, new: Tensor, weight: float) -> Tensor:
    return weight * before + (1 - weight) * new


def _unit(x: Tensor) -> Tensor:
    """Scaled to a root mean square of 1 for each problem; zeros stay zeros."""
    return x / x.square().mean(dim=(-2, -1), keepdim=True).sqrt().clamp(min=1e-20)
