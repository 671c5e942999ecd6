# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0

"""A loader of a user's own: batches of its passes feed a fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.data_loading.batch import Position, StreamBatch
from pymc.data_loading.sources.layout import ExhaustedSourceError
from pymc.minibatch.stream_index import is_loader
from pymc.variational.placeholders import as_loader

N, B = 12, 4
ROWS = np.arange(2.0 * N).reshape(N, 2)
QUICK = {"random_seed": 1, "progressbar": False, "compile_kwargs": {"mode": "FAST_COMPILE"}}


class Slices(pm.Loader):
    """The rows of an array, in the order of the pass, with their numbers if asked for."""

    batch_size, total_size = B, N

    def __init__(self, numbered: bool = False) -> None:
        self.has_row_numbers = numbered
        self.opened: list[int] = []

    def batches(self, epoch: int) -> Iterator[Any]:
        self.opened.append(epoch)
        order = np.random.default_rng(epoch).permutation(N)
        for rows in np.split(order, N // B):
            yield StreamBatch.of(ROWS[rows], rows) if self.has_row_numbers else ROWS[rows]


def rows_of(loader: pm.Loader, *arguments: Any) -> np.ndarray:
    return np.concatenate([chunk.values[0].reshape(-1, 2) for chunk in loader.chunks(*arguments)])


def expected(epochs: int) -> np.ndarray:
    return np.concatenate([batch for epoch in range(epochs) for batch in Slices().batches(epoch)])


def test_defaults():
    loader = Slices()
    assert is_loader(loader)
    assert as_loader(loader) is loader
    assert len(loader) == N
    [field] = loader.layout.fields
    assert (field.shape, field.dtype) == ((2,), np.dtype("float64"))
    assert loader.columns is None
    assert loader.identity == {
        "kind": "Slices",
        "total_size": N,
        "batch_size": B,
        "schema": loader.layout.schema,
    }


@pytest.mark.parametrize("start", range(8))
def test_chunks_from_any_position(start):
    """Of pass after pass, with the position after each batch."""
    position = Position(start // 3, start % 3 * B)
    chunks = list(Slices().chunks(position, 5))
    found = np.concatenate([chunk.values[0].reshape(-1, 2) for chunk in chunks])
    np.testing.assert_array_equal(found, expected(5)[start * B : (start + 5) * B])
    places = np.concatenate([chunk.positions for chunk in chunks])
    assert [3 * epoch + row // B for epoch, row in places.tolist()] == [
        start + k + 1 for k in range(5)
    ]


def test_no_more_batches_are_read_than_are_needed():
    loader = Slices()
    assert len(loader.layout.fields) == 1
    assert rows_of(loader, Position(), 3).shape == (N, 2)
    assert loader.opened == [0, 0]  # for the layout, and for the pass


def test_row_numbers():
    chunk = next(iter(Slices(numbered=True).chunks(Position(), 3)))
    np.testing.assert_array_equal(chunk.values[0], ROWS[chunk.rows])
    assert (next(iter(Slices().chunks(Position(), 3))).rows == -1).all()


def model_of(loader: Any, local: bool = False) -> pm.Model:
    with pm.Model() as model:
        batch = pm.Data("batch", loader, dims=("obs", "column"))
        mu = pm.Normal("mu")
        if local:
            mu = pm.Normal("z", mu, 1, dims="obs")[:, None]
        pm.Normal("y", mu, 1, observed=batch, dims=("obs", "column"))
    return model


def test_a_fit_goes_on_where_it_stopped(tmp_path):
    loader = Slices()
    whole = pm.Trainer(dataloader=loader, model=model_of(loader), **QUICK).fit(7)
    trainer = pm.Trainer(dataloader=loader, model=model_of(loader), **QUICK)
    trainer.fit(4)
    assert trainer.position == Position(1, B)
    path = trainer.save(tmp_path / "fits")
    again = pm.Trainer.load(path, dataloader=Slices(), model=model_of(Slices()))
    np.testing.assert_array_equal(again.fit(3).hist, whole.hist)


def test_the_same_fit_as_of_a_data_loader():
    """Batches of one are handed on by the other."""

    class Passed(Slices):
        def batches(self, epoch: int) -> Iterator[Any]:
            yield from pm.DataLoader(ROWS, batch_size=B, shuffle=True, seed=1).batches(epoch)

    hists = [
        pm.fit(6, model=model_of(loader), data=loader, **QUICK).hist
        for loader in (Passed(), pm.DataLoader(ROWS, batch_size=B, shuffle=True, seed=1))
    ]
    np.testing.assert_array_equal(*hists)


def test_variables_of_rows_need_row_numbers():
    with pytest.raises(ValueError, match=r"batches of Slices do not say which rows they have"):
        pm.fit(1, model=model_of(Slices(), local=True), data=Slices(), **QUICK)
    loader = Slices(numbered=True)
    approx = pm.fit(3, model=model_of(loader, local=True), data=loader, **QUICK)
    assert np.isfinite(approx.hist).all()


class Wrong(Slices):
    def __init__(self, batches: list[Any], numbered: bool = False) -> None:
        super().__init__(numbered)
        self.given = batches

    def batches(self, epoch: int) -> Iterator[Any]:
        return iter(self.given)


GOOD = np.zeros((B, 2))


@pytest.mark.parametrize(
    ("batches", "numbered", "message"),
    [
        ([GOOD, GOOD[:3]], False, "batch 1 of pass 0 of Wrong has 3 rows, and batch_size is 4"),
        ([GOOD, np.zeros((B, 3))], False, r"batch 1 of pass 0 of Wrong has shape \(4, 3\)"),
        ([GOOD, GOOD * np.nan], False, "batch 1 of pass 0 of Wrong, row 0, column 0: the value is"),
        ([GOOD], True, "batch 0 of pass 0 of Wrong does not say which rows it has"),
    ],
    ids=["length", "shape", "nan", "rows"],
)
def test_batches_that_do_not_fit(batches, numbered, message):
    with pytest.raises(ValueError, match=message):
        rows_of(Wrong(batches, numbered), Position(), 2)


def test_an_empty_pass():
    with pytest.raises(ExhaustedSourceError, match=r"pass 0 of .* has no batches"):
        rows_of(Wrong([]), Position(), 2)
