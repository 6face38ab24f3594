"""Reference attention (mutual self-attention, MasaCtrl): the edit takes its details from the source picture."""

from contextlib import AbstractContextManager

import torch.nn.functional as F
from torch import Tensor

from smoothnb._utils.temporarily import attending

PUBLISHED = 10 / 16
"""DragDiffusion changes self-attention from layer 10 of the 16 in Stable Diffusion 1.5."""


class _ReferenceProcessor:
    """An attention processor of diffusers for a batch of groups, each the reference followed by its edits."""

    def __init__(self, groups: int):
        self.groups = groups

    def __call__(self, attn, hidden_states: Tensor, *_: object, **__: object) -> Tensor:
        grouped = hidden_states.unflatten(0, (self.groups, -1))
        # Queries come from all samples of a group, keys and values from the reference alone.
        query, key, value = (
            attn.head_to_batch_dim(x)
            for x in (attn.to_q(grouped.flatten(1, 2)), attn.to_k(grouped[:, 0]), attn.to_v(grouped[:, 0]))
        )
        mixed = attn.batch_to_head_dim(F.scaled_dot_product_attention(query, key, value, scale=attn.scale))
        return attn.to_out[1](attn.to_out[0](mixed)).reshape(hidden_states.shape)


def self_attention_layers(unet) -> list[str]:
    """Names of the self-attention processors, in the order of the forward pass."""
    order = {"down": 0, "mid": 1, "up": 2}
    names = [name for name in unet.attn_processors if ".attn1." in name]
    return sorted(names, key=lambda name: order[name.split("_")[0]])


def reference_attention(unet, groups: int, first: int | None = None) -> AbstractContextManager[None]:
    """Temporarily takes keys and values of self-attention from the first sample of each group (Cao et al. 2023).

    Args:
        unet: A diffusers UNet.
        groups: Number of equal groups in the batch.
        first: Index of the first layer to change; by default at the same depth as in DragDiffusion.
    """
    names = self_attention_layers(unet)
    first = round(PUBLISHED * len(names)) if first is None else first
    return attending(unet, dict.fromkeys(names[first:], _ReferenceProcessor(groups)))
