# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Rounds of steps on workers: in this process, and at the end by workers of a real Ray."""

from __future__ import annotations

import os
import re
import signal

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from pytensor.graph.replace import graph_replace

import pymc as pm

from pymc.pytensorf import compile
from pymc.variational.cluster import steps
from pymc.variational.cluster.rounds import (
    Factor,
    FactorAfter,
    Round,
    RoundProgram,
    RoundsOnWorkers,
)
from pymc.variational.cluster.worker import Task
from tests.variational.cluster.in_process import values_of
from tests.variational.engine import JAX_COPIES, PYTHON, counted_compilations

QUIET: dict[str, Any] = {"compile_kwargs": {"mode": PYTHON}, "progressbar": False}

METHODS = ("advi", "fullrank_advi")

#: A number of rows that no number of factors divides, sorted: factors have different rows
N, B = 203, 20
X = np.random.default_rng(2).normal(size=(N, 2)) @ [[1.0, 0.6], [0.0, 0.8]]
Y = X @ [1.0, -0.5] + np.random.default_rng(1).normal(0, 2, size=N)
ORDER = np.argsort(Y)
X, Y = X[ORDER], Y[ORDER]

#: Of the conjugate model below
PRECISION = X.T @ X / 4 + np.eye(2) / 9
MEAN = np.linalg.solve(PRECISION, X.T @ Y / 4)
COVARIANCE = np.linalg.inv(PRECISION)


@dataclass
class InProcess:
    """Maps tasks in this process, on one copy of the program, as after all workers but one were lost."""

    workers: pm.Workers
    program: RoundProgram
    settings: dict[str, Any]

    def map(
        self, task: Task, items: Sequence[Any], check: Callable[[], None] = lambda: None
    ) -> list[Any]:
        sent = cloudpickle.dumps((task, list(items)))
        task, items = cloudpickle.loads(sent)
        found = [task(self.program, item) for item in reversed(items)]
        check()
        return found[::-1]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def open_pool(workers: pm.Workers, program: RoundProgram) -> Iterator[InProcess]:
        program = cloudpickle.loads(cloudpickle.dumps(program))
        program.build()
        yield InProcess(workers, program, {"workers": workers.n})

    monkeypatch.setattr(steps, "open_pool", open_pool)


def loader_of(**options: Any) -> pm.DataLoader:
    return pm.DataLoader({"x": X, "y": Y}, B, **{"shuffle": True, "seed": 1} | options)


def regression(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        x = pm.Data("x", loader, dims=("obs", "column"))
        y = pm.Data("y", loader, dims="obs")
        b = pm.Normal("b", 0, 3, shape=2)
        pm.Normal("like", x @ b, 2, observed=y, dims="obs")
    return model


def trainer_of(
    exchange: Any = pm.Rounds(10),
    method: Any = "advi",
    make: Callable = regression,
    workers: Any = 2,
    **options: Any,
) -> pm.Trainer:
    loader = loader_of()
    options = {"random_seed": 1, "obj_optimizer": pm.adam(learning_rate=0.02)} | QUIET | options
    return pm.Trainer(
        method, dataloader=loader, model=make(loader), workers=workers, exchange=exchange, **options
    )


def same(first: pm.Trainer, second: pm.Trainer) -> None:
    for value, other in zip(values_of(first), values_of(second), strict=True):
        np.testing.assert_array_equal(value, other)
    np.testing.assert_array_equal(first.hist, second.hist)


# --- what a factor minimises, exactly ---
@pytest.mark.parametrize("method", METHODS)
def test_local_gradients_add_up_to_that_of_all_rows(method: str) -> None:
    """Whatever the factors are, if q is their product; with the expected likelihood in closed form."""
    trainer = trainer_of(pm.Rounds(10, factors=3), method)
    trainer.prepare()
    objective, rng = trainer.inference.objective, np.random.default_rng(5)
    approx = objective.approx
    [guide] = approx.guides
    for param in approx.params:
        param.set_value(rng.normal(size=param.get_value().shape))
    values = {p: var.get_value() for p, var in approx.storage.dense.items()}
    natural = guide.natural(guide.coordinates_of(values))
    factors = rng.normal(size=(3, natural.size))
    factors[2] = natural - factors[0] - factors[1]
    param_values = approx.storage.param_values({})
    mean, covariance = guide.moments(param_values)[0], guide.covariance(param_values)

    def bound(k: int | None) -> Any:
        """Return the negative bound of the rows of a factor, scaled to all."""
        part = slice(None) if k is None else slice(k * N // 3, (k + 1) * N // 3)
        x, y = X[part], Y[part]
        fit = ((y - pt.dot(x, mean)) ** 2).sum() + (pt.dot(x, covariance) * x).sum()
        prior = ((mean**2).sum() + pt.trace(covariance)) / 18
        return N / len(x) * fit / 8 + prior - guide.entropy(param_values)

    params = objective.params
    right = [g.eval() for g in pytensor.grad(bound(None), params)]
    center, total = rng.normal(size=2), [np.zeros(g.shape) for g in right]
    for k in range(3):
        share = ((k + 1) * N // 3 - k * N // 3) / N
        cavity = guide.centered(natural - factors[k], center)
        local = share * bound(k) - (1 - share) * guide.entropy(param_values)
        local -= (pt.as_tensor(cavity) * guide.statistics(param_values, pt.as_tensor(center))).sum()
        for sum_, g in zip(total, pytensor.grad(local, params)):
            sum_ += g.eval()
    for found, expected in zip(total, right):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_a_factor_has_the_cavity(method: str) -> None:
    """Without rows in it: the difference of two cavities, times N / n and B / N, is that of the statistics."""
    trainer = trainer_of(pm.Rounds(10), method)
    trainer.prepare()
    objective = trainer.inference.objective
    loss, approx, rng = objective.loss, objective.approx, np.random.default_rng(5)
    [guide] = approx.guides
    loss.share.set_value(0.25)
    n = loss.cavity.get_value().size
    loss.cavity.set_value(cavity := rng.normal(size=n))
    loss.center.set_value(center := rng.normal(size=2))
    gradients = loss.gradients(objective.params).dense
    without = graph_replace(gradients, {loss.cavity: pt.zeros(n)})
    changes = compile([], [a - b for a, b in zip(gradients, without)], mode=PYTHON)()
    param_values = loss.absolute(approx.storage.param_values({}))
    term = -(pt.as_tensor(cavity) * guide.statistics(param_values, pt.as_tensor(center))).sum()
    for change, right in zip(changes, pytensor.grad(term, objective.params), strict=True):
        np.testing.assert_allclose(change, right.eval() * 4 * B / N, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_natural_parameters(method: str) -> None:
    """Of a density q: exp(natural . T) has its means and covariance, and the entropy their gradient."""
    trainer = trainer_of(method=method)
    trainer.prepare()
    approx, rng = trainer.approx, np.random.default_rng(5)
    [guide] = approx.guides
    for param in approx.params:
        param.set_value(rng.normal(size=param.get_value().shape))
    values = {p: var.get_value() for p, var in approx.storage.dense.items()}
    natural = guide.natural(guide.coordinates_of(values))
    found = guide.of_natural(natural)
    for parameter, value in values.items():
        np.testing.assert_allclose(found[parameter], value, rtol=1e-9)
    param_values = approx.storage.param_values({})
    np.testing.assert_allclose(
        guide.coordinates(param_values).eval(), guide.coordinates_of(values), rtol=1e-12
    )
    precision = np.linalg.inv(guide.covariance(param_values).eval())
    np.testing.assert_allclose(natural[:2], precision @ approx.mean.eval(), rtol=1e-9)
    assert guide.of_natural(-natural) is None
    center = rng.normal(size=2)
    total = (guide.centered(natural, center) * guide.statistics(param_values, center)).sum()
    for gradient in pytensor.grad(total + guide.entropy(param_values), approx.params):
        np.testing.assert_allclose(gradient.eval(), 0, atol=1e-12)
    relative = {p: pt.as_tensor(value) for p, value in guide.relative(values).items()}
    for parameter, value in guide.absolute(relative, param_values).items():
        np.testing.assert_allclose(value.eval(), values[parameter], rtol=1e-12)


# --- fits ---
OPTIMIZER = pm.adam(
    learning_rate=pm.variational.schedules.exponential_decay(
        0.02, decay_steps=3200, decay_rate=0.01
    )
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factors", [1, 2, 4])
def test_the_optimum_of_sorted_rows(in_process: None, method: str, factors: int) -> None:
    """An average of the means that the parts of the rows have is off by several sd.

    With draws and batches of steps at a rate of 0.0002 at the end, means have a standard error of 0.05 sd: 5 of these.
    """
    trainer = trainer_of(
        pm.Rounds(50, factors=factors),
        method,
        compile_kwargs=None,
        obj_optimizer=OPTIMIZER,
        average=0.25,
        start_sigma={"b": np.full(2, 0.3)},
    )
    trainer.fit(3200)
    precision = np.diag(PRECISION) if method == "advi" else 1 / np.diag(COVARIANCE)
    sd = precision**-0.5
    assert abs((trainer.approx.mean.eval() - MEAN) / sd).max() < 0.25
    np.testing.assert_allclose(trainer.approx.std.eval(), sd, rtol=0.25)
    report = trainer.approx.report
    assert report.driver == "rounds" and report.settings["rounds"] == 64
    assert report.settings["damping"] == (1.0 if factors == 1 else 0.5)
    assert len(trainer.hist) == 3200 and np.isfinite(trainer.hist).all()
    assert (trainer.batches_seen, trainer.rows_streamed) == (3200, 3200 * factors * B)


@pytest.mark.filterwarnings(JAX_COPIES, "ignore:Skipping Assert:UserWarning")
@pytest.mark.parametrize("method", METHODS)
def test_on_jax(in_process: None, method: str) -> None:
    trainer = trainer_of(method=method, compile_kwargs=None, backend="jax")
    trainer.fit(20)
    assert all(np.isfinite(value).all() for value in values_of(trainer))
    assert len(trainer.hist) == 20


def test_float32(in_process: None) -> None:
    with pytensor.config.change_flags(floatX="float32"):
        trainer = trainer_of(method="fullrank_advi", average=0.5)
        trainer.fit(20)
        assert {value.dtype for value in values_of(trainer)} == {np.dtype("float32")}


def test_a_last_round_may_be_shorter(in_process: None) -> None:
    """Callbacks come after rounds, those that are due within one at its end."""
    seen, each = [], []

    def third(approx: Any, losses: Any, i: int) -> None:
        seen.append((i, len(losses)))

    third.every = 3  # type: ignore[attr-defined]
    trainer = trainer_of(callbacks=[third, lambda approx, losses, i: each.append(i)])
    trainer.fit(25)
    assert seen == [(10, 10), (20, 20), (25, 25)] and each == [10, 20, 25]
    assert trainer.batches_seen == 25 and len(trainer.hist) == 25
    trainer.refine(10)
    assert each[3:] == [35]


def test_same_bits_for_a_seed_and_any_number_of_workers(in_process: None) -> None:
    first = trainer_of(pm.Rounds(10, factors=2), average=0.5)
    second = trainer_of(pm.Rounds(10, factors=2), average=0.5, workers=3)
    other = trainer_of(pm.Rounds(10, factors=2), average=0.5, random_seed=2)
    for trainer in (first, second, other):
        trainer.fit(40)
    same(first, second)
    assert (first.hist != other.hist).all()


def test_a_fit_goes_on_with_another_number_of_workers(in_process: None, tmp_path: Path) -> None:
    """The number of factors is in the checkpoint. Those are written after rounds."""
    whole = trainer_of(average=0.5)
    whole.fit(40)
    trainer = trainer_of(average=0.5)

    def stop(approx: Any, losses: Any, i: int) -> None:
        if i == 20:
            raise StopIteration

    trainer.fit(40, checkpoint=tmp_path, checkpoint_every=15, callbacks=[stop])
    assert sorted(path.name[-2:] for path in tmp_path.glob("step-*")) == ["20"]
    loader = loader_of()
    resumed = pm.Trainer.load(
        tmp_path, dataloader=loader, model=regression(loader), workers=3, **QUIET
    )
    resumed.fit(20, checkpoint=None)
    assert "factors=2" in resumed.approx.report.settings["exchange"]
    same(resumed, whole)


def test_parameters_that_a_callback_sets(in_process: None) -> None:
    """The factors are split anew."""

    def set_mean(approx: Any, losses: Any, i: int) -> None:
        if i == 10:
            approx.params[0].set_value(np.array([50.0, 50.0]))

    trainer = trainer_of(callbacks=[set_mean], obj_optimizer=pm.sgd(learning_rate=1e-6))
    trainer.fit(20)
    np.testing.assert_allclose(values_of(trainer)[0], 50, atol=1)


def test_a_sum_that_is_no_distribution_is_damped(in_process: None) -> None:
    trainer = trainer_of(pm.Rounds(10, factors=2, damping=1.0))
    trainer.prepare()
    driver = trainer.state.step.driver  # type: ignore[union-attr]
    assert isinstance(driver, RoundsOnWorkers)
    factors = np.array([[1.0, 1.0, -2.0, -2.0], [1.0, 1.0, -2.0, -2.0]])
    changes = np.array([[0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    new, params = driver._added(factors, changes, [])
    np.testing.assert_allclose(new - factors, changes / 2)
    np.testing.assert_allclose(np.logaddexp(0, params[1]) ** -2, [2, 8])
    assert driver.settings["rounds_damped_more"] == 1


def test_a_round_that_is_not_finite(in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fit keeps the state of the last good round."""
    good = trainer_of()
    good.fit(20)
    run = RoundProgram.run

    def nan_in_third(self: Any, task: Round, item: Factor) -> FactorAfter:
        after = run(self, task, item)
        if task.first == 20 and item.number == 1:
            return after._replace(losses=np.append(after.losses[:4], np.nan))
        return after

    monkeypatch.setattr(RoundProgram, "run", nan_in_third)
    trainer = trainer_of()
    with pytest.raises(FloatingPointError, match="Step 25 of factor 1 is not finite: its loss"):
        trainer.fit(40)
    same(trainer, good)
    assert trainer.batches_seen == 20


def test_ctrl_c(in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round that has not ended is left out."""
    good = trainer_of()
    good.fit(20)
    run = RoundProgram.run

    def signal_in_third(self: Any, task: Round, item: Factor) -> FactorAfter:
        if task.first == 20 and item.number == 0:
            signal.raise_signal(signal.SIGINT)
        return run(self, task, item)

    monkeypatch.setattr(RoundProgram, "run", signal_in_third)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        trainer = trainer_of()
        trainer.fit(40)
    finally:
        signal.signal(signal.SIGINT, before)
    assert trainer.approx.report.stopped == "interrupted"
    same(trainer, good)


# --- the verdict ---
def test_sds_that_are_still_wide_have_not_converged(in_process: None) -> None:
    """At a small rate from PyMC's start; 64 rounds are enough to tell."""
    trainer = trainer_of(pm.Rounds(5), obj_optimizer=pm.adam(learning_rate=1e-3))
    trainer.fit(320)
    assert trainer.approx.std.eval().min() > 2 * np.diag(PRECISION).max() ** -0.5
    assert trainer.approx.report.converged is False


@pytest.mark.parametrize("method", METHODS)
def test_rounds_that_stand_still(in_process: None, method: str) -> None:
    """Those of a full-rank guide may do so elsewhere."""
    fast = {
        "obj_optimizer": pm.adam(learning_rate=pm.variational.schedules.cosine_decay(0.05, 640)),
        "obj_n_mc": 5,
    }
    trainer = trainer_of(pm.Rounds(10), method=method, average=0.2, **fast)
    trainer.fit(640)
    assert trainer.approx.report.converged is (method == "advi"), trainer.approx.report.verdict
    doubt = trainer.state.doubt()
    assert doubt is None if method == "advi" else "rounds of a full-rank guide" in doubt.reason


def test_factors_that_are_split_anew_late(in_process: None) -> None:
    trainer = trainer_of(pm.Rounds(10))
    trainer.fit(40)
    driver = trainer.state.step.driver
    assert trainer.state.doubt() is None and driver.n_rounds == 4
    driver.n_split = 1
    assert driver.doubt() is None  # at first, as at the start of a fit
    driver.last_split = 3
    assert "split anew, at last in round 4 of 4" in trainer.state.doubt().reason


def test_the_identity_of_a_fit(in_process: None) -> None:
    """It is that of the step, whether that was compiled for this trainer or found."""
    with counted_compilations(cold=True):
        first, second = trainer_of(), trainer_of()
        for trainer in (first, second):
            trainer.prepare()
        assert first._step_identity.graph == second._step_identity.graph
        other = trainer_of(obj_optimizer=pm.sgd(learning_rate=0.02))
        other.prepare()
        assert other._step_identity.graph != first._step_identity.graph


def test_few_rounds_have_no_verdict(in_process: None) -> None:
    trainer = trainer_of(pm.Rounds(50))
    trainer.fit(300)
    verdict = trainer.approx.report.verdict
    assert not verdict.converged and "6 rounds are too few to tell" in verdict.reason


# --- what is refused ---
def latent(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        pm.Data("x", loader, dims=("obs", "column"))
        z = pm.Normal("z", pm.Normal("m", 0, 2), 1, dims="obs")
        pm.Normal("like", z, 1, observed=y, dims="obs")
    return model


WEIGHT = pytensor.shared(np.array(0.5), "weight", shape=())


def trained(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        pm.Normal("like", WEIGHT * pm.Normal("m"), 1, observed=y, dims="obs")
    return model


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"guide": pm.LowRank(1)}, NotImplementedError, "the guide 'low_rank' of 'b' is none of"),
        ({"make": latent}, NotImplementedError, "the guide 'mean_field' of 'z' is none of global"),
        (
            {"objective": pm.variational.objectives.ELBO(beta=0.5)},
            NotImplementedError,
            "the objective is 'elbo' with another beta than 1",
        ),
        ({"make": trained, "params": [WEIGHT]}, NotImplementedError, "params='weight' of the"),
        ({"more_obj_params": [WEIGHT]}, TypeError, "are in no factor of exchange=Rounds("),
        ({"until": "stationary"}, TypeError, "after single steps, and exchange=Rounds("),
        ({"workers": None}, TypeError, "is between workers, and there are none"),
        ({"exchange": 250}, TypeError, "has to be pm.Rounds(steps), such as pm.Rounds(250)"),
        ({"method": "auto", "obj_optimizer": None}, TypeError, "method='auto' takes none"),
        (
            {"exchange": pm.Rounds(10, factors=20)},
            ValueError,
            "batch_size=20 rows: write a smaller",
        ),
    ],
)
def test_refusals(options: dict[str, Any], error: type[Exception], message: str) -> None:
    if options.get("method") == "auto":
        loader = loader_of()
        with pytest.raises(error, match=re.escape(message)):
            pm.Trainer(
                "auto", dataloader=loader, model=regression(loader), workers=2, exchange=pm.Rounds()
            )
        return
    with pytest.raises(error, match=re.escape(message)):
        trainer_of(**options).prepare()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, "steps=0 of pm.Rounds must be at least 1"),
        ({"factors": 0}, "factors=0 of pm.Rounds must be at least 1"),
        ({"damping": 1.5}, "damping=1.5 of pm.Rounds must be"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        pm.Rounds(**arguments)


# --- workers of a real Ray ---
def test_a_lost_worker_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("ray") is None:
        pytest.skip("needs Ray")
    killed: list[int] = []

    def kill(approx: Any, losses: Any, i: int) -> None:
        if i == 20 and kind == "killed":
            killed.append(trainer.worker_processes[-1][1])
            os.kill(killed[0], signal.SIGKILL)

    found = {}
    for kind in ("whole", "killed"):
        trainer = trainer_of(workers=pm.Workers(2, timeout=20))
        trainer.fit(60, callbacks=[kill])
        found[kind] = trainer
    same(found["whole"], found["killed"])
    settings = found["killed"].approx.report.settings
    assert str(killed[0]) in settings["lost_workers"]
    # Of 2 factors in 6 rounds: the parameters, the cavity, and the optimizer's state there and back
    assert 12 * 8 * 20 < found["whole"].approx.report.settings["bytes_sent"] < 30_000
