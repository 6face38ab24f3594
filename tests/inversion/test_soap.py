"""Soap: faster than Adam where slow directions lie across entries, indifferent to scale, problems kept apart."""

import torch

from smoothnb.inversion.soap import Soap

GENERATOR = torch.Generator().manual_seed(0)
LEFT, RIGHT = (torch.randn(n, n, generator=GENERATOR) for n in (6, 10))
WANTED = torch.randn(1, 6, 10, generator=GENERATOR)


def gradient(x):
    return -2 * LEFT.T @ (WANTED - LEFT @ x @ RIGHT) @ RIGHT.T


def error(x):
    return (WANTED - LEFT @ x @ RIGHT).square().mean().item()


def descend(steps, scale=1.0):
    x, soap = torch.zeros(1, 6, 10), Soap()
    for n in range(steps):
        x = x - 0.05 * (1 - n / steps) * soap.direction(scale * gradient(x))
    return x


def test_it_gets_further_than_adam():
    x = torch.zeros(1, 6, 10, requires_grad=True)
    adam = torch.optim.Adam([x], lr=0.05)
    for group in range(100):
        adam.param_groups[0]["lr"] = 0.05 * (1 - group / 100)
        x.grad = gradient(x.detach())
        adam.step()
    assert error(descend(100)) < 0.5 * error(x.detach()) < 0.5 * error(torch.zeros(1, 6, 10))


def test_scale_does_not_matter():
    assert 0.5 < error(descend(100)) / error(descend(100, 1e-4)) < 2


def test_directions_have_unit_size_and_nothing_stays_nothing():
    direction = Soap().direction(torch.randn(3, 5, 4, generator=GENERATOR))
    torch.testing.assert_close(direction.square().mean(dim=(1, 2)), torch.ones(3))
    assert torch.equal(Soap().direction(torch.zeros(1, 5, 4)), torch.zeros(1, 5, 4))


def test_problems_do_not_see_one_another():
    gradients = torch.randn(2, 4, 5, 3, generator=GENERATOR)
    together, alone = Soap(), Soap()
    for g in gradients:
        both, second = together.direction(g), alone.direction(g[1:2])
    torch.testing.assert_close(both[1:2], second, rtol=1e-3, atol=1e-3)
