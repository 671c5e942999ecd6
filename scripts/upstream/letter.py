# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The cover letter of the series, with tables of the documentation."""

from itertools import takewhile
from pathlib import Path

from scripts.upstream.series import PARTS


def cover_letter(root: Path, version: str, stat: str) -> str:
    """Return the letter; `stat` counts the lines of the series."""
    pages = root / "docs" / "explanation"
    return (
        Path(__file__)
        .with_name("cover_letter.md")
        .read_text()
        .format(
            n=len(PARTS),
            version=version,
            series="\n".join(f"{k}. {part.title}" for k, part in enumerate(PARTS, start=1)),
            stat=stat,
            errors=table(root / "README.md", "in the model"),
            speed=table(pages / "engine.md", "a step of the fit"),
        )
    )


def table(page: Path, first: str) -> str:
    """Return the first table of a page whose first column has a name.

    Raises
    ------
    ValueError
        If the page has none.
    """
    text = page.read_text()
    if f"| {first} |" not in text:
        raise ValueError(
            f"{page} has no table whose first column is {first!r}: name the one to use"
        )
    lines = text[text.index(f"| {first} |") :].splitlines()
    return "\n".join(takewhile(lambda line: line.startswith("|"), lines))
