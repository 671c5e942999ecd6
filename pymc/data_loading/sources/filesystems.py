# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Where files are: on this machine, or on a file system of pyarrow or fsspec."""

from __future__ import annotations

import os

from collections.abc import Mapping
from typing import Any

from pymc.data_loading.sources.arrow_columns import need_pyarrow
from pymc.data_loading.sources.protocols import is_of

__all__ = ["Path", "connect", "is_local", "match"]

Path = str | os.PathLike[str]


def is_local(filesystem: Any) -> bool:
    """Return whether files are on this machine, where links and rights are known."""
    return filesystem.type_name == "local"


def connect(
    roots: list[str], filesystem: Any, options: Mapping[str, Any] | None
) -> tuple[Any, list[str]]:
    """Return the file system of pyarrow that paths are on, and the paths as it writes them.

    Parameters
    ----------
    roots : list of str
        Paths, or addresses, such as ``"s3://bucket/flights"``.
    filesystem : pyarrow.fs.FileSystem or fsspec.AbstractFileSystem, optional
    options : mapping, optional
        What fsspec needs to open an address.

    Raises
    ------
    ImportError, OSError, ValueError
        If an address is of no file system that fsspec or pyarrow can open here, or they are of several.
    TypeError
        If `filesystem` is of another kind.
    """
    need_pyarrow("parquet_source")
    from pyarrow import fs

    if filesystem is None and any("://" in root for root in roots):
        filesystem, roots = _open_addresses(roots, options)
    if filesystem is None:
        filesystem, roots = fs.LocalFileSystem(), [os.path.expanduser(root) for root in roots]
    elif is_of("fsspec", filesystem, "AbstractFileSystem"):
        # As the file system itself writes them, whose answers are compared with them
        roots = [filesystem._strip_protocol(root) for root in roots]
        protocols = filesystem.protocol
        local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        filesystem = (
            fs.LocalFileSystem() if local else fs.PyFileSystem(fs.FSSpecHandler(filesystem))
        )
    elif not isinstance(filesystem, fs.FileSystem):
        raise TypeError(
            f"filesystem={filesystem!r} of parquet_source is of type {type(filesystem).__name__}: it has "
            f"to be a file system of pyarrow (pyarrow.fs.S3FileSystem()) or of fsspec"
        )
    return filesystem, [root.rstrip("/") or root for root in roots]


def _open_addresses(roots: list[str], options: Mapping[str, Any] | None) -> tuple[Any, list[str]]:
    """Return the file system of addresses: fsspec's, or pyarrow's where fsspec has none."""
    try:
        # Optional: only addresses need it
        from fsspec.core import url_to_fs

        connected = [url_to_fs(root, **(options or {})) for root in roots]
    except (ImportError, ValueError) as error:
        from pyarrow import ArrowInvalid, fs

        if options:
            raise
        try:
            connected = [fs.FileSystem.from_uri(root) for root in roots]
        except (ArrowInvalid, NotImplementedError) as other:
            raise ImportError(
                f"{roots[0]!r} is an address that fsspec cannot open ({error}), nor pyarrow ({other}): "
                f"install what fsspec needs for it, beside pip install fsspec"
            ) from error
    filesystem = connected[0][0]
    if any(other != filesystem for other, _ in connected):
        raise ValueError(f"path={roots!r} of parquet_source are on different file systems")
    return filesystem, [root for _, root in connected]


def match(pattern: str, filesystem: Any) -> list[str]:
    """Return what matches a pattern on a file system other than this machine's.

    Raises
    ------
    ImportError
        If fsspec, which knows how to match, is not installed.
    """
    try:
        # Optional: only patterns on other machines need it
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow import fs
    except ImportError as error:
        raise ImportError(
            f"the pattern {pattern!r} is matched by fsspec: pip install fsspec, or give a list of files"
        ) from error
    is_wrapped = isinstance(filesystem, fs.PyFileSystem) and isinstance(
        filesystem.handler, fs.FSSpecHandler
    )
    of_fsspec = filesystem.handler.fs if is_wrapped else ArrowFSWrapper(filesystem)
    return of_fsspec.glob(pattern)
