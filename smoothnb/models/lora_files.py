"""LoRA files in the formats that tools write: diffusers, peft, the attention processors of earlier diffusers, kohya."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from smoothnb._utils.files import atomic_write, expanded, read_weights
from smoothnb.models.lora_forms import CONFIG, PEFT_CONFIG, PEFT_WEIGHTS, alphas, original_names
from smoothnb.models.sources import HUB_ID

WEIGHTS = "pytorch_lora_weights.safetensors"

Form = Literal["diffusers", "kohya"]

KEYS = [
    ("kohya", r"lora_unet_(?P<module>\w+)\.(?:lora_(?P<part>down|up)\.weight|alpha)"),
    ("peft", r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight"),
    ("attn_procs", r"(?:unet\.)?(?P<module>.+)\.processor(?P<to>\.to_\w+)_lora\.(?P<part>down|up)\.weight"),
    ("diffusers", r"(?:unet\.)?(?P<module>.+)\.(?:(?:lora|lora_linear_layer)\.(?P<part>down|up)\.weight|alpha)"),
    ("diffusers", r"(?:unet\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight"),
]
"""Keys of each format; the first match counts. The prefix `unet.` may be missing, as in the paper's own LoRA."""
OTHER_KINDS = [
    (r"dora_scale|lora_magnitude_vector", "DoRA"),
    (r"\.hada_", "LoHa"),
    (r"\.lokr_", "LoKr"),
    (r"\.lora_mid\.", "LoCon in Tucker form"),
    (r"\.oft_|\.boft_", "OFT"),
    (r"\.diff(_b)?$|\.bias$|\.w_norm|\.b_norm", "a LoRA with whole weights or biases besides"),
]
"""Keys of adapters that are more than pairs of matrices, and what these are called."""
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
        pairs: Pair of matrices of each module, by its name in `unet.named_modules()`.
        form: Format that the LoRA was read from: diffusers, peft, attn_procs or kohya.
        metadata: The other entries of the file's header.
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
        """Returns settings of `peft.LoraConfig` as diffusers stores them: rank and alpha, and where modules differ."""
        rank, alpha = self._scales()[0]
        return {
            "unet.r": rank,
            "unet.lora_alpha": alpha,
            "unet.rank_pattern": {f"^{name}": pair.rank for name, pair in self.pairs.items() if pair.rank != rank},
            "unet.alpha_pattern": {f"^{name}": p.alpha for name, p in self.pairs.items() if p.alpha != alpha},
            "unet.target_modules": list(self.pairs),
        }


def read_lora(source: str | Path, modules: Iterable[str] = ()) -> Lora:
    """Reads a LoRA in any of the formats.

    Args:
        source: A `.safetensors` file, a folder that holds one, or a hub id.
        modules: Names of the UNet's modules, needed for kohya's format, whose keys do not distinguish dots from
            underscores.

    Returns:
        The LoRA, with the weights as they are in the file.

    Raises:
        FileNotFoundError: If there is no such file or folder, and the source is not a hub id.
        ValueError: If the file is a pickle, is truncated, or is not a plain LoRA of a UNet. The message says which.
    """
    path = _file(source)
    tensors, header = read_weights(path)
    if not tensors:
        raise ValueError(f"{path} holds no weights")
    modules = list(modules)
    full = {name.replace(".", "_"): name for name in modules}
    full |= {original.replace(".", "_"): name for original, name in original_names(modules).items()}
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
            if kind := next((kind for pattern, kind in OTHER_KINDS if re.search(pattern, key)), None):
                raise ValueError(f"{path} is of another kind, {kind} ({key}): expected a plain LoRA")
            raise ValueError(f"{path} is no LoRA that can be read: expected keys such as {WAYS}; got {key!r}")
        module = match["module"]
        if form == "kohya":
            module = full.get(module, module)
        elif form == "attn_procs":
            module += ".to_out.0" if match["to"] == ".to_out" else match["to"]
        parts = named.setdefault(module, {})
        if PARTS[match["part"]] in parts:
            raise ValueError(f"{path} holds more than one LoRA for {module} ({key}): expected one")
        parts[PARTS[match["part"]]] = value
        forms[form] += 1
    ((form, _),) = forms.most_common(1)
    alpha_of = alphas(path, form, header)
    pairs = {name: _pair(path, name, parts, alpha_of) for name, parts in sorted(named.items())}
    return Lora(pairs, form, {k: v for k, v in header.items() if k not in (CONFIG, "format")})


WAYS = "unet.….lora.down.weight, ….lora_A.weight, ….processor.to_q_lora.down.weight, lora_unet_….lora_down.weight"


def _file(source: str | Path) -> Path:
    """Finds the file of weights."""
    path = expanded(source)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors"))
        named = [file for file in found if file.name in (WEIGHTS, PEFT_WEIGHTS)]
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


def _pair(path: Path, name: str, parts: Mapping[str, Tensor], alpha_of: Callable[[str, int], float]) -> Pair:
    missing = {"down", "up"} - parts.keys()
    if missing:
        raise ValueError(f"{path} is incomplete: of {name} the {' and '.join(sorted(missing))} weights are missing")
    down, up = parts["down"], parts["up"]
    if down.ndim < 2 or up.ndim != down.ndim or down.shape[0] != up.shape[1] or up[0, 0].numel() != 1:
        raise ValueError(f"the ranks of {name} in {path} do not fit: down {[*down.shape]}, up {[*up.shape]}")
    alpha = parts.get("alpha", torch.ones(1))
    if alpha.numel() != 1:
        raise ValueError(f"expected one number as alpha of {name} in {path}, got {[*alpha.shape]}")
    if not all(tensor.float().isfinite().all() for tensor in (down, up, alpha)):
        raise ValueError(f"{path} holds numbers that are not finite, in {name}")
    return Pair(down, up, float(parts["alpha"]) if "alpha" in parts else alpha_of(name, down.shape[0]))


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
        ValueError: If the format is unknown, the file name does not end in .safetensors, or the LoRA was read from
            kohya's format without the names of the UNet's modules.
    """
    from safetensors.torch import save_file

    path = expanded(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a file that ends in .safetensors, got {path}")
    if not lora.pairs:
        raise ValueError("expected a LoRA of at least one module, got none")
    header = dict(lora.metadata if metadata is None else metadata)
    # All other modules are nested in blocks.
    if flat := sorted(name for name in lora.pairs if "." not in name and name not in ("conv_in", "conv_out")):
        raise ValueError(
            f"{flat[0]} is a name in kohya's format, which has no dots: give a --model that it fits, or export what "
            "import_lora returns"
        )
    tensors = {}
    if form == "diffusers":
        for name, pair in lora.pairs.items():
            tensors |= {f"unet.{name}.lora.down.weight": pair.down, f"unet.{name}.lora.up.weight": pair.up}
        if any(pair.alpha != pair.rank for pair in lora.pairs.values()):
            header[CONFIG] = json.dumps(lora.adapter_metadata())
    elif form == "kohya":
        alpha = max((pair.alpha for pair in lora.pairs.values()), key=abs)
        for name, pair in lora.pairs.items():
            flat = f"lora_unet_{name.replace('.', '_')}"
            up = pair.up if pair.alpha == alpha else (pair.up.float() * (pair.alpha / alpha)).to(pair.up.dtype)
            tensors |= {f"{flat}.lora_down.weight": pair.down, f"{flat}.lora_up.weight": up}
            tensors[f"{flat}.alpha"] = torch.tensor(alpha)
        _, first = min(lora.pairs.items())
        header |= {
            "ss_network_module": "networks.lora", "ss_network_dim": str(first.rank),
            "ss_network_alpha": str(alpha),
        }  # fmt: skip
    else:
        raise ValueError(f"expected form as diffusers or kohya, got {form!r}")
    with atomic_write(path) as partial:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial, {**header, "format": "pt"})
    return path
