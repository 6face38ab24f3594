"""The smooth LoRA: made new, saved, attached to a pipeline, and blended with the base model."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from smoothnb.quiet import errors_only

SMOOTH = "smooth"
"""Name of the adapter in a pipeline."""
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
WEIGHTS = "pytorch_lora_weights.safetensors"


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

    unet.add_adapter(
        LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS), adapter_name=name
    )
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
    from peft.tuners.tuners_utils import BaseTunerLayer

    if name in getattr(unet, "peft_config", {}):
        raise ValueError(f"this UNet has an adapter named {name!r} already: unet.delete_adapters({name!r}) removes it")
    trained = {p: p.requires_grad for p in unet.parameters()}
    layers = [module for module in unet.modules() if isinstance(module, BaseTunerLayer)]
    active = layers[0].active_adapters if layers else []
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
        if layers:
            _activate(unet, list(active))
            unet.delete_adapters(name)
        else:
            unet.unload_lora()
        for p, was_trained in trained.items():
            p.requires_grad_(was_trained)


def _activate(unet: nn.Module, names: list[str]) -> None:
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in unet.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter([name for name in names if name in module.scaling])


def save_lora(unet: nn.Module, folder: Path, metadata: Mapping[str, str], dtype: torch.dtype | None = None) -> Path:
    """Saves the smooth LoRA as `pipe.load_lora_weights(folder)` of diffusers reads it.

    Args:
        unet: The UNet that holds it.
        folder: Where to write.
        metadata: Kept in the file's header.
        dtype: Of the saved weights; by default their own.

    Returns:
        The file.
    """
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet, adapter_name=SMOOTH))
    state = {f"unet.{name}": value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / WEIGHTS, {"format": "pt", **metadata})
    return folder / WEIGHTS


def attach_lora(pipe, source: str | Path) -> None:
    """Attaches a LoRA to a pipeline's UNet, under the name "smooth".

    Args:
        pipe: A diffusers pipeline.
        source: A folder with `pytorch_lora_weights.safetensors`, a file, or a hub id.

    Raises:
        ValueError: If nothing of the pipeline was changed: the file holds keys of another form, or of another model.
            Or if there is one already.
    """
    from diffusers.utils import logging

    if SMOOTH in getattr(pipe.unet, "peft_config", {}):
        raise ValueError(
            "this pipeline has a smooth LoRA already: set_smoothness sets its weight, pipe.delete_adapters('smooth') "
            "removes it"
        )
    path = Path(source)
    where = {"weight_name": path.name} if path.is_file() else {}
    # diffusers warns that there is nothing for the text encoder, and only warns where no key fits the UNet either.
    with errors_only(logging):
        pipe.load_lora_weights(str(path.parent if path.is_file() else source), adapter_name=SMOOTH, **where)
    if SMOOTH not in getattr(pipe.unet, "peft_config", {}):
        raise ValueError(f"no weight of {source} fits this UNet: the pipeline is as it was")


def set_smoothness(pipe, smoothness: float) -> None:
    """Blends between the base model and the smooth one.

    Args:
        pipe: A pipeline with the smooth LoRA attached.
        smoothness: The LoRA's weight: 0 is the base model, 1 the smooth one; beyond 1 it is exaggerated.

    Raises:
        ValueError: If the pipeline has no smooth LoRA, or the number is negative or not finite.
    """
    if SMOOTH not in getattr(pipe.unet, "peft_config", {}):
        raise ValueError("this pipeline has no smooth LoRA: load it with load_pipeline(..., smooth=True)")
    if not 0 <= smoothness < float("inf"):
        raise ValueError(f"expected smoothness of at least 0 (0 the base model, 1 the smooth one), got {smoothness}")
    pipe.set_adapters(SMOOTH, float(smoothness))


@contextmanager
def blended(pipe, smoothness: float) -> Iterator[None]:
    """Meanwhile a pipeline has another smoothness; see `set_smoothness`."""
    layers = [module for module in pipe.unet.modules() if SMOOTH in getattr(module, "scaling", {})]
    before = [module.scaling[SMOOTH] for module in layers]
    set_smoothness(pipe, smoothness)
    try:
        yield
    finally:
        for module, scale in zip(layers, before, strict=True):
            module.scaling[SMOOTH] = scale
