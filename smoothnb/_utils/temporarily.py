"""Temporary changes to a model, undone on exit whatever happens."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def default_float32() -> Iterator[None]:
    """Temporarily makes float32 the default dtype, in which libraries draw and load weights."""
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Temporarily disables gradients for all parameters."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)


@contextmanager
def attending(unet, processors: object | Mapping[str, object]) -> Iterator[None]:
    """Temporarily sets attention processors: one for all layers, or several by the name of their layer."""
    processors_before = dict(unet.attn_processors)
    try:
        # diffusers empties the dictionary that it receives.
        unet.set_attn_processor({**processors_before, **processors} if isinstance(processors, Mapping) else processors)
        yield
    finally:
        unet.set_attn_processor(processors_before)


@contextmanager
def hooked(*pairs: tuple[nn.Module, Callable[[Tensor], None]]) -> Iterator[None]:
    """Temporarily calls each function with every output of its module."""
    handles = [module.register_forward_hook(lambda _, __, output, keep=keep: keep(output)) for module, keep in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
