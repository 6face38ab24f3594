"""A pipeline's scheduler, and its parts, wherever their weights are: compiled, offloaded, or simply there."""

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from smoothnb._utils.pipeline import Pipeline

P, R = ParamSpec("P"), TypeVar("R")


def device_of(pipe: Pipeline) -> torch.device:
    """The device on which a pipeline computes, which is not where its weights are while these are offloaded."""
    return getattr(pipe, "_execution_device", pipe.device)


def recommended_guidance(pipe: Pipeline, guidance_scale: float | None = None) -> float:
    """The given guidance scale w; where it is None, what the model recommends, else 7.5, as in the paper.

    A model recommends a scale by a file recommended.json in its folder: {"guidance_scale": 3.0}.

    Raises:
        ValueError: If it is below 1, or not finite.
    """
    scale = getattr(pipe, "recommended_guidance_scale", 7.5) if guidance_scale is None else guidance_scale
    if not 1 <= scale < math.inf:
        raise ValueError(f"expected guidance_scale of at least 1 (1 is no guidance), got {scale}")
    return float(scale)


def ddim(scheduler, **settings: object):
    """Builds the DDIM scheduler that this package draws and inverts with, whatever scheduler a pipeline has.

    It has the noise schedule and the prediction type of the given one, and Stable Diffusion's spacing ("leading", from
    t = 1): only there every step starts at the t where the one before ends, so that an inversion runs through the same
    states, and none starts at t = T, where a model of zero terminal SNR has forgotten the picture.

    Args:
        scheduler: A diffusers scheduler with ᾱ_t; it is left as it was.
        settings: Settings of `diffusers.DDIMScheduler` to replace.
    """
    from diffusers import DDIMScheduler

    config, alpha_bar = scheduler.config, scheduler.alphas_cumprod.cpu().clone()
    own = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    kept = {name: config[name] for name in own if name in config} | {"num_train_timesteps": len(alpha_bar)}
    if kept.get("beta_schedule") not in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        betas = 1 - alpha_bar / torch.cat([torch.ones_like(alpha_bar[:1]), alpha_bar[:-1]])
        kept |= {"beta_schedule": "linear", "trained_betas": betas.tolist()}
    spacing = dict(timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False)
    zero_snr = config.get("rescale_betas_zero_snr", False)
    found = DDIMScheduler(**kept | spacing | {"clip_sample": False, "rescale_betas_zero_snr": zero_snr} | settings)
    found.alphas_cumprod, found.final_alpha_cumprod = alpha_bar, alpha_bar[0]
    return found


def weights_of(part: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model, as if it were neither compiled nor offloaded."""
    state = part.state_dict()
    if any(weight.is_meta for weight in state.values()):
        from accelerate.utils.modeling import get_state_dict_offloaded_model

        state = get_state_dict_offloaded_model(part)
    return {name.replace("_orig_mod.", ""): weight for name, weight in state.items()}


def check_in_place(part: nn.Module, task: str) -> None:
    """Raises ValueError if accelerate keeps weights of a model elsewhere and brings them for each pass."""
    if any(weight.is_meta for weight in part.parameters()):
        raise ValueError(
            f"cannot {task} while accelerate offloads the weights: do it first and offload afterwards, or call "
            "pipe.remove_all_hooks() and pipe.to(device)"
        )


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Lets a function see the UNet that `torch.compile` wrapped: its layers change, or are looked into."""

    @functools.wraps(function)
    def inner(pipe: Pipeline, *args: P.args, **kwargs: P.kwargs) -> R:
        compiled = getattr(pipe, "unet", None)
        if not hasattr(compiled, "_orig_mod"):
            return function(pipe, *args, **kwargs)
        pipe.unet = compiled._orig_mod
        try:
            return function(pipe, *args, **kwargs)
        finally:
            pipe.unet = compiled

    return inner
