"""Handles, targets and paths of a drag, drawn on the picture."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from smoothnb._utils.checks import PointList, at_least, check_points
from smoothnb.images import ImageLike, to_mask, to_rgb

FROM, TO, WAY = (214, 69, 65), (47, 102, 144), (255, 255, 255)
"""Colours of handles, targets, and lines."""
DIMMED = 0.45
"""Brightness of the picture outside the mask."""


def mark(
    picture: Image.Image,
    handles: PointList = (),
    targets: PointList = (),
    paths: Sequence[PointList] = (),
    mask: ImageLike | None = None,
    width: int = 256,
) -> Image.Image:
    """Draws handles, arrows to their targets, paths, and the mask on a picture.

    Args:
        picture: The picture.
        handles: Points, drawn as red dots.
        targets: One for each handle, or none; drawn as blue dots with an arrow to them.
        paths: Polylines; each point is a white dot.
        mask: A mask of the size of the picture; its black part is darkened.
        width: Width of the result, in pixels; the picture is resized (Lanczos) before drawing, so that lines are sharp.

    Returns:
        An RGB picture.

    Raises:
        ValueError: If handles and targets differ in number, or the mask has another size.
    """
    at_least(1, width=width)
    handles, targets = check_points("handle", handles), check_points("target", targets)
    paths = [check_points("point", path) for path in paths]
    if len(targets) not in (0, len(handles)):
        raise ValueError(f"expected no targets or one for each of {len(handles)} handles, got {len(targets)}")
    picture = to_rgb(picture)
    mask = None if mask is None else to_mask(mask, picture.size)
    scale = width / picture.width
    size = (width, max(1, round(picture.height * scale)))
    sheet = picture.resize(size, Image.Resampling.LANCZOS)
    if mask is not None:
        darker = Image.fromarray((np.asarray(sheet) * DIMMED).astype(np.uint8))
        sheet = Image.composite(sheet, darker, mask.resize(size))
    # Drawn twice as large and made smaller, as Pillow's own lines have hard edges.
    sheet = sheet.resize((2 * size[0], 2 * size[1]))
    draw = ImageDraw.Draw(sheet)
    unit = max(3.0, width / 26)
    groups = [[_at(points, 2 * scale) for points in group] for group in ([handles], [targets], paths)]
    for path in groups[2]:
        draw.line(path, WAY, round(unit / 3))
        for x, y in path:
            _dot(draw, x, y, unit * 0.45, WAY)
    for start, end in zip(groups[0][0], groups[1][0], strict=False):
        _arrow(draw, start, end, unit)
        _dot(draw, *end, unit, TO)
    for start in groups[0][0]:
        _dot(draw, *start, unit, FROM)
    return sheet.resize(size, Image.Resampling.LANCZOS)


def _at(points: PointList, scale: float) -> list[tuple[float, float]]:
    return [(x * scale, y * scale) for x, y in points]


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour, (0, 0, 0), max(1, round(radius / 4)))


def _arrow(draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], unit: float) -> None:
    angle = math.atan2(end[1] - start[1], end[0] - start[0])
    head = [
        (end[0] - 2.6 * unit * math.cos(angle + turn), end[1] - 2.6 * unit * math.sin(angle + turn))
        for turn in (0.4, -0.4)
    ]
    for colour, more in (((0, 0, 0), 2), (WAY, 0)):
        draw.line([start, end], colour, round(unit * 0.5) + more)
        draw.polygon([end, *head], colour, colour, 1 + more)
