"""Strips of frames: still figures of what the sliders show."""

from collections.abc import Mapping, Sequence
from functools import cache

from PIL import Image, ImageChops, ImageDraw, ImageFont

from smoothnb._utils.checks import at_least
from smoothnb.images import to_rgb

Frames = Sequence[Image.Image] | Mapping[str, Sequence[Image.Image]]
"""Frames of one path, or several paths by name."""

INK = "#444444"
MARGIN = 6


def rows_of(frames: Frames) -> dict[str, list[Image.Image]]:
    """Converts frames to rows by name; a single row has the name "".

    Raises:
        ValueError: If there are no frames, or rows differ in length.
        TypeError: If a frame is not a PIL image.
    """
    rows = {str(k): list(v) for k, v in frames.items()} if isinstance(frames, Mapping) else {"": list(frames)}
    lengths = {name: len(row) for name, row in rows.items()}
    if not rows or 0 in lengths.values():
        raise ValueError(f"expected at least one frame in every row, got {lengths or 'no rows'}")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected rows of equal length, got {lengths}")
    for row in rows.values():
        for frame in row:
            if not isinstance(frame, Image.Image):
                raise TypeError(f"expected frames as PIL images, got {type(frame).__name__}")
            if 0 in frame.size:
                raise ValueError(f"expected frames with pixels in them, got one of {frame.width}×{frame.height}")
    return rows


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # matplotlib ships DejaVu Sans, which has η, ε and ∅.
    import matplotlib

    # As a string, for the oldest supported Pillow.
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def strip(frames: Frames, labels: Sequence[str] | None = None, size: int = 112) -> Image.Image:
    """Draws frames side by side, with column labels above and row names on the left.

    Args:
        frames: PIL images, or rows of them by name, of equal length.
        labels: One label for each column.
        size: Width of a frame, in pixels; its height keeps the aspect ratio of the first frame.

    Returns:
        An RGB picture.

    Raises:
        ValueError: If there are no frames, rows differ in length, or labels and columns differ in number.
        TypeError: If a frame is not a PIL image.
    """
    at_least(1, size=size)
    rows = rows_of(frames)
    columns = len(next(iter(rows.values())))
    if labels is not None and len(labels) != columns:
        raise ValueError(f"expected {columns} labels, one for each column, got {len(labels)}")
    first = next(iter(rows.values()))[0]
    height = max(1, round(size * first.height / first.width))
    font = _font(max(9, size // 8))
    line = sum(font.getmetrics())
    left = MARGIN + max(round(font.getlength(name)) for name in rows) + (MARGIN if any(rows) else 0)
    top = MARGIN + (line if labels is not None else 0)

    sheet = Image.new("RGB", (left + columns * (size + MARGIN), top + len(rows) * (height + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, label in enumerate(labels or ()):
        draw.text((left + column * (size + MARGIN) + size / 2, MARGIN / 2), str(label), INK, font, anchor="ma")
    for r, (name, row) in enumerate(rows.items()):
        y = top + r * (height + MARGIN)
        draw.text((MARGIN, y + height / 2), name, INK, font, anchor="lm")
        for column, frame in enumerate(row):
            small = to_rgb(frame).resize((size, height), Image.Resampling.LANCZOS)
            sheet.paste(small, (left + column * (size + MARGIN), y))
    return sheet


def difference(a: Image.Image, b: Image.Image, gain: float = 3.0) -> Image.Image:
    """Difference of two pictures: black where they are equal, brighter where they differ.

    Args:
        a: One picture.
        b: The other, which is resized (Lanczos) if its size differs.
        gain: Factor on the difference; the largest of the three channels is shown.

    Returns:
        A grey picture in mode RGB.
    """
    at_least(0, gain=gain)
    a, b = to_rgb(a), to_rgb(b)
    b = b if b.size == a.size else b.resize(a.size, Image.Resampling.LANCZOS)
    channels = ImageChops.difference(a, b).split()
    most = ImageChops.lighter(ImageChops.lighter(*channels[:2]), channels[2])
    return most.point(lambda value: min(255, round(gain * value))).convert("RGB")
