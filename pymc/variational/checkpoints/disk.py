# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The file system as a save uses it: a few calls, one by one, so that each of them may fail in a test."""

from __future__ import annotations

import os

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

__all__ = ["Disk", "FileRecord", "digest", "remove_folder", "write_file"]

#: Bytes that are written, or read, at a time.
PIECE = 1 << 24


class Disk:
    """The calls of a save to the operating system."""

    def make_folder(self, path: Path) -> None:
        path.mkdir()

    def create(self, path: Path) -> int:
        """Open a new file, and return its descriptor."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        return os.open(path, flags, 0o666)

    def write(self, file: int, data: memoryview) -> int:
        """Write some of `data`, and return how many bytes."""
        return os.write(file, data)

    def sync(self, file: int) -> None:
        """Wait until the file is on the disk."""
        os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def sync_folder(self, path: Path) -> None:
        """Wait until the names in a folder are on the disk; Windows has no such call."""
        if os.name == "nt":
            return
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def remove(self, path: Path) -> None:
        path.unlink()

    def remove_folder(self, path: Path) -> None:
        """Remove an empty folder."""
        path.rmdir()


@dataclass(frozen=True)
class FileRecord:
    """How a file has to be found again.

    Parameters
    ----------
    size : int
        Bytes.
    sha256 : str
        Hexadecimal.
    """

    size: int
    sha256: str


def write_file(disk: Disk, path: Path, parts: Iterable[memoryview | bytes]) -> FileRecord:
    """Write a new file, and wait until it is on the disk.

    Parameters
    ----------
    disk : Disk
    path : Path
    parts : iterable of buffers of bytes

    Raises
    ------
    OSError
        If the file exists, or the disk is full or fails.
    """
    hashed, size = sha256(), 0
    file = disk.create(path)
    try:
        for part in parts:
            view = memoryview(part)
            for start in range(0, len(view), PIECE):
                piece = view[start : start + PIECE]
                hashed.update(piece)
                size += len(piece)
                while len(piece):
                    piece = piece[disk.write(file, piece) :]
        disk.sync(file)
    finally:
        disk.close(file)
    return FileRecord(size, hashed.hexdigest())


def remove_folder(disk: Disk, path: Path) -> None:
    """Remove a folder with its files, as far as that goes: what is left is in nobody's way."""
    with suppress(OSError):
        if path.is_symlink():  # what it leads to is not ours
            disk.remove(path)
            return
        for file in path.iterdir():
            disk.remove(file)
        disk.remove_folder(path)


def digest(path: Path) -> FileRecord:
    """Read a file through, and tell its size and its SHA-256."""
    hashed, size = sha256(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            hashed.update(piece)
            size += len(piece)
    return FileRecord(size, hashed.hexdigest())
