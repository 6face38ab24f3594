"""Checks of a pipeline's folder before it is loaded, as the libraries ignore missing files."""

import json
import re
from pathlib import Path

from smoothnb._utils.files import open_weights

AGAIN = "Save the pipeline again with pipe.save_pretrained(...), or download it again"
MODELS = ("unet", "vae", "text_encoder")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of a tokenizer. Without them, transformers silently makes one without any vocabulary."""
WEIGHTS = re.compile(r"[^.]+(?:\.(?P<variant>[^.]+?))?(?:-\d+-of-\d+)?\.safetensors")
"""Names of weights, whole or in shards: model.safetensors, model.fp16.safetensors."""


def read_json(file: Path) -> dict:
    """Reads a JSON object from a file.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} is incomplete: expected a {file.name} in it. {AGAIN}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is damaged: expected JSON ({error}). {AGAIN}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{file} is damaged: expected a JSON object, got {type(found).__name__}. {AGAIN}")
    return found


def check_folder(folder: Path) -> None:
    """Checks that all parts of a pipeline's folder exist, are intact, and are not pickles.

    Args:
        folder: A folder that `save_pretrained` wrote.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or weights exist as pickles only.
    """
    index = read_json(folder / "model_index.json")
    for part in (name for name in MODELS if index.get(name, [None])[0] is not None):
        read_json(folder / part / "config.json")
        weights = sorted((folder / part).glob("*.safetensors"))
        if not weights and (pickles := sorted((folder / part).glob("*.bin"))):
            raise ValueError(
                f"{pickles[0]} is a pickle, which can run any code when it is opened: expected {part} as safetensors. "
                "Convert it where you trust it: pipe.save_pretrained(..., safe_serialization=True)"
            )
        if not weights:
            raise FileNotFoundError(f"{folder} is incomplete: expected {part}/….safetensors, found none. {AGAIN}")
        for file in weights:
            # The header states the file's length, so truncated files are noticed without reading them.
            with open_weights(file):
                pass
    if "scheduler" in index:
        read_json(folder / "scheduler" / "scheduler_config.json")
    if "tokenizer" in index:
        known = [names for names in TOKENIZERS if all((folder / "tokenizer" / name).is_file() for name in names)]
        if not known:
            raise FileNotFoundError(f"{folder} is incomplete: expected tokenizer/{TOKENIZERS[0][0]} in it. {AGAIN}")
        for name in known[0]:
            if name.endswith(".json"):
                read_json(folder / "tokenizer" / name)


def variant_of(folder: Path) -> str | None:
    """The variant of the weights to load, such as "fp16": None where all parts have plain weights.

    Raises:
        ValueError: If no one variant completes all parts.
    """
    index = read_json(folder / "model_index.json")
    common: set[str] | None = None
    for part in (name for name in MODELS if index.get(name, [None])[0] is not None):
        matches = (WEIGHTS.fullmatch(file.name) for file in (folder / part).glob("*.safetensors"))
        variants = {match["variant"] for match in matches if match}
        if None not in variants:
            common = variants if common is None else common & variants
    if common is not None and not common:
        raise ValueError(f"{folder} is incomplete: its parts have no variant of their weights in common. {AGAIN}")
    return min(common) if common else None
