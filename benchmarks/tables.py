"""Copies tables of results into the pages that show them, so that no figure is typed twice.

    python benchmarks/tables.py

A page marks the place of a table with comments, and may name a section of the file:

    <!-- table: docs/results/drag/shipped.md#Means over 48 drags -->
    <!-- end of table -->
"""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACE = re.compile(r"(<!-- table: ([^#\n]+?)(?:#(.+?))? -->\n).*?(?=<!-- end of table -->)", re.DOTALL)


def table(file: str, section: str | None = None) -> str:
    """The first table of a Markdown file, or of one of its sections.

    Raises:
        ValueError: If the file has no such section, or no table.
    """
    text = (ROOT / file).read_text("utf-8")
    if section is not None:
        _, found, text = text.partition(f"## {section}\n")
        if not found:
            raise ValueError(f"{file} has no section {section!r}")
    rows = re.search(r"(?m)^\|.*(?:\n\|.*)*", text)
    if rows is None:
        raise ValueError(f"{file} holds no table")
    return rows.group() + "\n"


def filled(text: str) -> str:
    """A page with its tables as they are in the files of results."""
    return PLACE.sub(lambda match: match[1] + table(match[2], match[3]), text)


def main() -> None:
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        before = page.read_text("utf-8")
        if (after := filled(before)) != before:
            page.write_text(after, "utf-8")
            print(f"wrote {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
