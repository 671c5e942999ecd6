# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Available memory, read from files of the system that are made up here, and what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pymc.variational import memory
from pymc.variational.memory import available_memory, check_fits

INACTIVE = {"memory.stat": "anon 5\ninactive_file 30\ntotal_inactive_file 40\n"}


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable: 2 kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def group(path: str, **files: str) -> dict[str, str]:
    named = {name.replace("_", ".", 1): text for name, text in files.items()}
    return {f"sys/fs/cgroup/{path}{name}": text for name, text in {**named, **INACTIVE}.items()}


@pytest.mark.parametrize(
    "files, available",
    [
        ({}, 2048),
        ({"proc/self/cgroup": "0::/\n"}, 2048),
        # Version 2: the limit of the group, or of one that it is in; "max" is none
        (
            {"proc/self/cgroup": "0::/a/b\n"}
            | group("a/b/", memory_max="1000", memory_current="300"),
            730,
        ),
        (
            {"proc/self/cgroup": "0::/a/b\n"}
            | group("a/b/", memory_max="max", memory_current="300")
            | group("a/", memory_max="500", memory_current="400"),
            130,
        ),
        # In a container the path is that of the host, and its own group the top one
        (
            {"proc/self/cgroup": "0::/host/a\n"}
            | group("", memory_max="900", memory_current="1000"),
            0,
        ),
        # Version 1, whose other controllers have no say
        (
            {"proc/self/cgroup": "5:cpu:/a\n4:memory:/b\n"}
            | group("memory/b/", memory_limit_in_bytes="800", memory_usage_in_bytes="100")
            | group("memory/a/", memory_limit_in_bytes="1", memory_usage_in_bytes="1"),
            740,
        ),
    ],
)
def test_available_memory(tmp_path: Path, files: dict[str, str], available: int) -> None:
    assert available_memory(system(tmp_path, files)) == available


def test_of_this_machine() -> None:
    available = available_memory()
    assert available is not None
    assert available > 0


def test_what_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000_000)
    sizes = {"mu": 4_000_000, "b": 1_000_000}
    check_fits(sizes, "this", "", copies=2)
    match = "this needs 10.0 MB of memory, and 10.0 MB are .* 'mu', with 4.0 MB of draws. Do less"
    with pytest.raises(MemoryError, match=match):
        check_fits(sizes | {"s": 1}, "this", "Do less", copies=2)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    check_fits({"mu": 10**20}, "what nobody knows", "")
