# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The patch's fits of a regression: streamed by ``pm.Trainer``, or of rows that are in memory.

- ``"regression"``: linear, whose step is cheaper than to read its batch;
- ``"network"``: of a hidden layer, whose step costs more than that.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytensor.tensor as pt

from _stream_data import N_COLUMNS

import pymc as pm

from peers.stream_loader import few_rows, make_loader
from peers.stream_pyarrow import row_groups

N_HIDDEN = 16


def regression(x: pt.TensorVariable) -> pt.TensorVariable:
    """Return the expected value of each row, shape (batch,)."""
    return x @ pm.Normal("w", 0, 1, shape=N_COLUMNS - 1)


def network(x: pt.TensorVariable) -> pt.TensorVariable:
    """Return the same by a network; its first weights differ, else the units would stay alike."""
    first = np.random.default_rng(1).normal(size=(N_COLUMNS - 1, N_HIDDEN)).astype("float32")
    inner = pm.Normal("inner", 0, 1, shape=first.shape, initval=first)
    return pt.tanh(x @ inner) @ pm.Normal("outer", 0, 1, shape=N_HIDDEN)


MODELS = {"regression": regression, "network": network}


def build(problem: str, batch: pt.TensorVariable) -> None:
    """Add the likelihood of a batch to the model of the context; its total size is inferred."""
    expected = MODELS[problem](batch[:, :-1])
    pm.Normal("y", expected, pm.HalfNormal("sigma", 1), observed=batch[:, -1], dims="obs")


class InMemory:
    """A fit of ``pm.Minibatch``, continued by ``refine``, which compiles nothing."""

    compiles_each_call = False

    def __init__(self, settings: dict[str, Any]) -> None:
        rows = np.concatenate(list(row_groups(settings["folder"])))
        with pm.Model():
            data = pm.Data("rows", rows, dims=("obs", "column"))
            build(settings["problem"], pm.Minibatch(data, batch_size=settings["batch_size"]))
            self.inference = pm.ADVI(random_seed=1)
        optimizer = pm.adam(learning_rate=1e-3)
        self.inference.fit(100, obj_optimizer=optimizer, progressbar=False)

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        before = len(self.inference.hist)
        self.inference.refine(n_steps, progressbar=progressbar)
        return self.inference.hist[before:]


class Streamed:
    """A fit of ``pm.Trainer``, continued by ``refine``."""

    compiles_each_call = False

    def __init__(self, loader: Any, problem: str) -> None:
        with pm.Model() as model:
            build(problem, pm.Data("batch", loader, dims=("obs", "column")))
        self.trainer = pm.Trainer(
            dataloader=loader,
            model=model,
            random_seed=1,
            obj_optimizer=pm.adam(learning_rate=1e-3),
            progressbar=False,
        )
        self.trainer.prepare()

    def run(self, n_steps: int, progressbar: bool = False) -> np.ndarray:
        before = len(self.trainer.hist)
        self.trainer.refine(n_steps, progressbar=progressbar)
        return self.trainer.hist[before:]


def start(settings: dict[str, Any]) -> InMemory | Streamed:
    """Compile, and take the first steps."""
    if settings["form"] == "memory":
        return InMemory(settings)
    fit = Streamed(make_loader(settings), settings["problem"])
    fit.run(100)
    return fit


def prepare(settings: dict[str, Any]) -> Callable[[], None]:
    """Fit a few rows from memory, open all files, and return what fits all rows once."""
    Streamed(few_rows(settings), settings["problem"]).run(10)
    fit = Streamed(make_loader(settings), settings["problem"])

    def run() -> None:
        fit.run(fit.trainer.dataloader.n_batches)

    return run
