"""Files of results that are written while they grow, and gone on with after a stop."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from smoothnb.evaluation.bootstrap import interval


def resume(options: argparse.Namespace) -> tuple[dict, Path]:
    """Results measured so far under `options.output` with these very options, and their file.

    Raises:
        SystemExit: If they were measured with others. Output and cache may differ.
    """
    options.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {k: v for k, v in vars(options).items() if k not in ("cache", "output")}
    file = options.output.with_suffix(".json")
    results = json.loads(file.read_text()) if file.is_file() else {"settings": settings}
    if results["settings"] != settings:
        raise SystemExit(f"{file} was measured with {results['settings']}, not {settings}: give another --output")
    return results, file


def write_tables(file: Path, parts: Mapping[str, str], results: Mapping) -> None:
    """Writes tables by title as Markdown beside the results, with settings and machine below."""
    said = ", ".join(f"{k} {v}" for k, v in {**results["settings"], **results["machine"]}.items())
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in parts.items())
    file.with_suffix(".md").write_text(f"{text}\n\n{said}\n")


def mean_with_interval(changes: np.ndarray) -> str:
    """The mean of changes, and the interval that it lies in when cases are drawn anew (bootstrap, 95 %)."""
    low, high = interval(changes)
    return f"{changes.mean():+.2f} ({low:+.2f} to {high:+.2f})"
