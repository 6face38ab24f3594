"""LoRA files in the formats that tools write: diffusers, peft, the attention processors of earlier diffusers, kohya."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from smoothnb._utils.files import atomic_write, expanded, read_weights
from smoothnb.models.lora_forms import CONFIG, PEFT_CONFIG, PEFT_WEIGHTS, from_original, settings_of
from smoothnb.models.sources import HUB_ID

WEIGHTS = "pytorch_lora_weights.safetensors"

Form = Literal["diffusers", "kohya"]

KEYS = re.compile(
    r"(?P<prefix>lora_unet_|base_model\.model\.|unet\.)?(?P<module>.+)\."
    r"(?:lora_(?P<half>down|up|A|B)(?:\.\w+)?\.weight|alpha)"
)
"""Keys of all forms, as diffusers renames them. The prefix may be missing, as in the paper's own LoRA."""
HALVES = {"down": "down", "A": "down", "up": "up", "B": "up", None: "alpha"}
EXPECTED = "unet.….lora.down.weight, ….lora_A.weight, ….processor.to_q_lora.down.weight, lora_unet_….lora_down.weight"
TEXT_ENCODER = re.compile(r"(?:lora_te\d*_|text_encoder)")
OTHER_KINDS = {
    "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA", ".hada_": "LoHa", ".lokr_": "LoKr", ".oft_": "OFT",
    ".lora_mid.": "LoCon in Tucker form", ".diff": "whole weights", ".bias": "biases",
}  # fmt: skip
"""What keys hold of adapters that are more than pairs of matrices."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The LoRA of one module, whose weight it changes by alpha / rank · up @ down.

    Attributes:
        down: [rank, in], or a kernel [rank, in, height, width].
        up: [out, rank], or [out, rank, 1, 1].
        alpha: Numerator of the scale.
    """

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA for a UNet, as a file holds it.

    Attributes:
        pairs: Pair of matrices of each module, by its name in `unet.named_modules()`.
        form: Format that the LoRA was read from: diffusers, peft, attn_procs or kohya.
        metadata: The other entries of the file's header.
    """

    pairs: Mapping[str, Pair]
    form: str = "diffusers"
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("expected a LoRA of at least one module, got none")

    def __str__(self) -> str:
        ranks, alphas = (
            " and ".join(sorted({f"{getattr(pair, name):g}" for pair in self.pairs.values()}))
            for name in ("rank", "alpha")
        )
        return f"LoRA of {len(self.pairs)} modules, rank {ranks}, alpha {alphas}, read as {self.form}"

    def adapter_metadata(self) -> dict:
        """Returns settings of `peft.LoraConfig` as diffusers stores them: rank and alpha, and where modules differ."""
        first = next(iter(self.pairs.values()))
        return {
            "unet.r": first.rank,
            "unet.lora_alpha": first.alpha,
            "unet.rank_pattern": {f"^{name}": p.rank for name, p in self.pairs.items() if p.rank != first.rank},
            "unet.alpha_pattern": {f"^{name}": p.alpha for name, p in self.pairs.items() if p.alpha != first.alpha},
            "unet.target_modules": list(self.pairs),
        }


def read_lora(source: str | Path, modules: Iterable[str] = ()) -> Lora:
    """Reads a LoRA in any of the formats, with the weights as they are in the file.

    Args:
        source: A `.safetensors` file, a folder that holds one, or a hub id.
        modules: Names of the UNet's modules, needed for kohya's format, whose keys do not distinguish dots from
            underscores.

    Raises:
        FileNotFoundError: If there is no such file or folder, and the source is not a hub id.
        ValueError: If the file is a pickle, is truncated, or is not a plain LoRA of a UNet. The message says which.
    """
    # Of diffusers' conversions, only this one serves: in 0.42, others drop kohya's alphas in attention and keys without
    # `unet.`, and misplace upsamplers.
    from diffusers.utils import convert_unet_state_dict_to_peft

    path, modules, form = _file(source), list(modules), "diffusers"
    tensors, header = read_weights(path)
    dotted = {name.replace(".", "_"): name for name in modules}
    per_block = sum(re.fullmatch(r"down_blocks\.0\.resnets\.\d+", name) is not None for name in modules) + 1
    named: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if TEXT_ENCODER.match(key):
            raise ValueError(
                f"{path} trains the text encoder too ({key}), and a smooth LoRA is of the UNet alone: attach the whole "
                "file with pipe.load_lora_weights"
            )
        (renamed,) = convert_unet_state_dict_to_peft({key: value})
        match = KEYS.fullmatch(renamed)
        if match is None:
            kind = next((kind for sign, kind in OTHER_KINDS.items() if sign in key), "no LoRA that can be read")
            raise ValueError(f"{path} holds {kind} ({key}): expected a plain LoRA, with keys such as {EXPECTED}")
        module = match["module"]
        if match["prefix"] == "lora_unet_":
            if not modules:
                raise ValueError(f"{path} is in kohya's format, whose keys lack dots: give a --model that it fits")
            module = dotted.get(module) or dotted.get(from_original(module, per_block), module)
            form = "kohya"
        elif match["prefix"] == "base_model.model.":
            form = "peft"
        elif ".processor." in key:
            form = "attn_procs"
        halves = named.setdefault(module, {})
        if HALVES[match["half"]] in halves:
            raise ValueError(f"{path} holds more than one LoRA for {module} ({key}): expected one")
        halves[HALVES[match["half"]]] = value
    config = settings_of(path, form, header)
    pairs = {name: _pair(path, name, halves, config) for name, halves in sorted(named.items())}
    return Lora(pairs, form, {k: v for k, v in header.items() if k not in (CONFIG, "format")})


def _file(source: str | Path) -> Path:
    """Finds the file of weights."""
    path = expanded(source)
    if path.is_dir():
        files = [path / name for name in (WEIGHTS, PEFT_WEIGHTS) if (path / name).is_file()]
        files = files or list(path.glob("*.safetensors"))
        if len(files) != 1:
            names = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
            raise ValueError(f"expected one LoRA in {path}, {WEIGHTS}; found {names}: name the file itself")
        return files[0]
    if path.is_file():
        return path
    if not HUB_ID.fullmatch(str(source)) or path.suffix:
        raise FileNotFoundError(f"there is no LoRA at {path} (looked from {Path.cwd()})")
    from huggingface_hub import snapshot_download

    return _file(snapshot_download(str(source), allow_patterns=["*.safetensors", PEFT_CONFIG]))


def _pair(path: Path, name: str, halves: Mapping[str, Tensor], config: Mapping | None) -> Pair:
    from peft.utils.other import get_pattern_key

    if missing := {"down", "up"} - halves.keys():
        raise ValueError(f"{path} is incomplete: of {name} the {' and '.join(sorted(missing))} weights are missing")
    down, up, rank = halves["down"], halves["up"], len(halves["down"])
    if down.ndim < 2 or up.ndim != down.ndim or up.shape[1] != rank or up[0, 0].numel() != 1:
        raise ValueError(f"the ranks of {name} in {path} do not fit: down {[*down.shape]}, up {[*up.shape]}")
    if not all(tensor.float().isfinite().all() for tensor in halves.values()):
        raise ValueError(f"{path} holds numbers that are not finite, in {name}")
    if "alpha" in halves or config is None:
        return Pair(down, up, float(halves.get("alpha", rank)))

    def setting(default: str, kind: str) -> float:
        patterns = config[kind] or {}
        return patterns.get(get_pattern_key(patterns, name), config[default])

    if (said := setting("r", "rank_pattern")) != rank:
        raise ValueError(f"{path} says rank {said} for {name}, and holds weights of rank {rank}")
    return Pair(down, up, setting("lora_alpha", "alpha_pattern") * (rank**0.5 if config["use_rslora"] else 1.0))


def export_lora(
    lora: Lora, path: str | Path, form: Form = "diffusers", metadata: Mapping[str, str] | None = None
) -> Path:
    """Writes a LoRA to a file that `import_lora` and diffusers read with the same effect.

    The weights are stored unchanged, with one exception: diffusers reads only one alpha from kohya's format, so that
    all modules get the largest, and `up` is rescaled where a module has another.

    Args:
        lora: A LoRA from `import_lora`, `lora_of` or `read_lora`.
        path: The `.safetensors` file to write.
        form: "diffusers", which `pipe.load_lora_weights` reads, or "kohya", which ComfyUI and A1111 read.
        metadata: Entries of the file's header; by default, those that the LoRA was read with.

    Returns:
        The file.

    Raises:
        ValueError: If the format is unknown, or the file name does not end in .safetensors.
    """
    from safetensors.torch import save_file

    path = expanded(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a file that ends in .safetensors, got {path}")
    if form not in ("diffusers", "kohya"):
        raise ValueError(f"expected form as diffusers or kohya, got {form!r}")
    header = dict(lora.metadata if metadata is None else metadata) | {"format": "pt"}
    alpha, tensors = max((pair.alpha for pair in lora.pairs.values()), key=abs), {}
    for name, pair in lora.pairs.items():
        if form == "diffusers":
            tensors |= {f"unet.{name}.lora.down.weight": pair.down, f"unet.{name}.lora.up.weight": pair.up}
            continue
        flat = f"lora_unet_{name.replace('.', '_')}"
        up = pair.up if pair.alpha == alpha else (pair.up.float() * (pair.alpha / alpha)).to(pair.up.dtype)
        tensors |= {f"{flat}.lora_down.weight": pair.down, f"{flat}.lora_up.weight": up}
        tensors[f"{flat}.alpha"] = torch.tensor(alpha)
    if form == "diffusers" and any(pair.alpha != pair.rank for pair in lora.pairs.values()):
        header[CONFIG] = json.dumps(lora.adapter_metadata())
    with atomic_write(path) as partial:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, header)
    return path
