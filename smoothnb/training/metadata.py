"""Captions from the files of metadata in a folder of pictures, as Hugging Face `datasets` reads them."""

import csv
import gc
import glob
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from smoothnb._utils.files import read_text

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
CAPTION_COLUMNS = ("text", "caption", "prompt")


class Row(NamedTuple):
    """A row of metadata: where it stands, and what it says."""

    where: str
    picture: Path
    caption: str


def read_metadata(metadata: Path) -> list[Row]:
    """Reads metadata by Hugging Face `datasets`; raises ValueError where a row has no file name or no caption."""
    found, problem, places = [], "", []
    with warnings.catch_warnings():
        # pandas leaves tables open.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            found = _read(metadata)
        # Those of pyarrow and pandas too, which seldom say which line they mean.
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
        gc.collect()
    for number, (line, text, sound) in enumerate(_lines(metadata)):
        places.append(f"line {line} of {metadata}")
        read = all(isinstance(value, str) for value in found[number]) if number < len(found) else bool(problem)
        if not (sound and read):
            raise ValueError(
                f'{places[-1]} is not as expected: give {{"file_name": "a.jpg", "text": "a house"}}, or these columns '
                f"of a table, got {text[:120]}"
            )
    if problem:
        raise ValueError(f"cannot read {metadata}: expected rows of file names and texts in UTF-8 ({problem})")
    places = places or [f"row {number} of {metadata}" for number in range(1, len(found) + 1)]
    return [Row(place, Path(path), caption) for place, (path, caption) in zip(places, found, strict=True)]


def _read(metadata: Path) -> list[tuple[str | None, object]]:
    """Picture and caption of each row."""
    import datasets

    # Streamed, nothing goes into the cache of `datasets`.
    files = {"train": [glob.escape(str(metadata))]}
    rows = datasets.load_dataset("imagefolder", data_files=files, split="train", streaming=True)
    picture, columns = columns_of(rows.features)
    rows = rows.select_columns([picture, *columns]).cast_column(picture, datasets.Image(decode=False))
    return [((row[picture] or {}).get("path"), caption_of(row, columns)) for row in rows]


def _lines(metadata: Path) -> Iterator[tuple[int, str, bool]]:
    """Number and text of each line with a row, and whether it has a file name and a caption."""
    if metadata.suffix == ".parquet":
        return
    text = read_text(metadata)
    if metadata.suffix == ".csv":
        table = csv.DictReader(io.StringIO(text, newline=""))
        for row in table:
            yield table.line_num, ",".join(map(str, row.values())), _sound(row)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield number, line, _sound(row)


def _sound(row: object) -> bool:
    # What a table has beyond its columns stands under None.
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str) or None in row:
        return False
    file = Path(row["file_name"])
    return not file.is_absolute() and ".." not in file.parts and isinstance(caption_of(row, CAPTION_COLUMNS), str)


def caption_of(row: Mapping, columns: Sequence[str]) -> object:
    return next((row[column] for column in columns if row.get(column) is not None), None)


def columns_of(features: Mapping) -> tuple[str, list[str]]:
    """The column of pictures and those of captions; raises ValueError if there are none."""
    import datasets

    pictures = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    captions = [column for column in CAPTION_COLUMNS if column in features]
    if not pictures or not captions:
        raise ValueError(
            f"expected a column of pictures and one of captions ({', '.join(CAPTION_COLUMNS)}), got "
            f"{', '.join(features)}"
        )
    return pictures[0], captions
