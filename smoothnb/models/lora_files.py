"""LoRA files in the forms that tools write: diffusers, peft, attention processors of old, kohya."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from smoothnb._utils import checks
from smoothnb._utils.arguments import checked
from smoothnb._utils.files import atomic_write, expanded, read_weights
from smoothnb.models.sources import HUB_ID

WEIGHTS = "pytorch_lora_weights.safetensors"
PEFT_CONFIG = "adapter_config.json"
CONFIG = "lora_adapter_metadata"
"""Where diffusers keeps ranks and alphas in a file's header."""

Form = Literal["diffusers", "kohya"]

KEYS = [
    ("kohya", r"lora_unet_(?P<module>\w+)\.(?:lora_(?P<part>down|up)\.weight|alpha)"),
    ("peft", r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight"),
    ("attn_procs", r"(?:unet\.)?(?P<module>.+)\.processor(?P<to>\.to_\w+)_lora\.(?P<part>down|up)\.weight"),
    ("diffusers", r"(?:unet\.)?(?P<module>.+)\.(?:(?:lora|lora_linear_layer)\.(?P<part>down|up)\.weight|alpha)"),
    ("diffusers", r"(?:unet\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight"),
]
"""Keys of each form. The first that fits counts; the prefix `unet.` may be missing, as in the paper's own LoRA."""
PARTS = {"down": "down", "A": "down", "up": "up", "B": "up", None: "alpha"}
TEXT_ENCODER = re.compile(r"(?:lora_te\d*_|text_encoder)")


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
        pairs: By name of the module, as `unet.named_modules()` says it.
        form: In which it was read: diffusers, peft, attn_procs or kohya.
        metadata: The rest of the file's header.
    """

    pairs: Mapping[str, Pair]
    form: str = "diffusers"
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        ranks, alphas = ({f"{x:g}" for x in values} for values in zip(*self._scales(), strict=True))
        return (
            f"LoRA of {len(self.pairs)} modules, rank {' and '.join(sorted(ranks))}, alpha "
            f"{' and '.join(sorted(alphas))}, read as {self.form}"
        )

    def _scales(self) -> list[tuple[int, float]]:
        return [(pair.rank, pair.alpha) for pair in self.pairs.values()]

    def adapter_metadata(self) -> dict:
        """What diffusers takes for `peft.LoraConfig`: rank and alpha of the first module, and those that differ."""
        rank, alpha = self._scales()[0]
        return {
            "unet.r": rank,
            "unet.lora_alpha": alpha,
            "unet.rank_pattern": {f"^{name}": pair.rank for name, pair in self.pairs.items() if pair.rank != rank},
            "unet.alpha_pattern": {f"^{name}": p.alpha for name, p in self.pairs.items() if p.alpha != alpha},
            "unet.target_modules": list(self.pairs),
        }


def read_lora(source: str | Path, modules: Iterable[str] = ()) -> Lora:
    """Reads a LoRA in any of the forms.

    Args:
        source: A `.safetensors` file, a folder that holds one, or a hub id.
        modules: Names of the UNet's modules. Only kohya's form needs them, as it writes dots and underscores alike.

    Returns:
        The LoRA, its weights as they are in the file.

    Raises:
        FileNotFoundError: If there is no such file or folder, and it is no hub id.
        ValueError: If the file is a pickle, cut off, or no LoRA for a UNet. The message says which.
    """
    path = _file(source)
    tensors, header = _open(path)
    full = {name.replace(".", "_"): name for name in modules}
    named: dict[str, dict[str, Tensor]] = {}
    forms = Counter()
    for key, value in tensors.items():
        if TEXT_ENCODER.match(key):
            raise ValueError(
                f"{path} trains the text encoder too ({key}), and a smooth LoRA is of the UNet alone: attach the whole "
                "file with pipe.load_lora_weights"
            )
        form, match = next(((f, m) for f, pattern in KEYS if (m := re.fullmatch(pattern, key))), (None, None))
        if match is None:
            raise ValueError(f"{path} is no LoRA that can be read: expected keys such as {WAYS}; got {key!r}")
        module = match["module"]
        if form == "kohya":
            module = full.get(module, module)
        elif form == "attn_procs":
            module += ".to_out.0" if match["to"] == ".to_out" else match["to"]
        named.setdefault(module, {})[PARTS[match["part"]]] = value
        forms[form] += 1
    ((form, _),) = forms.most_common(1)
    config = _config(path, header)
    pairs = {name: _pair(path, name, parts, config) for name, parts in sorted(named.items())}
    return Lora(pairs, form, {k: v for k, v in header.items() if k not in (CONFIG, "format")})


WAYS = "unet.….lora.down.weight, ….lora_A.weight, ….processor.to_q_lora.down.weight, lora_unet_….lora_down.weight"


def _file(source: str | Path) -> Path:
    """The file of weights that is meant."""
    path = expanded(source)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        named = [file for file in found if file.name in (WEIGHTS, "adapter_model.safetensors")]
        if len(named or found) != 1:
            names = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
            raise ValueError(f"expected one LoRA in {path}, {WEIGHTS}; found {names}: name the file itself")
        return (named or found)[0]
    if path.is_file():
        return path
    if not HUB_ID.fullmatch(str(source)) or path.suffix:
        raise FileNotFoundError(f"there is no LoRA at {path} (looked from {Path.cwd()})")
    from huggingface_hub import snapshot_download

    return _file(snapshot_download(str(source), allow_patterns=["*.safetensors", PEFT_CONFIG]))


def _open(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a file. Nothing is ever unpickled."""
    tensors, header = read_weights(path)
    if not tensors:
        raise ValueError(f"{path} holds no weights")
    return tensors, header


def _config(path: Path, header: Mapping[str, str]) -> dict:
    """Settings of peft, where the header or a file beside holds them."""
    if CONFIG in header:
        return {key.removeprefix("unet."): value for key, value in json.loads(header[CONFIG]).items()}
    beside = path.with_name(PEFT_CONFIG)
    config = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    if config.get("use_rslora") or config.get("use_dora"):
        raise ValueError(f"{path} is a LoRA of another kind (rsLoRA or DoRA, says {PEFT_CONFIG}): expected a plain one")
    return config


def _pair(path: Path, name: str, parts: Mapping[str, Tensor], config: Mapping) -> Pair:
    missing = {"down", "up"} - parts.keys()
    if missing:
        raise ValueError(f"{path} is incomplete: of {name} the {' and '.join(sorted(missing))} weights are missing")
    down, up = parts["down"], parts["up"]
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1]:
        raise ValueError(f"the ranks of {name} in {path} do not fit: down {[*down.shape]}, up {[*up.shape]}")
    if not (down.isfinite().all() and up.isfinite().all()):
        raise ValueError(f"{path} holds numbers that are not finite, in {name}")
    if "alpha" in parts:
        return Pair(down, up, float(parts["alpha"]))
    patterns = config.get("alpha_pattern") or {}
    own = next((v for k, v in patterns.items() if re.fullmatch(rf"(?:.*\.)?{k.removeprefix('^')}", name)), None)
    return Pair(down, up, float(own if own is not None else config.get("lora_alpha", down.shape[0])))


@checked(lora=checks.of(Lora, "a Lora, such as import_lora gives"), metadata=checks.header)
def export_lora(
    lora: Lora, path: str | Path, form: Form = "diffusers", metadata: Mapping[str, str] | None = None
) -> Path:
    """Writes a LoRA; read again, in either form, it is the same to the last bit.

    Args:
        lora: What `import_lora` or `read_lora` gave.
        path: The `.safetensors` file to write.
        form: "diffusers", which `pipe.load_lora_weights` reads, or "kohya", which ComfyUI and A1111 read.
        metadata: For the file's header; by default what the LoRA was read with.

    Returns:
        The file.

    Raises:
        ValueError: If the form is another, or the file's name ends otherwise.
    """
    from safetensors.torch import save_file

    path = expanded(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a file that ends in .safetensors, got {path}")
    if not lora.pairs:
        raise ValueError("expected a LoRA of at least one module, got none")
    header = dict(lora.metadata if metadata is None else metadata)
    tensors = {}
    if form == "diffusers":
        for name, pair in lora.pairs.items():
            tensors |= {f"unet.{name}.lora.down.weight": pair.down, f"unet.{name}.lora.up.weight": pair.up}
        if any(pair.alpha != pair.rank for pair in lora.pairs.values()):
            header[CONFIG] = json.dumps(lora.adapter_metadata())
    elif form == "kohya":
        for name, pair in lora.pairs.items():
            flat = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {f"{flat}.lora_down.weight": pair.down, f"{flat}.lora_up.weight": pair.up}
            tensors[f"{flat}.alpha"] = torch.tensor(pair.alpha)
        _, first = min(lora.pairs.items())
        header |= {
            "ss_network_module": "networks.lora", "ss_network_dim": str(first.rank),
            "ss_network_alpha": str(first.alpha),
        }  # fmt: skip
    else:
        raise ValueError(f"expected form as diffusers or kohya, got {form!r}")
    with atomic_write(path) as partial:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, {**header, "format": "pt"})
    return path
