"""Append-only results file; resumable after a crash."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from smoothnb._utils.files import expanded

KIND = "smoothnb istd"
"""Identifies the file in its first line."""

Rows = dict[int, list[float]]


def read_record(path: str | Path) -> tuple[dict, Rows]:
    """Reads the description of the measurement, and the rows by number. An incomplete last line is ignored.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no results file, or a line is damaged.
    """
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no results at {path} (looked from {Path.cwd()})")
    head, *lines = _whole_lines(path.read_bytes()) or [b""]
    found = _parsed(head)
    if found.get("kind") != KIND:
        raise ValueError(f"{path} holds no results of istd: its first line is {head[:60]!r}")
    rows: Rows = {}
    for number, line in enumerate(lines, 2):
        row = _parsed(line)
        if set(row) != {"number", "distances"}:
            raise ValueError(
                f"line {number} of {path} is damaged: {line[:60]!r}. Remove it to measure its prompt again"
            )
        rows[row["number"]] = row["distances"]
    return found, rows


class Record:
    """The rows of one measurement in a file; `add` appends a row and flushes it to disk.

    Args:
        path: The file, which is created or resumed; an incomplete last line is removed.
        about: Description of the measurement in JSON types: the first line of the file.

    Attributes:
        rows: Rows by number.

    Raises:
        ValueError: If the file holds something else, or another measurement; it is then unchanged.
    """

    def __init__(self, path: str | Path, about: Mapping):
        self.path, head = expanded(path), {"kind": KIND, **about}
        first = json.dumps(head, ensure_ascii=False) + "\n"
        content = self.path.read_bytes() if self.path.is_file() else b""
        if first.encode().startswith(content):  # New, empty, or interrupted while writing its first line.
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._write("wb", first)
            self.rows: Rows = {}
            return
        found, self.rows = read_record(self.path)
        if differences := _differences(found, json.loads(first)):
            raise ValueError(
                f"{self.path} was measured otherwise: {'; '.join(differences)}. Nothing was changed: use another "
                "file, or the settings that it was started with"
            )
        os.truncate(self.path, sum(len(line) + 1 for line in _whole_lines(content)))

    def add(self, number: int, distances: Sequence[float]) -> None:
        """Appends one row."""
        self._write("ab", json.dumps({"number": number, "distances": distances}) + "\n")
        self.rows[number] = list(distances)

    def _write(self, mode: str, text: str) -> None:
        with self.path.open(mode) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())


def _whole_lines(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


def _parsed(line: bytes) -> dict:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _differences(then: Mapping, now: Mapping) -> list[str]:
    """Describes the differences between two measurements."""
    said = []
    flat = [{"model": about.get("model"), **about.get("settings", {})} for about in (then, now)]
    for name, value in flat[1].items():
        if flat[0].get(name) != value:
            said.append(f"{name} was {flat[0].get(name)!r} and is {value!r}")
    old, new = then.get("prompts", []), now["prompts"]
    if len(old) != len(new):
        said.append(f"there were {len(old)} prompts and are {len(new)}")
    elif old != new:
        first = next(i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b)
        said.append(f"prompt {first} was {old[first]!r} and is {new[first]!r}")
    return said
