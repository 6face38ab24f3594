"""What is done to a model for a while is undone, whatever happens."""

import contextlib

import torch

from smoothnb._utils.temporarily import attending, frozen, hooked


class Stop(Exception):
    pass


def test_frozen_weights_are_as_they_were_afterwards():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[1].requires_grad_(False)
    before = [p.requires_grad for p in module.parameters()]
    with contextlib.suppress(Stop), frozen(module):
        assert not any(p.requires_grad for p in module.parameters())
        raise Stop
    assert [p.requires_grad for p in module.parameters()] == before


def test_some_processors_are_swapped_and_come_back(tiny_pipe):
    unet = tiny_pipe.unet
    own = dict(unet.attn_processors)
    name = next(name for name in own if ".attn1." in name)
    mine = {name: object.__new__(type(own[name]))}
    with contextlib.suppress(Stop), attending(unet, mine):
        now = unet.attn_processors
        assert now[name] is mine[name]
        assert all(now[other] is own[other] for other in own if other != name)
        raise Stop
    assert unet.attn_processors == own and len(mine) == 1


def test_hooks_are_called_and_taken_off():
    module, seen = torch.nn.Linear(2, 2), []
    with contextlib.suppress(Stop), hooked((module, seen.append)):
        out = module(torch.ones(1, 2))
        raise Stop
    assert len(seen) == 1 and seen[0] is out
    module(torch.ones(1, 2))
    assert len(seen) == 1
