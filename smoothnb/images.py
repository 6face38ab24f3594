"""Pictures in: any mode, size and container, brought to the RGB pixels that a model expects."""

import logging
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from smoothnb._utils.arguments import checked
from smoothnb._utils.checks import several
from smoothnb._utils.files import atomic_write, expanded

ImageLike = Image.Image | str | Path | np.ndarray | Tensor
"""One picture: PIL, a path, or an array or tensor (uint8 in 0…255 or floating point in [0, 1])."""

log = logging.getLogger(__name__)


@cache
def _say_once(text: str) -> None:
    log.warning(text)


def _from_array(array: np.ndarray) -> Image.Image:
    """One picture from height × width (× 1, 2, 3 or 4 channels) of uint8 or of floating point in [0, 1]."""
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] > 4):
        raise ValueError(
            f"expected a picture of height × width or height × width × (1 to 4) channels, got shape {array.shape}"
        )
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError(
                f"expected pixels in [0, 1], got values from {array.min():.3g} to {array.max():.3g}: "
                "divide by 255, or map [-1, 1] to [0, 1] with x / 2 + 0.5"
            )
        array = (array * 255).round().astype(np.uint8)
    if array.dtype != np.uint8:
        raise ValueError(f"expected pixels as uint8 or floating point, got {array.dtype}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else np.ascontiguousarray(array))


def _opened(source: str | Path) -> Image.Image:
    path = expanded(source)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}: give a path that exists from {Path.cwd()}, or a PIL image")
    try:
        with path.open("rb") as file:
            image = Image.open(file)
            image.load()
    # Whatever pillow's readers stumble over.
    except Exception as error:
        raise ValueError(f"cannot read {path} as a picture: {error}") from error
    return image


def _grey(image: Image.Image) -> Image.Image:
    """8 bits of a grey picture of 16 bits, which pillow would clip instead, or of floating point in [0, 1]."""
    array = np.asarray(image)
    if image.mode == "F":
        return _from_array(array)
    if array.min() < 0 or array.max() > 65535:
        raise ValueError(
            f"expected grey of 16 bits, from 0 to 65535, got values from {array.min()} to {array.max()}: divide by the "
            "largest, and give an array in [0, 1]"
        )
    return Image.fromarray((array.astype(np.float64) / 257).round().astype(np.uint8))


def to_rgb(image: ImageLike) -> Image.Image:
    """Brings one picture to RGB.

    The turn that a camera notes in EXIF is applied, alpha is flattened on white, 16-bit grey is scaled to 8 bits.

    Args:
        image: PIL image, path, array (height × width × channels) or tensor (channels × height × width).

    Returns:
        The picture in mode RGB, at its own size.

    Raises:
        FileNotFoundError: If a path leads nowhere.
        ValueError: If the file is no picture, or an array has the wrong shape, type or range.
        TypeError: If it is none of these kinds.
    """
    if isinstance(image, Tensor):
        if image.is_meta or image.layout != torch.strided:
            raise ValueError(f"expected a picture with pixels in it, got a tensor on {image.device}, {image.layout}")
        array = image.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
        image = _from_array(np.moveaxis(array, 0, -1) if array.ndim == 3 else array)
    elif isinstance(image, np.ndarray):
        image = _from_array(image)
    elif isinstance(image, str | Path):
        image = _opened(image)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"expected a PIL image, path, array or tensor, got {type(image).__name__}")
    if 0 in image.size:
        raise ValueError(f"expected a picture with pixels in it, got one of {image.width}×{image.height}")
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            image = _grey(image)
        if image.mode == "La":
            image = image.convert("LA")
        if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "RGBa"):
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    # A picture that is opened is read when it is first used.
    except (OSError, SyntaxError) as error:
        raise ValueError(f"cannot read this picture ({error}): its file may be cut off or closed") from error


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """One picture or many as a list; a 4-dimensional array or tensor is a batch."""
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | bytes | Path | Image.Image) or not isinstance(images, Iterable):
        return [images]
    return list(images)


def to_pixels(
    images: ImageLike | Iterable[ImageLike], height: int, width: int
) -> Float[Tensor, "batch 3 {height} {width}"]:
    """Brings pictures to one size: crops around the middle, resizes what remains (Lanczos), and says so once.

    Args:
        images: One picture or a sequence, each as in `to_rgb`.
        height: Of the result, in pixels.
        width: Of the result, in pixels.

    Returns:
        Pixels in [0, 1].

    Raises:
        ValueError: If there is no picture, or one cannot be read.
    """
    pictures = [to_rgb(image) for image in as_list(images)]
    if not pictures:
        raise ValueError("expected at least one picture, got none")
    sizes = sorted({p.size for p in pictures if p.size != (width, height)})
    if sizes:
        seen = ", ".join(f"{w}×{h}" for w, h in sizes[:5]) + (", …" if len(sizes) > 5 else "")
        _say_once(f"Pictures of {seen} pixels are cropped around the middle and resized to {width}×{height}.")
    fitted = [ImageOps.fit(p, (width, height), Image.Resampling.LANCZOS) for p in pictures]
    return torch.from_numpy(np.stack([np.asarray(p) for p in fitted])).permute(0, 3, 1, 2).float() / 255


def save_picture(picture: Image.Image, path: Path, **options: object) -> None:
    """Writes a picture whole or not at all, see `atomic_write`.

    Args:
        picture: Any that pillow can write.
        path: Its ending says how, such as .png.
        options: Of `Image.save`.

    Raises:
        ValueError: If pillow does not know the ending.
        OSError: If it cannot be written.
    """
    form = Image.registered_extensions().get(path.suffix.lower())
    if form not in Image.SAVE:
        raise ValueError(f"expected a file that ends as pictures do, such as .png or .jpg, got {path.name!r}")
    with atomic_write(path) as partial:
        picture.save(partial, form, **options)


def to_pil(pixels: Float[Tensor, "batch 3 height width"]) -> list[Image.Image]:
    """Turns pixels in [0, 1] into PIL images; what lies outside is clipped."""
    array = (pixels.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in array]


@checked(frames=several)
def neighbour_distances(
    frames: Sequence[Image.Image], pixel_range: tuple[float, float] = (0.0, 1.0)
) -> Float[Tensor, " step"]:
    """Euclidean distances between neighbouring pictures of a path, ‖x^{i+1} - x^i‖₂ over all pixels and channels.

    Args:
        frames: At least two pictures of one size.
        pixel_range: What black and white count; distances grow with its width.
    """
    low, high = pixel_range
    sizes = {getattr(frame, "size", None) for frame in frames}
    if len(frames) < 2 or len(sizes) > 1 or not all(isinstance(frame, Image.Image) for frame in frames):
        raise ValueError(
            f"expected at least two PIL images of one size, got {len(frames)} frames of sizes {sorted(map(str, sizes))}"
        )
    pixels = to_pixels(frames, frames[0].height, frames[0].width)
    return (high - low) * (pixels[1:] - pixels[:-1]).flatten(1).norm(dim=1)
