"""The smooth LoRA: made new, attached to a pipeline, and blended with the base model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.console import errors_only
from smoothnb._utils.temporarily import default_float32
from smoothnb.models.lora_files import Lora, Pair, read_lora
from smoothnb.models.parts import check_in_place, uncompiled, weights_of

SMOOTH = "smooth"
"""Name of the adapter in a pipeline."""
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def add_lora(unet: nn.Module, rank: int) -> None:
    """Adds a new LoRA to the query, key, value and output projections of a UNet's attention; only it is trained.

    Args:
        unet: A diffusers UNet; its output does not change yet, as one of each pair of matrices starts at zero.
        rank: Of the matrices; the scale is 1 (alpha equals the rank). The paper: 8.
    """
    _add_adapter(unet, rank, SMOOTH)


def _add_adapter(unet: nn.Module, rank: int, name: str) -> None:
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
    with default_float32():
        unet.add_adapter(config, adapter_name=name)
    cast_training_params(unet, dtype=torch.float32)


@contextmanager
def stacked_lora(unet: nn.Module, rank: int, name: str) -> Iterator[list[nn.Parameter]]:
    """Meanwhile a UNet has one more LoRA, on top of those that are active, which keep their strength.

    Args:
        unet: A diffusers UNet.
        rank: Of the new LoRA.
        name: Of its adapter.

    Yields:
        The new LoRA's weights, in float32; they alone ask for gradients.

    Raises:
        ValueError: If the UNet has an adapter of that name.
    """
    if name in getattr(unet, "peft_config", {}):
        raise ValueError(f"this UNet has an adapter named {name!r} already: unet.delete_adapters({name!r}) removes it")
    check_in_place(unet, "train a LoRA")
    trained = _trained(unet)
    active = _active(unet)
    try:
        with warnings.catch_warnings():
            # peft warns of what is meant here.
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            _add_adapter(unet, rank, name)
        # Of the layers alone: `set_adapters` would also set anew how strong each is.
        _activate(unet, [*active, name])
        for p in trained:
            p.requires_grad_(False)
        yield [p for weight, p in unet.named_parameters() if f".{name}." in weight]
    finally:
        _activate(unet, active)
        _remove(unet, name)
        _train_again(trained)


def _remove(unet: nn.Module, name: str) -> None:
    """Takes an adapter out; with the last one of a layer, peft's layer too, so that all have their names again."""
    if len(getattr(unet, "peft_config", {})) <= 1:
        unet.unload_lora()
        return
    from peft.tuners.tuners_utils import BaseTunerLayer

    unet.delete_adapters(name)
    for place, module in list(unet.named_modules()):
        if isinstance(module, BaseTunerLayer) and not module.scaling:
            parent, _, own = place.rpartition(".")
            setattr(unet.get_submodule(parent), own, module.get_base_layer())


def _trained(unet: nn.Module) -> dict[nn.Parameter, bool]:
    """Which weights ask for gradients: peft settles that anew whenever it adds or activates something."""
    return {p: p.requires_grad for p in unet.parameters()}


def _train_again(trained: dict[nn.Parameter, bool]) -> None:
    for p, was_trained in trained.items():
        p.requires_grad_(was_trained)


def _active(unet: nn.Module) -> list[str]:
    """Names of the adapters that are at work."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layer = next((module for module in unet.modules() if isinstance(module, BaseTunerLayer)), None)
    return list(layer.active_adapters) if layer else []


def _activate(unet: nn.Module, names: list[str]) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in unet.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter([name for name in names if name in module.scaling])


@checked()
@uncompiled
def lora_of(pipe, dtype: torch.dtype | None = None) -> Lora:
    """The smooth LoRA that a pipeline holds, to be exported.

    Args:
        pipe: A diffusers pipeline.
        dtype: Of the weights; by default their own.

    Raises:
        ValueError: If it holds none.
    """
    _must_have_lora(pipe)
    weights = weights_of(pipe.unet)
    return Lora(
        {
            name: Pair(
                weights[f"{name}.lora_A.{SMOOTH}.weight"].to("cpu", dtype),
                weights[f"{name}.lora_B.{SMOOTH}.weight"].to("cpu", dtype),
                float(module.lora_alpha[SMOOTH]),
            )
            for name, module in pipe.unet.named_modules()
            if SMOOTH in getattr(module, "lora_A", {})
        }
    )


@checked(source=None)
@uncompiled
def import_lora(pipe, source: str | Path | Lora) -> Lora:
    """Attaches a LoRA to a pipeline's UNet, under the name "smooth", and makes sure that it has an effect.

    Args:
        pipe: A diffusers pipeline.
        source: A `.safetensors` file, a folder that holds one, or a hub id; written by diffusers or peft, by the old
            attention processors (as the paper's own LoRA), or in kohya's form. Or a LoRA that was read before.

    Returns:
        The LoRA; `export_lora` writes it in another form.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the pipeline has a smooth LoRA; if the file is a pickle, cut off, no LoRA, or one for another
            architecture; or if pictures do not change by it. The pipeline then is as it was.
    """
    from diffusers.utils import logging

    unet = pipe.unet
    check_in_place(unet, "attach a LoRA")
    if SMOOTH in getattr(unet, "peft_config", {}):
        raise ValueError(
            "this pipeline has a smooth LoRA already: set_smoothness sets its weight, pipe.delete_adapters('smooth') "
            "removes it"
        )
    lora = source if isinstance(source, Lora) else read_lora(source, (name for name, _ in unet.named_modules()))
    _must_fit(lora, unet)
    before, active, trained = _answer(unet), _active(unet), _trained(unet)
    state = {
        f"unet.{name}.lora_{half}.weight": weight
        for name, pair in lora.pairs.items()
        for half, weight in (("A", pair.down), ("B", pair.up))
    }
    # diffusers says when a UNet has other adapters too.
    try:
        with errors_only(logging):
            unet.load_lora_adapter(
                state, prefix="unet", adapter_name=SMOOTH, metadata=lora.adapter_metadata(), _pipeline=pipe
            )
        if torch.equal(before, _answer(unet)):
            raise ValueError("this LoRA changes nothing: one of each pair of matrices is zero. Has it been trained?")
    except BaseException:
        if SMOOTH in getattr(unet, "peft_config", {}):
            _remove(unet, SMOOTH)
            _activate(unet, active)
        _train_again(trained)
        raise
    return lora


def _must_fit(lora: Lora, unet: nn.Module) -> None:
    """Raises ValueError unless the UNet has every module of a LoRA, in its shape."""
    modules = dict(unet.named_modules())
    if not lora.pairs:
        raise ValueError("expected a LoRA of at least one module, got none")
    for name, pair in lora.pairs.items():
        weight = getattr(modules.get(name), "weight", None)
        wanted = (pair.up.shape[0], *pair.down.shape[1:])
        if weight is None or tuple(weight.shape) != wanted:
            there = "has no such module" if weight is None else f"has {[*weight.shape]} there"
            raise ValueError(
                f"this LoRA is for another architecture: expected a UNet with {name} of shape {[*wanted]}, and this "
                f"one {there}. The pipeline is as it was"
            )


@torch.no_grad()
def _answer(unet: nn.Module) -> torch.Tensor:
    """What a UNet predicts for a small noise: it tells whether its weights have changed."""
    generator = torch.Generator().manual_seed(0)
    side = 2 ** len(unet.config.block_out_channels)
    noise = torch.randn(1, unet.config.in_channels, side, side, generator=generator, dtype=torch.float32)
    embeds = torch.randn(1, 1, unet.config.cross_attention_dim, generator=generator, dtype=torch.float32)
    return unet(noise.to(unet.device, unet.dtype), 500, embeds.to(unet.device, unet.dtype)).sample


@checked(smoothness=checks.number())
@uncompiled
def set_smoothness(pipe, smoothness: float) -> None:
    """Blends between the base model and the smooth one.

    Args:
        pipe: A pipeline with the smooth LoRA attached.
        smoothness: The LoRA's weight: 0 is the base model, 1 the smooth one; beyond 1 it is exaggerated.

    Raises:
        ValueError: If the pipeline has no smooth LoRA, or the number is negative or not finite.
    """
    _must_have_lora(pipe)
    if not 0 <= smoothness < float("inf"):
        raise ValueError(f"expected smoothness of at least 0 (0 the base model, 1 the smooth one), got {smoothness}")
    pipe.set_adapters(SMOOTH, float(smoothness))


def _must_have_lora(pipe) -> None:
    if SMOOTH not in getattr(pipe.unet, "peft_config", {}):
        raise ValueError("this pipeline has no smooth LoRA: load it with load_pipeline(..., smooth=True)")


@contextmanager
def blended(pipe, smoothness: float) -> Iterator[None]:
    """Meanwhile a pipeline has another smoothness; see `set_smoothness`."""
    layers = [module for module in pipe.unet.modules() if SMOOTH in getattr(module, "scaling", {})]
    before, active, trained = [m.scaling[SMOOTH] for m in layers], _active(pipe.unet), _trained(pipe.unet)
    try:
        set_smoothness(pipe, smoothness)
        yield
    finally:
        _activate(pipe.unet, active)
        for module, scale in zip(layers, before, strict=True):
            module.scaling[SMOOTH] = scale
        _train_again(trained)
