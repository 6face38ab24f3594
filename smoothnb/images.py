"""Pictures in: any mode, size and container, brought to the RGB pixels that a model expects."""

import io
import logging
import warnings
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms, ImageOps
from torch import Tensor

from smoothnb._utils.files import atomic_write, expanded

ImageLike = Image.Image | str | Path | io.BufferedIOBase | np.ndarray | Tensor
"""One picture: PIL, a path, an open file, or an array or tensor (uint8 in 0…255, floating point in [0, 1], or bool)."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What brings a picture upright, by its orientation in EXIF."""
GREY_MODES = ("1", "L", "LA", "La", "I", "F")

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
    if array.dtype == bool:
        array = array * np.uint8(255)
    if array.dtype != np.uint8:
        raise ValueError(f"expected pixels as uint8 or floating point, got {array.dtype}")
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else np.ascontiguousarray(array))


def _opened(source: str | Path | io.BufferedIOBase) -> Image.Image:
    if isinstance(source, str | Path):
        source = expanded(source)
        if not source.is_file():
            raise FileNotFoundError(
                f"no picture at {source}: give a path that exists from {Path.cwd()}, or a PIL image"
            )
    try:
        return Image.open(source)
    # Whatever pillow's readers stumble over.
    except Exception as error:
        raise ValueError(f"cannot read {_name(source)} as a picture: {error}") from error


def _name(source: object) -> str:
    return str(source) if isinstance(source, str | Path) else "this file"


def _turned(image: Image.Image) -> Image.Image:
    """The picture upright. `ImageOps.exif_transpose` writes EXIF anew, and fails at any damaged tag."""
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:
        turn = None
    return image if turn is None else image.transpose(turn)


def _to_srgb(image: Image.Image, data: bytes | None, grey: bool) -> Image.Image:
    """The colours that the embedded profile means, in sRGB; without a profile, or with a broken one, the picture."""
    if not data:
        return image
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = profile.profile.xcolor_space
        mode = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}[space]
        if (mode == "CMYK") != (image.mode == "CMYK") or (mode == "L" and not grey):
            raise ValueError(f"it is made for {space.strip()}, the picture is in {image.mode}")
        return ImageCms.profileToProfile(image.convert(mode), profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception as error:
        _say_once(f"A picture's colour profile is ignored, and its numbers are taken for sRGB: {error!r}")
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


def to_rgb(image: ImageLike, background: str = "white") -> Image.Image:
    """Brings one picture to RGB.

    The turn that a camera notes in EXIF is applied, colours are converted to sRGB by the embedded profile, alpha is
    flattened on a background, 16-bit grey is scaled to 8 bits. Of an animation, the current frame is taken: the first
    one of a file. EXIF or a profile that is damaged is ignored.

    Args:
        image: PIL image, path, open file, array (height × width × channels) or tensor (channels × height × width).
        background: Colour that shows where the picture is transparent.

    Returns:
        The picture in mode RGB, at its own size.

    Raises:
        FileNotFoundError: If a path leads nowhere.
        ValueError: If the file is no picture, or an array has the wrong shape, type or range.
        TypeError: If it is none of these kinds.
    """
    source = image
    if isinstance(image, Tensor):
        if image.is_meta or image.layout != torch.strided:
            raise ValueError(f"expected a picture with pixels in it, got a tensor on {image.device}, {image.layout}")
        array = image.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
        image = _from_array(np.moveaxis(array, 0, -1) if array.ndim == 3 else array)
    elif isinstance(image, np.ndarray):
        image = _from_array(image)
    elif not isinstance(image, Image.Image | str | Path | io.BufferedIOBase):
        raise TypeError(f"expected a PIL image, path, file, array or tensor, got {type(image).__name__}")
    with warnings.catch_warnings(), ExitStack() as opened:
        # Of damaged EXIF.
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        if not isinstance(image, Image.Image):
            image = opened.enter_context(_opened(image))
        if 0 in image.size:
            raise ValueError(f"expected a picture with pixels in it, got one of {image.width}×{image.height}")
        try:
            image.load()
        except Exception as error:
            raise ValueError(
                f"cannot read {_name(source)} as a picture ({error}): it may be cut off or closed"
            ) from error
        image = _turned(image)
    profile, grey = image.info.get("icc_profile"), image.mode in GREY_MODES or image.mode.startswith("I;16")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _grey(image)
    if image.mode == "La":
        image = image.convert("LA")
    alpha = None
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    image = _to_srgb(image, profile, grey).convert("RGB")
    if alpha is not None:
        image = Image.composite(image, Image.new("RGB", image.size, background), alpha)
    # A turn or a profile that stayed here would be applied again.
    image.info = {}
    return image


def to_mask(mask: ImageLike, size: tuple[int, int]) -> Image.Image:
    """Brings a mask to black and white.

    White and opaque may change, black or transparent may not: the mask is flattened on black, and what is at least half
    as bright as white counts as white. A mask of 0 and 1 counts as one of black and white.

    Args:
        mask: As in `to_rgb`.
        size: Width and height that it is to have.

    Returns:
        A picture in mode L: 255 where the masked picture may change, 0 elsewhere.

    Raises:
        ValueError: If the mask has another size or cannot be read.
    """
    grey = to_rgb(mask, background="black").convert("L")
    if grey.size != size:
        raise ValueError(f"expected a mask of the picture's size, {size[0]}×{size[1]}, got {grey.width}×{grey.height}")
    least = 0 if grey.getextrema()[1] == 1 else 127
    return grey.point(lambda value: 255 * (value > least))


def as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """One picture or many as a list; a 4-dimensional array or tensor is a batch."""
    if isinstance(images, np.ndarray | Tensor):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, str | bytes | Path | io.BufferedIOBase | Image.Image) or not isinstance(images, Iterable):
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


def neighbour_distances(
    frames: Iterable[Image.Image], pixel_range: tuple[float, float] = (0.0, 1.0)
) -> Float[Tensor, " step"]:
    """Euclidean distances between neighbouring pictures of a path, ‖x^{i+1} - x^i‖₂ over all pixels and channels.

    Args:
        frames: At least two pictures of one size.
        pixel_range: What black and white count; distances grow with its width.
    """
    frames, (low, high) = list(frames), pixel_range
    sizes = {getattr(frame, "size", None) for frame in frames}
    if len(frames) < 2 or len(sizes) > 1 or not all(isinstance(frame, Image.Image) for frame in frames):
        raise ValueError(
            f"expected at least two PIL images of one size, got {len(frames)} frames of sizes {sorted(map(str, sizes))}"
        )
    pixels = to_pixels(frames, frames[0].height, frames[0].width)
    return (high - low) * (pixels[1:] - pixels[:-1]).flatten(1).norm(dim=1)
