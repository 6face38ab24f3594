"""The pipeline that functions take: its type, and checks of the arguments that must fit it."""

from typing import TYPE_CHECKING, Annotated, Any

from torch import Tensor

from smoothnb._utils.checks import check_finite, check_floating, shown, within

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline as Pipeline
else:
    # Importing diffusers' pipelines takes seconds.
    Pipeline = Annotated[Any, "diffusers.StableDiffusionPipeline"]

PREDICTIONS = ("epsilon", "v_prediction", "sample")
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def check_pipeline(pipe: Pipeline, num_inference_steps: int | None = None) -> None:
    """Checks that a pipeline's model draws from noise and a text, and that DDIM can run it for a number of steps.

    Raises:
        ValueError: If it is a flow-matching model, its UNet takes more than latents, t and a text, or the number of
            steps is not from 1 to the number of training timesteps.
        TypeError: If it is no pipeline with a UNet.
    """
    if (scheduler := getattr(pipe, "scheduler", None)) is not None:
        config = scheduler.config
        flow = config.get("use_flow_sigmas") or config.get("prediction_type") not in PREDICTIONS
        if flow or not hasattr(scheduler, "alphas_cumprod"):
            raise ValueError(
                f"expected a diffusion model, which DDIM can draw and invert, got a {type(pipe).__name__} with "
                f"{type(scheduler).__name__}: flow-matching models can only be trained here (base_loss, "
                "variation_regularizer). If the model is no flow-matching model, give its pipeline a scheduler with "
                "noise levels ᾱ_t, such as diffusers.DDIMScheduler"
            )
    if not all(hasattr(pipe, part) for part in PARTS):
        raise TypeError(f"expected a pipeline with {', '.join(PARTS)}, such as load_pipeline gives, got {shown(pipe)}")
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
    within(1, len(pipe.scheduler.alphas_cumprod), num_inference_steps=num_inference_steps)


def check_latents(pipe: Pipeline, latents: Tensor, finite: bool = True) -> None:
    """Raises ValueError unless latents are finite, and one latent or a batch with the pipeline's channels."""
    channels = pipe.unet.config.in_channels
    check_floating(latents=latents)
    if latents.ndim not in (3, 4) or latents.shape[-3] != channels or 0 in latents.shape:
        raise ValueError(
            f"expected latents with {channels} channels, channels × height × width or a batch of such, got shape "
            f"{tuple(latents.shape)}; draw some with seeded_noise(pipe, seeds)"
        )
    if finite:
        check_finite(latents=latents)


def check_embeddings(pipe: Pipeline, **embeddings: object) -> None:
    """Raises ValueError for embeddings that are not finite, or not as wide as the pipeline's; texts pass."""
    for name, value in embeddings.items():
        if not isinstance(value, Tensor):
            continue
        width = pipe.unet.config.cross_attention_dim
        if not 3 <= value.ndim <= 4 or value.shape[-1] != width or 0 in value.shape:
            raise ValueError(
                f"expected {name} as texts, or as embeddings of text × token × {width}, got shape {tuple(value.shape)}"
            )
        check_finite(**{name: value})
