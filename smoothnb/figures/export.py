"""Saves frames as an animation or a strip."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from smoothnb._utils.files import atomic_write, expanded
from smoothnb.figures.strips import strip
from smoothnb.images import save_picture

ENDINGS = (".gif", ".mp4", ".png")


def save_frames(
    path: str | Path,
    rows: Mapping[str, Sequence[Image.Image]],
    labels: Sequence[str],
    interval: int = 250,
    size: int = 256,
) -> Path:
    """Saves frames as an animation that plays back and forth (.gif, .mp4), or as a strip (.png).

    Args:
        path: The file; missing folders are created.
        rows: Frames by name, side by side in an animation.
        labels: One label for each frame.
        interval: Time between two frames, in milliseconds.
        size: Width of a frame in an animation, in pixels.

    Returns:
        The path.

    Raises:
        ValueError: If the file has another suffix.
        ImportError: If imageio-ffmpeg, which writes .mp4, is not installed.
    """
    path = expanded(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise ValueError(f"expected a file name that ends in .gif, .mp4 or .png, got {path.name!r}")
    if ending == ".mp4":
        ffmpeg = _ffmpeg()
    if ending == ".png":
        save_picture(strip(rows, labels), path)
        return path

    there = [
        strip([row[i] for row in rows.values()], [f"{name}   {label}".strip() for name in rows], size)
        for i, label in enumerate(labels)
    ]
    pictures = there + there[-2:0:-1]
    if ending == ".gif":
        save_picture(pictures[0], path, save_all=True, append_images=pictures[1:], duration=interval, loop=0)
    else:
        # H.264 needs even sides.
        box = (0, 0, pictures[0].width // 2 * 2, pictures[0].height // 2 * 2)
        with atomic_write(path) as partial:
            writer = ffmpeg.write_frames(
                str(partial), box[2:], fps=1000 / interval, quality=8, macro_block_size=2, output_params=["-f", "mp4"]
            )
            writer.send(None)
            for picture in pictures:
                writer.send(np.ascontiguousarray(picture.crop(box)))
            writer.close()
    return path


def _ffmpeg():
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise ImportError("an .mp4 needs imageio-ffmpeg: pip install imageio-ffmpeg; or save a .gif") from error
    return imageio_ffmpeg
