"""Loads diffusion pipelines: those that come with the package, local folders, and the Hugging Face hub."""

import functools
import hashlib
import inspect
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from smoothnb.lora import attach_lora
from smoothnb.quiet import errors_only, no_bars

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PARTS = {"vae", "unet", "text_encoder", "tokenizer", "scheduler"}
WORD = re.compile(r"\w+(?:['’]\w+)*")


class UnknownWordsWarning(UserWarning):
    """A prompt holds words that the model has never seen."""


def data_folder() -> Path:
    """Where the models and pictures that come with smoothnb lie."""
    package = Path(__file__).resolve().parent
    # A wheel carries data/ inside the package; in a checkout the two stand side by side.
    return package / "data" if (package / "data").is_dir() else package.parent / "data"


def packaged_models() -> list[str]:
    """Names of the pipelines that come with smoothnb."""
    return sorted(path.parent.name for path in data_folder().glob("*/model_index.json"))


def load_pipeline(
    name_or_path: str | Path = "postcard",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    smooth: bool | str | Path = False,
):
    """Loads a text-to-image pipeline, ready for the functions of this package.

    The scheduler becomes DDIM, as in the paper, with the noise schedule that the model was trained with. diffusers'
    progress bars are off. The safety checker is not loaded, as the functions here decode latents themselves: put one
    behind anything that strangers can use.

    Args:
        name_or_path: A model that comes with smoothnb ("postcard": small, offline, runs on a CPU), a folder written by
            `save_pretrained`, or an id on the Hugging Face hub such as "stable-diffusion-v1-5/stable-diffusion-v1-5".
        device: Where to run; by default cuda, else mps, else cpu.
        dtype: Of the weights; by default float16 on cuda, else float32.
        smooth: Whether to attach the smooth LoRA that comes with the model; or one of your own, as `attach_lora` takes
            it. `set_smoothness` blends between the two.

    Returns:
        A `diffusers.StableDiffusionPipeline`. If the model's folder lists the words it knows (`vocabulary.json`),
        prompts with other words draw an `UnknownWordsWarning`.

    Raises:
        FileNotFoundError: If a folder does not exist.
        ValueError: If the name is unknown, or what it names is no Stable Diffusion pipeline.
        OSError: If the hub cannot be reached or has no such model.
    """
    source = _find(name_or_path)
    lora = _smooth_lora(name_or_path) if smooth is True else smooth
    from transformers.utils import logging as transformers_logging

    # transformers misses torchvision: it is for image processors, which nothing here uses.
    with errors_only(transformers_logging):
        from diffusers import DDIMScheduler, StableDiffusionPipeline
        from diffusers.utils import logging as diffusers_logging
    with no_bars(diffusers_logging, transformers_logging):
        try:
            config = StableDiffusionPipeline.load_config(str(source))
            missing = PARTS - set(config)
            if missing or "text_encoder_2" in config:
                raise ValueError(
                    f"{source} holds a {config.get('_class_name', 'pipeline of no known class')}, not a Stable "
                    "Diffusion pipeline with one text encoder: smoothnb works with Stable Diffusion 1.x and 2.x and "
                    "models fine-tuned from them"
                )
            pipe = StableDiffusionPipeline.from_pretrained(
                str(source), safety_checker=None, feature_extractor=None, image_encoder=None,
                requires_safety_checker=False,
            )  # fmt: skip
        except OSError as error:
            raise OSError(_why_not_loaded(source, error)) from error
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    pipe.set_progress_bar_config(disable=True)
    device = torch.device(device) if device is not None else best_device()
    # Moved after loading: what `from_pretrained` calls its dtype argument changes between versions of diffusers.
    # diffusers then warns of modules to keep in float32, of which there are none.
    with errors_only(diffusers_logging):
        pipe.to(device, dtype or (torch.float16 if device.type == "cuda" else torch.float32))
    if isinstance(source, Path) and (source / "vocabulary.json").is_file():
        vocabulary = json.loads((source / "vocabulary.json").read_text(encoding="utf-8"))
        warn_of_unknown_words(pipe, vocabulary["words"], vocabulary["topics"])
    if lora:
        attach_lora(pipe, lora)
    return pipe


def best_device() -> torch.device:
    """cuda where there is one, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def fingerprint(pipe) -> str:
    """Sixteen hexadecimal digits that stand for a pipeline's weights, its LoRA among them, and the LoRA's strength.

    A sample of each weight goes in, rounded to float16, so that it is quick and the same in every precision.
    """
    digest = hashlib.sha256()
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        for name, p in sorted(part.state_dict().items()):
            stride = max(1, p.numel() // 64)
            digest.update(f"{name}{tuple(p.shape)}".encode())
            digest.update(p.flatten()[::stride].to("cpu", torch.float16).numpy().tobytes())
    for name, module in pipe.unet.named_modules():
        if scaling := getattr(module, "scaling", None):
            digest.update(f"{name}{scaling}{getattr(module, 'active_adapters', '')}".encode())
    return digest.hexdigest()[:16]


def _find(name_or_path: str | Path) -> Path | str:
    """The folder that holds the model, or its id on the hub."""
    if name_or_path in packaged_models():
        return data_folder() / name_or_path
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            inside = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
            raise ValueError(
                f"{folder} is not a diffusers pipeline: expected a model_index.json in it, found {inside}. Give the "
                "folder that pipe.save_pretrained(...) wrote"
            )
        return folder
    name = str(name_or_path)
    if isinstance(name_or_path, str) and HUB_ID.fullmatch(name) and not name.startswith("."):
        return name
    names = ", ".join(f'"{n}"' for n in packaged_models()) or f"none, as {data_folder()} holds no pipeline"
    expected = (
        f"expected a model that comes with smoothnb ({names}), an existing folder, or a hub id such as "
        '"stable-diffusion-v1-5/stable-diffusion-v1-5"'
    )
    if isinstance(name_or_path, Path) or "/" in name or "\\" in name:
        raise FileNotFoundError(f"there is no folder {folder} (looked from {Path.cwd()}): {expected}")
    raise ValueError(f'unknown model "{name}": {expected}')


def _smooth_lora(name_or_path: str | Path) -> Path:
    """The smooth LoRA that comes with a model."""
    folder = data_folder() / f"{name_or_path}-smooth"
    if name_or_path not in packaged_models() or not folder.is_dir():
        raise ValueError(
            f'no smooth LoRA comes with "{name_or_path}": give one, smooth="folder, file or hub id", or train it with '
            f"`smoothnb train --model {name_or_path}`"
        )
    return folder


def _why_not_loaded(source: Path | str, error: OSError) -> str:
    if isinstance(source, Path):
        return f"{source} is incomplete: {error}. Save the pipeline again with pipe.save_pretrained(...)"
    return (
        f'cannot load "{source}": there is no such folder here, and the Hugging Face hub did not give a pipeline of '
        f"that name. Check the name and the network; private and gated models need `hf auth login`; without a network, "
        f'give a folder or a model that comes with smoothnb ("postcard"). The hub\'s client says: {error}'
    )


def warn_of_unknown_words(pipe, words: Sequence[str], topics: Mapping[str, Sequence[str]]) -> None:
    """Makes a pipeline warn of prompts with words that its training never used.

    Args:
        pipe: The pipeline; its `encode_prompt` is wrapped.
        words: Every word it knows.
        topics: What to name in the warning: by topic, the words worth trying.
    """
    known = {word.lower() for word in words}
    offer = "; ".join(f"{topic}: {', '.join(values)}" for topic, values in topics.items())
    original = pipe.encode_prompt
    signature = inspect.signature(original)

    @functools.wraps(original)
    def encode_prompt(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        prompts = [given.get("prompt"), given.get("negative_prompt")]
        texts = [text for p in prompts for text in ([p] if isinstance(p, str) else p or [])]
        unknown = dict.fromkeys(word for text in texts for word in WORD.findall(text) if word.lower() not in known)
        if unknown:
            named = ", ".join(f'"{word}"' for word in unknown)
            warnings.warn(
                f"this model has never seen {named} and can only guess. It knows {offer}", UnknownWordsWarning, 2
            )
        return original(*args, **kwargs)

    pipe.encode_prompt = encode_prompt
