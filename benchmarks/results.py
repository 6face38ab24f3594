"""Files of results that are written while a benchmark runs, so that it can be resumed."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from smoothnb.evaluation.bootstrap import interval


def resume(options: argparse.Namespace) -> tuple[dict, Path]:
    """Reads the results that were measured so far with the same options.

    Returns:
        The results, and their file, `options.output` with the suffix .json.

    Raises:
        SystemExit: If the options were others. Output and cache may differ.
    """
    options.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {k: v for k, v in vars(options).items() if k not in ("cache", "output")}
    file = options.output.with_suffix(".json")
    results = json.loads(file.read_text()) if file.is_file() else {"settings": settings}
    if results["settings"] != settings:
        raise SystemExit(f"{file} was measured with {results['settings']}, not {settings}: give another --output")
    return results, file


def write_tables(file: Path, parts: Mapping[str, str], results: Mapping) -> None:
    """Writes tables by title, settings and machine as Markdown, next to the file of results."""
    said = ", ".join(f"{k} {v}" for k, v in {**results["settings"], **results["machine"]}.items())
    text = "\n\n".join(f"## {title}\n\n{body}" for title, body in parts.items())
    file.with_suffix(".md").write_text(f"{text}\n\n{said}\n")


def mean_with_interval(changes: np.ndarray) -> str:
    """The mean of changes with its bootstrap interval (95 %) over cases."""
    low, high = interval(changes)
    return f"{changes.mean():+.2f} ({low:+.2f} to {high:+.2f})"
