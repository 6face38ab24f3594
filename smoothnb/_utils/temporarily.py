"""What is done to a model for a while, and undone whatever happens."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Meanwhile no weight asks for a gradient: a forward pass then keeps nothing for them."""
    trained = [p for p in module.parameters() if p.requires_grad]
    try:
        for p in trained:
            p.requires_grad_(False)
        yield
    finally:
        for p in trained:
            p.requires_grad_(True)


@contextmanager
def attending(unet, processors: object | Mapping[str, object]) -> Iterator[None]:
    """Meanwhile other attention processors are at work: one for all layers, or some by the names of their layers."""
    own = dict(unet.attn_processors)
    try:
        # diffusers empties the dictionary that it is given.
        unet.set_attn_processor({**own, **processors} if isinstance(processors, Mapping) else processors)
        yield
    finally:
        unet.set_attn_processor(own)


@contextmanager
def hooked(*pairs: tuple[nn.Module, Callable[[Tensor], None]]) -> Iterator[None]:
    """Meanwhile each function is called with every output of its module."""
    handles = [module.register_forward_hook(lambda _, __, output, keep=keep: keep(output)) for module, keep in pairs]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
