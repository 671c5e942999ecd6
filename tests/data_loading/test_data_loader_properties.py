# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""What holds of all loaders: each row once a pass, orders, resuming, bounded memory."""

from typing import Any, NamedTuple

import numpy as np

from hypothesis import given, settings
from hypothesis import strategies as st

from pymc.data_loading.batch import Position
from pymc.data_loading.data_loader import DataLoader
from tests.data_loading.rows import Blocks


class Case(NamedTuple):
    """A source and how it is read."""

    blocks: list[np.ndarray]
    as_parts: bool
    arguments: dict[str, Any]

    @property
    def rows(self) -> np.ndarray:
        return np.concatenate(self.blocks)

    def source(self) -> Blocks:
        return Blocks(self.blocks, as_parts=self.as_parts)

    def loader(self) -> DataLoader:
        return DataLoader(self.source(), **self.arguments)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw blocks of any sizes, some of them empty, and rows of any width."""
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(any))
    shape = draw(st.sampled_from([(), (1,), (3,)]))
    dtype = draw(st.sampled_from(["float32", "float64", "int64"]))
    n_rows = sum(lengths)
    values = np.arange(n_rows * int(np.prod(shape)), dtype=dtype).reshape(n_rows, *shape)
    shuffle = draw(st.booleans())
    arguments = {
        "batch_size": draw(st.integers(1, n_rows)),
        "buffer_size": draw(st.integers(1, 2 * n_rows)) if shuffle else None,
        "shuffle": shuffle,
        "seed": draw(st.integers(0, 2**32)),
        "prefetch": draw(st.integers(0, 2)),
    }
    return Case(np.split(values, np.cumsum(lengths)[:-1]), draw(st.booleans()), arguments)


def chunk_rows(loader: DataLoader, position: Position, n_batches: int) -> np.ndarray:
    return np.concatenate([chunk.rows for chunk in loader.chunks(position, n_batches)])


@given(cases(), st.integers(1, 3), st.booleans())
def test_each_row_once_a_pass(case, n_passes, drop_last):
    loader = DataLoader(case.source(), **case.arguments, drop_last=drop_last)
    size, n_rows = case.arguments["batch_size"], len(case.rows)
    for _ in range(n_passes):
        batches = list(loader)
        assert len(batches) == loader.n_batches
        assert all(len(batch) == size for batch in batches[: n_rows // size])
        rows = np.concatenate([batch.rows for batch in batches])
        assert np.array_equal(np.concatenate(batches), case.rows[rows])
        assert len(set(rows)) == len(rows) == (n_rows // size * size if drop_last else n_rows)


@given(cases(), st.integers(1, 3))
def test_chunks_are_passes_without_a_gap(case, n_passes):
    size, n_rows = case.arguments["batch_size"], len(case.rows)
    n_batches = n_passes * n_rows // size
    found, end = [], 0
    for chunk in case.loader().chunks(n_batches=n_batches):
        assert chunk.values[0].shape == (*chunk.rows.shape, *case.rows.shape[1:])
        assert np.array_equal(chunk.values[0], case.rows[chunk.rows])
        found += chunk.rows.ravel().tolist()
        for epoch, row in chunk.positions.tolist():
            end += size
            assert (epoch * n_rows + row, 0 <= row <= n_rows) == (end, True)
        chunk.release()
    assert len(found) == n_batches * size
    passes = [found[i : i + n_rows] for i in range(0, len(found), n_rows)]
    assert all(sorted(rows) == list(range(n_rows)) for rows in passes if len(rows) == n_rows)
    assert len(set(passes[-1])) == len(passes[-1])
    if not case.arguments["shuffle"]:
        assert all(rows == list(range(len(rows))) for rows in passes)


@settings(max_examples=50)
@given(cases(), st.data())
def test_resume_anywhere(case, data):
    n_batches = 3 * len(case.rows) // case.arguments["batch_size"]
    chunks = list(case.loader().chunks(n_batches=n_batches))
    rows = np.concatenate([chunk.rows for chunk in chunks])
    positions = np.concatenate([chunk.positions for chunk in chunks])
    k = data.draw(st.integers(0, n_batches - 1))
    if k + 1 < n_batches:
        rest = chunk_rows(case.loader(), Position(*positions[k].tolist()), n_batches - k - 1)
        assert np.array_equal(rest, rows[k + 1 :])


@given(cases())
def test_a_seed_gives_one_order(case):
    n_batches = 2 * len(case.rows) // case.arguments["batch_size"]
    one, other = (chunk_rows(case.loader(), Position(), n_batches) for _ in range(2))
    assert np.array_equal(one, other)


def test_passes_differ():
    # 20 rows: of two permutations to be alike has a chance of 4e-19
    for seed in range(20):
        loader = DataLoader(np.arange(20), 20, shuffle=True, seed=seed)
        passes = {tuple(batch) for _ in range(5) for batch in loader}
        assert len(passes) == 5


@given(cases())
def test_rows_that_are_held_are_bounded(case):
    source, size = case.source(), case.arguments["batch_size"]
    buffer_size = case.arguments["buffer_size"] or len(case.rows) // 2 + 1
    loader = DataLoader(source, **case.arguments | {"shuffle": True, "buffer_size": buffer_size})
    source.reads.clear()
    n_used = 0
    longest = max(map(len, case.blocks))
    window = min(buffer_size, len(case.rows)) + size
    for chunk in loader.chunks(n_batches=3 * len(case.rows) // size):
        # A slab for each buffer that is read ahead and one in use, and the block at hand
        held = source.rows_read - n_used
        assert held <= (2 + case.arguments["prefetch"]) * (window + 2 * longest)
        assert chunk.rows.size <= window
        n_used += chunk.rows.size
