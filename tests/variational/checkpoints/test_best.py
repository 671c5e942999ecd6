# Copyright 2026 - present The PyMC Developers
# SPDX-License-Identifier: Apache-2.0
"""The best approximations of a fit on disk."""

from __future__ import annotations

import numpy as np
import pytensor
import pytest

import pymc as pm

from pymc.variational.checkpoints.best import ModelCheckpoint


@pytest.fixture(autouse=True)
def python_mode():
    with pytensor.config.change_flags(mode="FAST_COMPILE"):
        yield


@pytest.fixture
def model():
    with pm.Model() as model:
        pm.Normal("x", 3, 1)
    return model


def fit(model, *callbacks, n=50):
    return pm.fit(n, model=model, callbacks=callbacks, random_seed=1, progressbar=False)


def scripted(*values):
    scores = list(values)
    return lambda approx, losses, i: scores.pop(0)


def test_the_best_stay(model, tmp_path):
    best = ModelCheckpoint(tmp_path / "best", scripted(1, 5, 2, 4, 3), every=10, keep=2)
    seen = {}

    def watch(approx, losses, i):
        seen[i] = approx.params[0].get_value()

    watch.every = 10
    fit(model, best, watch)
    paths = [tmp_path / "best" / f"step-{i:09d}" for i in (20, 40)]
    assert list(best.scores.items()) == [(paths[0], 5.0), (paths[1], 4.0)]
    assert sorted((tmp_path / "best").iterdir()) == paths
    assert best.best == paths[0]
    loaded = pm.load_approximation(best.best, model=model)
    np.testing.assert_array_equal(loaded.params[0].get_value(), seen[20])


def test_a_folder_with_files(model, tmp_path):
    tmp_path.joinpath("mine.txt").write_text("")
    with pytest.raises(FileExistsError, match=r"of ModelCheckpoint is not empty"):
        fit(model, ModelCheckpoint(tmp_path, scripted(1), every=10))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_refine_goes_on(model, tmp_path):
    best = ModelCheckpoint(tmp_path / "best", scripted(1, 2, 3, 0), every=10, keep=2)
    with model:
        advi = pm.ADVI(random_seed=1)
        advi.fit(20, callbacks=[best], progressbar=False)
        advi.refine(20, progressbar=False)
    assert [path.name[-2:] for path in best.scores] == ["30", "20"]


def test_no_score(model, tmp_path):
    best = ModelCheckpoint(tmp_path / "best", scripted(float("nan")), every=10)
    with pytest.raises(ValueError, match="monitor of ModelCheckpoint returned nan after step 10"):
        fit(model, best)
    with pytest.raises(LookupError, match="has saved nothing yet"):
        best.best


def test_arguments(tmp_path):
    with pytest.raises(TypeError, match=r"monitor='loss' of ModelCheckpoint has to be a function"):
        ModelCheckpoint(tmp_path, "loss")
    with pytest.raises(ValueError, match="keep=0 of ModelCheckpoint"):
        ModelCheckpoint(tmp_path, scripted(), keep=0)
