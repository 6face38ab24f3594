"""Finds models: in the package, in folders and files, on the Hugging Face hub and its mirrors."""

import os
import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Source:
    """The source of a pipeline.

    Attributes:
        places: A folder or a file; or ids on the hub, to be tried in turn.
        difference: File with the difference to apply to the pipeline at that place.
    """

    places: tuple[Path, ...] | tuple[str, ...]
    difference: Path | None = None


def packaged_models() -> list[str]:
    """Names of the pipelines that come with smoothnb."""
    data = data_folder()
    return sorted(path.parent.name for name in ("model_index.json", DIFFERENCE) for path in data.glob(f"*/{name}"))


def find_model(name_or_path: str | Path) -> Source:
    """Finds a model.

    Args:
        name_or_path: A model, as `load_pipeline` takes it.

    Raises:
        FileNotFoundError: If a folder or file does not exist.
        ValueError: If the name is unknown, or the folder or file is not a pipeline.
    """
    if name_or_path in packaged_models():
        folder = data_folder() / name_or_path
        if (folder / DIFFERENCE).is_file():
            return Source((data_folder() / base_of(folder),), folder / DIFFERENCE)
        return Source((folder,))
    name, path = str(name_or_path), expanded(name_or_path)
    copies = expanded(os.environ.get(LOCAL_MODELS, "")) / name
    local = [copies, copies.with_name(f"{copies.name}.safetensors")] if os.environ.get(LOCAL_MODELS) else []
    for place in (path, *local):
        if place.is_dir():
            return Source((_pipeline_folder(place),))
        if place.is_file():
            return Source((_checkpoint(place),))
    if name in HUB_NAMES:
        return Source(HUB_NAMES[name])
    if isinstance(name_or_path, str) and HUB_ID.fullmatch(name) and path.suffix not in (".safetensors", ".ckpt"):
        return Source((name,))
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
    folder = data_folder() / str(name_or_path)
    if name_or_path in packaged_models():
        base = base_of(folder) if (folder / DIFFERENCE).is_file() else folder.name
        if (data_folder() / f"{base}-smooth").is_dir():
            return data_folder() / f"{base}-smooth"
    raise ValueError(
        f'no smooth LoRA comes with "{name_or_path}": give one, smooth="folder, file or hub id", or train it with '
        f"`smoothnb train --model {name_or_path}`"
    )


def _pipeline_folder(folder: Path) -> Path:
    if not (folder / "model_index.json").is_file():
        inside = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{folder} is not a diffusers pipeline: expected a model_index.json in it, found {inside}. Give the folder "
            "that pipe.save_pretrained(...) wrote, or a .safetensors checkpoint itself"
        )
    return folder


def _checkpoint(file: Path) -> Path:
    """Checks a single-file checkpoint, the format of most community models."""
    if file.suffix != ".safetensors":
        raise ValueError(
            f"expected a .safetensors checkpoint, got {file}: a .ckpt is a pickle, which can run any code when it is "
            "opened, so it is not. Convert it where you trust it, or download the .safetensors"
        )
    with open_weights(file) as tensors:
        keys = set(tensors.keys())
    if not any(key.startswith("model.diffusion_model.") for key in keys):
        raise ValueError(
            f"{file} is not a complete Stable Diffusion model: expected keys model.diffusion_model.…, got "
            f'{", ".join(sorted(keys)[:2])}. A LoRA goes on top of a model: load_pipeline(model, smooth="{file.name}")'
        )
    return file
