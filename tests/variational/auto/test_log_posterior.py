# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The log-posterior at many points, of all rows and of some."""

from __future__ import annotations

import threading

from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.variational.auto.log_posterior import Stopped, map_in_order
from pymc.variational.engine.drivers import Run
from tests.variational.auto.problems import Regression, funnel, gamma, log_posterior
from tests.variational.engine import BACKENDS, JAX_COPIES, PYTHON


def test_it_is_that_of_the_model() -> None:
    model = funnel()
    points = np.random.default_rng(1).normal(size=(5, 4))
    values, gradients = log_posterior(model)(points)
    logp = model.compile_logp(mode=PYTHON)
    dlogp = model.compile_dlogp(mode=PYTHON)
    for point, value, gradient in zip(points, values, gradients):
        at = {"v": point[0], "x": point[1:]}
        np.testing.assert_allclose(value, logp(at))
        np.testing.assert_allclose(gradient, dlogp(at))


@pytest.mark.filterwarnings(JAX_COPIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_backends(backend: str) -> None:
    problem = Regression()
    logp = log_posterior(problem.model(), mode={"c": "CVM"}.get(backend, backend.upper()))
    points = problem.mean + np.random.default_rng(1).normal(size=(300, 3)) * problem.sd
    _, gradients = logp(points)
    right = -np.linalg.solve(problem.cov, (points - problem.mean).T).T
    np.testing.assert_allclose(gradients * problem.sd, right * problem.sd, atol=1e-6)
    assert logp.budget.n_gradients == 300


def test_where_it_is_not_finite() -> None:
    """Points after one at which the density ends are computed all the same."""
    values, gradients = log_posterior(gamma())(np.array([[0.0], [800.0], [0.5]]))
    assert np.isfinite(values[[0, 2]]).all() and np.isfinite(gradients[[0, 2]]).all()
    assert values[1] == -np.inf


def test_where_terms_overflow() -> None:
    """The density is infinite there by rounding: an importance weight would be all of them."""
    with pm.Model() as model:
        pm.LKJCholeskyCov("c", n=3, eta=2.0, sd_dist=pm.HalfNormal.dist(1.0))
    point = np.array([31.9, 5.1, 5.2, 1.2, -0.3, -5.7])
    assert model.compile_logp()({"c_cholesky-cov-packed__": point}) == np.inf
    assert log_posterior(model)(point[None])[0] == -np.inf


def test_rows() -> None:
    """The mean over blocks of all rows is that of all rows, each block scaled up to all."""
    problem = Regression()
    whole, logp = log_posterior(problem.model()), log_posterior(problem.model(batch_size=10))
    assert (whole.n_all, logp.n_all) == (0, 60)
    point = problem.mean + problem.sd
    rows = np.random.default_rng(1).permutation(60).reshape(4, 15)
    values, gradients = logp(np.repeat(point[None], 4, axis=0), (rows,))
    right, slope = whole(point[None])
    np.testing.assert_allclose(values.mean(), right[0])
    np.testing.assert_allclose(gradients.mean(axis=0), slope[0])
    some = logp.of_rows((rows[2],))(point[None])
    np.testing.assert_allclose(some[0][0], values[2])
    assert logp.budget.n_rows == 5 * 15


def test_all_rows_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several points of each block follow each other, and the last block has fewer rows."""
    monkeypatch.setattr("pymc.variational.auto.log_posterior.BLOCK", 7)
    problem = Regression()
    whole, logp = log_posterior(problem.model()), log_posterior(problem.model(batch_size=10))
    points = problem.mean + np.random.default_rng(1).normal(size=(3, 3)) * problem.sd
    for found, right in zip(logp(points), whole(points)):
        np.testing.assert_allclose(found, right)
    np.testing.assert_allclose(logp.budget.n_gradients, 3)  # and not as many of each block


def test_threads_compute_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several calls of several blocks each, on one thread and on more than there are cores."""
    monkeypatch.setattr("pymc.variational.auto.log_posterior.BLOCK", 7)
    monkeypatch.setattr("pymc.variational.auto.log_posterior.ROWS_AT_ONCE", 14)
    problem, found, used = Regression(), [], []
    logp = log_posterior(problem.model(batch_size=10), mode="NUMBA")
    run = type(logp.step.driver).run

    def watched(*args: Any) -> Run:
        threads.add(threading.get_ident())
        return run(*args)

    monkeypatch.setattr(type(logp.step.driver), "run", watched)
    points = problem.mean + np.random.default_rng(1).normal(size=(5, 3)) * problem.sd
    for logp.budget.cores in (1, 3):
        threads = set[int]()
        found.append(logp(points))
        used.append(threads)
    assert used[0] == {threading.get_ident()}
    assert threading.get_ident() not in used[1]
    for one, three in zip(*found):
        np.testing.assert_array_equal(one, three)


def test_calls_in_order() -> None:
    """Two calls run at once, and those that have not begun at the end never do."""
    both, end, begun = threading.Barrier(2, timeout=60), threading.Event(), list[int]()

    def call(k: int) -> None:
        begun.append(k)
        both.wait() if k < 2 else end.wait(timeout=60)

    calls = map_in_order(call, range(100), 2)
    next(calls)
    threading.Timer(0.2, end.set).start()
    calls.close()
    assert {0, 1} <= set(begun) <= {0, 1, 2, 3}


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_a_budget_ends_at_the_same_call(cores: int) -> None:
    """With any number of threads: results of calls that ran ahead do not count."""
    problem = Regression()
    logp = log_posterior(problem.model(batch_size=10), mode="NUMBA")
    rows, logp.budget.cores = np.arange(60).reshape(4, 15), cores

    def check() -> None:
        if logp.budget.n_rows >= 500 * 15:
            raise Stopped("enough")

    logp.budget.check = check
    with pytest.raises(Stopped, match="enough"):
        logp(np.zeros((2000, 3)), (rows,))
    assert logp.budget.n_rows == 512 * 15


def test_a_budget_ends_it() -> None:
    logp = log_posterior(gamma())

    def check() -> None:
        if logp.budget.n_gradients >= 256:
            raise Stopped("enough")

    logp.budget.check = check
    with pytest.raises(Stopped, match="enough"):
        logp(np.zeros((1000, 1)))
    assert logp.budget.n_gradients == 256


def test_a_matrix_without_a_cholesky_factor() -> None:
    with pm.Model() as model:
        r = pm.Flat("r")
        cov = pm.math.stack([pm.math.stack([1.0, r]), pm.math.stack([r, 1.0])])
        pm.MvNormal("y", np.zeros(2), cov, observed=np.zeros(2))
    values, _ = log_posterior(model, mode="NUMBA")(np.array([[0.0], [2.0], [0.5]]))
    assert np.isfinite(values).tolist() == [True, False, True]
