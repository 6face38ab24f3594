"""Stable Diffusion's architecture with random weights: speed and memory do not depend on what they hold."""

from dataclasses import dataclass

import torch

from smoothnb.models.build import build_pipeline


@dataclass(frozen=True)
class Architecture:
    """Sizes of a Stable Diffusion pipeline; by default those of version 1.5.

    Attributes:
        sample_size: Of the latents, along each side.
        channels: Of the UNet's four levels.
        heads: Of its attention.
        groups: Of the UNet's group norms.
        vae_channels: Of the autoencoder's four levels; its factor is 8.
        vae_groups: Of its group norms.
        text_width: Of an embedding.
        text_layers: Of the text encoder.
        text_heads: Of its attention.
        vocabulary: How many tokens it knows.
        tokens: Of a prompt, the two that mark its ends included.
    """

    sample_size: int = 64
    channels: tuple[int, int, int, int] = (320, 640, 1280, 1280)
    heads: int = 8
    groups: int = 32
    vae_channels: tuple[int, int, int, int] = (128, 256, 512, 512)
    vae_groups: int = 32
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 49408
    tokens: int = 77


SD15 = Architecture()


def random_pipeline(
    architecture: Architecture = SD15,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
):
    """Builds a pipeline with random weights, without any download: for tests and benchmarks.

    Its tokenizer has no byte pairs, as those of CLIP would have to be downloaded: each letter is a token.

    Args:
        architecture: Its sizes.
        device: Where to build it.
        dtype: Of the weights.
        seed: Of the weights.

    Returns:
        A `diffusers.StableDiffusionPipeline`, such as `load_pipeline` gives.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({word: i for i, word in enumerate(words)}, [], model_max_length=architecture.tokens)
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]), torch.device(device):
        torch.manual_seed(seed)
        try:
            # From the start: in float32 first, it would take twice the memory.
            torch.set_default_dtype(dtype)
            unet = UNet2DConditionModel(
                sample_size=architecture.sample_size,
                block_out_channels=architecture.channels,
                attention_head_dim=architecture.heads,
                norm_num_groups=architecture.groups,
                cross_attention_dim=architecture.text_width,
            )
            vae = AutoencoderKL(
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                block_out_channels=architecture.vae_channels,
                layers_per_block=2,
                latent_channels=4,
                norm_num_groups=architecture.vae_groups,
                sample_size=8 * architecture.sample_size,
            )
            text_encoder = CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=max(architecture.vocabulary, len(words)),
                    hidden_size=architecture.text_width,
                    intermediate_size=4 * architecture.text_width,
                    num_hidden_layers=architecture.text_layers,
                    num_attention_heads=architecture.text_heads,
                    max_position_embeddings=architecture.tokens,
                    hidden_act="quick_gelu",
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                    pad_token_id=tokenizer.pad_token_id,
                )
            )
        finally:
            torch.set_default_dtype(before)
    return build_pipeline(vae, unet, text_encoder, tokenizer)
