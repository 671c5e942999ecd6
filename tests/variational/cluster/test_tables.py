# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Latent variables of rows whose parameters stay with workers: in this process, and at the end with a real Ray."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import re
import signal
import subprocess
import sys
import weakref

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.data_loading.data_loader import shard_bounds
from pymc.variational.cluster.gradients import GradientProgram
from pymc.variational.cluster.pool import WorkersLostError
from pymc.variational.optimizers import chain, clip_by_global_norm
from tests.variational.cluster import in_process
from tests.variational.cluster.in_process import QUIET, N, X, Y, interrupted_at, latent, same
from tests.variational.engine import JAX_COPIES


def loader_of() -> pm.DataLoader:
    """Return a loader whose batches are of four shards."""
    return pm.DataLoader({"x": X, "y": Y}, 12, shuffle=True, seed=1)


def trainer_of(workers: Any, loader: pm.DataLoader | None = None, **options: Any) -> pm.Trainer:
    loader = loader_of() if loader is None else loader
    return in_process.trainer_of(workers, loader=loader, **{"make": latent} | options)


def rows_of(trainer: pm.Trainer) -> np.ndarray:
    [table] = trainer.approx.tables
    return np.array(table.parameters())


def same_rows(first: pm.Trainer, second: pm.Trainer, rtol: float = 1e-10) -> None:
    found, expected = rows_of(first), rows_of(second)
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)
    assert found.shape == (N, 2) and found.std() > 1e-3


# --- steps ---
def of_rows_alone(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        z = pm.Normal("z", 0.5, 2, dims="obs")
        pm.Normal("like", z, 1, observed=y, dims="obs")
    return model


@pytest.mark.parametrize("bound", [None, 200.0])
def test_lines_by_hand(in_process: None, bound: float | None) -> None:
    """Gradient descent of guides so narrow that they are points, with the norm over all rows of a batch bounded."""
    batch_size, rate, n_steps, n_clipped = 6, 0.01, 120, 0
    options = {"obj_optimizer": pm.sgd(learning_rate=rate), "reduction": "sum"}
    loader = pm.DataLoader({"y": Y}, batch_size)
    trainer = trainer_of(
        2, make=of_rows_alone, loader=loader, total_grad_norm_constraint=bound, **options
    )
    trainer.prepare()
    [table] = trainer.approx.tables
    start = table.shared.get_value(borrow=True)
    start[:, 1] = -40.0  # softplus of it is the sd
    z = np.full(N, start[0, 0])
    for number in range(n_steps):
        found: dict[int, np.ndarray] = {}
        for first, stop in shard_bounds(N, 2):
            n_rows, b = stop - first, batch_size // 2
            for i in range(b):
                row = first + (number * b + i) % n_rows
                # The entropy has the gradient 1 in the second parameter
                step = n_rows / b * np.array([(z[row] - 0.5) / 4 + z[row] - Y[row], -1.0])
                found[row] = found.get(row, 0) + step
        norm = np.sqrt(sum((g**2).sum() for g in found.values()))
        factor = 1.0 if bound is None else bound / max(norm, bound)
        n_clipped += factor < 1
        for row, g in found.items():
            z[row] -= rate * factor * g[0]
    trainer.fit(n_steps)
    np.testing.assert_allclose(rows_of(trainer)[:, 0], z, rtol=1e-9, atol=1e-9)
    assert n_clipped == 0 if bound is None else 0 < n_clipped < n_steps


FITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"total_grad_norm_constraint": 5.0},
    "averaged": {"average": 0.5, "obj_n_mc": 2},
    "a schedule": {"obj_optimizer": "tuned"},
    "particles": {"objective": "iwae", "n_particles": 3},
    "full-rank rows": {"guide": {"z": "mean_field", "m": "full_rank"}},
}


@pytest.mark.parametrize("kind", FITS)
def test_any_number_of_workers(in_process: None, kind: str) -> None:
    fits = []
    for workers in (1, 2, 4):
        trainer = trainer_of(workers, **FITS[kind])
        trainer.fit(25)
        fits.append(trainer)
    for other in fits[1:]:
        same(fits[0], other)
        same_rows(fits[0], other)
    assert fits[1].approx.report.driver == "workers"


def test_the_right_posterior(in_process: None) -> None:
    """Rows and their common mean, in closed form of the mean-field optimum."""
    loader = pm.DataLoader({"y": Y}, 50, shuffle=True, seed=1)
    trainer = trainer_of(2, loader=loader, obj_optimizer="tuned", compile_kwargs=None)
    trainer.fit(3000)
    # z_i given m and y_i has precision 2; m given all z has N + 1/4
    mean = Y.sum() / 2 / (N + 1 / 4 - N / 2)
    rows, sd = rows_of(trainer), (N + 1 / 4) ** -0.5
    mu, rho = (param.get_value() for param in trainer.approx.params[:2])
    assert abs(mu - mean) < 4 * sd  # stochastic steps of a coupled optimum
    np.testing.assert_allclose(np.logaddexp(0, rho), sd, rtol=0.2)
    assert np.sqrt(np.mean((rows[:, 0] - (mu + Y) / 2) ** 2)) < 0.3 * 2**-0.5
    np.testing.assert_allclose(np.logaddexp(0, rows[:, 1]), 2**-0.5, rtol=0.35)


def test_float32(in_process: None) -> None:
    with pytensor.config.change_flags(floatX="float32"):
        fits = [trainer_of(workers, total_grad_norm_constraint=50.0) for workers in (1, 2)]
        for trainer in fits:
            trainer.fit(10)
        same_rows(fits[0], fits[1], 1e-5)
        assert rows_of(fits[0]).dtype == "float32"


@pytest.mark.filterwarnings(JAX_COPIES)
def test_jax(in_process: None) -> None:
    options: dict[str, Any] = {"compile_kwargs": None, "backend": "jax"}
    fits = [trainer_of(workers, **options) for workers in (1, 2)]
    for trainer in fits:
        trainer.fit(5)
    same_rows(fits[0], fits[1])
    same(*fits)


ANOTHER: dict[str, dict[str, Any]] = {
    "equal columns": {"obj_optimizer": pm.adam(learning_rate=0.01)},
    "fewer columns": {"obj_optimizer": pm.sgd(learning_rate=0.001)},
    "an average": {"average": 0.5},
}


@pytest.mark.parametrize("kind", ANOTHER)
def test_a_second_fit_with_another_step(in_process: None, tmp_path: Path, kind: str) -> None:
    """Rows keep their parameters and start the state of the optimizer anew, also in a fit that was loaded."""
    trainer = trainer_of(2)
    trainer.fit(20, checkpoint=tmp_path)
    before = rows_of(trainer)
    trainer.prepare(**ANOTHER[kind])
    np.testing.assert_array_equal(rows_of(trainer), before)
    trainer.fit(10, checkpoint=None)
    assert np.abs(rows_of(trainer) - before).max() > 1e-3
    [table] = trainer.approx.tables
    assert len(table.shared.get_value()) == 1
    loader = loader_of()
    loaded = pm.Trainer.load(tmp_path, dataloader=loader, model=latent(loader), workers=4, **QUIET)
    loaded.prepare(**ANOTHER[kind])
    np.testing.assert_array_equal(rows_of(loaded), before)
    loaded.fit(10, checkpoint=None)
    same_rows(loaded, trainer)


def test_a_refused_argument_leaves_the_fit(in_process: None) -> None:
    whole = trainer_of(2)
    whole.fit(15)
    trainer = trainer_of(2)
    trainer.fit(10)
    late = chain(pm.adam(learning_rate=0.01), clip_by_global_norm(1.0))
    wrong = (
        {"average": 7},
        {"obj_n_mc": 0},
        {"obj_optimizer": late},
        {"more_replacements": {"y": 1}},
    )
    for options in wrong:
        with pytest.raises((TypeError, ValueError, KeyError, NotImplementedError)):
            trainer.fit(5, **options)
    trainer.fit(5)
    same_rows(trainer, whole, 0.0)


def test_a_pickled_approximation_has_no_rows(in_process: None) -> None:
    trainer = trainer_of(2)
    approx = trainer.fit(5)
    copied = cloudpickle.loads(cloudpickle.dumps(approx))
    with pytest.raises(WorkersLostError, match="with workers that have ended"):
        copied.sample(5, rows=[1])


# --- steps that fail ---
def test_a_step_that_is_not_finite(in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nan in one shard: no line of any shard changes, and the fit goes on from there."""
    good = trainer_of(2)
    good.fit(7)
    gradient, broken = GradientProgram.gradient, [True]

    def nan_at_7(self: Any, task: Any, shard: int) -> np.ndarray:
        is_bad = bool(broken) and (task.number, shard) == (7, 3)
        return (np.nan if is_bad else 1.0) * gradient(self, task, shard)

    monkeypatch.setattr(GradientProgram, "gradient", nan_at_7)
    trainer = trainer_of(2)
    with pytest.raises(FloatingPointError, match="Step 8 is not finite"):
        trainer.fit(20)
    same(trainer, good, 0.0)
    same_rows(trainer, good, 0.0)
    broken.clear()
    trainer.fit(3)
    good.fit(3)
    same_rows(trainer, good, 0.0)


def root_model(loader: pm.DataLoader) -> pm.Model:
    """A term that is finite, whose gradient of a row is not: that of a root at 0."""
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        z = pm.Normal("z", pm.Normal("m", 0, 2), 1, dims="obs")
        pm.Normal("like", z + pt.sqrt(pt.maximum(z - 1000, 0)), 1, observed=y, dims="obs")
    return model


def test_a_gradient_of_rows_that_is_not_finite(in_process: None) -> None:
    trainer = trainer_of(2, make=root_model)
    trainer.prepare()
    m, before = trainer.approx.params[0].get_value(), rows_of(trainer)
    with pytest.raises(FloatingPointError, match="Step 1 is not finite"):
        trainer.fit(5)
    np.testing.assert_array_equal(rows_of(trainer), before)
    np.testing.assert_array_equal(trainer.approx.params[0].get_value(), m)


def test_ctrl_c(in_process: None) -> None:
    """A step whose gradients were computed and thrown away writes no lines, and is taken again."""
    whole = trainer_of(2)
    whole.fit(20)
    with interrupted_at(7):
        trainer = trainer_of(2)
        trainer.fit(20)
    assert (trainer.batches_seen, trainer.approx.report.stopped) == (7, "interrupted")
    trainer.fit(13)
    same_rows(trainer, whole, 0.0)


def test_lines_that_are_not_finite(in_process: None) -> None:
    """The gradient is finite, and the step of a row is not: it is said again by all that needs the rows."""
    trainer = trainer_of(2, obj_optimizer=pm.sgd(learning_rate=1e308))
    with pytest.raises(FloatingPointError, match="Step 1 "):
        trainer.fit(5)
    for _ in range(3):
        with pytest.raises(FloatingPointError, match="Step 1 "):
            rows_of(trainer)


# --- results, of the rows that workers send ---
def test_results_are_those_of_the_saved_approximation(in_process: None, tmp_path: Path) -> None:
    trainer = trainer_of(2, average=0.5)
    approx = trainer.fit(25)
    loaded = pm.load_approximation(approx.save(tmp_path / "fit"), model=trainer.model)
    [table], [plain] = approx.tables, loaded.tables
    np.testing.assert_array_equal(table.parameters(), plain.parameters())
    for rows in (slice(3, 120, 7), np.array([202, 0, 13, 13]), -1, np.array([[1, 2], [100, 3]])):
        np.testing.assert_array_equal(table.parameters(rows), plain.parameters(rows))
    draws = [each.sample(20, rows=[200, 3], random_seed=1) for each in (approx, loaded)]
    np.testing.assert_array_equal(*(each.posterior["z"].values for each in draws))
    for each in (approx, loaded):
        with pytest.raises(NotImplementedError) if each is approx else contextlib.nullcontext():
            each.mean.eval()
    with pytest.raises(NotImplementedError, match=r"save the fit by approx.save"):
        copy.deepcopy(approx)
    with pytest.raises(NotImplementedError, match="no graph has all of them"):
        approx.sample_node(trainer.model["z"])


def test_predictions_and_evidence(in_process: None, tmp_path: Path) -> None:
    trainer = trainer_of(2)
    approx = trainer.fit(25)
    loaded = pm.load_approximation(approx.save(tmp_path / "fit"), model=trainer.model)
    found = []
    for each in (approx, loaded):
        predicted = each.sample_posterior_predictive(10, rows=[5, 9], random_seed=1)
        evidence = pm.variational.log_evidence(
            each, 10, [5, 9], data={"y": Y[[5, 9]]}, random_seed=1, progressbar=False
        )
        found.append(
            (predicted.posterior_predictive["like"].values, evidence["log_evidence"].values)
        )
    for first, second in zip(*found):
        np.testing.assert_array_equal(first, second)


# --- checkpoints ---
def test_a_fit_goes_on_with_another_number_of_workers(in_process: None, tmp_path: Path) -> None:
    whole = trainer_of(2, average=0.5)
    whole.fit(30)
    trainer = trainer_of(2, average=0.5)
    trainer.fit(30, checkpoint=tmp_path, checkpoint_every=20)
    same_rows(trainer, whole, 0.0)
    for workers, rtol in ((2, 0.0), (4, 1e-10)):
        loader = loader_of()
        resumed = pm.Trainer.load(
            tmp_path / "step-000000020",
            dataloader=loader,
            model=latent(loader),
            workers=workers,
            **QUIET,
        )
        with pytest.warns(UserWarning, match="writes no checkpoints"):
            resumed.fit(10)
        same_rows(resumed, whole, rtol)


def test_lines_that_are_lost(in_process: None, tmp_path: Path) -> None:
    """Workers that have ended take the lines with them: nothing starts again from the first ones."""
    trainer = trainer_of(2)
    approx = trainer.fit(5, checkpoint=tmp_path)
    assert len(trainer.worker_processes) == 2
    trainer.close()
    assert trainer.worker_processes == []
    for call in (lambda: approx.sample(5, rows=[1]), lambda: trainer.fit(5)):
        with pytest.raises(WorkersLostError, match="go on from a checkpoint"):
            call()
    loader = loader_of()
    resumed = pm.Trainer.load(tmp_path, dataloader=loader, model=latent(loader), workers=2, **QUIET)
    assert rows_of(resumed).std() > 1e-3
    np.testing.assert_array_equal(
        resumed.approx.tables[0].parameters([150, 3]), rows_of(resumed)[[150, 3]]
    )
    [file] = tmp_path.glob("step-*/part-002.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"part-002\.safetensors of a checkpoint is damaged"):
        pm.Trainer.load(tmp_path, dataloader=loader, model=latent(loader), workers=2, **QUIET)


def test_workers_end_with_the_fit(in_process: None) -> None:
    trainer = trainer_of(2)
    approx = trainer.fit(3)
    [table] = approx.tables
    owners, program = weakref.ref(table.owners), weakref.ref(table.owners.pool.programs[0])
    del trainer, table
    gc.collect()
    assert approx.sample(3, rows=[1]) is not None
    del approx
    gc.collect()
    assert owners() is None and program() is None


class Largest(pm.Optimizer):
    """Divides by the largest gradient of all."""

    joint = True

    def update(self, grads: Any, state: Any, params: Any, step: Any) -> Any:
        largest = pt.max(pt.stack([abs(grad).max() for grad in grads]))
        return [grad / largest for grad in grads], state


def test_links_that_need_the_gradients_of_all_rows() -> None:
    sgd = pm.sgd(learning_rate=0.01)
    for optimizer in (chain(sgd, clip_by_global_norm(1.0)), chain(Largest(), sgd)):
        with pytest.raises(NotImplementedError, match=re.escape("Bound it first, as chain(")):
            trainer_of(2, obj_optimizer=optimizer).prepare()


# --- workers of a real Ray ---
def test_with_ray(tmp_path: Path) -> None:
    """A worker that is lost takes its lines along: the fit goes on from the checkpoint, bit for bit."""
    if find_spec("ray") is None:
        pytest.skip("needs Ray")

    def kill(approx: Any, losses: Any, i: int) -> None:
        if i == 12:
            os.kill(trainer.worker_processes[-1][1], signal.SIGKILL)

    whole = trainer_of(pm.Workers(2, timeout=20))
    expected = rows_of(whole.fit(20) and whole)
    draws = whole.approx.sample(5, rows=[100, 2], random_seed=1).posterior["z"].values
    trainer = trainer_of(pm.Workers(2, timeout=20))
    with pytest.raises(WorkersLostError, match="with it the parameters of its rows"):
        trainer.fit(20, callbacks=[kill], checkpoint=tmp_path, checkpoint_every=10)
    # The other trainer uses the same Ray, which goes on
    np.testing.assert_array_equal(rows_of(whole), expected)
    loader = loader_of()
    resumed = pm.Trainer.load(tmp_path, dataloader=loader, model=latent(loader), workers=2, **QUIET)
    assert resumed.batches_seen == 10
    resumed.fit(10)
    np.testing.assert_array_equal(rows_of(resumed), expected)
    again = resumed.approx.sample(5, rows=[100, 2], random_seed=1).posterior["z"].values
    np.testing.assert_array_equal(again, draws)
    processes, before = whole.worker_processes, rows_of(whole)
    whole.fit(3, obj_optimizer=pm.sgd(learning_rate=0.001))
    assert whole.worker_processes == processes
    assert 0 < np.abs(rows_of(whole) - before).max() < 0.2
    for each in (whole, resumed):
        each.close()


def test_python_ends_without_close(tmp_path: Path) -> None:
    """Nothing is printed, and no other Ray is started."""
    if find_spec("ray") is None:
        pytest.skip("needs Ray")
    script = tmp_path / "fit.py"
    script.write_text(
        "from tests.variational.cluster.in_process import latent, trainer_of\n"
        "trainer = trainer_of(1, make=latent)\n"
        "trainer.fit(2)\n"
        "print('done', len(trainer.worker_processes))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, timeout=300
    )
    assert found.stdout.endswith("done 1\n")
    after = found.stderr.split("Finished [100%]")[-1]
    assert not re.search("Traceback|Error|Started a local Ray", after)
