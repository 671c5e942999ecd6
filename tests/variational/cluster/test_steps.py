# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Steps whose gradients workers compute: in this process, and at the end by workers of a real Ray."""

from __future__ import annotations

import os
import re
import signal

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.data_loading.batch import Position
from pymc.variational.cluster.gradients import Gradient, GradientProgram, GradientsOfWorkers
from tests.variational.cluster.in_process import (
    QUIET,
    B,
    N,
    Y,
    close,
    interrupted_at,
    loader_of,
    program_of,
    regression,
    same,
    trainer_of,
    values_of,
)
from tests.variational.engine import JAX_COPIES


# --- the gradient of a batch ---
def test_the_gradient_is_that_of_the_union_of_the_shards_rows() -> None:
    """With a guide so narrow that it is a point: rows of shard k count n_k / b times, the prior once."""
    loader = loader_of(shuffle=False)
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        m = pm.Normal("m", 0.5, 3)
        pm.Normal("like", m, 2, observed=y, dims="obs")
    trainer = pm.Trainer(dataloader=loader, model=model, workers=2, random_seed=1, **QUIET)
    program = program_of(trainer)
    at, n_shards, b = 0.3, 16, 1
    for number in (0, 5, 13):
        found = sum(
            program.gradient(Gradient(np.array([at, -40.0]), number, 1, {}), k)
            for k in range(n_shards)
        )
        right = (at - 0.5) / 9
        for k in range(n_shards):
            rows = Y[k * N // n_shards : (k + 1) * N // n_shards]
            batch = [rows[(number * b + i) % len(rows)] for i in range(b)]
            right += len(rows) / b * np.sum(at - np.array(batch)) / 4
        np.testing.assert_allclose(found[1], right)
    close(program)


def test_batches_have_each_row_once_a_pass() -> None:
    loader = loader_of()
    trainer = pm.Trainer(dataloader=loader, model=regression(loader), workers=2, **QUIET)
    program = program_of(trainer)
    for shard in range(16):
        program.gradient(Gradient(np.zeros(6), 0, 1, {}), shard)
        rows = program._shards[shard]
        place = [var.name for var in rows.feed.variables].index("y")
        n_rows = rows.feed.n_rows
        for first in (0, n_rows):
            seen = [rows.batch(first + i)[place].item() for i in range(n_rows)]
            mine = Y[shard * N // 16 : (shard + 1) * N // 16]
            np.testing.assert_array_equal(np.sort(seen), np.sort(mine))
    close(program)


# --- fits with any number of workers ---
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean-field": ("advi", {}),
    "full rank": ("fullrank_advi", {}),
    "low rank": ("advi", {"guide": pm.LowRank(1)}),
    "clipped": ("advi", {"total_grad_norm_constraint": 5.0}),
    "averaged": ("advi", {"average": 0.5, "obj_n_mc": 2}),
    "particles": ("svgd", {"inf_kwargs": {"n_particles": 5}}),
    "of all rows": ("advi", {"reduction": "mean"}),
}


@pytest.mark.parametrize("kind", FITS)
def test_any_number_of_workers(in_process: None, kind: str) -> None:
    method, options = FITS[kind]
    fits = []
    for workers in (1, 2, 4):
        trainer = trainer_of(workers, method, **options)
        trainer.fit(25)
        fits.append(trainer)
    assert any((value != 0).any() for value in values_of(fits[0]))
    same(fits[0], fits[1])
    same(fits[0], fits[2])
    assert fits[1].approx.report.settings["workers"] == 2
    assert fits[1].approx.report.driver == "workers"


def test_of_the_right_posterior(in_process: None) -> None:
    """Normal rows with a known sd: the mean-field optimum is the posterior."""

    def normal(loader: pm.DataLoader) -> pm.Model:
        with pm.Model() as model:
            y = pm.Data("y", loader, dims="obs")
            pm.Normal("like", pm.Normal("m", 0, 10), 2, observed=y, dims="obs")
        return model

    trainer = trainer_of(2, make=normal, obj_optimizer="tuned")
    trainer.fit(2000)
    precision = N / 4 + 1 / 100
    mean, sd = Y.sum() / 4 / precision, precision**-0.5
    assert abs(trainer.approx.mean.eval()[0] - mean) < 0.2 * sd
    np.testing.assert_allclose(trainer.approx.std.eval(), sd, rtol=0.2)


@pytest.mark.filterwarnings(JAX_COPIES)
@pytest.mark.parametrize("backend", ["numba", "jax"])
def test_of_the_right_posterior_when_compiled(in_process: None, backend: str) -> None:
    """Each step has draws of its own."""

    def normal(loader: pm.DataLoader) -> pm.Model:
        with pm.Model() as model:
            y = pm.Data("y", loader, dims="obs")
            pm.Normal("like", pm.Normal("m", 0, 10), 2, observed=y, dims="obs")
        return model

    loader = loader_of()
    trainer = pm.Trainer(
        dataloader=loader,
        model=normal(loader),
        workers=2,
        random_seed=1,
        backend=backend,
        progressbar=False,
        obj_optimizer="tuned",
    )
    trainer.fit(600)
    sd = (N / 4 + 1 / 100) ** -0.5
    assert abs(trainer.approx.mean.eval()[0] - Y.sum() / 4 * sd**2) < 0.4 * sd
    np.testing.assert_allclose(trainer.approx.std.eval(), sd, rtol=0.3)


def test_values_that_a_callback_sets(in_process: None) -> None:
    """Workers compute with the values of now: here the data are doubled after 10 steps."""

    def scaled(loader: pm.DataLoader) -> pm.Model:
        with pm.Model() as model:
            y = pm.Data("y", loader, dims="obs")
            scale = pm.Data("scale", 1.0)
            pm.Normal("like", scale * pm.Normal("m", 0, 10), 2, observed=y, dims="obs")
        return model

    def halve(approx: Any, losses: Any, i: int) -> None:
        if i == 10:
            with model:
                pm.set_data({"scale": 0.5})

    fits = []
    for workers in (1, 2):
        loader = loader_of()
        model = scaled(loader)
        trainer = pm.Trainer(
            dataloader=loader,
            model=model,
            workers=workers,
            random_seed=1,
            callbacks=[halve],
            **QUIET,
        )
        trainer.fit(20)
        fits.append(trainer)
    same(*fits)
    unchanged = trainer_of(1, make=scaled)
    unchanged.fit(10)
    program = program_of(unchanged)
    point = np.array([3.0, -40.0])
    plain, halved, doubled = (
        program.gradient(Gradient(point, 0, 1, changed), 0)[1]
        for changed in ({}, {0: np.array(0.5)}, {0: np.array(2.0)})
    )
    assert len({plain, halved, doubled}) == 3
    close(program)


def test_an_error_of_a_worker_leaves_a_state_to_go_on_from(
    in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled steps change arrays in place: the fit goes on from where the counters are."""
    options: dict[str, Any] = {"compile_kwargs": None}
    whole = trainer_of(2, **options)
    whole.fit(30)
    gradient, broken = GradientProgram.gradient, [True]

    def fail_at_20(self: Any, task: Gradient, shard: int) -> np.ndarray:
        if task.number == 20 and broken:
            raise OSError("a file is gone")
        return gradient(self, task, shard)

    monkeypatch.setattr(GradientProgram, "gradient", fail_at_20)
    trainer = trainer_of(2, **options)
    with pytest.raises(OSError, match="a file is gone"):
        trainer.fit(30)
    broken.clear()
    assert trainer.batches_seen <= 20
    trainer.fit(30 - trainer.batches_seen)
    same(trainer, whole, 0.0)


def test_a_checkpoint_of_another_gradient(in_process: None, tmp_path: Path) -> None:
    """The step here has none of the model: what workers compute is compared too."""

    def of_scale(scale: float) -> Callable:
        def make(loader: pm.DataLoader) -> pm.Model:
            with pm.Model() as model:
                y = pm.Data("y", loader, dims="obs")
                m = pm.Normal("m", 0, 10)
                pm.Normal("like", pm.Data("k", scale) * m, 2, observed=y, dims="obs")
            return model

        return make

    trainer_of(2, make=of_scale(1.0)).fit(3, checkpoint=tmp_path)
    loader = loader_of()
    for scale, fits in ((1.0, True), (2.0, False)):
        options: dict[str, Any] = {"dataloader": loader, "workers": 2, **QUIET}
        options["model"] = of_scale(scale)(loader)
        if fits:
            assert pm.Trainer.load(tmp_path, **options).batches_seen == 3
        else:
            with pytest.raises(ValueError, match=r"\bk\b.*in the checkpoint"):
                pm.Trainer.load(tmp_path, **options)


def test_parameters_of_the_model(in_process: None) -> None:
    fits = []
    for workers in (1, 2):
        loader = loader_of()
        slope = pytensor.shared(np.array([0.5, -0.5]), "slope", shape=(2,))
        with pm.Model() as model:
            x, y = pm.Data("x", loader, dims=("obs", "column")), pm.Data("y", loader, dims="obs")
            pm.Normal("like", x @ slope + pm.Normal("a", 0, 1), 2, observed=y, dims="obs")
        trainer = pm.Trainer(
            dataloader=loader, model=model, workers=workers, params=[slope], random_seed=1, **QUIET
        )
        trainer.fit(10)
        fits.append((trainer, slope.get_value()))
    assert abs(fits[0][1] - [0.5, -0.5]).min() > 1e-4
    np.testing.assert_allclose(fits[0][1], fits[1][1], rtol=1e-10)
    same(fits[0][0], fits[1][0])


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_latent_variables_of_rows_by_their_data(in_process: None, objective: str) -> None:
    """A bound for each row, and an encoder, whose weights are parameters of all rows."""
    fits = []
    for workers in (1, 2):
        loader = loader_of()
        weight = pytensor.shared(np.array([0.1, 0.2]), "weight", shape=(2,))

        def encode(y: Any, weight: Any = weight) -> Any:
            return pm.Normal.dist(weight[0] * y, pt.softplus(weight[1]))

        with pm.Model() as model:
            y = pm.Data("y", loader, dims="obs")
            z = pm.Normal("z", pm.Normal("m", 0, 2), 1, dims="obs")
            pm.Normal("like", z, 1, observed=y, dims="obs")
        guide = pm.Amortized({"z": encode}, inputs=[y], dim="obs")
        options = {"n_particles": 3} if objective == "iwae" else {}
        trainer = pm.Trainer(
            dataloader=loader,
            model=model,
            workers=workers,
            guide=guide,
            objective=objective,
            random_seed=1,
            **QUIET,
            **options,
        )
        trainer.fit(10)
        fits.append(trainer)
    same(*fits)


def test_float32(in_process: None) -> None:
    with pytensor.config.change_flags(floatX="float32"):
        fits = [trainer_of(workers) for workers in (1, 2)]
        for trainer in fits:
            trainer.fit(10)
        assert values_of(fits[0])[0].dtype == "float32"
        same(fits[0], fits[1], 1e-5)


def test_a_fit_goes_on_with_another_number_of_workers(in_process: None, tmp_path: Path) -> None:
    whole = trainer_of(2)
    whole.fit(30)
    trainer_of(2).fit(20, checkpoint=tmp_path)
    for workers, rtol in ((2, 0.0), (4, 1e-10)):
        loader = loader_of()
        model = regression(loader)
        resumed = pm.Trainer.load(
            tmp_path, dataloader=loader, model=model, workers=workers, **QUIET
        )
        assert resumed.batches_seen == 20 and resumed.position == Position(1, 20 * B - N)
        resumed.fit(10, checkpoint=None)
        same(resumed, whole, rtol)


def test_a_step_that_is_not_finite(in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard is nan: the fit keeps the state of the last good step."""
    good = trainer_of(2)
    good.fit(7)
    gradient = GradientProgram.gradient

    def nan_at_7(self: Any, task: Gradient, shard: int) -> np.ndarray:
        factor = np.nan if (task.number, shard) == (7, 13) else 1.0
        return factor * gradient(self, task, shard)

    monkeypatch.setattr(GradientProgram, "gradient", nan_at_7)
    trainer = trainer_of(2)
    with pytest.raises(FloatingPointError, match="Step 8 is not finite"):
        trainer.fit(20)
    same(trainer, good, 0.0)
    assert trainer.batches_seen == 7


def test_workers_that_make_steps_slower(
    in_process: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer_of(2).fit(30)
    [warning] = [r.message for r in caplog.records if "messages take longer" in r.message]
    assert "with 2 workers" in warning


def test_ctrl_c(in_process: None) -> None:
    """It ends a step that waits for workers; the steps before are kept."""
    good = trainer_of(2)
    good.fit(7)
    with interrupted_at(7):
        trainer = trainer_of(2)
        trainer.fit(20)
    assert trainer.approx.report.stopped == "interrupted"
    assert trainer.batches_seen == 7
    same(trainer, good, 0.0)


def of_zeros(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        y = pm.Data("y", np.zeros(B))
        pm.Data("x", np.zeros((B, 2)))
        pm.Normal("like", pm.Normal("m"), 2, observed=y, total_size=N)
    return model


def beside_a_minibatch(loader: pm.DataLoader) -> pm.Model:
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        m = pm.Normal("m")
        pm.Normal("like", m, 2, observed=y, dims="obs")
        pm.Normal("more", m, 2, observed=pm.Minibatch(Y, batch_size=2))
    return model


# --- what is refused ---
@pytest.mark.parametrize(
    "make, options, error, message",
    [
        (regression, {"more_updates": {pytensor.shared(0.0): 1.0}}, TypeError, "more_updates of"),
        (of_zeros, {}, NotImplementedError, "pm.Data(name, loader, dims=...)"),
        (beside_a_minibatch, {}, NotImplementedError, "a pm.Minibatch beside them"),
        (regression, {"workers": 17}, ValueError, "more than the 16 that a step can use"),
    ],
)
def test_refusals(
    make: Callable, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    workers = options.get("workers", 2)
    more = {name: value for name, value in options.items() if name != "workers"}
    with pytest.raises(error, match=re.escape(message)):
        trainer_of(workers, make=make, **more).prepare()


def test_a_batch_of_too_few_shards() -> None:
    loader = pm.DataLoader(Y, batch_size=18)
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        pm.Normal("like", pm.Normal("m"), 1, observed=y, dims="obs")
    with pytest.raises(ValueError, match="a multiple of 16, such as batch_size=32"):
        pm.Trainer(dataloader=loader, model=model, workers=4)
    pm.Trainer(dataloader=loader, model=model, workers=2)


def test_an_operator_of_users() -> None:
    with pytest.raises(NotImplementedError, match="an operator or a group of your own has none"):
        GradientsOfWorkers.of(object())


# --- workers of a real Ray ---
def test_a_lost_worker_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("ray") is None:
        pytest.skip("needs Ray")
    killed: list[int] = []

    def kill(approx: Any, losses: Any, i: int) -> None:
        if i == 10 and workers == "killed":
            killed.append(trainer.worker_processes[-1][1])
            os.kill(killed[0], signal.SIGKILL)

    found = {}
    for workers in ("whole", "killed"):
        trainer = trainer_of(pm.Workers(2, timeout=20))
        trainer.fit(20, callbacks=[kill])
        found[workers] = trainer
    same(found["whole"], found["killed"], 0.0)
    assert trainer.worker_processes == []
    report = found["killed"].approx.report
    assert str(killed[0]) in report.settings["lost_workers"]
    assert "lost_workers" not in found["whole"].approx.report.settings
