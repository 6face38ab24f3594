"""Reference attention: what is drawn looks for its details in the picture before (mutual self-attention, MasaCtrl)."""

from contextlib import AbstractContextManager

import torch.nn.functional as F
from torch import Tensor

from smoothnb._utils.temporarily import attending

PUBLISHED = 10 / 16
"""Stable Diffusion 1.5 has 16 layers of self-attention, of which DragDiffusion changes those from the tenth on."""


class _Referring:
    """An attention processor, as diffusers calls them, for a batch of groups: first the reference, then the edits."""

    def __init__(self, groups: int):
        self.groups = groups

    def __call__(self, attn, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        grouped = hidden_states.unflatten(0, (self.groups, -1))
        # All pixels of a group ask, the reference's own among them, and those of the reference alone answer.
        query, key, value = (
            attn.head_to_batch_dim(x)
            for x in (attn.to_q(grouped.flatten(1, 2)), attn.to_k(grouped[:, 0]), attn.to_v(grouped[:, 0]))
        )
        mixed = attn.batch_to_head_dim(F.scaled_dot_product_attention(query, key, value, scale=attn.scale))
        return attn.to_out[1](attn.to_out[0](mixed)).reshape(hidden_states.shape)


def self_attention(unet) -> list[str]:
    """Names of the processors of its layers of self-attention, in the order in which they are passed."""
    order = {"down": 0, "mid": 1, "up": 2}
    names = [name for name in unet.attn_processors if ".attn1." in name]
    return sorted(names, key=lambda name: order[name.split("_")[0]])


def refer(unet, groups: int, first: int | None = None) -> AbstractContextManager[None]:
    """Meanwhile self-attention takes keys and values from the first of each group of the batch (Cao et al. 2023).

    Args:
        unet: A diffusers UNet.
        groups: How many equal parts the batch has.
        first: Number of the layer, from 0, to begin with; by default as far up as in DragDiffusion.
    """
    names = self_attention(unet)
    first = round(PUBLISHED * len(names)) if first is None else first
    return attending(unet, dict.fromkeys(names[first:], _Referring(groups)))
