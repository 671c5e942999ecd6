# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Available memory, and an error for results that would not fit in it.

On Linux it is read from ``/proc/meminfo`` and the cgroups of the process, since psutil is no dependency of
PyMC and does not know the limits of containers and batch jobs. Elsewhere psutil is used if it is
installed, and else the machine's memory by `os.sysconf`.
"""

from __future__ import annotations

import os

from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["available_memory", "check_fits", "with_unit"]

_ROOT = Path("/")


def available_memory(root: Path = _ROOT) -> int | None:
    """Return the bytes that this process can still allocate, without swap; None if unknown.

    The folders ``proc`` and ``sys`` are below `root`.
    """
    limits = [*_of_machine(root), *_of_cgroups(root)]
    return max(min(limits), 0) if limits else None


def check_fits(sizes: Mapping[str, int], what: str, instead: str, copies: float = 1) -> None:
    """Raise a MemoryError if arrays of `sizes` bytes, in so many `copies` at once, would not fit in memory.

    `what` is the call and `instead` a sentence of advice, for the message.

    Examples
    --------
    >>> from pymc.variational.memory import check_fits
    >>> check_fits({"mu": 8000}, "approx.sample(10)", "Take fewer draws")
    """
    needed, available = int(copies * sum(sizes.values())), available_memory()
    if available is None or needed <= available:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    raise MemoryError(
        f"{what} needs {with_unit(needed)} of memory, and {with_unit(available)} are available; the largest "
        f"variable is {largest!r}, with {with_unit(sizes[largest])} of draws. {instead}"
    )


def with_unit(n_bytes: float) -> str:
    """Return a number of bytes as a text with a unit.

    Examples
    --------
    >>> from pymc.variational.memory import with_unit
    >>> with_unit(48_000_000_000), with_unit(1_200_000)
    ('48.0 GB', '1.2 MB')
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if n_bytes < 1000:
            break
        n_bytes /= 1000
    else:
        unit = "TB"
    return f"{n_bytes:,.0f} {unit}" if unit == "bytes" else f"{n_bytes:,.1f} {unit}"


def _of_machine(root: Path) -> list[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return [1024 * int(line.split()[1])]
    try:
        import psutil  # optional

        return [int(psutil.virtual_memory().available)]
    except ImportError:
        pass
    try:
        return [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):  # no such call on Windows, no such name elsewhere
        return []


def _of_cgroups(root: Path) -> Iterator[int]:
    """Yield the bytes that are left of each memory limit on this process and the groups around it.

    Pages of files that can be dropped at any time count as free, as they do in MemAvailable.
    """
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        names = _V1 if controllers else _V2
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        group = top / path.strip("/")
        # A container sees its own group as the top one, and maybe a path that does not exist
        for folder in dict.fromkeys([group, *group.parents, top]):
            if not folder.is_relative_to(top):
                continue
            limit, used = (_number(folder / name) for name in names[:2])
            if limit is not None and used is not None:
                entries = dict(line.split() for line in _lines(folder / "memory.stat"))
                yield limit - used + int(entries.get(names[2], 0))


#: Files of a memory cgroup with its limit and use, and the entry of memory.stat with its file pages.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def _number(file: Path) -> int | None:
    """Return the number in a file; None if there is none, as in "max"."""
    text = "".join(_lines(file)).strip()
    return int(text) if text.isdigit() else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
