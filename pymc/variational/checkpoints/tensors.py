# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Arrays in a file of safetensors.

Reading is the library's. Writing is not: the library opens the file itself, or makes all of it in memory
first, and a table of all rows would be there twice. The format is a header in JSON and the bytes:
https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import json
import struct

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from pymc.variational.checkpoints.errors import DamagedCheckpointError

__all__ = ["can_be_written", "read_tensors", "tensor_bytes"]

DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}


def can_be_written(dtype: np.dtype) -> bool:
    """Tell whether arrays of a dtype have a form in the file."""
    return dtype.name in DTYPES


def tensor_bytes(tensors: Mapping[str, np.ndarray]) -> Iterator[memoryview | bytes]:
    """Yield the bytes of a file, piece by piece: the header, and then each array.

    Parameters
    ----------
    tensors : mapping of str to array
        Of floats, integers or booleans, any shape, in any order of memory.

    Examples
    --------
    >>> from safetensors.numpy import load
    >>> from pymc.variational.checkpoints.tensors import tensor_bytes
    >>> load(b"".join(tensor_bytes({"x": np.arange(3)})))
    {'x': array([0, 1, 2])}
    """
    # Wide numbers first, so that each array begins at a multiple of its item's size
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header, end = {}, 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for _, array in ordered:
        yield _little_endian(array).reshape(-1).view(np.uint8).data


def _little_endian(array: np.ndarray) -> np.ndarray:
    """Put an array into C order and the byte order of the file, without a copy if it is so already."""
    return array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Raises
    ------
    DamagedCheckpointError
        If the header does not fit the file.
    ImportError
        If safetensors is not installed.
    """
    safe_open, SafetensorError = _safetensors()
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DamagedCheckpointError(path, f"it is no file of safetensors ({error})") from error


def _safetensors() -> tuple:
    try:
        from safetensors import SafetensorError, safe_open  # optional: only checkpoints need it
    except ImportError as error:
        raise ImportError(
            "Checkpoints are files of safetensors, which is not installed: pip install safetensors"
        ) from error
    return safe_open, SafetensorError
