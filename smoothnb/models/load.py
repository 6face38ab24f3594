"""Loads diffusion pipelines: those that come with the package, local folders, and the Hugging Face hub."""

import hashlib
import inspect
import json
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path

import torch

from smoothnb._utils.console import errors_only, no_bars, warn
from smoothnb._utils.files import expanded
from smoothnb._utils.pipeline import PARTS, Pipeline, check_pipeline
from smoothnb._utils.temporarily import default_float32
from smoothnb.models.deltas import DIFFERENCE, apply_difference, base_of
from smoothnb.models.lora import import_lora
from smoothnb.models.parts import ddim, weights_of
from smoothnb.models.sources import find_model, smooth_lora

ADAPTER_STATE = ("_active_adapter", "disable_adapters", "scaling", "merged_adapters")
"""What peft keeps in each layer about its adapters, besides their weights."""
WORD = re.compile(r"\w+(?:['’]\w+)*")


class UnknownWordsWarning(UserWarning):
    """A prompt contains words that the model was not trained on."""


def load_pipeline(
    name_or_path: str | Path = "postcard",
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    smooth: bool | str | Path = False,
    config: str | Path | None = None,
) -> Pipeline:
    """Loads a text-to-image pipeline for the functions of this package.

    Its scheduler is DDIM with the model's own noise schedule, see `ddim`. The safety checker is not loaded, as the
    functions here decode latents themselves: add one to anything that is open to the public.

    Args:
        name_or_path: A model that comes with smoothnb ("postcard", "postcard-film", "postcard-neon"); a folder written
            by `save_pretrained`; a `.safetensors` checkpoint; an id on the Hugging Face hub; or a name for one and its
            mirrors: "stable-diffusion-v1-5", "realistic-vision-v2", "openjourney-v4". Copies in the folder named by
            the environment variable SMOOTHNB_MODELS take precedence over the hub.
        device: The device; by default cuda, else mps, else cpu.
        dtype: Type of the weights; by default float16 on cuda, else float32.
        smooth: Whether to attach the smooth LoRA that comes with the model or its base; or a LoRA of your own, as
            `import_lora` takes it. `set_smoothness` changes its weight.
        config: For a single-file checkpoint, which holds no tokenizer: the folder or hub id of a pipeline of the same
            kind. By default diffusers looks it up on the hub.

    Returns:
        A `diffusers.StableDiffusionPipeline`. If the model's folder lists its vocabulary (`vocabulary.json`), prompts
        with other words raise an `UnknownWordsWarning`; if it recommends a guidance scale (`recommended.json`:
        {"guidance_scale": 3.0}), functions use it by default.

    Raises:
        ValueError: If the name is unknown, or the model is not a Stable Diffusion pipeline, damaged, or a pickle.
        OSError: If a file is missing, or the hub cannot be reached or has no such model.
    """
    device = best_device() if device is None else available_device(device)
    places, difference = find_model(name_or_path), None
    if isinstance(places[0], Path) and (places[0] / DIFFERENCE).is_file():
        difference, places = places[0] / DIFFERENCE, (places[0].with_name(base_of(places[0])),)
    lora = smooth_lora(name_or_path) if smooth is True else smooth
    from transformers.utils import logging as transformers_logging

    # transformers warns that torchvision is missing, which only image processors need.
    with errors_only(transformers_logging):
        from diffusers import StableDiffusionPipeline
        from diffusers.utils import logging as diffusers_logging
    with no_bars(diffusers_logging, transformers_logging), warnings.catch_warnings(), default_float32():
        # Of settings of the model's scheduler that are replaced below.
        warnings.filterwarnings("ignore", "The configuration file of this scheduler", FutureWarning)
        for place in places:
            try:
                pipe = _load(StableDiffusionPipeline, place, config)
                break
            except OSError:
                # A model that was removed from the hub may still be there under another name.
                if place == places[-1]:
                    raise
    if difference is not None:
        apply_difference(pipe, difference)
    pipe.scheduler = ddim(pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)
    # Cast after loading, as the name of the dtype argument of `from_pretrained` differs between versions of diffusers,
    # which then warns of modules to keep in float32, of which there are none.
    with errors_only(diffusers_logging):
        pipe.to(device, dtype or (torch.float16 if device.type == "cuda" else torch.float32))
    if isinstance(place, Path) and (place / "vocabulary.json").is_file():
        vocabulary = read_json(place / "vocabulary.json")
        if not {"words", "topics"} <= vocabulary.keys():
            raise ValueError(f"{place / 'vocabulary.json'} is damaged: expected words and topics, got {[*vocabulary]}")
        warn_of_unknown_words(pipe, vocabulary["words"], vocabulary["topics"])
    if isinstance(place, Path) and (place / "recommended.json").is_file():
        scale = read_json(place / "recommended.json").get("guidance_scale")
        if not (isinstance(scale, int | float) and 1 <= scale < math.inf):
            raise ValueError(f"expected guidance_scale in {place / 'recommended.json'} of at least 1, got {scale!r}")
        pipe.recommended_guidance_scale = scale
    if lora:
        import_lora(pipe, lora)
    return pipe


def best_device() -> torch.device:
    """cuda if available, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def available_device(device: torch.device | str) -> torch.device:
    """A device by its name; ValueError if it is not there."""
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'expected device as "cpu", "cuda", "mps" or a torch.device, got {device!r}') from error
    kinds = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if found.type in ("cuda", "mps", "meta") and (found.index or 0) >= kinds.get(found.type, 0):
        raise ValueError(f"expected device as one that is there, got {found}: {kinds} can be used here")
    return found


def fingerprint(pipe: Pipeline, exact: bool = True) -> str:
    """Hash of a sample of a pipeline's weights, and of the state of its adapters, as 16 hexadecimal digits.

    Args:
        pipe: A diffusers pipeline.
        exact: Whether to hash the sample in float16, which gives the same digits in float32 and float16; otherwise only
            its signs, which are the same in bfloat16 too.
    """
    digest = hashlib.sha256()
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        for name, p in sorted(weights_of(part).items()):
            stride = max(1, p.numel() // 64)
            digest.update(f"{name}{tuple(p.shape)}".encode())
            some = p.flatten()[::stride].to("cpu")
            digest.update((some.to(torch.float16) if exact else some.signbit()).numpy().tobytes())
        for name, module in part.named_modules():
            if "_active_adapter" in vars(module):
                state = [getattr(module, key, None) for key in ADAPTER_STATE]
                digest.update(f"{name.replace('_orig_mod.', '')}{state}".encode())
    return digest.hexdigest()[:16]


def _load(kind: type, place: Path | str, config: str | Path | None):
    """Loads a pipeline from a folder, a file, or the hub."""
    whole = isinstance(place, Path) and place.is_file()
    with _explained(place):
        description = PARTS if whole else dict(kind.load_config(str(place)))
    if set(PARTS) - set(description) or "text_encoder_2" in description:
        raise ValueError(
            f"{place} holds a {description.get('_class_name', 'pipeline of no known class')}, not a Stable "
            "Diffusion pipeline with one text encoder: smoothnb works with Stable Diffusion 1.x and 2.x and models "
            "fine-tuned from them"
        )
    options = dict(safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False)
    with _explained(place):
        if whole:
            pipe = kind.from_single_file(str(place), config=config and str(expanded(config)), **options)
        else:
            # Refuses pickled weights, on the hub too.
            pipe = _any_variant(partial(kind.from_pretrained, str(place), use_safetensors=True, **options), place)
    for part in ("unet", "vae", "text_encoder"):
        if missing := [name for name, p in getattr(pipe, part).named_parameters() if p.is_meta]:
            raise ValueError(f"{place} is incomplete: the weights of {part} lack {missing[0]}. Download it again")
    try:
        check_pipeline(pipe)
    except ValueError as error:
        raise ValueError(f"{place} cannot be used: {error}") from None
    return pipe


def _any_variant(load: Callable, place: Path | str):
    """Loads a pipeline whose weights may be there as one variant alone, such as model.fp16.safetensors."""
    try:
        return load()
    except OSError as error:
        if not re.search("variant|safetensors", str(error)):
            raise
        files = [] if isinstance(place, str) else sorted(place.glob("unet/*.*.safetensors"))
        try:
            return load(variant=re.split("[.-]", files[0].name)[1] if files else "fp16")
        except (OSError, ValueError):
            raise error from None


@contextmanager
def _explained(place: Path | str) -> Iterator[None]:
    """Says what to do about the errors that diffusers, transformers and tokenizers raise for files."""
    try:
        yield
    except Exception as error:
        missing = isinstance(error, OSError)
        if missing and isinstance(place, str):
            reason = (
                f'cannot load "{place}": it is neither a folder here nor a pipeline on the Hugging Face hub. Check the '
                "name and the network; private and gated models need `hf auth login`"
            )
        elif missing and place.is_file():
            reason = (
                f"{place} was read, but not the configuration and tokenizer of its kind, which the file does not hold: "
                "give config=, a folder or hub id of a pipeline of the same kind, such as Stable Diffusion 1.5"
            )
        else:
            reason = (
                f"{place} cannot be loaded: its files are incomplete or damaged, or do not belong together. Save the "
                "pipeline again with pipe.save_pretrained(...), or download it again; pickles (.bin) are not opened"
            )
        raise (OSError if missing else ValueError)(f"{reason}. The libraries say: {error}") from error


def read_json(file: Path) -> dict:
    """Reads a JSON object from a file; a ValueError names the file if it is damaged."""
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged: expected a JSON object ({error})") from None


def warn_of_unknown_words(pipe: Pipeline, words: Sequence[str], topics: Mapping[str, Sequence[str]]) -> None:
    """Makes a pipeline warn about prompts with words that it was not trained on.

    Args:
        pipe: The pipeline; its `encode_prompt` is wrapped.
        words: All known words.
        topics: Words to suggest in the warning, by topic.
    """
    known = {word.lower() for word in words}
    offer = "; ".join(f"{topic}: {', '.join(values)}" for topic, values in topics.items())
    original = pipe.encode_prompt
    signature = inspect.signature(original)

    @wraps(original)
    def encode_prompt(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        prompts = [given.get("prompt"), given.get("negative_prompt")]
        texts = [text for p in prompts for text in ([p] if isinstance(p, str) else p or [])]
        unknown = dict.fromkeys(word for text in texts for word in WORD.findall(text) if word.lower() not in known)
        if unknown:
            named = ", ".join(f'"{word}"' for word in unknown)
            warn(f"this model has never seen {named} and can only guess. It knows {offer}", UnknownWordsWarning)
        return original(*args, **kwargs)

    pipe.encode_prompt = encode_prompt
