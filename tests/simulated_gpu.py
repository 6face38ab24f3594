"""A simulated accelerator for machines without one: the device "sim", which computes on the CPU.

Its tensors do not mix with tensors of the CPU and do not become NumPy arrays, as those of CUDA, so that code which
forgets to move a tensor fails here too. Needs torch 2.13: what registers a device from Python is experimental.
"""

import contextlib

import pytest
import torch
import torch.utils._device

try:
    from torch.utils import backend_registration

    register = backend_registration._setup_privateuseone_for_python_backend
except AttributeError:
    pytest.skip("this torch cannot register a device from Python", allow_module_level=True)


class _Module(backend_registration._DummyBackendModule):
    """torch.sim. The device is there only for those who name it, as other tests run in this process too."""

    def is_available(self) -> bool:
        return False


class _Hooks(backend_registration._DummyPrivateUse1Hook):
    """What PyTorch itself asks."""

    def is_available(self) -> bool:
        return False


_MODULE, _HOOKS = _Module(), _Hooks()
register("sim", _MODULE, _HOOKS)
DEVICE = torch.device("sim", 0)

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""These take indices of the CPU into tensors of any device."""


class SimTensor(torch.Tensor):
    """A tensor of the simulated device, with its numbers in a tensor of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> "SimTensor":
        tensor = torch.Tensor._make_wrapper_subclass(
            cls, numbers.size(), numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype, device=DEVICE
        )
        tensor.numbers = numbers
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _run(function, *args, **(kwargs or {}))

    # PyTorch gives these to tensors of its own devices alone.
    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        torch.Tensor.data.__set__(self, value)
        self.numbers = value.numbers

    def __repr__(self) -> str:
        return repr(self.numbers)

    def __format__(self, spec: str) -> str:
        return format(self.numbers, spec)

    def tolist(self) -> object:
        return self.numbers.tolist()

    def new_tensor(self, data: object, **options: object) -> torch.Tensor:
        return torch.tensor(data, **{"dtype": self.dtype, "device": DEVICE, **options})

    def numpy(self, **_: object) -> None:
        raise TypeError("can't convert sim:0 device type tensor to numpy. Use Tensor.cpu() first")


def _each(change, tree):
    """Changes every leaf of a tree of tuples, lists and dictionaries. (torch.utils._pytree is three times slower.)"""
    if isinstance(tree, tuple | list):
        return type(tree)([_each(change, branch) for branch in tree])
    return {key: _each(change, branch) for key, branch in tree.items()} if isinstance(tree, dict) else change(tree)


def _numbers(leaf):
    return leaf.numbers if isinstance(leaf, SimTensor) else leaf


def _run(function, *args, **kwargs):
    """Runs an operator that has a tensor of the device among its arguments, or makes one."""
    device, here, strays = kwargs.get("device"), False, []

    def taken(leaf):
        nonlocal here
        if isinstance(leaf, SimTensor):
            here = True
        # A number, a tensor without axes, may come from the CPU.
        elif isinstance(leaf, torch.Tensor) and leaf.ndim:
            strays.append(tuple(leaf.shape))
        return _numbers(leaf)

    operands = _each(taken, args), _each(taken, kwargs if device is None else kwargs | {"device": "cpu"})
    indexing = function in INDEXING and isinstance(args[0], SimTensor)
    if here and strays and function not in COPIES and not indexing:
        raise RuntimeError(f"expected all tensors on sim:0, got some on the CPU, of shapes {strays}, in {function}")
    found = function(*operands[0], **operands[1])
    if torch.Tag.inplace_view in function.tags:  # The shape that the tensor shows changes too.
        with torch._C._DisableTorchDispatch():
            return function(*args, **kwargs)
    if function._schema.is_mutable:
        for given, argument in zip(args, function._schema.arguments, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                return given
    if not (here if device is None else torch.device(device).type == "sim"):
        return found
    return _each(lambda leaf: SimTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, found)


_LIBRARY = torch.library.Library("_", "IMPL")
_LIBRARY.fallback(_run, "PrivateUse1")


@contextlib.contextmanager
def simulated_gpu(monkeypatch: pytest.MonkeyPatch):
    """The device; while it is open, modules can be moved to it and `torch.tensor` makes tensors on it."""
    tensor, to = torch.tensor, torch.nn.Module.to

    def anywhere(data: object, *args: object, **options: object) -> torch.Tensor:
        device = options.get("device")
        there = device is not None and torch.device(device).type == "sim"
        found = tensor(_each(_numbers, data), *args, **(options | {"device": "cpu"} if there else options))
        return found.to(DEVICE) if there else found

    def moved(module: torch.nn.Module, *args: object, **options: object) -> torch.nn.Module:
        # Parameters that become others of another class. Not for longer: transformers loads models otherwise then.
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return to(module, *args, **options)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    # What `with torch.device(…)` applies to is listed once, and the list is to hold the original.
    torch.utils._device._device_constructors()
    monkeypatch.setattr(torch, "tensor", anywhere)
    monkeypatch.setattr(torch.nn.Module, "to", moved)
    yield DEVICE
