"""Counts the bytes of all tensors that are alive, whatever device they stand for."""

import weakref
from functools import partial

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

aten = torch.ops.aten
PRODUCTS = {
    aten.addmm.default, aten.mm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default,
    aten.convolution_backward.default, aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default,
}  # fmt: skip
"""What CPUs compute 25 times as slowly in half precision as in float32, where they have no instructions for it."""
HALVES = (torch.float16, torch.bfloat16)


class LiveMemory(TorchDispatchMode):
    """Temporarily counts every tensor that an operation gives, until it is freed: what an allocator has to hold.

    Half precision then takes as many bytes as on a GPU, and on a CPU about the time of float32: products of matrices
    are computed in float32 and rounded, as a GPU's tensor cores do, and what that takes for the moment is not counted.
    Nor are what a GPU's kernels take for themselves, gaps between tensors, and CUDA's own few hundred MB.

    Attributes:
        peak: Most bytes that were alive at a time, beyond those of tensors from before.
    """

    def __init__(self):
        super().__init__()
        self.peak = self._now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        own = next((x.dtype for x in given if x.dtype in HALVES and x.device.type == "cpu"), None)
        # What was there before, weights say, is none of it, nor are views of that.
        before = {id(x.untyped_storage()) for x in given if x.device.type != "meta"}
        count = partial(self._counted, before)
        if func not in PRODUCTS or own is None:
            return tree_map_only(Tensor, count, func(*args, **kwargs))
        wide = tree_map_only(Tensor, lambda x: x.float() if x.dtype == own else x, (args, kwargs))
        found = func(*wide[0], **wide[1])
        if func is aten._scaled_dot_product_flash_attention_for_cpu.default:
            # The second result is float32 in half precision too.
            found = (found[0].to(own), *found[1:])
        else:
            found = tree_map_only(Tensor, lambda x: x.to(own), found)
        return tree_map_only(Tensor, count, found)

    def _counted(self, before: set[int], x: Tensor) -> Tensor:
        if x.device.type == "meta":
            return x
        storage = x.untyped_storage()
        if id(storage) not in before and id(storage) not in self._alive:
            self._alive[id(storage)] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._freed, id(storage))
        return x

    def _freed(self, number: int) -> None:
        self._now -= self._alive.pop(number)
