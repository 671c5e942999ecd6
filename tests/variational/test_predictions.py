# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""Predictions of all rows on disk: the numbers, the parts, and going on after an interruption."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytensor
import pytest
import xarray as xr

import pymc as pm

from pymc.variational import predictions
from pymc.variational.approximation import guided_approximation

N = 50
X = np.linspace(-1, 1, N)


@pytest.fixture(autouse=True)
def python_mode():
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.fixture
def approx():
    with pm.Model(coords={"obs": np.arange(N) + 100}) as model:
        x, y = pm.Minibatch(
            pm.Data("x", X, dims="obs"), pm.Data("y_data", X, dims="obs"), batch_size=5
        )
        slope = pm.Normal("slope", 0, 1)
        pm.Deterministic("mu", slope * x, dims="obs")
        pm.Normal("y", model["mu"], 0.5, observed=y, dims="obs")
    return guided_approximation(model, start={"slope": 2.0}, start_sigma={"slope": 0.3})


def columns(path):
    table = pq.read_table(path)
    return {name: np.array(table[name].to_pylist()) for name in table.column_names}


def test_means_and_quantiles(approx, tmp_path):
    """y is normal about 2 x, with the variances of the slope and of the noise."""
    path = tmp_path / "new.parquet"
    assert approx.predict_to(path, 4000, random_seed=1, rows_per_part=20) == path
    found = columns(path)
    assert list(found) == ["obs", "y_mean", "y_sd", "y_q5.5", "y_q50", "y_q94.5"]
    assert found["obs"].tolist() == list(range(100, 100 + N))
    sd = np.hypot(0.5, 0.3 * X)
    # Two-sided, 50 rows and 5 columns: a false alarm in 10^4 seeds at 5.1 standard errors
    assert np.all(abs(found["y_mean"] - 2 * X) < 5.1 * sd / 4000**0.5)
    assert np.all(abs(found["y_sd"] / sd - 1) < 5.1 / 8000**0.5)
    for name, z, density in (
        ("y_q5.5", -1.5982, 0.1112),
        ("y_q50", 0, 0.3989),
        ("y_q94.5", 1.5982, 0.1112),
    ):
        share = 0.5 if z == 0 else 0.055
        error = sd * np.sqrt(share * (1 - share) / 4000) / density
        assert np.all(abs(found[name] - 2 * X - z * sd) < 5.1 * error)


def test_parts_are_one_result(approx, tmp_path):
    """With the same draws of the global variable, and noise of its own for each row."""
    path = tmp_path / "draws.parquet"
    options = {"kind": "draws", "random_seed": 1, "rows_per_part": 20}
    approx.predict_to(path, 300, var_names="mu", **options)
    found = columns(path)["mu"]
    assert found.shape == (N, 300)
    np.testing.assert_allclose(found / X[:, None], np.broadcast_to(found[0] / X[0], found.shape))
    assert len(list(path.glob("part-*.parquet"))) == 3
    new = tmp_path / "new.parquet"
    approx.predict_to(new, 300, **options)
    slope = found[0] / X[0]
    noise = columns(new)["y"] - slope * X[:, None]
    correlations = np.corrcoef(noise)[np.triu_indices(N, 1)]
    # 1,225 pairs, of an error of 1 / sqrt(300) each; the same noise would have 1
    assert abs(correlations).max() < 5.5 / 300**0.5


def test_the_interrupted_goes_on(approx, tmp_path, monkeypatch):
    whole = tmp_path / "whole.parquet"
    path = tmp_path / "new.parquet"
    options = {"random_seed": 1, "rows_per_part": 20}
    approx.predict_to(whole, 30, **options)
    drawn = []
    draw = predictions._predicted

    def fail_at_the_second(approx, part, *arguments):
        if len(drawn) == 1:
            raise KeyboardInterrupt
        drawn.append(part)
        return draw(approx, part, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(predictions, "_predicted", fail_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            approx.predict_to(path, 30, **options)
    assert [file.name for file in path.glob("part-*")] == ["part-000000.parquet"]
    before = (path / "part-000000.parquet").stat().st_mtime_ns
    approx.predict_to(path, 30, rows_per_part=20)  # the seed is known
    assert (path / "part-000000.parquet").stat().st_mtime_ns == before
    for file in whole.glob("part-*"):
        assert file.read_bytes() == (path / file.name).read_bytes()


def test_other_predictions_in_the_folder(approx, tmp_path):
    path = tmp_path / "new.parquet"
    approx.predict_to(path, 30, random_seed=1)
    with pytest.raises(ValueError, match=r"holds other predictions \(draws: 30 there, 40 now"):
        approx.predict_to(path, 40)
    with pytest.raises(ValueError, match=r"seeds: .* there, .* now"):
        approx.predict_to(path, 30, random_seed=2)
    [mu, _] = approx.params
    mu.set_value(mu.get_value() + 1)
    with pytest.raises(ValueError, match="approximation: "):
        approx.predict_to(path, 30)
    mu.set_value(mu.get_value() - 1)
    with approx.model:
        pm.set_data({"x": X + 1})
    with pytest.raises(ValueError, match="data: "):
        approx.predict_to(path, 30)


def test_other_files_in_the_folder(approx, tmp_path):
    tmp_path.joinpath("mine.parquet").mkdir()
    tmp_path.joinpath("mine.parquet", "a.txt").write_text("")
    with pytest.raises(FileExistsError, match="holds no predictions"):
        approx.predict_to(tmp_path / "mine.parquet")
    tmp_path.joinpath("file.parquet").write_text("")
    with pytest.raises(FileExistsError, match="holds no predictions"):
        approx.predict_to(tmp_path / "file.parquet")


@pytest.mark.parametrize("form", ["arrays", "loader", "array"])
def test_new_rows(approx, tmp_path, form):
    new = {"x": np.linspace(1, 3, 7)}
    data = {
        "arrays": new,
        "loader": pm.DataLoader(new, batch_size=3, shuffle=True, seed=1),
        "array": pm.DataLoader(new["x"], batch_size=3),
    }[form]
    path = tmp_path / "new.parquet"
    approx.predict_to(
        path, 50, data=data, data_name="x", var_names=["mu"], random_seed=1, rows_per_part=3
    )
    found = columns(path)
    assert found["obs"].tolist() == list(range(7))
    np.testing.assert_allclose(found["mu_mean"] / new["x"], found["mu_mean"][0] / new["x"][0])


def test_rows_of_a_stream(tmp_path):
    loader = pm.DataLoader({"x": X, "y_data": X}, batch_size=8, shuffle=True, seed=1)
    with pm.Model() as model:
        x, y = pm.Data("x", loader, dims="obs"), pm.Data("y_data", loader, dims="obs")
        level = pm.Normal("level", 0, 1, dims="obs")
        pm.Deterministic("mu", level + x, dims="obs")
        pm.Normal("y", model["mu"], 1, observed=y, dims="obs")
    approx = guided_approximation(
        model, start={"level": np.arange(N)}, start_sigma={"level": np.full(N, 1e-6)}
    )
    path = tmp_path / "rows.parquet"
    with pytest.raises(ValueError, match="come from a loader: write data=loader"):
        approx.predict_to(path)
    approx.predict_to(path, 5, data=loader, var_names="mu", rows_per_part=20)
    np.testing.assert_allclose(columns(path)["mu_mean"], np.arange(N) + X, atol=1e-4)


def test_rows_of_several_numbers(tmp_path):
    with pm.Model(coords={"obs": range(N), "k": range(3)}) as model:
        y = pm.Minibatch(pm.Data("y_data", np.zeros((N, 3)), dims=("obs", "k")), batch_size=5)
        pm.Normal("y", pm.Normal("mu", dims="k"), 1, observed=y, dims=("obs", "k"))
    approx = guided_approximation(model)
    assert predictions._numbers_of_a_row(approx, ["y"]) == 3
    approx.predict_to(tmp_path / "new.parquet", 5)
    assert columns(tmp_path / "new.parquet")["y_mean"].shape == (N, 3)


def test_what_has_no_rows(approx, tmp_path):
    path = tmp_path / "new.parquet"
    with pytest.raises(
        ValueError, match=r"var_names=\['slope'\] of approx.predict_to have no dim of the 50 rows"
    ):
        approx.predict_to(path, var_names="slope")
    with pm.Model() as model:
        pm.Normal("y", pm.Normal("mu"), 1, observed=X)
    with pytest.raises(ValueError, match="this model has 0: fit it on minibatches"):
        guided_approximation(model).predict_to(path)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"path": "new.csv"}, ValueError, r"has to end with \.parquet"),
        ({"kind": "all"}, ValueError, "kind='all' of approx.predict_to has to be 'summary' or"),
        ({"quantiles": [5]}, ValueError, "quantiles=5"),
        ({"rows_per_part": 0}, ValueError, "rows_per_part=0"),
        ({"draws": 1}, ValueError, "draws=1"),
        ({"var_names": ["y", "mu"]}, ValueError, "write them to two paths"),
        ({"data": {"x": X, "y_data": X[:3]}}, ValueError, "arrays with as many rows each"),
    ],
)
def test_arguments(approx, tmp_path, arguments, error, message):
    path = tmp_path / arguments.pop("path", "new.parquet")
    with pytest.raises(error, match=message):
        approx.predict_to(path, **arguments)
    assert not path.exists()


def test_zarr(approx, tmp_path):
    pytest.importorskip("zarr")
    path = tmp_path / "draws.zarr"
    approx.predict_to(path, 30, kind="draws", random_seed=1, rows_per_part=20)
    with xr.open_zarr(path, consolidated=False) as found:
        assert found["y"].dims == ("draw", "obs")
        assert found["obs"].values.tolist() == list(range(100, 100 + N))
        parquet = tmp_path / "draws.parquet"
        approx.predict_to(parquet, 30, kind="draws", random_seed=1, rows_per_part=20)
        np.testing.assert_array_equal(found["y"].values.T, columns(parquet)["y"])
    with pytest.raises(FileExistsError, match="is there already"):
        approx.predict_to(path, 30)


def test_settings_are_written(approx, tmp_path):
    path = tmp_path / "new.parquet"
    approx.predict_to(path, 30)
    settings = json.loads((path / predictions.SETTINGS).read_text())
    assert (settings["draws"], settings["n_rows"], settings["var_names"]) == (30, N, ["y"])
