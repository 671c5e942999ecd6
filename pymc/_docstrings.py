# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""Docstrings that add to those of the release."""

import inspect
import re

from collections.abc import Callable
from typing import TypeVar

Documented = TypeVar("Documented", bound=Callable)

#: Sections in the order of numpydoc.
SECTIONS = (
    "Parameters",
    "Attributes",
    "Returns",
    "Other Parameters",
    "Raises",
    "Warns",
    "Warnings",
    "See Also",
    "Notes",
    "References",
    "Examples",
)
_OF_ENTRIES = ("Parameters", "Attributes", "Other Parameters", "Raises", "Warns")
_HEADING = re.compile(r"^(\S.*)\n-{3,}\n", re.MULTILINE)


def extends_docstring(old: Callable) -> Callable[[Documented], Documented]:
    """Put the docstring of `old` in front of that of a function or class, section by section."""

    def decorate(new: Documented) -> Documented:
        new.__doc__ = merge_docstrings(old.__doc__, new.__doc__)
        return new

    return decorate


def merge_docstrings(old: str | None, new: str | None) -> str | None:
    """Merge two docstrings of numpydoc; either may be stripped, as under ``python -OO``.

    The text of `new` comes after that of `old`. An entry that both have, such as a parameter, has the first
    line of `new` and both descriptions.
    """
    if old is None or new is None:
        return old or new
    old_parts, new_parts = _sections(inspect.cleandoc(old)), _sections(inspect.cleandoc(new))
    titles = list(old_parts)
    for title in new_parts:
        if title not in titles:
            before = [k for k, other in enumerate(titles) if _rank(other) < _rank(title)]
            titles.insert(before[-1] + 1, title)
    parts = []
    for title in titles:
        found = [part[title] for part in (old_parts, new_parts) if title in part]
        is_list = len(found) > 1 and title in _OF_ENTRIES
        text = _merge_entries(*found) if is_list else "\n\n".join(found)
        parts.append(f"{title}\n{'-' * len(title)}\n{text}" if title else text)
    return "\n\n".join(parts) + "\n"


def _sections(doc: str) -> dict[str, str]:
    """Return the text of each section; that of "" comes before all."""
    text, *rest = _HEADING.split(doc)
    titled = zip(rest[::2], rest[1::2])
    return {"": text.strip("\n"), **{title: part.strip("\n") for title, part in titled}}


def _rank(title: str) -> int:
    return SECTIONS.index(title) if title in SECTIONS else -1


def _merge_entries(old: str, new: str) -> str:
    """Merge entries by name; those that are new come before ``**kwargs``."""
    entries = _entries(old)
    last = {name: entries.pop(name) for name in list(entries) if name.startswith("**")}
    for name, (first, *lines) in _entries(new).items():
        known = last if name in last else entries
        known[name] = [first, *known.get(name, [""])[1:], *lines]
    return "\n".join(line for entry in [*entries.values(), *last.values()] for line in entry)


def _entries(text: str) -> dict[str, list[str]]:
    """Return the lines of each entry by its name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.split("\n"):
        if line and not line.startswith(" "):
            name = line.partition(":")[0].strip()
        found.setdefault(name, []).append(line)
    return found
