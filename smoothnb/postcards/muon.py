"""Muon: momentum whose update is made orthogonal (Jordan et al. 2024), for matrices and convolution kernels.

torch's own `torch.optim.Muon` takes matrices alone, and most weights of an autoencoder or a UNet are kernels. On the
postcard autoencoder it halves the error that AdamW reaches in as many steps.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The orthogonal matrix nearest to a matrix, roughly: all singular values end between 0.7 and 1.2.

    Args:
        matrix: Any matrix.
        iterations: Of Newton and Schulz's quintic polynomial, with the coefficients that Jordan et al. tuned.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    # Each iteration multiplies x from the left by a polynomial of its Gram matrix. These commute, so the small square
    # factors are gathered and x itself, often ten times as wide as high, is multiplied once.
    gram = x @ x.T
    factor = identity = torch.eye(len(gram), dtype=x.dtype, device=x.device)
    for _ in range(iterations):
        polynomial = 3.4445 * identity - 4.7750 * gram + 2.0315 * gram @ gram
        factor = polynomial @ factor
        gram = polynomial @ gram @ polynomial
    x = factor @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum.

    Args:
        params: Weights of two or more dimensions; all but the first are taken together.
        lr: Learning rate, the spectral size of a step.
        momentum: Of the gradient's running mean.
        weight_decay: Decoupled, as AdamW's.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 1e-2):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalized(p.grad.lerp(mean, group["momentum"]).flatten(1))
                size = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view_as(p), alpha=-group["lr"] * size)


def optimizers(model: nn.Module, learning_rate: float, muon_learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the inner matrices and kernels; AdamW for biases, norms, embeddings and the first and last layers."""
    inner, rest = [], []
    for name, p in model.named_parameters():
        outer = any(part in name for part in ("conv_in", "conv_out", "quant_conv", "embed", "stem.0", "heads"))
        (rest if outer or p.ndim < 2 else inner).append(p)
    return [
        Muon(inner, lr=muon_learning_rate),
        torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-2),
    ]
