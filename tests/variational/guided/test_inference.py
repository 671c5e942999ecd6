# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The release's classes on models with rows of their own variables, and what goes around a guided fit."""

from __future__ import annotations

import warnings

from copy import deepcopy
from typing import Any

import cloudpickle
import numpy as np
import pytensor
import pytest

from scipy import stats

import pymc as pm

from pymc.variational.approximation import guided_approximation
from pymc.variational.callbacks import CheckParametersConvergence, CheckStationarity, Tracker
from pymc.variational.early_stopping import flat_parameters, flat_scales
from pymc.variational.fit_objective import FitObjective
from pymc.variational.inference import Inference, KLqp
from pymc.variational.objectives import objective_of
from pymc.variational.operators import KL
from pymc.variational.opvi import Group
from pymc.variational.plots import fit_panels
from tests.variational.engine import assert_same, params_of, quiet
from tests.variational.guided.fits import NAMES, X, exact, local_model


def global_and_local() -> pm.Model:
    with pm.Model(coords={"obs": NAMES}) as model:
        batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
        mu = pm.Normal("mu")
        z = pm.Normal("z", mu, 1, dims="obs")
        pm.Normal("x", z, 1, observed=batch, dims="obs")
    return model


@pytest.fixture(scope="module")
def model() -> pm.Model:
    return global_and_local()


@pytest.fixture(scope="module")
def fitted(model: pm.Model) -> Any:
    """A method with 30 steps behind it, of which 10 by `refine`, and a tracker of its mean."""
    method = pm.ADVI(model=model, random_seed=1)
    tracker = Tracker(every=5, mean=method.approx.mean.eval)
    method.fit(20, callbacks=[tracker], **quiet())
    method.refine(10, progressbar=False)
    assert len(tracker["mean"]) == 6
    assert tracker["mean"][0].shape == (7,)
    return method


def test_advi_is_the_guide_of_fit(model: pm.Model, fitted: Any) -> None:
    assert isinstance(fitted, Inference)
    by_name = pm.fit(20, model=model, random_seed=1, **quiet())
    np.testing.assert_array_equal(fitted.hist[:20], by_name.hist)
    with model:
        method = pm.ADVI(random_seed=1)
    by_object = pm.fit(20, method=method, **quiet())
    assert_same(params_of(by_object), params_of(by_name))


def test_full_rank_advi_is_of_globals(model: pm.Model) -> None:
    approx = pm.FullRankADVI(model=model).approx
    assert [type(guide).__name__ for guide in approx.guides] == ["FullRankGuide", "MeanFieldGuide"]
    with pytest.raises(ValueError, match="couples the rows of 'z'"):
        pm.fit(1, model=model, guide="full_rank")


def test_arguments_of_groups_are_refused(model: pm.Model) -> None:
    with pytest.raises(TypeError, match=r"pm\.ADVI got vfam='mf', .* takes model, random_seed, "):
        pm.ADVI(model=model, vfam="mf")


@pytest.mark.parametrize(
    "make",
    [
        pm.SVGD,
        pm.ASVGD,
        lambda model: pm.Empirical(size=3, model=model),
        lambda model: Group(list(model.free_RVs), vfam="mf", model=model),
        lambda model: Group([model["mu"]], vfam="mf", model=model),
    ],
)
def test_a_value_for_each_row_of_a_batch_is_refused(model: pm.Model, make: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using experimental inference Operator")
        with pytest.raises(
            ValueError, match=r"couples the rows of 'z'|'z' has one for each row|the rows of 'z'"
        ):
            make(model=model)


def test_any_approximation_has_a_divergence(fitted: Any) -> None:
    """One with rows of its own too; an operator of the user's own is about groups."""
    again = KLqp(deepcopy(fitted.approx), beta=2.0)
    assert again.objective.op.beta == 2
    with pytest.raises(
        NotImplementedError, match=r"MeanField\[mu\].* has no form as PyMC's groups"
    ):
        KL(fitted.approx)(None)(1)


def test_classes_stay_what_they_were_without_rows() -> None:
    with pm.Model() as model:
        pm.Normal("mu")
    assert type(pm.ADVI(model=model)) is pm.ADVI


def test_the_report_says_what_was_optimised(fitted: Any) -> None:
    report = fitted.approx.report
    assert (report.method, report.n_steps, report.loss_factor) == ("ADVI", 30, pytest.approx(1 / 3))
    assert report.settings["objective"] == "elbo"
    assert report.settings["reduction"] == "batch"
    assert report.settings["guide"].startswith("MeanField{MeanField[mu]")
    assert fitted.approx.sample(2)["fit"].attrs["loss_factor"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("batch_size", "bound"),
    [(2, "of each row of 'obs'"), (None, "jointly of all variables and rows")],
)
def test_what_a_bound_of_particles_is_of(
    batch_size: int | None, bound: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By row on minibatches, and jointly on full data: another bound, which the report names."""
    model = local_model(batch_size=batch_size)
    with caplog.at_level("INFO", "pymc"):
        approx = pm.fit(2, model=model, objective="iwae", n_particles=3, **quiet())
    assert approx.report.settings["bound"] == bound
    assert str(approx.report).endswith(f"; the iwae bound is {bound}, by 3 particles")
    assert caplog.messages[-1].endswith(f", a bound {bound}")
    assert approx.sample(2)["fit"].attrs["bound"] == bound


@pytest.mark.parametrize(
    "options", [{"objective": "elbo"}, {"objective": "iwae", "n_particles": 1}]
)
def test_one_particle_has_no_such_choice(options: Any) -> None:
    approx = guided_approximation(local_model())
    objective = objective_of(options["objective"])
    made = FitObjective(approx, objective, options.get("n_particles", 4))
    assert made.bound is None


@pytest.mark.parametrize(("reduction", "factor"), [("sum", 1.0), ("mean", 1 / 6)])
def test_the_factor_of_a_reduction(model: pm.Model, reduction: str, factor: float) -> None:
    approx = pm.fit(2, model=model, reduction=reduction, objective="iwae", **quiet())
    assert approx.report.loss_factor == pytest.approx(factor)
    assert approx.report.method == "IWAE"


def test_the_plot_is_in_nats_of_all_data(fitted: Any) -> None:
    [panel] = fit_panels(fitted.approx)
    assert panel.ylabel == "loss in nats of all data, and its running mean"
    np.testing.assert_allclose(panel.layers[0].y, 3 * fitted.hist, rtol=1e-12)


def test_copies_go_their_own_way(fitted: Any) -> None:
    copied = deepcopy(fitted)
    before = params_of(fitted.approx)
    copied.refine(5, progressbar=False)
    assert_same(before, params_of(fitted.approx))
    assert not np.array_equal(params_of(copied.approx)[0], before[0])
    draws = copied.approx.sample(3, random_seed=1)["posterior"]
    assert draws["z"].shape == (1, 3, 6)
    mean = copied.approx.mean.eval()
    np.testing.assert_array_equal(mean[1:], params_of(copied.approx)[-1][:, 0])


def test_a_copy_of_an_encoder_has_weights_of_its_own() -> None:
    slope = pytensor.shared(0.5, name="slope")
    model = local_model()
    seen = model.rvs_to_values[model["x"]]
    encode = {"z": lambda x: pm.Normal.dist(slope * x, 1e-6)}
    approx = guided_approximation(model, pm.Amortized(encode, inputs=[seen], dim="obs"))
    copied = deepcopy(approx)
    slope.set_value(3.0)
    np.testing.assert_allclose(copied.sample(1)["posterior/z"][0, 0], X / 2, atol=1e-4)
    np.testing.assert_allclose(approx.sample(1)["posterior/z"][0, 0], X * 3, atol=1e-4)


def test_an_approximation_can_be_pickled(fitted: Any) -> None:
    again = cloudpickle.loads(cloudpickle.dumps(fitted.approx))
    assert_same(params_of(again), params_of(fitted.approx))
    some = {"rows": {"obs": ["f"]}, "random_seed": 1}
    np.testing.assert_array_equal(
        again.sample(4, **some)["posterior/z"], fitted.approx.sample(4, **some)["posterior/z"]
    )


def test_callbacks_watch_what_rows_share(fitted: Any) -> None:
    approx = fitted.approx
    mu, rho = (param.get_value() for param in approx.dense_params)
    np.testing.assert_array_equal(flat_parameters(approx), [*mu, *rho])
    sd = np.log1p(np.exp(rho[0]))
    np.testing.assert_allclose(flat_scales(approx), [sd, sd * (1 + np.exp(-rho[0]))], rtol=1e-10)
    check = CheckParametersConvergence(every=5, tolerance=1e9)
    check(approx, None, 1)
    with pytest.raises(StopIteration, match="Convergence achieved at 5"):
        check(approx, None, 5)


def test_stationarity_of_rows_alone_is_not_told() -> None:
    with pytest.raises(ValueError, match="only change when the row is in a batch"):
        CheckStationarity()(exact(local_model()), None, 10)


def test_diagnosis_of_an_exact_guide() -> None:
    diagnosis = pm.variational.diagnose(exact(local_model()), 100, random_seed=1)
    assert diagnosis.verdict == "good"
    assert diagnosis.elbo == pytest.approx(stats.norm(0, np.sqrt(2)).logpdf(X).sum(), rel=1e-8)
    assert diagnosis.points["z"].shape == (100, 6)


def test_a_step_that_fails_names_its_terms(model: pm.Model) -> None:
    method = pm.ADVI(model=model, random_seed=1)
    method.fit(0, **quiet())
    [table] = method.approx.storage.tables.values()
    table.shared.get_value(borrow=True)[:, :2] = [np.inf, 0.0]
    with pytest.raises(FloatingPointError, match="log-probability of `z` is -inf"):
        method.refine(1, progressbar=False)
