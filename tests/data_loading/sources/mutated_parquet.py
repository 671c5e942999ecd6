# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Reads damaged copies of a Parquet file and prints what came of them, as JSON.

A script, for a damaged file might end the interpreter: ``python mutated_parquet.py N [FIRST]`` reads N
copies, each damaged by its own seed, FIRST and those after.
"""

import json
import sys
import tempfile

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pymc.data_loading.sources.parquet import parquet_source

N_ROWS = 600


def write_file(path: Path) -> np.ndarray:
    """Write a file with several pages, encodings and row groups; return its rows."""
    rng = np.random.default_rng(7)
    columns = {
        "a": rng.normal(size=N_ROWS).astype("f4"),
        "b": rng.integers(0, 9, N_ROWS),
        "c": rng.normal(size=N_ROWS),
        "d": rng.integers(0, 2, N_ROWS).astype(bool),
    }
    pq.write_table(
        pa.table(columns),
        path,
        use_dictionary=["b"],
        row_group_size=200,
        data_page_size=512,
        write_page_checksum=True,
    )
    return np.stack([column.astype("f8") for column in columns.values()], axis=1)


def damage(raw: bytes, seed: int) -> bytes:
    """Return the bytes of a file cut, or with some of them changed or left out."""
    rng, damaged = np.random.default_rng(seed), bytearray(raw)
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    at, length = int(rng.integers(len(raw))), int(rng.integers(1, 50))
    kind = seed % 5
    if kind == 0:
        return raw[:at]
    if kind == 1:
        damaged[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        damaged[at : at + length] = rng.bytes(length)
    elif kind == 3:
        damaged[int(rng.integers(footer, len(raw) - 8))] = int(rng.integers(256))
    else:
        del damaged[at : at + length]
    return bytes(damaged)


def read(path: Path) -> np.ndarray:
    source = parquet_source(path)
    out = source.layout.empty(source.n_rows)
    at = 0
    for block in source.blocks():
        block.write(out, at, 0, block.n_rows)
        at += block.n_rows
    return out[0]


def main(n_files: int, first: int = 0) -> None:
    """Count the files that were refused, that had all rows nevertheless, and that had others."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "shard.parquet")
        expected = write_file(path)
        raw = path.read_bytes()
        for seed in range(first, first + n_files):
            path.write_bytes(damage(raw, seed))
            try:
                found = read(path)
            except (OSError, ValueError) as error:
                counts[
                    "refused" if "shard.parquet" in str(error) else "refused without a name"
                ] += 1
            else:
                counts["unchanged" if np.array_equal(found, expected) else "wrong"] += 1
    print(json.dumps(counts))  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
