# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Automatic fits of rows that a loader reads."""

from __future__ import annotations

import signal

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pymc as pm

from pymc.variational.auto import AutoInference, inference
from pymc.variational.auto.log_posterior import LoadedRows, LogPosterior
from pymc.variational.guides.initial_values import InitialValues
from pymc.variational.placeholders import make_feed
from tests.variational.auto.problems import Regression, log_posterior
from tests.variational.engine import PYTHON

QUIET: dict[str, Any] = {"compile_kwargs": {"mode": PYTHON}, "progressbar": False}

PROBLEM = Regression(2003)


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "SUBSAMPLES", (100, 300))
    monkeypatch.setattr(inference, "MANY_ROWS", 2000)
    monkeypatch.setattr("pymc.variational.auto.log_posterior.FEWEST_READ", 1000)


def loader_of(batch_size: int = 50, **options: Any) -> pm.DataLoader:
    data = {"x": PROBLEM.X, "y": PROBLEM.y}
    return pm.DataLoader(data, batch_size=batch_size, **{"shuffle": True, "seed": 1} | options)


def model_of(loader: Any) -> pm.Model:
    with pm.Model() as model:
        x = pm.Data("x", loader, dims=("obs", "column"))
        y = pm.Data("y", loader, dims="obs")
        b = pm.Flat("b", shape=3)
        pm.Normal("like", x @ b, 2, observed=y, dims="obs")
    return model


def trainer_of(**options: Any) -> pm.Trainer:
    loader = loader_of()
    return pm.Trainer(
        "auto", dataloader=loader, model=model_of(loader), **{"random_seed": 1} | QUIET | options
    )


def check(approx: Any) -> None:
    """The posterior is normal, so that the passes are exact but for the noise of their draws."""
    mean, sd = approx.normal.mean.eval(), approx.normal.std.eval()
    np.testing.assert_allclose((mean - PROBLEM.mean) / PROBLEM.sd, 0, atol=0.03)
    np.testing.assert_allclose(sd / PROBLEM.sd, 1, atol=0.06)
    assert approx.report.trusted and approx.report.converged


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("length", [7, 100, 5000])
def test_each_pass_has_all_rows_once(shuffle: bool, length: int) -> None:
    loader = loader_of(shuffle=shuffle)
    rows = LoadedRows(make_feed(model_of(loader), loader), 1)
    for _ in range(2):
        blocks = [block for some in rows.blocks(length, 3) for block in some[1]]
        assert {len(block) for block in blocks[:-1]} <= {length}
        assert len(blocks[-1]) == (2003 % length or length)
        np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.sort(PROBLEM.y))
    assert rows.n_passes == 2


def test_a_part_is_of_all_rows() -> None:
    """Each place of the data is as likely, in a loader that does not shuffle too."""
    loader = loader_of(shuffle=False)
    rows = LoadedRows(make_feed(model_of(loader), loader), 1)
    x, y, numbers = rows.part(500, np.random.default_rng(1))
    assert len(np.unique(numbers)) == 500
    np.testing.assert_array_equal(x, PROBLEM.X[numbers])
    np.testing.assert_array_equal(y, PROBLEM.y[numbers])
    assert abs(numbers.mean() - 1001) < 4 * 2003 / np.sqrt(12 * 500)
    assert rows.most == 2003 and len(rows.part(2003, np.random.default_rng(1))[0]) == 2003


def test_it_is_the_log_posterior_of_all_rows() -> None:
    loader = loader_of()
    model = model_of(loader)
    feed = make_feed(model, loader)
    logp = LogPosterior.of(model, InitialValues.from_model(model), 1, feed, mode=PYTHON)
    points = PROBLEM.mean + np.random.default_rng(1).normal(size=(3, 3)) * PROBLEM.sd
    for found, right in zip(logp(points), log_posterior(PROBLEM.model())(points)):
        np.testing.assert_allclose(found, right)


def test_by_a_trainer() -> None:
    trainer = trainer_of()
    approx = trainer.fit()
    check(approx)
    assert trainer.state is not None and trainer.state.i <= 5
    assert trainer.position.row == 0
    assert approx.sample(10, random_seed=1).posterior["b"].shape == (1, 10, 3)


def test_by_fit() -> None:
    loader = loader_of(shuffle=False)
    check(pm.fit(method="auto", model=model_of(loader), data=loader, random_seed=1, **QUIET))


def test_data_of_arrays() -> None:
    """A placeholder that was made of zeros, and is fed by a loader of arrays."""
    loader = pm.DataLoader(np.column_stack([PROBLEM.X, PROBLEM.y]), 50, shuffle=True, seed=1)
    with pm.Model() as model:
        batch = pm.Data("batch", np.zeros((50, 4)))
        b = pm.Flat("b", shape=3)
        pm.Normal("y", batch[:, :3] @ b, 2, observed=batch[:, 3], total_size=len(loader))
    check(pm.Trainer("auto", dataloader=loader, model=model, random_seed=1, **QUIET).fit())


@pytest.fixture
def three_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pymc.variational.auto.full_data_passes.CONVERGED", 0.0)
    monkeypatch.setattr(inference, "MAX_PASSES", 3)


@cache
def of_three_passes() -> Any:
    return trainer_of().fit()


def test_few_rows_are_fitted_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The posterior of six rows is no normal distribution, and its draws are as of rows in memory."""
    monkeypatch.setattr(inference, "MANY_ROWS", 50_000)
    y = np.random.default_rng(2).normal(size=6)
    loader = pm.DataLoader(y, batch_size=3, shuffle=True, seed=1)
    with pm.Model() as model:
        rows = pm.Data("rows", loader, dims="obs")
        mu, sd = pm.Flat("mu"), pm.HalfFlat("sd")
        pm.Normal("like", mu, sd, observed=rows, dims="obs")
    trainer = pm.Trainer("auto", dataloader=loader, model=model, random_seed=1, **QUIET)
    approx = trainer.fit(checkpoint=tmp_path / "fit")
    # mu is Student-t with 4 degrees of freedom: given log sd, the prior of which is exp(log sd)
    right = np.sqrt(4 / 2) * np.sqrt(((y - y.mean()) ** 2).sum() / 4 / 6)
    found = approx.sample(4000, random_seed=1).posterior["mu"].values.std()
    assert approx.report.trusted is False or abs(found / right - 1) < 0.2
    again = pm.Trainer.load(tmp_path / "fit", dataloader=loader, model=model, **QUIET)
    draws = [one.sample(20, random_seed=2).posterior["mu"] for one in (again.approx, approx)]
    np.testing.assert_array_equal(*draws)


class Killed(BaseException):
    pass


def test_a_fit_that_was_killed_goes_on_bit_for_bit(
    tmp_path: Path, three_passes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = of_three_passes()
    trainer = trainer_of(checkpoint=tmp_path / "fit")
    take = inference.next_pass
    passes = []

    def fails(*args: Any) -> Any:
        found = take(*args)
        passes.append(found)
        if len(passes) == 2:
            raise Killed
        return found

    monkeypatch.setattr(inference, "next_pass", fails)
    with pytest.raises(Killed):
        trainer.fit()
    monkeypatch.setattr(inference, "next_pass", take)
    loader = loader_of()
    again = pm.Trainer.load(tmp_path / "fit", dataloader=loader, model=model_of(loader), **QUIET)
    assert again.state is not None and again.state.i == 2
    found = again.fit()
    for one, other in zip(found.params, whole.params):
        np.testing.assert_array_equal(one.get_value(), other.get_value())
    assert str(found.report.verdict) == str(whole.report.verdict)
    assert found.report.n_steps == whole.report.n_steps
    loaded = pm.Trainer.load(tmp_path / "fit", dataloader=loader, model=model_of(loader), **QUIET)
    draws = [approx.sample(20, random_seed=2).posterior["b"] for approx in (loaded.approx, whole)]
    np.testing.assert_array_equal(*draws)


def test_a_fit_that_was_interrupted_goes_on(
    three_passes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that is stopped is taken again, with the same draws and rows."""
    whole, trainer = of_three_passes(), trainer_of()
    take = inference.next_pass

    def interrupted(*args: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return take(*args)

    monkeypatch.setattr(inference, "next_pass", interrupted)
    assert trainer.fit().report.stopped == "interrupted"
    monkeypatch.setattr(inference, "next_pass", take)
    found = trainer.fit()
    np.testing.assert_array_equal(found.normal.mean.eval(), whole.normal.mean.eval())
    np.testing.assert_array_equal(found.normal.std.eval(), whole.normal.std.eval())


def test_what_it_takes() -> None:
    loader = loader_of()
    model = model_of(loader)
    with pytest.raises(ValueError, match="data=loader"):
        pm.fit(method="auto", model=model, **QUIET)
    trainer = pm.Trainer("auto", dataloader=loader, model=model, **QUIET)
    with pytest.raises(TypeError, match="n=20000"):
        trainer.fit(20_000)
    with pytest.raises(TypeError, match=r"trainer\.fit\(\) goes on"):
        trainer.refine(10)
    with pytest.raises(TypeError, match="guide='mean_field'"):
        trainer.fit(guide="mean_field")
    with pytest.raises(TypeError, match="callbacks"):
        trainer.fit(callbacks=[print])


def test_latent_variables_of_rows_are_refused() -> None:
    loader = loader_of()
    with pm.Model() as model:
        y = pm.Data("y", loader, dims="obs")
        z = pm.Normal("z", dims="obs")
        pm.Normal("like", z, 2, observed=y, dims="obs")
    with pytest.raises(ValueError, match="all rows of 'z' in memory"):
        AutoInference(model)


def test_an_iterator_is_read_once() -> None:
    blocks = iter([PROBLEM.X[:, 1:], PROBLEM.X[:, 1:]])
    loader = pm.DataLoader(blocks, batch_size=50, total_size=4006)
    with pm.Model() as model:
        x = pm.Data("x", loader, dims=("obs", "column"))
        mu = pm.Flat("mu", shape=2)
        pm.Normal("like", mu, 1, observed=x, dims=("obs", "column"))
    with pytest.raises(ValueError, match="only once"):
        pm.Trainer("auto", dataloader=loader, model=model, **QUIET).fit()
