# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Reports of fits, and their datasets beside the draws, in memory and in a file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytensor
import pytest
import xarray as xr

import pymc as pm

from pymc.variational.report import FitReport, add_fit, fit_dataset

SETTINGS = {"optimizer": "adam(learning_rate=0.01)", "obj_n_mc": 1, "rate": 0.5, "score": True}
REPORT = FitReport("ADVI", "numba", "numba", 3, 0.5, 2.0, "finished", SETTINGS)
LOSSES = np.array([9.0, 4.0, 3.5])


@pytest.fixture
def draws() -> xr.DataTree:
    posterior = xr.Dataset({"x": (("chain", "draw"), np.zeros((1, 4)))})
    return xr.DataTree.from_dict({"/posterior": posterior}, name="draws")


def approx(**attributes: Any) -> Any:
    return SimpleNamespace(**{"hist": (), "report": None, **attributes})


def test_losses_and_settings(draws):
    tree = add_fit(draws, approx(hist=LOSSES, report=REPORT))
    np.testing.assert_array_equal(tree["fit/loss"], LOSSES)
    assert tree["fit/loss"].dims == ("step",)
    assert type(tree["fit"].attrs["score"]) is int  # netCDF has no bool
    assert tree["fit/step"].values.tolist() == [1, 2, 3]
    assert tree["fit"].attrs == {
        "method": "ADVI",
        "driver": "numba",
        "backend": "numba",
        "n_steps": 3,
        "seconds": 0.5,
        "compile_seconds": 2.0,
        "stopped": "finished",
        "optimizer": "adam(learning_rate=0.01)",
        "obj_n_mc": 1,
        "rate": 0.5,
        "score": 1,
    }


def test_the_draws_stay(draws):
    tree = add_fit(draws, approx(hist=LOSSES, report=REPORT))
    assert set(draws.children) == {"posterior"}
    assert set(tree.children) == {"posterior", "fit"}
    assert tree.name == "draws"
    xr.testing.assert_identical(tree["posterior"].to_dataset(), draws["posterior"].to_dataset())


@pytest.mark.parametrize("attributes", [{}, {"hist": np.asarray(()), "report": None}])
def test_nothing_of_what_was_not_fitted(draws, attributes):
    assert add_fit(draws, approx(**attributes)) is draws


def test_a_fit_without_a_score(draws):
    tree = add_fit(draws, approx(hist=np.asarray(()), report=REPORT))
    assert tree["fit"].attrs["method"] == "ADVI"
    assert "loss" not in tree["fit"]


def test_losses_without_a_report():
    dataset = fit_dataset(approx(hist=LOSSES))
    assert dataset is not None
    assert dataset.attrs == {}
    assert dataset.sizes == {"step": 3}


def test_a_setting_does_not_hide_what_ran():
    report = FitReport("SVGD", "python", "c", 1, 0.0, 0.0, "finished", {"driver": "numba"})
    dataset = fit_dataset(approx(hist=LOSSES, report=report))
    assert dataset is not None
    assert dataset.attrs["driver"] == "python"


def test_losses_are_not_copied():
    losses = np.zeros(1000)
    dataset = fit_dataset(approx(hist=losses, report=REPORT))
    assert dataset is not None
    assert np.shares_memory(dataset["loss"].values, losses)


def test_a_file_holds_it(tmp_path):
    """In the oldest form of netCDF, which holds the least, and needs nothing but SciPy."""
    dataset = fit_dataset(approx(hist=LOSSES, report=REPORT))
    assert dataset is not None
    dataset.to_netcdf(tmp_path / "fit.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "fit.nc", engine="scipy") as back:
        xr.testing.assert_equal(back, dataset)
        assert back.attrs == dataset.attrs


def test_sample_of_a_fit():
    with pytensor.config.change_flags(mode="FAST_COMPILE"), pm.Model():
        pm.Normal("x")
        advi = pm.ADVI(random_seed=1)
        assert "fit" not in advi.approx.sample(5).children
        approx = advi.fit(20, progressbar=False)
        tree = approx.sample(5)
        np.testing.assert_array_equal(tree["fit/loss"], approx.hist)
        assert tree["fit"].attrs["method"] == "ADVI"
        assert tree["fit"].attrs["n_steps"] == 20
        assert not hasattr(approx.sample(5, return_inferencedata=False), "children")


class TestReport:
    def test_rate(self):
        assert REPORT.steps_per_second == 6
        assert np.isnan(FitReport("ADVI", "jax", "jax", 0, 0.0, 0.0, "finished").steps_per_second)

    def test_sentence(self):
        assert str(REPORT) == (
            "ADVI: 3 steps in 0.5 s (6 steps/s; numba), compiled in 2 s, finished"
        )
        python = FitReport("SVGD", "python", "c", 0, 0.0, 1.0, "interrupted")
        assert str(python) == "SVGD: 0 steps in 0 s (python, c), compiled in 1 s, interrupted"

    def test_after(self):
        later = REPORT.after(n_steps=2, seconds=1.5, stopped="interrupted")
        assert (later.n_steps, later.seconds, later.stopped) == (5, 2.0, "interrupted")
        assert later.settings == SETTINGS
        assert later.compile_seconds == 2.0
