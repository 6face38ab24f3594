"""Finds models: in the package, in folders and files, on the Hugging Face hub and its mirrors."""

import os
import re
from pathlib import Path

from smoothnb._utils.files import data_folder, expanded, open_weights
from smoothnb.models.deltas import DIFFERENCE, base_of

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
HUB_NAMES = {
    "stable-diffusion-v1-5": (
        "stable-diffusion-v1-5/stable-diffusion-v1-5", "benjamin-paine/stable-diffusion-v1-5",
        "botp/stable-diffusion-v1-5",
    ),
    "realistic-vision-v2": ("SG161222/Realistic_Vision_V2.0",),
    "openjourney-v4": ("prompthero/openjourney-v4",),
}  # fmt: skip
"""Short names of models on the hub, with their ids and mirrors."""
LOCAL_MODELS = "SMOOTHNB_MODELS"
"""Environment variable: a folder of local copies, which take precedence over the hub."""


def packaged_models() -> list[str]:
    """Names of the pipelines that come with smoothnb."""
    data = data_folder()
    return sorted(path.parent.name for name in ("model_index.json", DIFFERENCE) for path in data.glob(f"*/{name}"))


def find_model(name_or_path: str | Path) -> tuple[Path, ...] | tuple[str, ...]:
    """Finds a model: a folder or a file, which are checked, or ids on the hub, to be tried in turn.

    Raises:
        FileNotFoundError: If a folder or file does not exist.
        ValueError: If the name is unknown, or the folder or file is not a pipeline, or damaged.
    """
    if name_or_path in packaged_models():
        return (data_folder() / name_or_path,)
    name, path = str(name_or_path), expanded(name_or_path)
    copies = expanded(os.environ.get(LOCAL_MODELS, "")) / name
    local = [copies, copies.with_name(f"{copies.name}.safetensors")] if os.environ.get(LOCAL_MODELS) else []
    for place in (path, *local):
        if place.exists():
            (_check_folder if place.is_dir() else _check_checkpoint)(place)
            return (place,)
    if name in HUB_NAMES:
        return HUB_NAMES[name]
    if isinstance(name_or_path, str) and HUB_ID.fullmatch(name) and path.suffix not in (".safetensors", ".ckpt"):
        return (name,)
    names = ", ".join(f'"{n}"' for n in packaged_models()) or f"none, as {data_folder()} holds no pipeline"
    expected = (
        f"expected a model that comes with smoothnb ({names}), a name ({', '.join(HUB_NAMES)}), an existing folder, a "
        '.safetensors file, or a hub id such as "stable-diffusion-v1-5/stable-diffusion-v1-5"'
    )
    if isinstance(name_or_path, Path) or path.suffix or "/" in name or "\\" in name:
        raise FileNotFoundError(f"there is no folder or file {path} (looked from {Path.cwd()}): {expected}")
    raise ValueError(f'unknown model "{name}": {expected}')


def smooth_lora(name_or_path: str | Path) -> Path:
    """Path of the smooth LoRA that comes with a model or its base."""
    if name_or_path in packaged_models():
        folder = data_folder() / name_or_path
        base = base_of(folder) if (folder / DIFFERENCE).is_file() else folder.name
        if (found := folder.with_name(f"{base}-smooth")).is_dir():
            return found
    raise ValueError(
        f'no smooth LoRA comes with "{name_or_path}": give one, smooth="folder, file or hub id", or train it with '
        f"`smoothnb train --model {name_or_path}`"
    )


def _check_folder(folder: Path) -> None:
    """Checks what diffusers and transformers pass over, or do not name, in a folder that `save_pretrained` wrote."""
    if not (folder / "model_index.json").is_file():
        inside = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{folder} is not a diffusers pipeline: expected a model_index.json in it, found {inside}. Give the folder "
            "that pipe.save_pretrained(...) wrote, or a .safetensors checkpoint itself"
        )
    for part in ("unet", "vae", "text_encoder"):
        for file in (folder / part).glob("*.safetensors"):
            # The header states the file's length, so that truncated files are noticed without reading them.
            with open_weights(file):
                pass
    # Without these files, transformers silently makes a tokenizer that knows no words.
    tokenizer = folder / "tokenizer"
    if tokenizer.is_dir() and not any((tokenizer / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise FileNotFoundError(f"{folder} is incomplete: expected tokenizer/tokenizer.json in it. Download it again")


def _check_checkpoint(file: Path) -> None:
    """Checks a single-file checkpoint, the format of most community models."""
    if file.suffix != ".safetensors":
        raise ValueError(
            f"expected a .safetensors checkpoint, got {file}: a .ckpt is a pickle, which can run any code when it is "
            "opened, so it is not. Convert it where you trust it, or download the .safetensors"
        )
    with open_weights(file) as tensors:
        keys = sorted(tensors.keys())
    if not any(key.startswith("model.diffusion_model.") for key in keys):
        raise ValueError(
            f"{file} is not a complete Stable Diffusion model: expected keys model.diffusion_model.…, got "
            f'{", ".join(keys[:2])}. A LoRA goes on top of a model: load_pipeline(model, smooth="{file.name}")'
        )
