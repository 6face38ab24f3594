"""Checks of arguments by name: a name means the same in every public function."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from smoothnb._utils.checks import (
    Rule,
    factors,
    finite,
    flag,
    floating,
    function,
    number,
    pair,
    path,
    seeds,
    shown,
    text,
    texts,
    whole,
)

P, R = ParamSpec("P"), TypeVar("R")
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def pipeline(name: str, value: object, _: object = None) -> object:
    """A diffusers pipeline, of a text-to-image diffusion model with a UNet."""
    if (scheduler := getattr(value, "scheduler", None)) is not None:
        kind, config = type(scheduler).__name__, scheduler.config
        predicted = config.get("prediction_type")
        flow = config.get("use_flow_sigmas") or predicted not in ("epsilon", "v_prediction", "sample")
        if flow or not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"expected a diffusion model, which DDIM can draw and invert, got a {type(value).__name__} with "
                f"{kind}: flow-matching models can only be trained here (base_loss, variation_regularizer). If the "
                "model is no flow-matching model, give its pipeline a scheduler with noise levels ᾱ_t, such as "
                "diffusers.DDIMScheduler"
            )
    missing = [part for part in PARTS if not hasattr(value, part)]
    if missing:
        raise TypeError(f"expected {name} as a pipeline, such as load_pipeline() gives, got {shown(value)}")
    text_to_image(value)
    return value


def text_to_image(pipe) -> None:
    """Raises ValueError unless a pipeline's UNet takes latents, t and a text, and nothing else."""
    config, channels = pipe.unet.config, pipe.vae.config.latent_channels
    if config.in_channels != channels or config.out_channels != channels:
        kind = {9: "an inpainting", 8: "an instruct-pix2pix", 7: "an upscaling", 5: "a depth-to-image"}
        raise ValueError(
            f"expected a text-to-image model, got {kind.get(config.in_channels, 'another')} one: its UNet takes "
            f"{config.in_channels} channels and gives {config.out_channels}, where latents have {channels}. Load the "
            "text-to-image model that it was made from"
        )
    for setting in ("addition_embed_type", "class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
        if config.get(setting) is not None:
            raise ValueError(
                f"expected a text-to-image model, got one whose UNet asks for more than latents, t and a text "
                f"({setting}={config.get(setting)!r}), as those of SDXL, upscalers and IP-Adapter do (then "
                "pipe.unload_ip_adapter() removes it)"
            )


def steps(name: str, value: object, pipe: object = None) -> int:
    """A number of sampling steps that the pipeline supports."""
    found = whole(1)(name, value)
    most = len(pipe.scheduler.alphas_cumprod) if pipe else found
    if found > most:
        raise ValueError(f"expected {name} of at most {most}, as many as the model was trained with, got {found}")
    return found


def device(name: str, value: object, _: object = None) -> torch.device:
    """An available device."""
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f'expected {name} as "cpu", "cuda", "mps" or a torch.device, got {shown(value)}') from error
    kinds = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if found.type in ("cuda", "mps", "meta") and (found.index or 0) >= kinds.get(found.type, 0):
        raise ValueError(f"expected {name} as one that is there, got {found}: {kinds} can be used here")
    return found


def dtype(name: str, value: object, _: object = None) -> torch.dtype:
    """A type of weights."""
    kinds = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    if value not in kinds:
        raise ValueError(f"expected {name} as one of {', '.join(map(str, kinds))}, got {shown(value)}")
    return value


def texts_or_embeddings(name: str, value: object, pipe: object = None) -> str | list[str] | Tensor:
    """Texts, or their embeddings, as wide as the pipeline's."""
    if not isinstance(value, Tensor):
        return texts(name, value)
    width = getattr(pipe.unet.config, "cross_attention_dim", value.shape[-1:])
    if not 3 <= value.ndim <= 4 or value.shape[-1] != width or 0 in value.shape:
        raise ValueError(
            f"expected {name} as texts, or as embeddings of text × token × {width}, got shape {tuple(value.shape)}"
        )
    return finite(name, value)


def shaped_latents(name: str, value: object, pipe: object = None) -> Tensor:
    """A latent or a batch of latents, with the pipeline's number of channels."""
    channels = pipe.unet.config.in_channels
    if floating(name, value).ndim not in (3, 4) or value.shape[-3] != channels or 0 in value.shape:
        raise ValueError(
            f"expected finite latents with {channels} channels, channels × height × width or a batch of such, got "
            f"shape {tuple(value.shape)}; draw some with seeded_noise(pipe, seeds)"
        )
    return value


def latents(name: str, value: object, pipe: object = None) -> Tensor:
    """Finite latents, see `shaped_latents`."""
    return finite(name, shaped_latents(name, value, pipe))


RULES: dict[str, Rule] = {
    "pipe": pipeline, "prompt": texts_or_embeddings, "negative_prompt": texts_or_embeddings, "target_prompt": texts,
    "prompts": texts, "latents": latents, "seed": seeds, "seeds": seeds, "num_inference_steps": steps,
    "guidance_scale": number(1, note=" (1 is no guidance)"), "batch_size": whole(1), "fixed_point_steps": whole(0),
    "inner_steps": whole(0), "tolerance": number(0), "height": whole(), "width": whole(), "size": whole(1),
    "interval": number(0), "frames": whole(0), "count": whole(1), "every": whole(1), "progress": flag, "shared": flag,
    "lpips": flag, "lend_padding": flag, "cache": path, "results": path, "path": path, "file": path, "folder": path,
    "callback": function, "on_step": function, "distances": function, "predict": function, "reduce": function,
    "dtype": dtype, "device": device, "pixel_range": pair, "word": text, "blend": texts, "weights": factors,
    "source": path, "config": path,
}  # fmt: skip
"""Checks by name of the argument; a function can override them: `checked(seed=checks.seed)`."""


def checked(**own: Rule | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator that checks arguments by name before the call; None is accepted where it is the default.

    Args:
        own: Checks of this function; None for an argument that it checks itself.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        rules = {name: own.get(name, RULES.get(name)) for name in signature.parameters}

        @functools.wraps(function)
        def door(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                given = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{function.__qualname__}(): {error}") from None
            for name, value in given.arguments.items():
                if rules[name] and not (value is None and signature.parameters[name].default is None):
                    given.arguments[name] = rules[name](name, value, given.arguments.get("pipe"))
            return function(*given.args, **given.kwargs)

        return door

    return decorate
