# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""An approximation that was saved draws the same, and is refused for another model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

from pathlib import Path
from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import pymc as pm

from pymc.variational.checkpoints.approximation import set_value
from pymc.variational.checkpoints.identity import model_identity
from pymc.variational.checkpoints.store import CheckpointMismatchError, DamagedCheckpointError
from pymc.variational.guides.base import FlatGuide
from pymc.variational.local_params.table import aligned_zeros
from tests.variational.engine import PYTHON

X = np.random.default_rng(1).normal(2, 1, size=6)


@pytest.fixture(autouse=True)
def python_mode() -> Any:
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


def plain_model(prior: Any = pm.HalfNormal, length: int = 2, **kwargs: Any) -> pm.Model:
    with pm.Model(coords={"group": range(length)}) as model:
        mu = pm.Normal("mu", 0, 1, dims="group", **kwargs)
        sigma = prior("sigma", 1)
        pm.Normal("y", mu[0], sigma, observed=X)
    return model


def local_model() -> pm.Model:
    with pm.Model() as model:
        data = pm.Data("data", X, dims="obs")
        batch = pm.Minibatch(data, batch_size=2)
        mu = pm.Normal("mu")
        tau = pm.HalfNormal("tau")
        z = pm.Normal("z", mu, tau, dims="obs")
        pm.Normal("y", z, 1, observed=batch, dims="obs")
    return model


def fitted(model: pm.Model, **kwargs: Any) -> Any:
    return pm.fit(
        7,
        model=model,
        random_seed=1,
        progressbar=False,
        compile_kwargs={"mode": PYTHON},
        **kwargs,
    )


def same_draws(approx: Any, again: Any) -> bool:
    one, two = (a.sample(5, random_seed=3).posterior.to_dataset() for a in (approx, again))
    return one.equals(two)


PLAIN = [
    {"method": "advi"},
    {"method": "fullrank_advi"},
    {"method": "svgd", "inf_kwargs": {"n_particles": 5}},
    {"guide": "low_rank"},
    {"guide": {("sigma", "mu"): "full_rank"}},
    {
        "guide": {"sigma": "mean_field", "mu": pm.LowRank(rank=1)},
        "objective": "iwae",
        "n_particles": 2,
    },
]
LOCAL = [{}, {"guide": {"z": "row_full_rank", None: "full_rank"}, "average": 0.5}]


@pytest.mark.parametrize("kwargs", PLAIN, ids=str)
def test_the_same_draws(tmp_path, kwargs):
    approx = fitted(plain_model(), **kwargs)
    path = approx.save(tmp_path / "fit")
    again = pm.load_approximation(path, model=plain_model())
    assert type(again) is type(approx)
    assert same_draws(approx, again)
    np.testing.assert_array_equal(again.hist, approx.hist)
    assert again.report == approx.report
    assert again.sample(2).fit.attrs == approx.sample(2).fit.attrs


@pytest.mark.parametrize("kwargs", LOCAL, ids=str)
def test_rows(tmp_path, kwargs):
    approx = fitted(local_model(), **kwargs)
    again = pm.load_approximation(approx.save(tmp_path / "fit"), model=local_model())
    assert same_draws(approx, again)
    for one, two in zip(approx.storage.tables.values(), again.storage.tables.values()):
        np.testing.assert_array_equal(one.parameters(), two.parameters())


def test_encoders_are_given_again(tmp_path):
    def fit() -> tuple[pm.Model, Any, Any]:
        slope = pytensor.shared(0.5, "slope")
        with pm.Model() as model:
            batch = pm.Minibatch(pm.Data("data", X, dims="obs"), batch_size=2)
            z = pm.Normal("z", 0, 1, dims="obs")
            pm.Normal("y", z, 1, observed=batch, dims="obs")
        guide = pm.Amortized({"z": lambda x: pm.Normal.dist(slope * x, 1)}, [batch], "obs")
        return model, guide, slope

    model, guide, slope = fit()
    approx = fitted(model, guide=guide)
    path = approx.save(tmp_path / "fit")
    model, guide, again_slope = fit()
    with pytest.raises(TypeError, match=r"Give guide= of pm\.load_approximation"):
        pm.load_approximation(path, model=model)
    again = pm.load_approximation(path, model=model, guide=guide)
    assert again_slope.get_value() == slope.get_value() != 0.5
    assert same_draws(approx, again)


class Uniform(FlatGuide):
    """A guide of a user's own, with arguments."""

    name = "uniform"

    def __init__(self, log_width: float = 0.0) -> None:
        self.log_width = log_width

    def start(self, starts: Any) -> dict[str, Any]:
        zeros = np.zeros(self.layout.size)
        return {"low": starts.means(self.layout), "log_width": zeros + self.log_width}

    def sample(self, params: Any, lead: Any) -> Any:
        rng = pytensor.shared(np.random.default_rng())
        u = pt.random.uniform(size=(*lead, self.layout.size), rng=rng)
        return params["low"] + pt.exp(params["log_width"]) * u

    def log_density(self, z: Any, params: Any) -> Any:
        return (-params["log_width"] + 0 * z).sum(axis=-1)

    def config(self) -> dict[str, Any] | None:
        return {"log_width": self.log_width}


class Nameless(Uniform):
    def config(self) -> None:
        return None


def test_guides_of_ones_own(tmp_path):
    approx = fitted(plain_model(), guide=Uniform(log_width=-1.0))
    again = pm.load_approximation(approx.save(tmp_path / "fit"), model=plain_model())
    assert isinstance(again.guides[0], Uniform)
    assert again.guides[0].log_width == -1.0
    assert same_draws(approx, again)


def test_guides_without_arguments_are_given_again(tmp_path):
    path = fitted(plain_model(), guide=Nameless()).save(tmp_path / "fit")
    with pytest.raises(
        TypeError, match=r"The guide of 'mu', 'sigma' .*Nameless.* Its config\(\) is None"
    ):
        pm.load_approximation(path, model=plain_model())
    pm.load_approximation(path, model=plain_model(), guide=Nameless())


def test_empirical_of_a_trace(tmp_path):
    with plain_model() as model:
        approx = pm.Empirical(size=20, random_seed=3)
    again = pm.load_approximation(approx.save(tmp_path / "fit"), model=model)
    assert same_draws(approx, again)
    assert again.rng.random() == approx.rng.random()


def test_the_model_of_the_context(tmp_path):
    with plain_model():
        approx = pm.MeanField(random_seed=1)
        again = pm.load_approximation(str(approx.save(str(tmp_path / "fit"))))
    assert same_draws(approx, again)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytensor.config.change_flags(mode="FAST_COMPILE"), plain_model():
        return pm.MeanField(random_seed=1).save(tmp_path_factory.mktemp("saved") / "fit")


@pytest.mark.parametrize(
    "other, lines",
    [
        ({"prior": pm.Exponential}, ["variables, sigma: 'HalfNormal\\(0, 1\\), free", "now"]),
        ({"length": 3}, [r"dims, group: 'length 2, coords \w+' in the checkpoint, 'length 3"]),
        (
            {"transform": pm.distributions.transforms.log},
            ["variables, mu: .*checkpoint, .*LogTransform"],
        ),
    ],
    ids=["distribution", "length", "transform"],
)
def test_another_model(saved, other, lines):
    with pytest.raises(
        CheckpointMismatchError, match="does not fit to what it is loaded for"
    ) as caught:
        pm.load_approximation(saved, model=plain_model(**other))
    for line in lines:
        assert re.search(line, str(caught.value))
    assert "hash" not in str(caught.value)  # where words say it


def test_another_variable(saved):
    with plain_model() as model:
        pm.Normal("more")
    with pytest.raises(
        CheckpointMismatchError, match=r"more: none in the checkpoint, 'Normal\(0, 1\), free"
    ):
        pm.load_approximation(saved, model=model)


def bounded_model(upper: Any, scale: Any = 1.0) -> pm.Model:
    with pm.Model() as model:
        if upper == "data":
            upper = pm.Data("limit", 2.0)
        u = pm.Uniform("u", 0, pytensor.tensor.exp(upper))
        pm.Normal("v", u, scale, shape=2)
    return model


@pytest.mark.parametrize(
    "here, line",
    [
        ({"upper": pytensor.shared(5.0, "upper")}, "shared, upper: '0.0' in .*, '5.0' now"),
        ({"scale": np.array([1.0, 2.0001])}, "graph of v: it has another hash"),
        ({"scale": pytensor.shared(1.0, "upper")}, "variables, v: .*, upper.*, free.* now"),
    ],
    ids=["bound", "constant", "graph"],
)
def test_another_support_or_prior(tmp_path, here, line):
    """The printed distributions are the same."""
    start = {"upper": pytensor.shared(0.0, "upper"), "scale": np.array([1.0, 2.0])}
    with bounded_model(**start):
        path = pm.MeanField(random_seed=1).save(tmp_path / "fit")
    pm.load_approximation(path, model=bounded_model(**start))
    with pytest.raises(CheckpointMismatchError, match=line):
        pm.load_approximation(path, model=bounded_model(**{**start, **here}))


def test_data_count_where_they_are_bounds(tmp_path):
    with bounded_model("data") as model:
        data = pm.Data("data", 1.0)
        pm.Normal("w", data, 1)
        path = pm.MeanField(random_seed=1).save(tmp_path / "fit")
        pm.set_data({"data": 2.0})
        pm.load_approximation(path)
        pm.set_data({"limit": 3.0})
        with pytest.raises(CheckpointMismatchError, match=r"shared, limit: '2\.0' in .*'3\.0' now"):
            pm.load_approximation(path)


def test_what_was_trained_may_have_had_another_value(tmp_path):
    def model_of(value: float) -> tuple[pm.Model, Any]:
        centre = pytensor.shared(value, "centre")
        with pm.Model() as model:
            pm.Normal("y", pm.Normal("mu", centre, 1), 1, observed=X)
        return model, centre

    model, centre = model_of(0.0)
    approx = fitted(model, guide="mean_field", params=[centre])
    path = approx.save(tmp_path / "fit")
    model, again = model_of(7.0)
    pm.load_approximation(path, model=model, params=[again])
    assert again.get_value() == centre.get_value() != 0.0


def test_shared_variables_by_name():
    """Their values may change in the course of a fit."""
    scale = pytensor.shared(3.0, "scale")
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, scale)
        pm.Mixture("mix", [0.5, 0.5], [pm.Normal.dist(mu, 1), pm.Normal.dist(mu * scale, 2)])
    texts = model_identity(model)["variables"]
    assert texts["mu"].startswith("Normal(0, scale), free")
    assert texts["mix"].startswith("Mixture(<constant>, Normal(mu, 1), Normal(f(mu")


def test_guide_of_no_guides(saved):
    with pytest.raises(TypeError, match=r"is one of pm\.MeanField: leave guide of"):
        pm.load_approximation(saved, model=plain_model(), guide="mean_field")


def test_what_is_there_stays(saved):
    with plain_model():
        approx = pm.MeanField()
    with pytest.raises(FileExistsError, match="exists, and is left as it is"):
        approx.save(saved)


def test_groups_of_ones_own(tmp_path):
    with plain_model() as model:
        approx = pm.variational.Approximation(
            [pm.variational.opvi.Group(None, vfam="mf")], model=model
        )
    with pytest.raises(TypeError, match="of groups of your own cannot be loaded"):
        approx.save(tmp_path / "fit")


def test_a_damaged_one(saved, tmp_path):
    path = tmp_path / "fit"
    shutil.copytree(saved, path)
    path.joinpath("meta.json").write_text(json.dumps({"kind": "approximation"}))
    with pytest.raises(DamagedCheckpointError, match=r"meta\.json of a checkpoint is damaged"):
        pm.load_approximation(path, model=plain_model())


def test_other_versions_are_told(saved, monkeypatch):
    from pymc.variational.checkpoints import approximation

    monkeypatch.setattr(approximation, "versions", lambda backend: {"numpy": "1.0"})
    with pytest.warns(UserWarning, match=r"with other versions: .*numpy: .* '1\.0' now"):
        pm.load_approximation(saved, model=plain_model())


@pytest.mark.parametrize("package", ["safetensors", "msgspec"])
def test_without_a_package(saved, tmp_path, monkeypatch, package):
    with plain_model():
        approx = pm.MeanField()
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        pm.load_approximation(saved, model=plain_model())
    with pytest.raises(ImportError, match=f"pip install {package}"):
        approx.save(tmp_path / "fit")


def test_a_table_keeps_its_memory():
    memory = aligned_zeros(5, 4, "float64")
    table = pytensor.shared(memory, "table", shape=(None, None), borrow=True)
    set_value(table, np.arange(20.0).reshape(5, 4))
    assert table.get_value(borrow=True) is memory
    np.testing.assert_array_equal(memory, np.arange(20.0).reshape(5, 4))


def test_a_generator_is_replaced():
    shared = pytensor.shared(np.random.default_rng(1))
    rng = np.random.default_rng(5)
    set_value(shared, rng)
    assert shared.get_value(borrow=True) is rng


def test_import_pymc_does_not_load_it():
    code = "import sys, pymc; print([m for m in sys.modules if any(word in m for word in ('data_loading', 'variational.checkpoints', 'safetensors', 'msgspec', 'filelock'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
