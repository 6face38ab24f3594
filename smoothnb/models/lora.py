"""The smooth LoRA: created, attached to a pipeline, and blended with the base model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from smoothnb._utils.checks import at_least
from smoothnb._utils.console import errors_only
from smoothnb._utils.pipeline import Pipeline, check_pipeline
from smoothnb._utils.temporarily import default_float32
from smoothnb.models import adapters
from smoothnb.models.lora_files import Lora, Pair, read_lora
from smoothnb.models.lora_forms import check_plain
from smoothnb.models.parts import check_in_place, uncompiled, weights_of

SMOOTH = "smooth"
"""Name of the adapter in a pipeline."""
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def add_lora(unet: nn.Module, rank: int, name: str = SMOOTH) -> None:
    """Adds a new LoRA to the query, key, value and output projections of a UNet's attention, and freezes the rest.

    Args:
        unet: A diffusers UNet. Its output does not change yet, as one of each pair of matrices starts at zero.
        rank: Rank of the matrices; the scale is 1 (alpha equals the rank). The paper uses 8.
        name: Name of its adapter.
    """
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
    with default_float32():
        unet.add_adapter(config, adapter_name=name)
    cast_training_params(unet, dtype=torch.float32)


@contextmanager
def stacked_lora(unet: nn.Module, rank: int, name: str) -> Iterator[list[nn.Parameter]]:
    """Temporarily adds one more LoRA to a UNet, on top of the active ones, which keep their weights.

    Yields:
        The new LoRA's weights, in float32; they alone require gradients.

    Raises:
        ValueError: If the UNet has an adapter of that name, or its LoRAs are disabled or fused.
    """
    unet = adapters.unwrapped(unet)
    if name in getattr(unet, "peft_config", {}):
        raise ValueError(f"this UNet has an adapter named {name!r} already: unet.delete_adapters({name!r}) removes it")
    check_in_place(unet, "train a LoRA")
    adapters.check_open(module for place, module in unet.named_modules() if place.endswith(tuple(TARGETS)))
    before = adapters.State.of(unet)
    try:
        with adapters.quiet():
            add_lora(unet, rank, name)
        before.restore()
        adapters.activate(unet, name, before)
        for p in before.trained:
            p.requires_grad_(False)
        yield [p for weight, p in unet.named_parameters() if f".{name}." in weight]
    finally:
        adapters.remove(unet, name, before)


@uncompiled
def lora_of(pipe: Pipeline, dtype: torch.dtype | None = None) -> Lora:
    """Returns the smooth LoRA that a pipeline holds, for `export_lora`.

    Args:
        pipe: A diffusers pipeline.
        dtype: Data type of the weights; by default, their own.

    Raises:
        ValueError: If it holds none, or one that is not a plain LoRA of the UNet, such as DoRA.
    """
    _smooth_layers(pipe)
    unet = adapters.unwrapped(pipe.unet)
    weights = weights_of(unet)
    check_plain(unet.peft_config[SMOOTH].to_dict(), "the smooth LoRA of this pipeline")
    return Lora(
        {
            name.replace(".base_layer", ""): Pair(
                weights[f"{name}.lora_A.{SMOOTH}.weight"].to("cpu", dtype),
                weights[f"{name}.lora_B.{SMOOTH}.weight"].to("cpu", dtype),
                module.lora_alpha[SMOOTH] * (module.r[SMOOTH] ** 0.5 if module.use_rslora[SMOOTH] else 1.0),
            )
            for name, module in unet.named_modules()
            if SMOOTH in getattr(module, "lora_A", {})
        }
    )


@uncompiled
def import_lora(pipe: Pipeline, source: str | Path | Lora) -> Lora:
    """Attaches a LoRA to a pipeline's UNet, under the name "smooth", and makes sure that it has an effect.

    Args:
        pipe: A diffusers pipeline. Other adapters that it has stay active or inactive, with their weights.
        source: A `.safetensors` file, a folder that holds one, or a hub id; written by diffusers or peft, by the old
            attention processors (as the paper's own LoRA), or in kohya's form. Or a LoRA that was read before.

    Returns:
        The LoRA; `export_lora` writes it in another form.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the pipeline has a smooth LoRA, or its LoRAs are disabled or fused; if the file is a pickle, cut
            off, no LoRA, one of another kind (DoRA, LoHa, …), or one for another architecture; or if pictures do not
            change by it. The pipeline then is as it was.
    """
    from diffusers.utils import logging

    check_pipeline(pipe)
    unet = adapters.unwrapped(pipe.unet)
    check_in_place(unet, "attach a LoRA")
    if SMOOTH in getattr(unet, "peft_config", {}):
        raise ValueError(
            "this pipeline has a smooth LoRA already: set_smoothness sets its weight, pipe.delete_adapters('smooth') "
            "removes it"
        )
    lora = source if isinstance(source, Lora) else read_lora(source, dict(unet.named_modules()))
    check_fits(lora, unet)
    adapters.check_open(unet.get_submodule(name) for name in lora.pairs)
    before, drawn = adapters.State.of(unet), _answer(unet)
    state = {f"unet.{name}.lora_A.weight": pair.down for name, pair in lora.pairs.items()}
    state |= {f"unet.{name}.lora_B.weight": pair.up for name, pair in lora.pairs.items()}
    try:
        # diffusers warns when a UNet has other adapters too.
        with errors_only(logging), adapters.quiet():
            unet.load_lora_adapter(
                state, prefix="unet", adapter_name=SMOOTH, metadata=lora.adapter_metadata(), _pipeline=pipe
            )
        # The first adapter freezes the UNet.
        if before.active:
            before.restore()
        adapters.activate(unet, SMOOTH, before)
        if torch.equal(drawn, _answer(unet)):
            raise ValueError("this LoRA changes nothing: its weights or its alphas are zero. Has it been trained?")
    except BaseException:
        adapters.remove(unet, SMOOTH, before)
        raise
    return lora


def check_fits(lora: Lora, unet: nn.Module) -> None:
    """Raises ValueError unless a UNet has every module of a LoRA, in its shape."""
    weights = {name: getattr(module, "weight", None) for name, module in unet.named_modules()}
    for name, pair in lora.pairs.items():
        weight, wanted = weights.get(name), [pair.up.shape[0], *pair.down.shape[1:]]
        if weight is None or [*weight.shape] != wanted:
            there = "has no such module" if weight is None else f"has {[*weight.shape]} there"
            raise ValueError(
                f"this LoRA is for another architecture: expected a UNet with {name} of shape {wanted}, and this one "
                f"{there}"
            )


@torch.no_grad()
def _answer(unet: nn.Module) -> torch.Tensor:
    """A UNet's prediction for a small noise, which tells whether its weights have changed."""
    generator = torch.Generator().manual_seed(0)
    side = 2 ** len(unet.config.block_out_channels)
    noise = torch.randn(1, unet.config.in_channels, side, side, generator=generator, dtype=torch.float32)
    # Several tokens: attention to a single one does not depend on queries and keys.
    embeds = torch.randn(1, 4, unet.config.cross_attention_dim, generator=generator, dtype=torch.float32)
    return unet(noise.to(unet.device, unet.dtype), 500, embeds.to(unet.device, unet.dtype)).sample


@uncompiled
def set_smoothness(pipe: Pipeline, smoothness: float) -> None:
    """Blends between the base model and the smooth one.

    Args:
        pipe: A pipeline with the smooth LoRA attached. Other adapters that it has stay as they are.
        smoothness: The LoRA's weight: 0 is the base model, 1 the smooth one; beyond 1 it is exaggerated.

    Raises:
        ValueError: If the pipeline has no smooth LoRA, or one that is disabled or fused; or if the number is negative
            or not finite.
    """
    at_least(0, smoothness=smoothness)
    layers = _smooth_layers(pipe)
    adapters.check_open(layers)
    unet = adapters.unwrapped(pipe.unet)
    adapters.activate(unet, SMOOTH, adapters.State.of(unet))
    for layer in layers:
        layer.set_scale(SMOOTH, float(smoothness))


def _smooth_layers(pipe: Pipeline) -> list[nn.Module]:
    """The layers that hold the smooth LoRA; ValueError if there are none, or some are in the text encoder."""
    check_pipeline(pipe)
    if SMOOTH in getattr(pipe.text_encoder, "peft_config", {}):
        raise ValueError("the smooth LoRA of this pipeline trains the text encoder too: load it under another name")
    layers = adapters.layers(adapters.unwrapped(pipe.unet))
    if found := [layer for layer in layers if SMOOTH in getattr(layer, "scaling", {})]:
        return found
    raise ValueError("this pipeline has no smooth LoRA: load it with load_pipeline(..., smooth=True)")


@contextmanager
def blended(pipe: Pipeline, smoothness: float) -> Iterator[None]:
    """Temporarily sets another smoothness; see `set_smoothness`."""
    scales = {layer: layer.scaling[SMOOTH] for layer in _smooth_layers(pipe)}
    before = adapters.State.of(adapters.unwrapped(pipe.unet))
    try:
        set_smoothness(pipe, smoothness)
        yield
    finally:
        before.restore()
        for layer, scale in scales.items():
            layer.scaling[SMOOTH] = scale
