"""State of the adapters in a model, as peft keeps it: saved, changed for one adapter, and restored."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn


def unwrapped(unet: nn.Module) -> nn.Module:
    """Returns the diffusers UNet, also if `peft.get_peft_model` wrapped it."""
    return getattr(unet, "get_base_model", lambda: unet)()


@contextmanager
def quiet() -> Iterator[None]:
    """Hides peft's warning about a second adapter, which is intended here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")
        yield


def layers(model: nn.Module) -> list[nn.Module]:
    """The layers of a model that hold adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


@dataclass(frozen=True)
class State:
    """What peft changes in a model whenever it adds or activates an adapter.

    Attributes:
        active: Names of the active adapters, by module.
        trained: Whether each weight requires gradients.
    """

    active: Mapping[nn.Module, str | list[str]]
    trained: Mapping[nn.Parameter, bool]

    @classmethod
    def of(cls, model: nn.Module) -> "State":
        active = {module: module._active_adapter for module in model.modules() if "_active_adapter" in vars(module)}
        return cls(active, {p: p.requires_grad for p in model.parameters()})

    def restore(self) -> None:
        # peft's own `set_adapter` would change which weights require gradients.
        for module, names in self.active.items():
            module._active_adapter = names
        for p, was_trained in self.trained.items():
            p.requires_grad_(was_trained)


def activate(model: nn.Module, name: str, before: State) -> None:
    """Makes an adapter active in a model, on top of those that were active before."""
    known = {module: [names] if isinstance(names, str) else names for module, names in before.active.items()}
    # diffusers asks the first layer which adapters are active, so that all list the same.
    others = list(dict.fromkeys(n for module in layers(model) for n in known.get(module, [])))
    for module in layers(model):
        names = known.get(module, others)
        module._active_adapter = names if name in names else [*names, name]


def remove(unet: nn.Module, name: str, before: State) -> None:
    """Removes an adapter and the layers that were added for it, and restores the state before."""
    before.restore()
    unet.delete_adapters(name)
    for place, module in list(unet.named_modules()):
        if module not in before.active and hasattr(module, "base_layer"):
            unet.set_submodule(place, module.base_layer)
    before.restore()


def check_open(modules: Iterable[nn.Module]) -> None:
    """Raises ValueError if peft would ignore an adapter in some module."""
    for layer in modules:
        if getattr(layer, "disable_adapters", False):
            raise ValueError(
                "the LoRAs of this pipeline are disabled, and any other would be too: call pipe.enable_lora() first; "
                "a weight of 0, by pipe.set_adapters, keeps one without an effect"
            )
        if fused := getattr(layer, "merged_adapters", None):
            raise ValueError(
                f"{' and '.join(fused)} is fused into the weights of this pipeline, where it hides other LoRAs: call "
                "pipe.unfuse_lora() to keep it adjustable, or pipe.unload_lora_weights() to keep it in the weights"
            )
