"""A tiny pipeline that stands in for models, in tests and in the programs that they start."""

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel


def with_lora(pipe: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """The pipeline, with a smooth LoRA that has an effect."""
    from smoothnb.models.lora import add_lora

    add_lora(pipe.unet, 2)
    generator = torch.Generator().manual_seed(0)
    for name, weight in pipe.unet.named_parameters():
        if ".lora_" in name:
            weight.data.copy_(torch.randn(weight.shape, generator=generator) / 4)
    return pipe


def build_tiny_pipeline(size: int = 64) -> StableDiffusionPipeline:
    """Stable Diffusion's parts and scheduler settings at 64×64 pixels or another size, with random weights."""
    from smoothnb.models.build import build_pipeline
    from smoothnb.postcards.captions import build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=size,
        scaling_factor=0.7,
    )
    unet = UNet2DConditionModel(
        sample_size=size // 8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=8,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return build_pipeline(vae, unet, text_encoder, tokenizer)


def pipeline_state(pipe) -> tuple:
    """What a call must leave as it was: the UNet's prediction, processors, hooks, flags and adapters."""
    unet = pipe.unet
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in unet.modules())
    flags = [(name, p.requires_grad, p.grad is None) for name, p in unet.named_parameters()]
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).to(pipe.device, unet.dtype)
    texts = torch.ones(1, 3, unet.config.cross_attention_dim).to(x)
    training = unet.training
    with torch.no_grad():
        predicted = unet.eval()(x, 500, encoder_hidden_states=texts).sample.float().cpu().numpy().tobytes()
    unet.train(training)
    return predicted, dict(unet.attn_processors), hooks, flags, training, pipe.get_list_adapters()
