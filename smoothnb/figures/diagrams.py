"""Diagrams of the method, which are SVG files in data/diagrams."""

import re

from IPython.display import SVG

from smoothnb._utils.files import data_folder


def diagram(name: str) -> SVG:
    """Shows a diagram of the method in a notebook.

    In all of them orange is the base model, teal the smooth model, grey noise, gold text, and blue latents.

    Args:
        name: "pipeline", "regularizer", "sphere", "inversion", "attention", "drag" or "istd".

    Returns:
        The diagram, 860 pixels wide. `metadata["alt"]` describes it in words, and so does the SVG itself.

    Raises:
        ValueError: If there is no diagram of that name.
    """
    known = {path.stem: path for path in sorted((data_folder() / "diagrams").glob("*.svg"))}
    if name not in known:
        raise ValueError(f"expected one of {', '.join(known)}, got {name!r}")
    svg = known[name].read_text(encoding="utf-8")
    return SVG(svg, metadata={"alt": re.search("<desc[^>]*>(.+?)</desc>", svg)[1]})
