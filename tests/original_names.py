"""Names of weights and modules in the original code of Stable Diffusion, as in older checkpoints and LoRAs."""

import re

UNET_NAMES = {
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
}  # fmt: skip
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
VAE_NAMES = {
    "mid_block.resnets.0": "mid.block_1", "mid_block.resnets.1": "mid.block_2", "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "conv_norm_out": "norm_out",
    "conv_shortcut": "nin_shortcut", "downsamplers.0": "downsample", "upsamplers.0": "upsample",
}  # fmt: skip


def original_unet_name(name: str, config) -> str:
    """The original name of a weight or module of a UNet, given its configuration."""
    if (ours := ".".join(name.split(".")[: 2 if name.startswith("time") else 1])) in UNET_NAMES:
        return name.replace(ours, UNET_NAMES[ours], 1)
    match = re.fullmatch(
        r"(down|mid|up)_blocks?(?:\.(\d))?\.(resnet|attention|downsampler|upsampler)s\.(\d)\.(.+)", name
    )
    side, block, kind, number, rest = match.groups()
    first = int(block or 0) * (config.layers_per_block + 1)
    if kind == "resnet":
        part, *leaf = rest.split(".")
        rest = ".".join([RESNET[part], *leaf])
    if side == "mid":
        return f"middle_block.{2 * int(number) + (kind == 'attention')}.{rest}"
    if kind == "downsampler":
        return f"input_blocks.{1 + first + config.layers_per_block}.0.{rest.replace('conv', 'op')}"
    if kind == "upsampler":
        # Behind the attention, where the block has one.
        slot = 2 if "CrossAttn" in config.up_block_types[int(block)] else 1
        return f"output_blocks.{first + config.layers_per_block}.{slot}.{rest}"
    place = f"input_blocks.{1 + first + int(number)}" if side == "down" else f"output_blocks.{first + int(number)}"
    return f"{place}.{int(kind == 'attention')}.{rest}"


def original_vae_name(name: str, depth: int) -> str:
    name = re.sub(r"down_blocks\.(\d+)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d+)\.", lambda m: f"up.{depth - 1 - int(m[1])}.", name)
    for ours, theirs in VAE_NAMES.items():
        name = re.sub(rf"(?<![\w]){re.escape(ours)}(?=\.)", theirs, name)
    return name.replace("resnets.", "block.")
