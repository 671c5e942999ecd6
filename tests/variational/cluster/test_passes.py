# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Automatic fits whose passes are computed by workers of a real Ray."""

from __future__ import annotations

import logging
import os
import signal

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.variational.auto import inference
from pymc.variational.auto.full_data_passes import _AroundMean
from pymc.variational.auto.log_posterior import AtPoints
from pymc.variational.auto.normal import Dense
from pymc.variational.cluster.passes import (
    RowsOfWorkers,
    ShardedPosterior,
    _RowsAt,
    _Sums,
)
from pymc.variational.cluster.ray_session import ray_session
from pymc.variational.guides.initial_values import InitialValues
from tests.variational.auto.problems import Regression, log_posterior
from tests.variational.engine import PYTHON

# Not by importorskip: Ray reads its environment when it is imported
if find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)

QUIET: dict[str, Any] = {"compile_kwargs": {"mode": PYTHON}, "progressbar": False}

#: A number of rows that no number of shards divides
PROBLEM = Regression(2003)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SUBSAMPLES", (100, 300))
    monkeypatch.setattr(inference, "MANY_ROWS", 2000)
    monkeypatch.setattr("pymc.variational.auto.log_posterior.FEWEST_READ", 1000)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """One Ray for all fits of this file, with room for workers that take the place of others."""
    with ray_session(pm.Workers(8)) as ray:
        yield ray


def problem() -> tuple[pm.DataLoader, pm.Model]:
    data = {"x": PROBLEM.X, "y": PROBLEM.y}
    loader = pm.DataLoader(data, batch_size=50, shuffle=True, seed=1)
    with pm.Model() as model:
        x = pm.Data("x", loader, dims=("obs", "column"))
        y = pm.Data("y", loader, dims="obs")
        b = pm.Flat("b", shape=3)
        pm.Normal("like", x @ b, 2, observed=y, dims="obs")
    return loader, model


def trainer_of(workers: Any, **options: Any) -> pm.Trainer:
    loader, model = problem()
    options = {"random_seed": 1} | QUIET | options
    return pm.Trainer("auto", dataloader=loader, model=model, workers=workers, **options)


@pytest.fixture(scope="module")
def program() -> ShardedPosterior:
    loader, model = problem()
    starts = InitialValues.from_model(model)
    return ShardedPosterior(model, starts, 1, loader, "batch", 1, {"mode": PYTHON})


def test_shards_have_each_row_once(program: ShardedPosterior) -> None:
    counts = [program.rows(shard).n_all for shard in range(program.n_shards)]
    assert sum(counts) == 2003 and set(counts) == {31, 32} and len(counts) == 64
    rows = [np.concatenate(list(rows_of(program, shard))) for shard in range(64)]
    np.testing.assert_array_equal(np.sort(np.concatenate(rows)), np.sort(PROBLEM.y))


def rows_of(program: ShardedPosterior, shard: int) -> Iterator[np.ndarray]:
    for blocks in program.rows(shard).blocks(7, 2):
        yield blocks[1].ravel()


def test_sums_of_shards_are_those_of_all_rows(program: ShardedPosterior) -> None:
    points = PROBLEM.mean + np.random.default_rng(1).normal(size=(3, 3)) * PROBLEM.sd
    parts = [_Sums(AtPoints(points), 5, 0)(program, shard)[0] for shard in range(64)]
    n_rows, values, gradients = (sum(sums) for sums in zip(*parts))
    right = log_posterior(PROBLEM.model())(points)
    assert n_rows == 2003
    np.testing.assert_allclose(values / n_rows, right[0])
    np.testing.assert_allclose(gradients / n_rows, right[1])


def test_the_natural_gradient_at_the_mean_is_that_of_all_rows(program: ShardedPosterior) -> None:
    normal = Dense(PROBLEM.mean + PROBLEM.sd, np.diag(PROBLEM.sd))
    task = _Sums(_AroundMean(normal, 3), 5, 0)
    parts = [task(program, shard) for shard in range(64)]
    n_rows, at_mean, n_paired, of_pairs, *_ = (sum(sums) for sums in zip(*(p[0] for p in parts)))
    gradient = log_posterior(PROBLEM.model())(normal.mean[None])[1]
    np.testing.assert_allclose(at_mean / n_rows, normal.whitened_gradients(gradient)[0])
    # The density is normal: pairs tell no more of the mean
    np.testing.assert_allclose(of_pairs / n_paired, 0, atol=1e-8)
    # Each row's gradient three times, where its block has a pair of draws
    assert sum(n_points_rows for *_, n_points_rows in parts) == n_rows + 2 * n_paired


def test_rows_at_some_places(program: ShardedPosterior) -> None:
    """Of the first pass of each shard, in its own order: each row is as likely."""
    places = [np.arange(0, 31, 3)] * 64
    found = [_RowsAt(places)(program, shard) for shard in range(64)]
    y = np.concatenate([values[1] for values in found])
    assert len(y) == len(np.unique(y)) == 64 * 11 and np.isin(y, PROBLEM.y).all()


def check(approx: Any) -> None:
    mean, sd = approx.normal.mean.eval(), approx.normal.std.eval()
    np.testing.assert_allclose((mean - PROBLEM.mean) / PROBLEM.sd, 0, atol=0.03)
    np.testing.assert_allclose(sd / PROBLEM.sd, 1, atol=0.06)
    assert approx.report.trusted and approx.report.converged


def test_any_number_of_workers_gives_the_same_bits(
    ray: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if one of them is killed on the way."""
    one = trainer_of(1).fit()
    check(one)
    assert one.report.settings["workers"] == 1 and "lost_workers" not in one.report.settings
    killed: list[int] = []
    take_pass = inference.AutoInference._pass

    def take_pass_and_kill(self: inference.AutoInference, *args: Any) -> Any:
        found = take_pass(self, *args)
        if not killed:
            assert isinstance(self.rows, RowsOfWorkers)
            killed.append(next(place.about.pid for place in self.rows.pool._places if place.about))
            os.kill(killed[0], signal.SIGKILL)
        return found

    monkeypatch.setattr(inference.AutoInference, "_pass", take_pass_and_kill)
    two = trainer_of(2).fit()
    assert str(killed[0]) in two.report.settings["lost_workers"]
    for value, other in zip(one.params, two.params, strict=True):
        np.testing.assert_array_equal(value.get_value(), other.get_value())


class InProcess:
    """A pool that computes here."""

    settings: dict[str, Any] = {}

    def __init__(self, program: ShardedPosterior) -> None:
        self.program = program

    def map(self, task: Any, items: Any, check: Any = None) -> list[Any]:
        return [task(self.program, item) for item in items]


def test_a_fit_goes_on_with_other_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: a shard has several blocks, whose rows and draws are those of the pass."""

    @contextmanager
    def open_pool(workers: pm.Workers, program: ShardedPosterior) -> Iterator[InProcess]:
        yield InProcess(program)

    monkeypatch.setattr("pymc.variational.cluster.passes.open_pool", open_pool)
    monkeypatch.setattr("pymc.variational.auto.full_data_passes.CONVERGED", 0.0)
    monkeypatch.setattr("pymc.variational.auto.full_data_passes.LONGEST", 8)
    monkeypatch.setattr("pymc.variational.auto.full_data_passes.INEXACT_PASSES", 100)
    monkeypatch.setattr(inference, "MAX_PASSES", 6)
    whole = trainer_of(1).fit()
    trainer_of(1).fit(checkpoint=tmp_path, checkpoint_every=1, keep=10)
    loader, model = problem()
    # As if the fit was killed after its first pass
    first = min(tmp_path.glob("step-*"))
    resumed = pm.Trainer.load(first, dataloader=loader, model=model, workers=2, **QUIET)
    approx = resumed.fit(checkpoint=None)
    assert resumed.state is not None and resumed.state.i == 6
    for value, other in zip(approx.normal.params, whole.normal.params, strict=True):
        np.testing.assert_array_equal(value.get_value(), other.get_value())


def test_few_rows_need_no_workers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inference, "MANY_ROWS", 50_000)
    caplog.set_level(logging.INFO, "pymc.variational.inference")
    check(trainer_of(2).fit())
    assert "workers=2 are not used" in caplog.text
