"""What LoRA files state besides the weights: the settings of peft, and which module of a UNet they are for."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
CONFIG = "lora_adapter_metadata"
"""Entry of a file's header where diffusers stores ranks and alphas."""
HARMLESS = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "lora_dropout", "inference_mode", "task_type", "base_model_name_or_path",
    "revision", "auto_mapping", "peft_version", "runtime_config", "eva_config", "fan_in_fan_out",
}  # fmt: skip
"""Settings of `peft.LoraConfig` that are respected, or do not change the effect of a trained LoRA."""
ORIGINAL = {
    "input_blocks_0_0": "conv_in", "out_2": "conv_out", "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2", "in_layers_2": "conv1", "out_layers_3": "conv2",
    "emb_layers_1": "time_emb_proj", "skip_connection": "conv_shortcut",
}  # fmt: skip
"""Names in the original code of Stable Diffusion, and in diffusers; kohya's form has underscores for dots."""


def from_original(name: str, per_block: int) -> str:
    """A module's name in kohya's form, from that in the original code of Stable Diffusion.

    Args:
        name: Such as input_blocks_4_1_proj_in, which is down_blocks_1_attentions_0_proj_in.
        per_block: Number of input blocks in a block of diffusers.
    """
    match = re.fullmatch(r"(input|middle|output)_blocks?_(\d+)_(?:([012])_)?(.+)", name)
    if name in ORIGINAL or not match:
        return ORIGINAL.get(name, name)
    side, place, slot, rest = match[1], int(match[2]), match[3], ORIGINAL.get(match[4], match[4])
    if side == "middle":
        return f"mid_block_{('resnets', 'attentions')[place % 2]}_{place // 2}_{rest}"
    block, number = divmod(place - (side == "input"), per_block)
    side = "down" if side == "input" else "up"
    if rest in ("op", "conv"):
        return f"{side}_blocks_{block}_{side}samplers_0_conv"
    return f"{side}_blocks_{block}_{'attentions' if slot == '1' else 'resnets'}_{number}_{rest}"


def settings_of(path: Path, form: str, header: Mapping[str, str]) -> dict | None:
    """Settings of peft, in the header of a file or beside it; None where alpha is the rank, as in kohya's programs."""
    from peft import LoraConfig

    beside = path.with_name(PEFT_CONFIG)
    if CONFIG in header:
        text = header[CONFIG]
    elif form != "peft" and path.name != PEFT_WEIGHTS:
        return None
    elif beside.is_file():
        text = beside.read_text(encoding="utf-8")
    else:
        raise ValueError(f"{path} lacks {PEFT_CONFIG} beside it, which says how strong the LoRA is: copy it there")
    try:
        config = dict(json.loads(text))
    except ValueError as error:
        raise ValueError(f"the settings of {path} cannot be read ({error}): download or copy it again") from None
    config = {k.removeprefix("unet."): v for k, v in config.items() if not k.startswith("text_encoder.")}
    check_plain(config, str(path))
    return LoraConfig().to_dict() | config


def check_plain(config: Mapping[str, object], what: str) -> None:
    """Raises ValueError if settings of peft describe more than pairs of matrices and their scales."""
    from peft import LoraConfig

    usual = LoraConfig().to_dict() | {"peft_type": "LORA"}
    odd = {k: v for k, v in config.items() if v and v != usual.get(k) and k not in HARMLESS}
    # Other initializations change the base model's weights.
    if odd.get("init_lora_weights") in ("gaussian", "eva"):
        del odd["init_lora_weights"]
    if odd:
        shown = ", ".join(f"{k}={v!r}" for k, v in odd.items())
        raise ValueError(f"{what} is of another kind ({shown}): expected a plain LoRA")
