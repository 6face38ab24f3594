"""What LoRA files state besides the weights: the scale of each module's weights, and which module it is."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PEFT_WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
CONFIG = "lora_adapter_metadata"
"""Entry of a file's header where diffusers stores ranks and alphas."""
HARMLESS = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "lora_dropout", "inference_mode", "task_type", "base_model_name_or_path",
    "revision", "auto_mapping", "peft_version", "runtime_config", "eva_config", "fan_in_fan_out",
}  # fmt: skip
"""Settings of `peft.LoraConfig` that are respected, or do not change the effect of a trained LoRA."""
ORIGINAL_NAMES = {
    "conv1": "in_layers.2", "conv2": "out_layers.3", "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
    "conv_in": "input_blocks.0.0", "conv_out": "out.2", "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
}  # fmt: skip
"""Names of a UNet's parts in diffusers, and in the original code of Stable Diffusion."""


def original_names(modules: Sequence[str]) -> dict[str, str]:
    """Maps names in the original code of Stable Diffusion, which some kohya files use, to those of a UNet's modules."""
    per_block = len({name for name in modules if re.fullmatch(r"down_blocks\.0\.resnets\.\d+", name)})
    found = {}
    for name in modules:
        original = ORIGINAL_NAMES.get(name)
        if match := re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(\w+)\.(\d+)\.(.+)", name):
            side, block, kind, number, rest = match.groups()
            place, stage = int(number), int(block or 0) * (per_block + 1)
            rest = ORIGINAL_NAMES.get(rest, rest)
            slot = {"resnets": "0", "attentions": "1"}.get(kind)
            if kind == "downsamplers":
                place, slot, rest = per_block, "0", rest.replace("conv", "op")
            elif kind == "upsamplers":
                place, slot = per_block, "2" if f"up_blocks.{block}.attentions.0" in modules else "1"
            if side == "mid":
                original = f"middle_block.{2 * place + (kind == 'attentions')}.{rest}"
            else:
                original = f"{'input' if side == 'down' else 'output'}_blocks."
                original += f"{stage + place + (side == 'down')}.{slot}.{rest}"
        if original:
            found[original] = name
    return found


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


def alphas(path: Path, form: str, header: Mapping[str, str]) -> Callable[[str, int], float]:
    """Returns a function from a module's name and rank to its alpha, by a file's header or the settings beside it."""
    from peft import LoraConfig
    from peft.utils.other import get_pattern_key

    beside = path.with_name(PEFT_CONFIG)
    if CONFIG in header:
        text = header[CONFIG]
    elif form == "peft" and not beside.is_file():
        raise ValueError(f"{path} lacks {PEFT_CONFIG} beside it, which says how strong the LoRA is: copy it there")
    elif form == "peft" or (path.name == PEFT_WEIGHTS and beside.is_file()):
        text = beside.read_text(encoding="utf-8")
    else:
        text = "{}"
    try:
        config = dict(json.loads(text))
    except ValueError as error:
        raise ValueError(f"the settings of {path} cannot be read ({error}): download or copy it again") from None
    config = {k.removeprefix("unet."): v for k, v in config.items() if not k.startswith("text_encoder.")}
    check_plain(config, str(path))
    if not config:
        # kohya's programs go by the tensors (LyCORIS puts rank stabilization into them), else by the rank.
        said = header.get("ss_network_alpha", "") if form == "kohya" else ""

        def by_rank(name: str, rank: int) -> float:
            if said.replace(".", "", 1).isdigit() and float(said) != rank:
                raise ValueError(f"{path} has no alpha for {name}, of rank {rank}, and says {said} in its header")
            return float(rank)

        return by_rank
    config = LoraConfig().to_dict() | config

    def setting(what: str, name: str) -> float:
        patterns = config[f"{what}_pattern"] or {}
        return patterns.get(get_pattern_key(patterns, name), config["r" if what == "rank" else "lora_alpha"])

    def by_config(name: str, rank: int) -> float:
        if (said := setting("rank", name)) != rank:
            raise ValueError(f"{path} says rank {said} for {name}, and holds weights of rank {rank}")
        return float(setting("alpha", name)) * (rank**0.5 if config["use_rslora"] else 1.0)

    return by_config
