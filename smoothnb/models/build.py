"""A pipeline from its parts, as the postcard model and the tests make it."""


def build_pipeline(vae, unet, text_encoder, tokenizer):
    """A `diffusers.StableDiffusionPipeline` of these parts, with SD-1.5's scheduler, setting by setting."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1,
        set_alpha_to_one=False, clip_sample=False, prediction_type="epsilon",
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae, unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe
